"""Supervision that acts by itself, with real processes: every way into a restart, and every reason to leave it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from opsboard.core.clock import SystemClock
from opsboard.core.errors import Conflict, NoRoom, StoreError, SuperviseError
from opsboard.core.model import CanaryOutcome, EngineState, FatalVerdict, Rolling
from opsboard.supervise import errands, ledger, moves, stopping
from opsboard.supervise.budget import Budget
from opsboard.supervise.rolling import RollingRestarts
from tests.support.around import QUICK, Around, spec, stall, steps, supervised, until
from tests.support.herd import kill
from tests.support.in_loop import in_loop
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from tests.support.herd import Herd


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "ROOM_AGAIN_S", 0.2)
    monkeypatch.setattr("opsboard.supervise.machine.ROOM_AGAIN_S", 0.2)
    monkeypatch.setattr(errands, "LOOK_S", 0.02)


# --- crashes and budgets


@in_loop
async def test_an_engine_that_died_comes_back_by_itself(herd: Herd) -> None:
    around = Around()
    async with supervised(herd, around, spec(herd, mode="serve_with_child")) as supervisor:
        await supervisor.start("a", "up")
        first = await until(supervisor, EngineState.READY)
        await wait_until_async(lambda: len(supervisor.processes("a")) == 2)
        family = supervisor.processes("a")
        assert first.pid is not None
        await asyncio.to_thread(kill, first.pid)
        await wait_until_async(lambda: len(herd.births("a")) == 2)
        second = await until(supervisor, EngineState.READY)
        assert (second.restarts, second.pid == first.pid) == (1, False)
        assert [name for name, _ in steps(second)] == ["end", "clear", "launch", "start", "canary", "serving"]
        assert [outcome for _, outcome in steps(second)] == ["ok"] * 4 + ["skipped", "ok"], "nobody asks here"
        assert set(family) <= set(around.cleared[0]), "memory is asked back of everybody who was there"
        (counted,) = around.restarts
        assert (counted.engine, "killed by SIGKILL" in counted.cause) == ("a", True)
        assert [(one.kind, one.automatic, one.outcome) for one in around.transactions] == [
            ("start", False, "ok"),
            ("restart", True, "ok"),
        ]
        backing_off = next(life for life in herd.lives if life.state is EngineState.BACKING_OFF)
        assert (backing_off.message or "").startswith("killed by SIGKILL; still running: pid")
        assert (backing_off.message or "").endswith("restart 1 of 3 within 60 min")
        assert backing_off.until is not None
        await supervisor.stop("a", "done")
    assert not herd.doubles("a")


@in_loop
async def test_a_crash_loop_is_parked_and_stays_so_until_a_person_comes(herd: Herd) -> None:
    around = Around()
    engine = spec(herd, mode="die", value=3)
    async with supervised(herd, around, engine) as supervisor:
        await supervisor.start("a", "up")
        parked = await until(supervisor, EngineState.PARKED)
        assert len(herd.births("a")) == 1 + QUICK.per_engine
        assert "restarted 3 times within 60 min, and 3 are allowed" in (parked.message or "")
        assert "CUDA out of memory" in (parked.message or "")
        assert "`opsboard engine start a`" in (parked.hint or "")
    async with supervised(herd, around, msgspec.structs.replace(engine, autostart=True)) as supervisor:
        again = supervisor.life("a")
        assert (again.state, again.since) == (EngineState.PARKED, parked.since), "a new daemon is no person"
        assert len(herd.births("a")) == 4
        await supervisor.start("a", "I have looked at it")
        assert around.forgiven == ["a"]
        await until(supervisor, EngineState.PARKED)
        assert len(herd.births("a")) == 4 + 1 + QUICK.per_engine, "a fresh budget"
        await supervisor.stop("a", "enough")
        assert supervisor.life("a").state is EngineState.STOPPED
    async with supervised(herd, around, engine) as supervisor:
        assert supervisor.life("a").state is EngineState.STOPPED


@in_loop
async def test_a_log_that_says_it_can_never_work_parks_at_once(herd: Herd) -> None:
    script = "import sys; sys.exit('vllm: error: unrecognized arguments: --no-such-flag')"
    engine = spec(herd, mode="idle", command=(sys.executable, "-c", script))
    around = Around()
    async with supervised(herd, around, engine) as supervisor:
        await supervisor.start("a", "up")
        parked = await until(supervisor, EngineState.PARKED)
        assert "unrecognized arguments: --no-such-flag" in (parked.message or "")
        assert around.restarts == []
        assert steps(parked)[-1] == ("start", "failed")


@in_loop
async def test_a_stop_ends_the_trying(herd: Herd) -> None:
    around = Around()
    slow = Budget(first_s=60.0)
    async with supervised(herd, around, spec(herd, mode="die", value=3), budget=slow) as supervisor:
        await supervisor.start("a", "up")
        await until(supervisor, EngineState.BACKING_OFF)
        await supervisor.stop("a", "no")
        assert supervisor.life("a").state is EngineState.STOPPED
        assert len(herd.births("a")) == 1
        await supervisor.start("a", "yes")
        await wait_until_async(lambda: len(herd.births("a")) == 2, what="a start does not wait for the pause")


@in_loop
async def test_after_an_unclean_end_automation_only_looks(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    around = Around()
    engine = spec(herd)
    async with supervised(herd, around, engine) as supervisor:
        await supervisor.start("a", "up")
        first = await until(supervisor, EngineState.READY)
    assert first.pid is not None
    await asyncio.to_thread(kill, first.pid)
    await wait_until_async(lambda: herd.remains("a").shim is None)
    monkeypatch.setattr("opsboard.supervise.supervisor.OBSERVE_S", 60.0)
    assert ledger.OBSERVE_S == 30.0
    async with supervised(herd, around, engine, unclean=True) as supervisor:
        life = supervisor.life("a")
        assert life.state is EngineState.BACKING_OFF
        assert life.until is not None
        assert life.until - life.since > 50
        supervisor.finding(stall())
        assert len(herd.births("a")) == 1
    async with supervised(herd, around, engine) as supervisor:
        await until(supervisor, EngineState.READY)
        assert len(herd.births("a")) == 2
        await supervisor.stop("a", "done")


@in_loop
async def test_nothing_is_restarted_that_cannot_be_written_down(herd: Herd) -> None:
    around = Around()
    around.unwritable = StoreError("state.db: disk full")
    async with supervised(herd, around, spec(herd, mode="die", value=3)) as supervisor:
        await supervisor.start("a", "up")
        await wait_until_async(lambda: "cannot be written down" in (supervisor.life("a").message or ""))
        assert len(herd.births("a")) == 1
        around.unwritable = None
        await wait_until_async(lambda: len(herd.births("a")) > 1)
        await supervisor.stop("a", "done")


# --- findings


@in_loop
async def test_a_confirmed_stall_is_a_restart_and_a_suspicion_is_not(
    herd: Herd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hangs ends no request: neither the drain nor TERM is given the time that is for them."""
    monkeypatch.setattr(stopping, "BROKEN_S", 0.1)
    around = Around()
    deaf = spec(herd, mode="serve_stubborn", drain_timeout_s=600.0, stop_timeout_s=600.0)
    async with supervised(herd, around, deaf) as supervisor:
        await supervisor.start("a", "up")
        first = await until(supervisor, EngineState.READY)
        supervisor.finding(stall(confirmed=False))
        supervisor.finding(stall(detector="latency"))
        supervisor.finding(stall("nobody"))
        assert supervisor.life("a") == first
        supervisor.finding(stall())
        assert supervisor.life("a").state is EngineState.BACKING_OFF
        await wait_until_async(lambda: len(herd.births("a")) == 2)
        second = await until(supervisor, EngineState.READY)
        assert steps(second)[0] == ("end", "ok"), "what hangs is not drained"
        assert around.restarts[0].cause.startswith("stall: 12 running, no step for 9 s")
        supervisor.finding(stall())
        await supervisor.stop("a", "done")
        supervisor.finding(stall())
        assert supervisor.life("a").state is EngineState.STOPPED


