"""The daemon as a process: its loop, its signals, its exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from opsboard.config.load import Loaded
from opsboard.config.policies import in_words
from opsboard.config.schema import Config
from opsboard.core.clock import SystemClock
from opsboard.core.errors import OpsboardError
from opsboard.daemon.journal import open_journal
from opsboard.daemon.notify import Notifier
from opsboard.daemon.specs import for_looking, secrets_of
from opsboard.daemon.tasks import TaskGaveUp
from opsboard.daemon.wiring import Daemon, Options

log = logging.getLogger("opsboard.daemon")

THREADS = 64
"""What looks at disks and at /proc. A few that hang must not keep starts and stops waiting; unused ones are free."""
LEAVE_S = 2.0
"""What they may take when the daemon ends."""


class Threads(ThreadPoolExecutor):
    """Those of ``asyncio.to_thread``. One that hangs on a sick disk does not keep the daemon from its end."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; wait for what is being done, but not for ever."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        clock = SystemClock()
        end = clock.now().mono + LEAVE_S
        for thread in self._threads if wait else ():
            thread.join(max(0.0, end - clock.now().mono))


def leave(code: int) -> None:
    """End the process when threads hang, for which Python would wait; return when there are none."""
    hanging = [one.name for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon]
    if hanging:
        log.warning("threads hang, and it ends without them (%d): does the state directory answer?", len(hanging))
        logging.shutdown()
        os._exit(code)


def run(
    loaded: Loaded,
    *,
    state_dir: Path,
    socket: Path,
    read_only: bool = False,
    urls: tuple[str, ...] = (),
    parent_pid: int | None = None,
    stop_engines: bool = False,
) -> int:
    """Run a daemon in the foreground until a signal ends it; return the exit code.

    ``read_only``: look only; ``urls``: at these engines and no others. ``parent_pid``: end when that process is gone.
    ``stop_engines``: stop every supervised engine at the end; without it they run on. Raises OpsboardError when the
    daemon cannot begin.
    """
    lines = open_journal(secrets_of(loaded.config))

    def redact(config: Config) -> None:
        lines.redact(secrets_of(config))

    options = Options(
        state_dir=state_dir, socket=socket, read_only=read_only or bool(urls), urls=urls, stop_engines=stop_engines
    )
    if options.read_only:
        loaded = for_looking(loaded)
    for assumed in loaded.assumed:
        log.info("assumed: %s", assumed)
    for line in () if options.read_only else in_words(loaded.config):
        log.info("%s", line)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(_main(loaded, options, redact, parent_pid))
    leave(code)
    return code


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  where it is not installed, asyncio's own loop does
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _main(loaded: Loaded, options: Options, redact: Callable[[Config], None], parent_pid: int | None) -> int:
    daemon = Daemon(loaded, options, SystemClock(), Notifier(), redact)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(Threads(THREADS, "daemon"))
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(daemon))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, stop.set if options.read_only else reload)
    unwatch = _watch_parent(parent_pid, stop.set) if parent_pid is not None else None
    # What is there now stays to the end: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    try:
        await daemon.run(stop)
    except BaseExceptionGroup as group:
        error = _reason(group)
        if not isinstance(error, TaskGaveUp):
            raise error from None
        log.critical("%s (%s)", error.message, error.hint)
        return 1
    finally:
        for task in reloads:
            task.cancel()
        if unwatch is not None:
            unwatch()
    return 0


def _reason(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error that matters of a task group: what ended the daemon on purpose, else the group itself."""
    told = group.subgroup(OpsboardError)
    error: BaseException | None = told
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return group if error is None else error


async def _reload(daemon: Daemon) -> None:
    try:
        await daemon.reload()
    except OpsboardError:  # told on the timeline and in the log
        return
    except Exception:
        log.exception("the configuration could not be read again")


def _watch_parent(pid: int, gone: Callable[[], None]) -> Callable[[], None]:
    """Call ``gone`` when a process ends; return what stops watching. A pidfd is of that process and no later one."""
    loop = asyncio.get_running_loop()
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        gone()
        return lambda: None
    loop.add_reader(fd, gone)

    def end() -> None:
        loop.remove_reader(fd)
        os.close(fd)

    return end
