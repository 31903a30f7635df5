"""``memory/NAME`` of the state directory: what detectors remember of an engine, for the next daemon. A file each.

A file is replaced in one step, so that ``kill -9`` leaves the old one or the new one. It need not survive a power cut:
what is remembered is of one boot.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from opsboard.core.errors import StoreError
from opsboard.store.database import mapped

DIRECTORY = "memory"
MOST_BYTES = 16 << 20
"""A larger memory is neither written nor read; the largest of a usual engine has 0.4 MB."""
_FAST = 1
_SUFFIX = ".detectors"


class MemoryFiles:
    """The files of one state directory. Every method blocks: call it in a thread."""

    def __init__(self, state_dir: Path) -> None:
        """Touch nothing yet."""
        self._directory = state_dir / DIRECTORY

    def write(self, engine: str, memory: bytes) -> None:
        """Replace what is kept of an engine. Raises StoreError, DiskFull."""
        if len(memory) > MOST_BYTES:
            raise StoreError(f"what detectors remember of {engine} is too large to be kept ({len(memory)} bytes)")
        path = self._directory / _name(engine)
        fresh = path.with_suffix(".new")
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            fresh.touch(mode=0o600)
            fresh.write_bytes(zlib.compress(memory, _FAST))
            fresh.replace(path)
        except OSError as error:
            raise mapped(error, path) from error

    def read(self, engines: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield what is kept of each of ``engines``; a file that is damaged says nothing."""
        for engine in engines:
            path = self._directory / _name(engine)
            try:
                unpack = zlib.decompressobj()
                memory = unpack.decompress(path.read_bytes(), MOST_BYTES)
            except (OSError, zlib.error):
                continue
            if unpack.eof:
                yield engine, memory

    def keep(self, engines: Collection[str]) -> None:
        """Remove the files of all other engines, and what a killed daemon left half written."""
        names = {_name(engine) for engine in engines}
        try:
            for path in self._directory.iterdir():
                if path.name not in names:
                    path.unlink(missing_ok=True)
        except OSError:  # there is none, or it cannot be written: telling that is for who writes
            return


def _name(engine: str) -> str:
    """Return a file's name for any name of an engine: one that is only looked at may be called by its address."""
    return f"{quote(engine, safe='')}{_SUFFIX}"