# --- the transaction


@in_loop
async def test_a_restart_waits_for_what_is_under_way(herd: Herd) -> None:
    around = Around()
    around.requests = 3.0
    async with supervised(herd, around, spec(herd, drain_timeout_s=60.0)) as supervisor:
        await supervisor.start("a", "up")
        first = await until(supervisor, EngineState.READY)
        restarts = [asyncio.ensure_future(supervisor.restart("a", "new flags")) for _ in range(2)]
        draining = await until(supervisor, EngineState.DRAINING)
        assert (draining.pid, draining.cause) == (first.pid, "new flags")
        await wait_until_async(lambda: supervisor.life("a").steps[-1].text == "3 requests under way")
        around.requests = 0.0
        await asyncio.gather(*restarts)
        second = await until(supervisor, EngineState.READY)
        assert len(herd.births("a")) == 2, "two restarts at once are one"
        assert [name for name, _ in steps(second)] == [
            *("drain", "end", "clear", "launch"),
            *("start", "canary", "serving"),
        ]
        assert all(step.seconds is not None for step in second.steps)
        assert around.restarts == [], "an operator's restart counts against no budget"
        await supervisor.stop("a", "done")


@in_loop
async def test_a_drain_ends_at_its_deadline_is_called_off_or_passed_over(herd: Herd) -> None:
    around = Around()
    around.requests = 3.0
    async with supervised(herd, around, spec(herd, drain_timeout_s=0.3)) as supervisor:
        await supervisor.start("a", "up")
        first = await until(supervisor, EngineState.READY)
        await supervisor.restart("a", "deadline")
        second = await until(supervisor, EngineState.READY)
        assert second.pid != first.pid
        supervisor.apply([msgspec.structs.replace(spec(herd), drain_timeout_s=60.0, url="http://127.0.0.1:1")])
        restart = asyncio.ensure_future(supervisor.restart("a", "called off"))
        await until(supervisor, EngineState.DRAINING)
        await supervisor.undrain("a", "not now")
        await restart
        assert (supervisor.life("a").state, supervisor.life("a").pid) == (EngineState.READY, second.pid)
        assert steps(supervisor.life("a")) == [("drain", "aborted")]
        restart = asyncio.ensure_future(supervisor.restart("a", "draining"))
        await until(supervisor, EngineState.DRAINING)
        await supervisor.stop("a", "a stop wins")
        await restart
        assert supervisor.life("a").state is EngineState.STOPPED
        assert len(herd.births("a")) == 2


