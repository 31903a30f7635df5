"""A program of somebody else's run once: argv without a shell, a deadline, and its words made safe to show."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from opsboard.core.errors import SuperviseError
from opsboard.core.secret import without_secrets
from opsboard.core.text import sanitise
from opsboard.supervise.launch import RunsAs
from opsboard.supervise.processes import look
from opsboard.supervise.watching import ended

_SAID_BYTES = 64 * 1024
_QUOTE_CHARS = 300
_REAP_S = 1.0


class Said(NamedTuple):
    """How a program ended and what it said last. ``code`` is a returncode, None when it was killed at its deadline."""

    code: int | None
    text: str

    @property
    def ok(self) -> bool:
        """It ended with 0."""
        return self.code == 0

    @property
    def first_line(self) -> str:
        """The first line of what it said."""
        return self.text.partition("\n")[0].strip()

    def __str__(self) -> str:
        """Say how it failed, with the last line it said."""
        how = "did not end in time" if self.code is None else f"ended with code {self.code}"
        last = self.text.strip().rpartition("\n")[2].strip()
        return f"{how}: “{last[:_QUOTE_CHARS]}”" if last else how


async def run(
    argv: Sequence[str], *, deadline_s: float, env: Mapping[str, str] | None = None, runs_as: RunsAs | None = None
) -> Said:
    """Run a program to its end, at most ``deadline_s`` seconds; then it alone is killed, not what it has begun.

    ``env`` None is the daemon's. Its words go through a file: what it leaves running may hold on to them.

    Raises:
        SuperviseError: it cannot be started.
    """
    with tempfile.TemporaryFile() as words:
        child = _spawn(argv, words.fileno(), env, runs_as)
        process = look(child.pid)
        try:
            async with asyncio.timeout(deadline_s):
                if process is not None:
                    await ended(process)
        except TimeoutError:
            return Said(None, _text(words.fileno()))
        finally:
            code = reap(child)
        return Said(code, _text(words.fileno()))


def reap(child: subprocess.Popen[bytes]) -> int | None:
    """Kill a child that still runs and take its exit status; None when the kernel does not let it go."""
    child.kill()  # nothing for one that has ended
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(_REAP_S)
    return None


def shown(argv: Sequence[str]) -> str:
    """Return a command as people may see it."""
    return sanitise(" ".join(without_secrets(tuple(argv))), 200)


def _spawn(
    argv: Sequence[str], words: int, env: Mapping[str, str] | None, runs_as: RunsAs | None
) -> subprocess.Popen[bytes]:
    own = runs_as or RunsAs(None, None, None)
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env=env,
            user=own.uid,
            group=own.gid,
            extra_groups=own.groups,
            start_new_session=True,
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise SuperviseError(f"{shown(argv)}: cannot be run: {reason}", hint="correct the command") from error


def _text(fd: int) -> str:
    """Return the beginning and the end of what was said, line by line made safe."""
    size = os.fstat(fd).st_size
    data = os.pread(fd, _SAID_BYTES, 0)
    if size > 2 * _SAID_BYTES:
        data += b"\n...\n" + os.pread(fd, _SAID_BYTES, size - _SAID_BYTES)
    return "\n".join(sanitise(line) for line in data.decode("utf-8", "replace").splitlines())
