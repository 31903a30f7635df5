"""May a user run a program? The kernel is asked, by a small process of that user.

Mode bits alone would be wrong where access lists or file servers decide.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ANSWER_S = 5.0
_LINE_BYTES = 256
"""The kernel reads so much of a script to find its interpreter (BINPRM_BUF_SIZE)."""


class Account(NamedTuple):
    """Whom a program runs as."""

    name: str
    uid: int
    gid: int
    groups: Sequence[int]


def found(program: str, cwd: str | None, path: str) -> list[str]:
    """Return the files that ``program`` may mean in the directory ``cwd`` (None: ours), the first of ``path`` first.

    Only those that somebody may execute.
    """
    if "/" in program:
        return [one] if (one := shutil.which(os.path.join(cwd or "", program))) else []  # noqa: PTH118  absolute: stays
    return [one for folder in path.split(os.pathsep) if (one := shutil.which(program, path=folder))]


def refused(files: Sequence[str], account: Account) -> str | None:
    """Say why ``account`` can run none of ``files``; None when it can, and when that cannot be found out. Blocks."""
    first: str | None = None
    for file in files:
        why = _refused(file, account)
        if why is None:
            return None
        first = first or why
    return first


def _refused(file: str, account: Account) -> str | None:
    if not _may(account, "-x", file):
        return f"user {account.name} may not execute {file}"
    interpreter = _interpreter(file)
    if interpreter is None:
        return None
    if not _may(account, "-r", file):
        return f"user {account.name} may not read the script {file}"
    return None if _may(account, "-x", interpreter) else f"user {account.name} may not execute {interpreter} ({file})"


def _may(account: Account, right: str, file: str) -> bool:
    """Ask test(1), which has no shell in it; what cannot be found out is no refusal."""
    test = shutil.which("test", path=os.defpath)
    if test is None:
        return True
    try:
        asked = subprocess.run(
            [test, right, file],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            timeout=ANSWER_S,
            user=account.uid,
            group=account.gid,
            extra_groups=account.groups,
        )
    except (OSError, subprocess.SubprocessError):
        return True
    return asked.returncode != 1


def _interpreter(file: str) -> str | None:
    """Return what a script names in its first line."""
    try:
        with Path(file).open("rb") as script:
            line = script.read(_LINE_BYTES).split(b"\n")[0]
    except OSError:
        return None
    words = line[2:].split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else None
