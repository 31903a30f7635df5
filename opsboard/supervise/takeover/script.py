"""What a shell was told to run, read without waiting and without taking anything away from anybody."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

_BYTES = 1 << 16
_LINKS = 40
_DESCRIPTOR = re.compile(r"(?:/dev|/proc/self)/(?:fd/(\d+)|stdin)")


def script_of(argv: Sequence[str], cwd: str | None, folder: str) -> str | None:
    """Return the text after ``-c``, or the first 64 KiB of the script; None for a shell that people type into.

    ``folder`` is the shell's own below /proc: ``bash /dev/fd/3`` means a file of its, not of ours. The text is empty
    when it cannot be known: a pipe, a file that is gone or may not be read.
    """
    words = list(argv[1:])
    while words and words[0].startswith(("-", "+")):
        option = words.pop(0)
        if "c" in option.lstrip("-") and not option.startswith("--"):
            return words[0] if words else None
    if not words:
        return None
    path = _place(Path(cwd or "/", words[0]), Path(folder))
    return "" if path is None else _content(path)


def _place(path: Path, shell: Path) -> Path | None:
    """Follow links by hand: those below /dev and /proc would lead to files that are open here."""
    try:
        for _ in range(_LINKS):
            own = _DESCRIPTOR.fullmatch(str(path))
            if own:
                return shell / "fd" / (own[1] or "0")
            above = path.parent.resolve()
            if str(above) == "/dev" or above.parts[:2] == ("/", "proc"):
                return None
            path = above / path.name
            if not path.is_symlink():
                return path
            path = above / path.readlink()
    except (OSError, RuntimeError):  # a loop, or gone meanwhile
        pass
    return None


def _content(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe is to be its reader
            return ""
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
        return file.read(_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else ""
