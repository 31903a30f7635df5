"""The state directory: who owns it, the room kept free in it, and what is done with a damaged file."""

from __future__ import annotations

import contextlib
import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

from opsboard.core.errors import StateDirLocked
from opsboard.store.database import mapped

BALLAST_BYTES = 1 << 20
"""On a full disk SQLite needs room even to delete: 256 kB were enough for a 12 MB file.

This leaves some for the WAL.
"""


class Lock:
    """``DIR/lock``, held by flock as long as the daemon lives: the kernel lets go of it however the daemon ends."""

    def __init__(self, state_dir: Path) -> None:
        """Create the directory (0700) where needed and take the lock. Raises StateDirLocked, StoreError."""
        self.path = state_dir / "lock"
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise mapped(error, state_dir) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise StateDirLocked(
                f"{state_dir}: another opsboard daemon uses this state directory (pid {holder})",
                hint="stop that daemon, or give this one its own --state-dir",
            ) from None
        except OSError as error:
            os.close(self._fd)
            raise mapped(error, self.path) from error

    def release(self) -> None:
        """Let go. The file stays: removing it would let two daemons lock two files."""
        os.close(self._fd)


class Ballast:
    """A file that only takes up room, given back to the disk when it is full so that old data can be deleted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> bool:
        """Make sure that it is there, while the disk has plenty; False when it could not be made."""
        try:
            if self._path.exists() and self._path.stat().st_size == BALLAST_BYTES:
                return True
            place = os.statvfs(self._path.parent)
            if place.f_bavail * place.f_frsize < 16 * BALLAST_BYTES:
                return False
            fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, BALLAST_BYTES)
            finally:
                os.close(fd)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Give the room back."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def set_aside(path: Path, wall: float) -> Path:
    """Rename a damaged database with its ``-wal`` and ``-shm`` to ``NAME.corrupt.TIME``; return that.

    Raises OSError.
    """
    stamp = datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H%M%SZ")
    aside = path.with_name(f"{path.name}.corrupt.{stamp}")
    number = 1
    while aside.exists():
        aside = path.with_name(f"{path.name}.corrupt.{stamp}-{number}")
        number += 1
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def size_of(path: Path) -> int:
    """Bytes of a file, 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
