"""The output of an engine that others keep (journald, Docker), brought into our engine.log as it is written.

A program such as ``journalctl -f`` is run for it. What it prints goes through the daemon, so that it ends with the
daemon at its next line, and is written as it is. After a pause (no daemon ran, the program ended) it is asked from a
second before the last line we wrote: nothing is lost as long as they keep it, and up to a second of lines comes twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from opsboard.core.errors import SuperviseError
from opsboard.supervise import bundle
from opsboard.supervise.launch import RunsAs
from opsboard.supervise.processes import Process, look, send
from opsboard.supervise.runners.commands import reap
from opsboard.supervise.world import log

FILE = "follower.json"
_AGAIN_S = 2.0
_CHUNK = 256 * 1024
_OVERLAP_S = 1.0
_QUIET_S, _LAST_S = 0.25, 2.0
"""After an end its last words are waited for: until nothing came for so long, so long at most."""


class Follower:
    """One log. :meth:`follow` runs until it is cancelled."""

    def __init__(
        self,
        directory: Path,
        argv: Callable[[float], Sequence[str]],
        *,
        env: Mapping[str, str] | None = None,
        runs_as: RunsAs | None = None,
    ) -> None:
        """``argv(since)`` is what prints all lines from ``since`` (Unix s) on and goes on with new ones."""
        self._directory = directory
        self._log = directory / bundle.LOG
        self._argv = argv
        self._env = env
        self._runs_as = runs_as or RunsAs(None, None, None)

    async def follow(self, began: float) -> None:
        """Bring over what was and is written since ``began`` (Unix s)."""
        await asyncio.to_thread(self._end_the_last)
        told = False
        while True:
            try:
                await self._run(max(began, self._last_line() - _OVERLAP_S))
            except (OSError, SuperviseError) as error:
                if not told:
                    told = True
                    log.warning("%s: the log is not followed: %s", self._directory.name, error)
            await asyncio.sleep(_AGAIN_S)

    async def _run(self, since: float) -> None:
        child = self._spawn(self._argv(since))
        assert child.stdout is not None  # noqa: S101  _spawn asked for it
        pipe = child.stdout.fileno()
        process = look(child.pid)
        try:
            if process is not None:
                bundle.write(str(self._directory), FILE, process.record())
            while data := await _some(pipe):
                await asyncio.to_thread(self._append, data)
        finally:
            child.stdout.close()
            reap(child)

    def _spawn(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env,
            user=self._runs_as.uid,
            group=self._runs_as.gid,
            extra_groups=self._runs_as.groups,
            start_new_session=True,
        )
        assert child.stdout is not None  # noqa: S101  asked for
        os.set_blocking(child.stdout.fileno(), False)
        return child

    def _append(self, data: bytes) -> None:
        fd = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):  # a disk that is full stops no engine, nor what follows it
                os.write(fd, data)
        finally:
            os.close(fd)

    def _last_line(self) -> float:
        """Return when our log was written to last (Unix s), 0 when it is empty."""
        try:
            found = self._log.stat()
        except OSError:
            return 0.0
        return found.st_mtime if found.st_size else 0.0

    def _end_the_last(self) -> None:
        """End the program of a daemon that was killed, which would bring every line twice."""
        known = bundle.read(str(self._directory), FILE) or {}
        living: Process | None = look(known["pid"]) if isinstance(known.get("pid"), int) else None
        if living is not None and living.start_ticks == known.get("start_ticks"):
            with contextlib.suppress(PermissionError):
                send(living, signal.SIGKILL)


async def last_words_written(path: Path, offset: int) -> None:
    """Return when nothing is added to a log any more, for all that can be seen; the life began at byte ``offset``."""
    loop = asyncio.get_running_loop()
    end, quiet_since, size = loop.time() + _LAST_S, loop.time(), -1
    while (now := loop.time()) < end and (now - quiet_since < _QUIET_S or size <= offset):
        grown = _size(path)
        if grown != size:
            quiet_since, size = now, grown
        await asyncio.sleep(_QUIET_S / 5)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


async def _some(pipe: int) -> bytes:
    """Return what can be read, as soon as there is something; nothing at the end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.read(pipe, _CHUNK)
        except BlockingIOError:
            ready = loop.create_future()
            loop.add_reader(pipe, _tell, ready)
            try:
                await ready
            finally:
                loop.remove_reader(pipe)


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
