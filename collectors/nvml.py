"""The GPUs of the host, read by a process of its own so that a hanging driver stops nothing else.

A reader that does not answer in time is killed and left behind (in a hung driver call not even that ends it), and a
new one is tried later and later. What the driver itself says is read in nvml_driver.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from collectors import procfs
from opsboard.core.clock import Clock, Now, SystemClock
from opsboard.core.model import GpuReading, GpuView, Outcome, Record

_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "NVIDIA_VISIBLE_DEVICES")
_REPLY_LIMIT = 4 << 20


class GpuTimes(Record, frozen=True, kw_only=True):
    """How long a :class:`GpuReader` waits, in seconds, and how many hung readers it leaves before it stops trying."""

    answer: float = 2.0
    start: float = 30.0
    """For the first answer of a process: without persistence mode the driver wakes every card first."""
    no_driver: float = 60.0
    """How often a machine without driver, or with a lost card, is asked afresh."""
    backoff: float = 1.0
    backoff_most: float = 60.0
    abandoned_most: int = 3


class _Reader:
    """One running reader process and the request it has not answered yet."""

    def __init__(
        self, process: subprocess.Popen[bytes], lines: asyncio.StreamReader, out: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self.out = out
        self.answered = False
        self.asked_mono = 0.0
        self.reply: asyncio.Task[bytes] | None = None
        self._lines = lines

    def ask(self, mono: float) -> asyncio.Task[bytes]:
        """Send one request, or go on waiting for the reply to the last one."""
        if self.reply is None:
            self.asked_mono = mono
            self.out.write(b"read\n")
            self.reply = asyncio.create_task(self._line())
        return self.reply

    async def _line(self) -> bytes:
        try:
            return await self._lines.readline()
        except (OSError, ValueError):  # the connection broke; the line passed the limit
            return b""

    def leave(self) -> None:
        """End the process without waiting for it: it may be beyond any signal."""
        if self.reply is not None:
            self.reply.cancel()
        self.out.close()
        self.process.kill()


class GpuReader:
    """Reads all GPUs; ``read`` never raises, and never takes longer than ``times.answer``."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        times: GpuTimes | None = None,
        proc_root: str = procfs.PROC,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``environment`` is that of the reader process (default: the few variables of ours that it needs)."""
        self._clock = clock or SystemClock()
        self._times = times or GpuTimes()
        self._proc = proc_root
        self._environment = environment
        self._reader: _Reader | None = None
        self._left: list[subprocess.Popen[bytes]] = []
        self._lock = asyncio.Lock()
        self._resting: GpuReading | None = None
        """What to say until ``_rest_until`` without asking anybody."""
        self._rest_until = 0.0
        self._backoff = self._times.backoff
        self._silent_since: float | None = None
        self._known = False
        """There were cards, or a failure: neither is undone by a new reader process that is still starting."""
        self._born_mono = 0.0
        self._xids: dict[str, tuple[int, float | None]] = {}

    @property
    def abandoned(self) -> int:
        """How many readers were given up and still hang in the driver."""
        self._left = [process for process in self._left if process.poll() is None]
        return len(self._left)

    async def read(self) -> GpuReading:
        """Return what the driver says now.

        NO_DATA: there is no driver or card (said in ``error``), or it is starting for the first time; FAILED: it does
        not answer or is broken.
        """
        async with self._lock:
            now = self._clock.now()
            if self._resting is not None and now.mono < self._rest_until:
                return self._resting
            if self._reader is None:
                refused = await self._start(now)
                if refused is not None:
                    return refused
            return await self._ask(now)

    async def close(self) -> None:
        """End the reader process; one that hangs in the driver is left to the kernel after half a second."""
        async with self._lock:
            self._drop()
            for _ in range(50):
                if not self.abandoned:
                    return
                await asyncio.sleep(0.01)

    async def _start(self, now: Now) -> GpuReading | None:
        """Start a reader process; return the reading that says why not."""
        if self.abandoned >= self._times.abandoned_most:
            return self._rest(now, f"{self._silence(now)}; {self.abandoned} readers hang in it, no more are started")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: ASYNC220  a vfork; asyncio's own would wait for the end of it
                    [sys.executable, "-m", "collectors.nvml_process", self._proc],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    env=self._reader_environment(),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                return self._rest(now, f"cannot start the GPU reader: {error}")
        try:
            lines, out = await asyncio.open_unix_connection(sock=ours, limit=_REPLY_LIMIT)
        except BaseException:  # the daemon ends; close() waits for the process
            ours.close()
            process.kill()
            self._left.append(process)
            raise
        self._reader = _Reader(process, lines, out)
        self._born_mono = now.mono
        return None

    def _reader_environment(self) -> dict[str, str]:
        environment = self._environment
        if environment is None:  # no secrets of ours go into it
            environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        return {**environment, "PYTHONPATH": str(Path(__file__).parent.parent)}

    async def _ask(self, now: Now) -> GpuReading:
        reader = self._reader
        assert reader is not None  # noqa: S101  read() started one
        reply = reader.ask(now.mono)
        await asyncio.wait({reply}, timeout=self._times.answer)
        if not reply.done():
            return self._unanswered(reader, self._clock.now())
        reader.reply = None
        line = reply.result()
        if not line:
            code = reader.process.poll()
            self._drop()
            how = "ended" if code is None else f"ended with code {code}"
            return self._rest(now, f"the GPU reader process {how} without an answer")
        try:
            reading = msgspec.json.decode(line, type=GpuReading)
        except msgspec.DecodeError as error:
            self._drop()
            return self._rest(now, f"the GPU reader process speaks nonsense: {error}")
        return self._answered(reader, reading, now)

    def _answered(self, reader: _Reader, reading: GpuReading, now: Now) -> GpuReading:
        reader.answered = True
        self._silent_since = None
        self._known = reading.outcome is not Outcome.NO_DATA
        if reading.outcome is Outcome.FAILED:
            self._drop()
            return self._rest(now, reading.error or "the NVIDIA driver failed")
        self._resting, self._backoff = None, self._times.backoff
        if reading.outcome is Outcome.NO_DATA:
            self._drop()
            self._resting, self._rest_until = reading, now.mono + self._times.no_driver
            return reading
        if any(gpu.lost for gpu in reading.gpus) and now.mono - self._born_mono >= self._times.no_driver:
            self._drop()  # a card that came back is seen only by a fresh start of NVML
        return msgspec.structs.replace(reading, gpus=tuple(self._remember_xid(gpu) for gpu in reading.gpus))

    def _remember_xid(self, gpu: GpuView) -> GpuView:
        """Carry the last Xid of a card over a change of reader process."""
        if gpu.xid is not None:
            self._xids[gpu.uuid] = (gpu.xid, gpu.xid_time)
            return gpu
        if gpu.uuid not in self._xids:
            return gpu
        xid, when = self._xids[gpu.uuid]
        return msgspec.structs.replace(gpu, xid=xid, xid_time=when)

    def _unanswered(self, reader: _Reader, now: Now) -> GpuReading:
        waited = now.mono - reader.asked_mono
        if not reader.answered and waited < self._times.start:
            starting = f"the NVIDIA driver is starting ({waited:.0f} s so far)"
            error = starting if self._silent_since is None else self._silence(now)
            return GpuReading(outcome=Outcome.FAILED if self._known else Outcome.NO_DATA, error=error)
        if self._silent_since is None:
            self._silent_since = now.wall - waited
        self._drop()
        return self._rest(now, self._silence(now))

    def _silence(self, now: Now) -> str:
        since = datetime.fromtimestamp(self._silent_since or now.wall, UTC)
        return f"NVIDIA driver does not answer since {since:%Y-%m-%d %H:%M:%S} UTC"

    def _rest(self, now: Now, error: str) -> GpuReading:
        """Fail, and ask nobody again for a while that doubles."""
        self._known = True
        self._resting = GpuReading(outcome=Outcome.FAILED, error=error)
        self._rest_until = now.mono + self._backoff
        self._backoff = min(self._backoff * 2, self._times.backoff_most)
        return self._resting

    def _drop(self) -> None:
        if self._reader is not None:
            self._reader.leave()
            self._left.append(self._reader.process)
            self._reader = None


def join(gpus: Iterable[GpuView], pids_by_engine: Mapping[str, Collection[int]]) -> tuple[GpuView, ...]:
    """Return ``gpus`` with every process named after the engine whose process tree holds it; all others belong to none.

    A process whose memory the driver cannot tell is left without an engine: its number may be one of another PID
    namespace.
    """
    owner = {pid: engine for engine, pids in pids_by_engine.items() for pid in pids}
    joined = []
    for gpu in gpus:
        processes = tuple(
            msgspec.structs.replace(
                process, engine=owner.get(process.pid) if process.memory_bytes is not None else None
            )
            for process in gpu.processes
        )
        joined.append(msgspec.structs.replace(gpu, processes=processes))
    return tuple(joined)
