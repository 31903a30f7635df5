"""``opsboard sim``: one simulated engine, from its first log line to its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from opsboard import httpd
from opsboard.core.clock import Clock, SystemClock
from opsboard.core.secret import Secret
from opsboard.sim.core_link import CoreLink
from opsboard.sim.core_process import run as run_core
from opsboard.sim.core_process import set_name
from opsboard.sim.families import bounds
from opsboard.sim.faults import FAULTS_FILE
from opsboard.sim.logs import ERR, STATS_INTERVAL_S, Log, StatsLine
from opsboard.sim.metrics import EngineMetrics
from opsboard.sim.options import Setup, SimOptions, check
from opsboard.sim.saturation import Saturation
from opsboard.sim.server import ApiServer
from opsboard.sim.startup import API, script

_WATCHDOG_S = 5.0
"""How often the front end looks whether its engine is dead (vLLM's ``watchdog_loop``)."""
_LIMITS = httpd.Limits(connections=1024, body_bytes=16 * 2**20, idle_timeout=5.0)
"""uvicorn closes idle connections after five seconds (VLLM_HTTP_TIMEOUT_KEEP_ALIVE)."""
_DEV_MODE, _API_KEY = "VLLM_SERVER_DEV_MODE", "VLLM_API_KEY"
_NAME = "VLLM::APIServer"
"""By its command line the process is opsboard's; by its name it is found like a real one."""
_LOST = "[shutdown] MPClient: engine core exited unexpectedly; starting cleanup"
_FAILED = (
    "AsyncLLM output_handler failed.\nvllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. "
    "See stack trace (above) for the root cause."
)


def run(options: SimOptions) -> int:
    """Be a simulated engine until it ends and return its exit code. Raises UsageError for impossible options."""
    setup = check(options)
    clock = SystemClock()
    began = clock.now().mono
    try:
        listener = httpd.bind_tcp(options.host, options.port)
    except OSError as error:
        sys.stderr.write(f"OSError: {error}: ({options.host!r}, {options.port})\n")
        return 1
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        listener.close()
        run_core(setup, theirs, clock, began)
    theirs.close()
    set_name(_NAME)
    return asyncio.run(FrontEnd(setup, listener, clock, began).run(ours, pid))


def run_from_options(*, faults: tuple[str, ...] = (), **options: object) -> int:
    """Run with the options of the command line, what vLLM takes from its environment, and faults named in a file."""
    key = os.environ.get(_API_KEY)
    with contextlib.suppress(OSError):
        faults += tuple(Path(os.environ.get(FAULTS_FILE, "")).read_text(encoding="utf-8").split())
    environment = {"dev_mode": os.environ.get(_DEV_MODE) == "1", "api_key": Secret(key) if key else None}
    return run(SimOptions(faults=faults, **environment, **options))  # type: ignore[arg-type]  # click has converted them


class FrontEnd:
    """The API server's process around :class:`ApiServer`: its start, its watch over EngineCore, its end."""

    def __init__(self, setup: Setup, listener: socket.socket, clock: Clock, began: float) -> None:
        """``listener`` is bound and does not listen yet; ``began`` is the start's monotonic instant."""
        self._setup = setup
        self._listener = listener
        self._clock = clock
        self._began = began
        self._log = Log(setup.profile, API, clock)
        # Before 0.18 a shutdown cut the connections of what was under way.
        self._says_abort = setup.profile.version >= (0, 18, 0)
        shape = setup.shape
        self._metrics = EngineMetrics(bounds(setup.profile.version, shape.max_model_len), shape.block_size)

    async def run(self, pipe: socket.socket, pid: int) -> int:
        """Live until a signal or the engine's death, and return the exit code."""
        link = CoreLink(pid, self._metrics, self._clock, self._report_loss, watch=self._setup.profile.watches_core)
        await link.open(pipe)
        life = asyncio.ensure_future(self._live(link))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, life.cancel)
        try:
            return await life
        except asyncio.CancelledError:
            return 0
        finally:
            if self._says_abort:
                self._log.write("[shutdown] API server: shutdown triggered", "launcher.py:120")
            await link.stop()
            self._log.uvicorn(f"Finished server process [{os.getpid()}]")

    async def _live(self, link: CoreLink) -> int:
        await self._say(ready=False)
        await link.ready.wait()
        if link.dead:
            return await self._failed_start(link)
        await self._say(ready=True)
        server = ApiServer(self._setup, self._metrics, link, self._log, self._clock)
        for line in (f"Started server process [{os.getpid()}]", "Waiting for application startup."):
            self._log.uvicorn(line)
        if "port_bound_not_listening" in self._setup.faults:
            self._log.uvicorn("Application startup complete.")
            await asyncio.Event().wait()
        serving = await httpd.serve(server.handle, sock=self._listener, limits=_LIMITS)
        self._log.uvicorn("Application startup complete.")
        stats = asyncio.ensure_future(self._tell_stats())
        saturation = Saturation(serving, self._setup.faults)
        server.on_faults = saturation.follow
        try:
            await saturation.follow()
            await _watch(server)
        finally:
            stats.cancel()
            saturation.close()
            self._log.uvicorn("Shutting down")
            if self._says_abort:
                link.abort_all()
            await serving.close(grace=0.5 if self._says_abort else 0.0)
        return 0  # whatever EngineCore's own code was: the front end hides it (vLLM issue 48966)

    async def _say(self, *, ready: bool) -> None:
        """Play the front end's part of the start-up, before or after EngineCore's."""
        host, port = self._listener.getsockname()[:2]
        for line in script(self._setup, f"http://{host}:{port}"):
            if line.role == API and (line.at >= 1.0) == ready:
                due = self._began + line.at * self._setup.options.startup_seconds
                await asyncio.sleep(max(0.0, due - self._clock.now().mono))
                self._log.write(line.text, line.source)

    async def _failed_start(self, link: CoreLink) -> int:
        failed = {"EngineCore": await link.reap()}
        text = f"Engine core initialization failed. See root cause above. Failed core proc(s): {failed}"
        self._log.raw(f"Traceback (most recent call last):\nRuntimeError: {text}\n", ERR)
        return 1

    async def _tell_stats(self) -> None:
        stats = StatsLine(self._setup.profile, self._metrics)
        while True:
            await asyncio.sleep(STATS_INTERVAL_S)
            line = stats.next(STATS_INTERVAL_S)
            if line is not None:
                self._log.write(line, "loggers.py:335")

    def _report_loss(self) -> None:
        self._log.write(_LOST, "core_client.py:817", "WARNING")
        self._log.write(_FAILED, "async_llm.py:906", "ERROR")


async def _watch(server: ApiServer) -> None:
    """Return when a dead engine ends the server: at the watchdog's next look, or with the first failed request."""
    while not server.must_end.is_set():
        try:
            async with asyncio.timeout(_WATCHDOG_S):
                await server.must_end.wait()
        except TimeoutError:
            if server.dead:
                return
