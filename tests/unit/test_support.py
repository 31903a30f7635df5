"""The tools of the tests themselves."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from tests.support.virtual_time import WALL_START, Deadlock, LoopClock, run
from tests.support.waiting import NeverHappened, wait_until, wait_until_async

DAY_S = 86_400


def test_an_hour_of_ticks_has_exact_timestamps() -> None:
    async def ticks() -> list[float]:
        seen = []
        for _ in range(3600):
            await asyncio.sleep(1)
            seen.append(asyncio.get_running_loop().time())
        return seen

    assert run(ticks()) == pytest.approx([float(n) for n in range(1, 3601)], abs=1e-6)


def test_timeouts_fire_in_virtual_time() -> None:
    async def too_slow() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(DAY_S)
        return asyncio.get_running_loop().time()

    assert run(too_slow()) == pytest.approx(5)


def test_both_clocks_follow_the_loop() -> None:
    async def later() -> tuple[float, float]:
        await asyncio.sleep(7 * DAY_S)
        now = LoopClock().now()
        return now.wall, now.mono

    assert run(later()) == pytest.approx((WALL_START + 7 * DAY_S, 7 * DAY_S), abs=1e-3)


def test_a_hang_is_named_instead_of_waited_for() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="no timer is set"):
        run(hang(), real_limit_s=0.05)


def test_a_thread_can_still_wake_the_loop() -> None:
    async def threaded() -> str:
        return await asyncio.to_thread(lambda: "done")

    assert run(threaded()) == "done"


def test_wait_until_returns_what_it_waited_for() -> None:
    found: list[int] = []
    threading.Timer(0.05, found.append, [7]).start()
    assert wait_until(lambda: found) == [7]


def test_wait_until_names_what_never_happened() -> None:
    with pytest.raises(NeverHappened, match=r"the engine is ready: not within 0\.05 s"):
        wait_until(lambda: False, deadline=0.05, what="the engine is ready")


def test_async_wait_lets_other_tasks_run() -> None:
    async def waits() -> bool:
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(3, event.set)
        result = await wait_until_async(event.is_set, deadline=5)
        with pytest.raises(NeverHappened):
            await wait_until_async(lambda: False, deadline=5, what="never")
        return result

    assert run(waits()) is True


def test_tests_run_away_from_the_user(tmp_path: Path) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        assert Path(os.environ[name]).is_relative_to(tmp_path)
    runtime = Path(os.environ["XDG_RUNTIME_DIR"])
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert len(str(runtime / "opsboard" / "opsboard.sock")) < 107
    assert Path.cwd() == tmp_path / "home"
    assert not [name for name in os.environ if name == "OPSBOARD_CONFIG"]
