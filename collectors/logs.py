"""Log files of engines: the last lines of one, and the new lines of one that grows. Lines come out safe to show.

A file may be anything: rotated under us, written at 10 MB/s, one endless line, binary rubbish. Memory stays bounded
and what had to be skipped is said in a line of its own. Carriage returns are how progress bars redraw themselves:
only the newest state of a bar is kept.
"""

from __future__ import annotations

import os
from pathlib import Path

from opsboard.core.text import sanitise_line

_BLOCK = 64 * 1024
LINE_BYTES = 16 * 1024
"""Longest line in bytes that is kept at all; the rest of it is dropped (and 4096 characters are what is shown)."""
TAIL_BYTES = 8 * 1024 * 1024
READ_BYTES = 256 * 1024
"""How much one look takes in; what has piled up beyond it is skipped."""
_MARK = 64  # so many bytes before our place are compared to notice that the file was cut and filled again


def tail(path: str | Path, lines: int, *, end: int | None = None, limit: int = TAIL_BYTES) -> list[str]:
    """Return up to ``lines`` last lines before byte ``end`` (default: the file's end).

    Reads backwards, at most ``limit`` bytes. Raises OSError when the file cannot be read.
    """
    if lines <= 0:
        return []
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        position = end = size if end is None else min(end, size)
        blocks: list[bytes] = []
        breaks = 0
        while position > 0 and breaks <= lines and end - position < limit:
            take = min(_BLOCK, position, limit - (end - position))
            position -= take
            file.seek(position)
            blocks.append(file.read(take))
            breaks += blocks[-1].count(b"\n")
    data = b"".join(reversed(blocks))
    pieces = data.removesuffix(b"\n").split(b"\n") if data else []
    if position > 0 and len(pieces) > 1:
        del pieces[0]  # begins before what was read
    return [_line(piece) for piece in pieces[-lines:]]


class LogFollower:
    """Hands out the lines that were added to a file since the last look. Poll it; it never blocks and never grows."""

    def __init__(
        self, path: str | Path, *, from_end: bool = False, start: int = 0, read_bytes: int = READ_BYTES
    ) -> None:
        """Follow ``path``, which need not exist yet; ``from_end`` begins at its present end, ``start`` at that byte.

        A file that is shorter than ``start`` was rotated since and is read from its beginning.
        """
        self.path = Path(path)
        self.skipped_bytes = 0
        """Bytes never looked at because the file grew faster than it was read."""
        self._read_bytes = read_bytes
        self._fd: int | None = None
        self.position = 0
        """Bytes of the present file that are behind us."""
        self._mark = b""
        self._partial = b""
        self._dropping = False
        if (from_end or start) and self._open():
            assert self._fd is not None  # noqa: S101  _open said so
            size = os.fstat(self._fd).st_size
            self.position = size if from_end else start if start <= size else 0
            self._remember()

    def read_new(self) -> list[str]:
        """Return the complete new lines (and the newest state of a progress bar). Raises OSError."""
        if self._fd is None and not self._open():
            return []
        lines = self._read()
        if self._replaced():
            self.close()
            if self._partial:
                lines.append(_line(self._partial))
                self._partial = b""
            if self._open():
                lines += self._read()
        return lines

    def close(self) -> None:
        """Let go of the file; the next look opens it again at its beginning."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self.position, self._mark, self._dropping = None, 0, b"", False

    def _open(self) -> bool:
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        return True

    def _replaced(self) -> bool:
        """True when another file stands at our path (rotation by rename) or none."""
        assert self._fd is not None  # noqa: S101  only called with an open file
        ours = os.fstat(self._fd)
        try:
            theirs = os.stat(self.path)  # noqa: PTH116  beside fstat
        except FileNotFoundError:
            return ours.st_nlink == 0
        return (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino)

    def _read(self) -> list[str]:
        assert self._fd is not None  # noqa: S101  only called with an open file
        size = os.fstat(self._fd).st_size
        if self._was_cut(size):
            self.position, self._partial, self._dropping = 0, b"", False
        notes: list[str] = []
        backlog = size - self.position
        if backlog > self._read_bytes:
            skip = backlog - self._read_bytes
            self.position += skip
            self.skipped_bytes += skip
            self._partial, self._dropping = b"", True  # we stand inside some line
            notes.append(f"… {skip:,} bytes of log skipped: written faster than read …")
        data = os.pread(self._fd, self._read_bytes, self.position)
        self.position += len(data)
        self._remember()
        return notes + self._split(data)

    def _was_cut(self, size: int) -> bool:
        """True after copytruncate: the file is shorter than our place, or other bytes stand before it."""
        if size < self.position:
            return True
        if not self._mark:
            return False
        assert self._fd is not None  # noqa: S101  only called with an open file
        return os.pread(self._fd, len(self._mark), self.position - len(self._mark)) != self._mark

    def _remember(self) -> None:
        assert self._fd is not None  # noqa: S101  only called with an open file
        size = min(_MARK, self.position)
        self._mark = os.pread(self._fd, size, self.position - size) if size else b""

    def _split(self, data: bytes) -> list[str]:
        *complete, rest = data.split(b"\n")
        lines: list[str] = []
        for piece in complete:
            if not self._dropping:
                lines.append(_line(self._partial + piece))
            self._partial, self._dropping = b"", False
        if self._dropping:
            return lines
        self._partial += rest
        if b"\r" in self._partial:
            bar, _, newest = self._partial.rpartition(b"\r")
            shown = bar.rpartition(b"\r")[2]
            self._partial = newest
            if newest.strip():  # tqdm writes its return first: what follows the last one is the newest state
                shown, self._partial = newest, b"\r"
            if shown.strip():
                lines.append(_line(shown))
        if len(self._partial) > LINE_BYTES:
            lines.append(_line(self._partial))
            self._partial, self._dropping = b"", True
        return lines


def _line(piece: bytes) -> str:
    """Decode one line as a terminal would leave it: of several states drawn over each other the last one."""
    states = [state for state in piece[-LINE_BYTES * 2 :].split(b"\r") if state.strip()] if b"\r" in piece else [piece]
    return sanitise_line(states[-1][:LINE_BYTES].decode("utf-8", "replace")) if states else ""
