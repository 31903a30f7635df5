"""A whole daemon in this process, with no engine: what a reload does to it, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from opsboard.config.load import load
from opsboard.core.clock import SystemClock
from opsboard.daemon.notify import Notifier
from opsboard.daemon.wiring import Daemon, Options


def lived(tmp_path: Path, story: Callable[[Daemon, Path], Awaitable[None]]) -> None:
    """Run a daemon while ``story`` goes on; it gets the daemon as it begins, and its file."""
    path = tmp_path / "opsboard.toml"
    path.write_text("")
    options = Options(state_dir=tmp_path / "state", socket=tmp_path / "run" / "opsboard.sock")

    async def main() -> None:
        daemon = Daemon(load(path, {}), options, SystemClock(), Notifier({}), lambda _: None)
        stop = asyncio.Event()
        life = asyncio.create_task(daemon.run(stop))
        try:
            async with asyncio.timeout(20):
                await asyncio.sleep(0)
                await story(daemon, path)
        finally:
            stop.set()
            async with asyncio.timeout(20):
                await life

    asyncio.run(main())


def test_a_longer_interval_leaves_the_watchdog_its_patience(tmp_path: Path) -> None:
    async def story(daemon: Daemon, path: Path) -> None:
        await daemon.reload()
        assert daemon._health.stale_s == 15.0
        path.write_text('[collect]\ninterval = "5s"\n')
        await daemon.reload()
        assert daemon._health.stale_s == 50.0

    lived(tmp_path, story)


def test_a_reload_does_not_forget_since_when_somebody_waits(tmp_path: Path) -> None:
    async def story(daemon: Daemon, _path: Path) -> None:
        await daemon.reload()
        collecting = daemon._collecting
        await daemon.reload()
        assert daemon._collecting is not collecting
        assert daemon._collecting._connected is collecting._connected

    lived(tmp_path, story)


def test_a_reload_that_comes_before_the_daemon_has_begun_waits_for_it(tmp_path: Path) -> None:
    async def story(daemon: Daemon, path: Path) -> None:
        path.write_text('[[engine]]\nname = "a"\nurl = "http://127.0.0.1:9"\n')
        assert daemon._control is None
        await daemon.reload()
        assert daemon._control is not None
        assert [engine.name for engine in daemon.status().engines] == ["a"]

    lived(tmp_path, story)