@in_loop
async def test_what_changes_while_a_restart_is_rehearsed_counts(herd: Herd) -> None:
    around = Around()
    async with supervised(herd, around, spec(herd)) as supervisor:
        await supervisor.start("a", "up")
        await until(supervisor, EngineState.READY)
        rehearsed, keeper = asyncio.Event(), supervisor._of("a")

        async def rehearse() -> None:
            await rehearsed.wait()

        keeper.rehearse = rehearse  # type: ignore[method-assign]
        both = [asyncio.create_task(supervisor.restart("a", "x")), asyncio.create_task(supervisor.renew("a", "x"))]
        await asyncio.sleep(0)
        around.others = "a is the last healthy target of route chat"
        rehearsed.set()
        assert [str(error) for error in await asyncio.gather(*both, return_exceptions=True)] == [around.others] * 2
        assert supervisor.life("a").state is EngineState.READY

        around.others = None
        rehearsed.clear()
        restart = asyncio.create_task(supervisor.restart("a", "x"))
        await asyncio.sleep(0)
        await supervisor.stop("a", "the later wish")
        rehearsed.set()
        with pytest.raises(Conflict, match="a was stopped meanwhile"):
            await restart
        assert (supervisor.life("a").state, len(herd.births("a"))) == (EngineState.STOPPED, 1)


