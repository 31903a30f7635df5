"""One start-up as people see it: the phases its log shows, how far it is, and why it may have failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from collectors.logs import LogFollower, tail
from collectors.phases import PHASES, PhaseTracker, progress
from opsboard.core.model import Phase

QUOTE_CHARS = 300
_LAST_LINES, _LAST_BYTES = 400, 256 * 1024
_ROUTINE = re.compile(r'"[A-Z]+ \S+ HTTP/\d|Avg prompt throughput|Finished server process|Shutting down\b')
"""Lines that stand at the end of a log whatever happened: uvicorn's and vLLM's regular ones."""
_SERVED = "Application startup complete"
_DONE = PHASES[-1]
_NEARLY = 0.99
"""The log does not decide that an engine is ready, the probe does."""


class StartUp:
    """Follows the log of one life from its first byte. Look now and then; everything else is a value."""

    def __init__(self, log: Path, offset: int, last_seconds: Mapping[str, float], began: float) -> None:
        """``offset`` is where the life begins in ``log``, ``began`` when (Unix s); ``last_seconds`` by phase."""
        self._log = log
        self._offset = offset
        self._follower = LogFollower(log, start=offset)
        self._tracker = PhaseTracker()
        self._last_seconds = last_seconds
        self._over = False
        self.phases: tuple[Phase, ...] = (self._phase(PHASES[0], began),)

    @property
    def phase(self) -> str:
        """The present phase."""
        return self.phases[-1].name

    def look(self, now: float) -> None:
        """Take in what the log holds by ``now`` (Unix s). A log that cannot be read tells nothing."""
        if self._over:
            return
        try:
            lines = self._follower.read_new()
        except OSError:
            return
        for line in lines:
            change = self._tracker.feed(line)
            if change is not None and change.phase not in {self.phase, _DONE}:
                self._end_phase(now)
                self.phases += (self._phase(change.phase, now),)

    def progress(self, now: float) -> float:
        """Return how far the start is, 0..1."""
        return min(_NEARLY, progress(self.phases, self._last_seconds, now, self._tracker.inside))

    def ready(self, now: float) -> None:
        """Close the last phase, and the log."""
        self._end_phase(now)
        self.close()

    def last_words(self) -> str | None:
        """Return the log line that explains an end best: what looks fatal, else the last one; None for silence."""
        if self._tracker.reason is not None and not self._over:
            return _quoted(self._tracker)
        return last_words(self._log, self._offset)

    def close(self) -> None:
        """Let go of the log."""
        self._over = True
        self._follower.close()

    def _phase(self, name: str, began: float) -> Phase:
        return Phase(name=name, started=began, last_seconds=self._last_seconds.get(name))

    def _end_phase(self, now: float) -> None:
        last = self.phases[-1]
        if last.seconds is None:
            ended = msgspec.structs.replace(last, seconds=max(0.0, now - last.started))
            self.phases = (*self.phases[:-1], ended)


def last_words(log: Path, offset: int) -> str | None:
    """Return the line that explains an end best among the last ones after byte ``offset``, as a quotation.

    That is what looks fatal, else the last line that is more than the note of a served request; of an engine that has
    served, only what it said since: how well it started explains no end.
    """
    try:
        size = log.stat().st_size
        # one byte more: the line end before ``offset``, for tail drops a first line that may be cut
        lines = tail(log, _LAST_LINES, limit=min(_LAST_BYTES, size - offset + 1)) if size > offset else []
    except OSError:
        return None
    tracker = PhaseTracker()
    for line in lines:
        tracker.feed(line)
    if tracker.reason is not None:
        return _quoted(tracker)
    served = max((number for number, line in enumerate(lines) if _SERVED in line), default=-1)
    said = [line.strip() for line in lines[served + 1 :] if line.strip()]
    if not said:
        return None
    better_than_nothing = said[-1] if served < 0 else None
    words = next((line for line in reversed(said) if _ROUTINE.search(line) is None), better_than_nothing)
    return None if words is None else f"“{words[:QUOTE_CHARS]}”"


def _quoted(tracker: PhaseTracker) -> str:
    hint = f" ({tracker.hint})" if tracker.hint else ""
    return f"“{tracker.reason}”{hint}"
