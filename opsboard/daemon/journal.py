"""The daemon's log: plain lines on standard error. Foreign text is made harmless here, secrets never get out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from typing import IO

from opsboard.core.text import sanitise_line

_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
_SHORTEST_SECRET = 4
"""Shorter values are no secrets and would black out ordinary words."""


class PlainLines(logging.Formatter):
    """``2026-11-21T12:00:00Z WARNING tasks: text``; under systemd ``<4>tasks: text``: the journal has the rest."""

    def __init__(self, secrets: Iterable[str], *, journal: bool) -> None:
        super().__init__()
        self._journal = journal
        self.redact(secrets)

    def redact(self, secrets: Iterable[str]) -> None:
        """Replace the values that are blacked out."""
        self._secrets = tuple(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)

    def format(self, record: logging.LogRecord) -> str:
        """Return one safe line; a traceback follows as lines of its own."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        first, *rest = text.splitlines() or [""]
        if self._journal:
            start = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        else:
            start = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S%z')} {record.levelname} "
        source = record.name.removeprefix("opsboard.")
        lines = [f"{start}{source}: {sanitise_line(first)}", *(f"    {sanitise_line(line)}" for line in rest)]
        return "\n".join(lines)


def open_journal(
    secrets: Iterable[str] = (), environment: Mapping[str, str] = os.environ, stream: IO[str] | None = None
) -> PlainLines:
    """Send the log of the whole process to standard error and return its formatter."""
    lines = PlainLines(secrets, journal="JOURNAL_STREAM" in environment)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(lines)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    return lines