@in_loop
async def test_now_drains_nothing_and_asks_nobody(herd: Herd) -> None:
    around = Around()
    around.requests, around.others = 3.0, "a is the last healthy target of route chat"
    async with supervised(herd, around, spec(herd, drain_timeout_s=60.0)) as supervisor:
        await supervisor.start("a", "up")
        await until(supervisor, EngineState.READY)
        for refused in (supervisor.restart("a", "x"), supervisor.drain("a", "x"), supervisor.renew("a", "x")):
            with pytest.raises(Conflict, match="last healthy target of route chat"):
                await refused
        await supervisor.restart("a", "x", now=True)
        assert steps(await until(supervisor, EngineState.READY))[0] == ("end", "ok")
        assert len(herd.births("a")) == 2
        await supervisor.stop("a", "done")


@in_loop
async def test_memory_that_does_not_come_back_parks(herd: Herd) -> None:
    around = Around()
    around.holds = "GPU 0: 70 GiB by pid 7"
    async with supervised(herd, around, spec(herd)) as supervisor:
        await supervisor.start("a", "up")
        first = await until(supervisor, EngineState.READY)
        with pytest.raises(SuperviseError, match="GPU memory of its last life is not free: GPU 0: 70 GiB by pid 7"):
            await supervisor.restart("a", "x")
        parked = supervisor.life("a")
        assert parked.state is EngineState.PARKED
        assert steps(parked) == [("end", "ok"), ("clear", "failed")]
        assert first.pid in around.cleared[0]
        assert len(herd.births("a")) == 1
        around.holds = None
        await supervisor.start("a", "the GPU was reset")
        await until(supervisor, EngineState.READY)
        await supervisor.stop("a", "done")


@in_loop
async def test_a_life_that_nobody_knows_of_is_ended_before_another_one_begins(herd: Herd) -> None:
    """Whatever brought it about: the room that is waited for is made."""
    around = Around()
    around.engines = herd.state_dir / "engines"
    engine = spec(herd, mode="serve")
    async with supervised(herd, around, engine) as supervisor:
        unknown = await herd.launch(engine)
        await supervisor.start("a", "up")
        life = supervisor.life("a")
        assert life.state is EngineState.BACKING_OFF
        assert f"still there of its last life: pid {unknown.pid}" in (life.message or "")
        await until(supervisor, EngineState.READY)
        assert herd.births("a")[0] == unknown.pid
        assert (len(herd.births("a")), herd.doubles("a")) == (2, False)
        await supervisor.stop("a", "done")


@in_loop
async def test_a_start_waits_for_room(herd: Herd) -> None:
    around = Around()
    around.no_room = NoRoom("GPU 0 has 2 GiB free, 70 GiB are needed", verdict=FatalVerdict.WAIT)
    async with supervised(herd, around, spec(herd)) as supervisor:
        await supervisor.start("a", "up")
        life = supervisor.life("a")
        assert (life.state, life.message) == (
            EngineState.BACKING_OFF,
            "waits for room: GPU 0 has 2 GiB free, 70 GiB are needed",
        )
        await wait_until_async(lambda: len([life for life in herd.lives if life.until is not None]) > 1)
        assert (around.restarts, herd.births("a")) == ([], [])
        around.no_room = None
        await until(supervisor, EngineState.READY)
        await supervisor.stop("a", "done")


@in_loop
async def test_the_golden_answer(herd: Herd) -> None:
    around = Around()
    around.outcome = CanaryOutcome.OK
    async with supervised(herd, around, spec(herd)) as supervisor:
        await supervisor.start("a", "up")
        life = await until(supervisor, EngineState.READY)
        assert life.steps[-2].text == "its answer is kept as the golden one"
        await supervisor.restart("a", "same")
        life = await until(supervisor, EngineState.READY)
        assert (life.steps[-2].text or "").startswith("its answer is the golden one")
        around.output = "roses"
        await supervisor.restart("a", "drifts")
        held = await until(supervisor, EngineState.DRAINING)
        assert "differs from the golden one: “roses” instead of “violets”" in (held.message or "")
        assert steps(held)[-1] == ("serving", "skipped")
        assert [event.kind for event in herd.events if event.severity.value == "error"] == ["output_drift"]
    async with supervised(herd, around, spec(herd)) as supervisor:
        assert supervisor.life("a").state is EngineState.DRAINING, "a new daemon has the same doubt"
        await supervisor.undrain("a", "new weights")
        assert supervisor.life("a").state is EngineState.READY
        await wait_until_async(lambda: json.loads((herd.bundle("a") / "golden.json").read_text())["output"] == "roses")
        await supervisor.stop("a", "done")


