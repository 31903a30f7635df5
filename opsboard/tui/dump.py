"""What is on the screen, kept in a file: evidence for the ticket."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from opsboard.core.wire import Status
from opsboard.tui import format as fmt
from opsboard.tui.spans import Line, line_text


def dump(lines: Sequence[Line], status: Status | None, directory: Path, wall: float) -> Path:
    """Write the lines as text, and the state behind them as JSON beside it; return the text's path. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    stem = directory / f"opsboard-{fmt.clock(wall, None, '%Y%m%d-%H%M%S')}"
    text = stem.with_suffix(".txt")
    _write(text, "".join(line_text(line).rstrip() + "\n" for line in lines).encode())
    if status is not None:
        _write(stem.with_suffix(".json"), msgspec.json.encode(status) + b"\n")
    return text


def _write(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
