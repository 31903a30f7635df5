"""The files of recordings: lines, plain or compressed by their suffix, in and out, with bounded memory."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from opsboard.core.errors import RecordingError, UsageError

LINE_BYTES = 64 << 20
"""A page of 4 MiB, every character of it escaped, has 24 MiB."""

_OTHERS = frozenset({".zst", ".bz2", ".zip", ".br", ".lz4", ".7z"})
_MAGIC = (
    (b"\x1f\x8b", ".gz"),
    (b"\xfd7zXZ\x00", ".xz"),
    (b"\x28\xb5\x2f\xfd", ".zst"),
    (b"BZh", ".bz2"),
    (b"PK", ".zip"),
)
_HEAD = 8


def create(path: Path, *, force: bool) -> BinaryIO:
    """Return a file to write lines to, compressed when its suffix says so. Raises UsageError."""
    if path.exists() and not force:
        raise UsageError(f"{path}: is already there", hint="--force writes over it")
    if path.suffix in _OTHERS:
        raise UsageError(f"{path}: opsboard does not write {path.suffix}", hint="name it .gz, .xz, or without either")
    try:
        if path.suffix == ".gz":
            return cast("BinaryIO", gzip.open(path, "wb"))
        if path.suffix == ".xz":
            return cast("BinaryIO", lzma.open(path, "wb"))
        return path.open("wb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each line, from 1, and the line with its end.

    Raises RecordingError, which ends it, when there is no such file, it is not what its suffix says, it is cut, or a
    line passes :data:`LINE_BYTES`.
    """
    number = 0
    try:
        with closing(_open(path)) as file:
            while raw := file.readline(LINE_BYTES + 1):
                number += 1
                if len(raw) > LINE_BYTES:
                    raise RecordingError(
                        f"has more than {LINE_BYTES >> 20} MiB", path=path, line=number, hint="this is no recording"
                    )
                yield number, raw
    except EOFError:
        raise RecordingError(
            "the compressed file is cut here", path=path, line=number + 1, hint="--keep-going judges what is before it"
        ) from None
    except (lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise RecordingError(
            f"the compressed file is damaged here: {error}",
            path=path,
            line=number + 1,
            hint="--keep-going judges what is before it",
        ) from None
    except OSError as error:
        raise RecordingError(f"cannot be read: {error.strerror or error}", path=path) from error


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise RecordingError("is empty", path=path, hint="`opsboard record` writes one line a reading")
    found = next((suffix for magic, suffix in _MAGIC if head.startswith(magic)), "")
    wanted = path.suffix if path.suffix in {".gz", ".xz"} else ""
    if found in _OTHERS:
        raise RecordingError(f"is a {found} file", path=path, hint="unpack it, or pack it as .gz or .xz")
    if found != wanted:
        what = f"is a {found} file inside" if found else "is not compressed"
        named = f"named {wanted}" if wanted else "not named so"
        raise RecordingError(f"{what} and is {named}", path=path, hint="rename it to what it is")
    if found == ".gz":
        return cast("BinaryIO", gzip.open(path, "rb"))
    return cast("BinaryIO", lzma.open(path, "rb")) if found else path.open("rb")