@in_loop
async def test_an_engine_that_says_ready_and_is_not(herd: Herd) -> None:
    around = Around()
    around.outcome = CanaryOutcome.TIMEOUT
    async with supervised(herd, around, spec(herd)) as supervisor:
        await supervisor.start("a", "up")
        backing_off = await until(supervisor, EngineState.BACKING_OFF)
        assert "says that it is ready, but the canary failed" in (backing_off.message or "")
        assert backing_off.pid is not None
        around.outcome = CanaryOutcome.UNABLE
        second = await until(supervisor, EngineState.READY)
        assert second.pid != backing_off.pid
        assert len(around.restarts) == 1
        await supervisor.stop("a", "done")


# --- service


@in_loop
async def test_out_of_service_outlives_the_daemon(herd: Herd) -> None:
    around = Around()
    engine = spec(herd)
    async with supervised(herd, around, engine) as supervisor:
        with pytest.raises(Conflict, match="a is stopped"):
            await supervisor.drain("a", "x")
        await supervisor.start("a", "up")
        await until(supervisor, EngineState.READY)
        await supervisor.drain("a", "maintenance")
        assert supervisor.life("a").state is EngineState.DRAINING
    async with supervised(herd, around, engine) as supervisor:
        assert supervisor.life("a").state is EngineState.DRAINING
        await supervisor.undrain("a", "done")
        assert supervisor.life("a").state is EngineState.READY
    async with supervised(herd, around, engine) as supervisor:
        assert supervisor.life("a").state is EngineState.READY
        await supervisor.stop("a", "done")


@in_loop
async def test_a_daemon_that_ends_in_a_drain_leaves_it_to_the_next(herd: Herd) -> None:
    around = Around()
    around.requests = 1.0
    engine = spec(herd, drain_timeout_s=60.0)
    async with supervised(herd, around, engine) as supervisor:
        await supervisor.start("a", "up")
        first = await until(supervisor, EngineState.READY)
        restart = asyncio.ensure_future(supervisor.restart("a", "new flags"))
        await until(supervisor, EngineState.DRAINING)
    restart.cancel()
    async with supervised(herd, around, engine) as supervisor:
        life = supervisor.life("a")
        assert (life.state, life.pid) == (EngineState.DRAINING, first.pid)
        around.requests = 0.0
        second = await until(supervisor, EngineState.READY)
        assert second.pid != first.pid
        assert [name for name, _ in steps(second)][:2] == ["drain", "end"]
        await supervisor.stop("a", "done")


@in_loop
async def test_a_rolling_restart_stops_at_the_first_failure(herd: Herd) -> None:
    around = Around()
    specs = [spec(herd, name) for name in "abc"]
    async with supervised(herd, around, *specs) as supervisor:
        await asyncio.gather(*(supervisor.start(name, "up") for name in "abc"))
        for name in "abc":
            await until(supervisor, EngineState.READY, name)
        kept: list[Rolling] = []
        told: list[tuple[str, str]] = []
        rolls = RollingRestarts(
            SystemClock(), supervisor, keep=kept.append, tell=lambda kind, _, __, subject: told.append((kind, subject))
        )
        broken = msgspec.structs.replace(specs[1], command=(sys.executable, "-c", "import sys; sys.exit(1)"))
        supervisor.apply([specs[0], broken, specs[2]])
        await rolls.run("abc", "bad flags", id="r1")
        assert [subject for kind, subject in told if kind == "action_failed"] == ["engine/b"]
        assert [len(herd.births(name)) for name in "abc"] == [2, 1, 1]
        assert [subject for kind, subject in told if kind == "rolling_stopped"] == ["engine/c"]
        assert (kept[-1].outcome, kept[-1].done) == ("failed", 1)
        await asyncio.gather(*(supervisor.stop(name, "done") for name in "abc"))
