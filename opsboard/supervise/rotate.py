"""Rotation of a log that another process keeps open: copy, then truncate. Standard library only: the shim uses it too.

The engine writes to the file itself (O_APPEND), so it cannot be renamed away. What is written between the last read of
the copy and the truncation is lost: microseconds, at 10 MB/s some hundred bytes.
"""

from __future__ import annotations

import contextlib
import os

_CHUNK = 1 << 20
_PRIVATE = 0o600


def rotate(path: str, limit_bytes: int, keep: int) -> bool:
    """Move the content of ``path`` to ``path.1`` once it has passed ``limit_bytes``; older copies move up to ``.KEEP``.

    On a full disk the oldest copies go first; when even then no copy can be made the content is dropped, because an
    engine must not be stopped by its own log. Returns True when the file was emptied. Raises OSError.
    """
    source = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(source).st_size <= limit_bytes:
            return False
        if keep > 0:
            _shift(path, keep)
            if not _copy(source, f"{path}.1"):
                for number in range(keep, 0, -1):
                    _remove(f"{path}.{number}")
                if not _copy(source, f"{path}.1"):
                    _remove(f"{path}.1")
        os.ftruncate(source, 0)
        return True
    finally:
        os.close(source)


def _shift(path: str, keep: int) -> None:
    for number in range(keep - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}.{number}", f"{path}.{number + 1}")  # noqa: PTH105  pathlib costs the shim 1 MB


def _copy(source: int, target: str) -> bool:
    """Copy all of ``source``, also what arrives meanwhile; False when the disk is full."""
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE)
    try:
        position = 0
        while sent := os.sendfile(out, source, position, _CHUNK):
            position += sent
    except OSError:
        return False
    finally:
        os.close(out)
    return True


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)  # noqa: PTH107  pathlib costs the shim 1 MB
