"""Back-off, budgets and deadline grids, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from opsboard.daemon.tasks import Lag, Policy, TaskBook, TaskGaveUp, on_grid, supervised
from opsboard.daemon.taskset import TaskSet
from tests.support import virtual_time


def test_a_failing_task_is_backed_off_and_runs_again() -> None:
    starts: list[float] = []

    async def flaky() -> None:
        starts.append(asyncio.get_running_loop().time())
        if len(starts) < 5:
            raise ValueError("not yet")

    book = TaskBook()
    virtual_time.run(supervised("flaky", flaky, book, Policy(first_s=1.0, cap_s=4.0), jitter=lambda: 1.0))
    assert starts == [0.0, 1.0, 3.0, 7.0, 11.0]
    assert book.restarts["flaky"] == 4
    assert book.last_error == "flaky: ValueError: not yet"


def test_a_healthy_run_resets_the_back_off() -> None:
    pauses: list[float] = []
    ended = 0.0

    async def main() -> None:
        runs = iter([0.0, 0.0, 100.0, 0.0])

        async def task() -> None:
            nonlocal ended
            loop = asyncio.get_running_loop()
            pauses.append(loop.time() - ended)
            length = next(runs, None)
            if length is None:
                return
            await asyncio.sleep(length)
            ended = loop.time()
            raise ValueError

        await supervised("t", task, TaskBook(), Policy(first_s=1.0, healthy_s=60.0), jitter=lambda: 1.0)

    virtual_time.run(main())
    assert pauses == [0.0, 1.0, 2.0, 1.0, 2.0]


def test_a_spent_budget_fails_the_group() -> None:
    async def broken() -> None:
        raise RuntimeError("always")

    async def forever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(supervised("broken", broken, TaskBook(), Policy(budget=5)))
            group.create_task(forever())

    with pytest.raises(ExceptionGroup) as caught:
        virtual_time.run(main())
    (error,) = caught.value.exceptions
    assert isinstance(error, TaskGaveUp)
    assert "broken failed 5 times" in str(error)


def test_rare_failures_do_not_spend_the_budget() -> None:
    async def main() -> int:
        runs = 0

        async def daily() -> None:
            nonlocal runs
            runs += 1
            if runs > 100:
                return
            await asyncio.sleep(3600)
            raise RuntimeError("rare")

        await supervised("daily", daily, TaskBook(), Policy(budget=3, window_s=600))
        return runs

    assert virtual_time.run(main()) == 101


def test_a_set_that_was_closed_begins_nothing_and_holds_nobody() -> None:
    begun: list[str] = []

    async def for_ever(name: str) -> None:
        begun.append(name)
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            tasks = TaskSet(group, TaskBook())
            tasks.add("collect:a", lambda: for_ever("a"))
            await asyncio.sleep(1)
            await tasks.close()
            tasks.replace("collect:", {"collect:b": lambda: for_ever("b")})  # a reload that ends too late

    virtual_time.run(main())
    assert begun == ["a"]


def test_cancellation_passes_through() -> None:
    async def main() -> None:
        task = asyncio.create_task(supervised("t", asyncio.Event().wait, TaskBook()))  # type: ignore[arg-type]
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    virtual_time.run(main())


def test_a_day_of_a_grid_does_not_drift() -> None:
    async def main() -> list[float]:
        loop, ticks = asyncio.get_running_loop(), []

        async def tick() -> None:
            ticks.append(loop.time())
            await asyncio.sleep(0.3)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(86_400.0):
                await on_grid(1.0, tick, phase=0.25)
        return ticks

    ticks = virtual_time.run(main())
    assert len(ticks) == 86_400
    assert ticks[-1] == pytest.approx(86_399.25, abs=1e-6)


def test_a_slow_tick_skips_slots_and_delays_only_itself() -> None:
    async def main() -> tuple[list[float], list[float], Lag]:
        loop = asyncio.get_running_loop()
        slow, quick, lag = [], [], Lag()

        async def slow_tick() -> None:
            slow.append(loop.time())
            await asyncio.sleep(2.5)

        async def quick_tick() -> None:
            quick.append(loop.time())

        both = asyncio.gather(on_grid(1.0, slow_tick, lag=lag), on_grid(1.0, quick_tick, phase=0.5))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(both, 9.9)
        return slow, quick, lag

    slow, quick, lag = virtual_time.run(main())
    assert slow == [0.0, 3.0, 6.0, 9.0]
    assert quick == [0.5 + n for n in range(10)]
    assert lag.skipped == 6


def test_the_worst_lateness_fades() -> None:
    lag = Lag(period_s=30.0)
    lag.note(0.0, 0.5)
    lag.note(29.0, 0.1)
    assert lag.worst_s == 0.5
    lag.note(31.0, 0.1)
    assert lag.worst_s == 0.5
    lag.note(62.0, 0.2)
    assert lag.worst_s == 0.2
