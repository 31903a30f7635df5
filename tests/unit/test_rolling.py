"""Rolling restarts of cardboard engines, in virtual time: what stops them, and what the next daemon makes of them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from opsboard.core.errors import Conflict, SuperviseError
from opsboard.core.model import Rolling
from opsboard.core.waiting import rolling_told
from opsboard.supervise.rolling import FORGET_S, PATIENCE_S
from tests.support.rolled import DRAINING, FAILED, TAKES_S, Host, cut_off, on_host


def test_one_after_the_other_and_shown_meanwhile() -> None:
    async def story(host: Host) -> None:
        begun: list[str] = []
        task = asyncio.create_task(host.rolls.run("abc", "weekly", id="r1", uid=7, begins=lambda: begun.append("yes")))
        await asyncio.sleep(TAKES_S * 1.5)
        under_way = host.rolls.under_way
        assert under_way is not None
        assert rolling_told(under_way) == "rolling restart: 1 of 3 done, now b, next: c"
        assert (under_way.uid, under_way.reason, begun) == (7, "weekly", ["yes"])
        with pytest.raises(Conflict, match="another is under way: rolling restart: 1 of 3 done") as caught:
            await host.rolls.run("cb", "me too", id="r2")
        assert "--cancel" in (caught.value.hint or "")
        await task
        assert host.rolls.under_way is None

    host = on_host(story)
    assert host.engines.restarted == ["a", "b", "c"]
    assert (host.kept.outcome, host.kept.done, host.kept.error) == ("ok", 3, None)
    assert host.texts("rolling") == [
        "rolling restart of 3 engines, one at a time: a, b, c: weekly",
        "rolling restart: 1 of 3 done, next: b",
        "rolling restart: 2 of 3 done, next: c",
        "rolling restart: all 3 serve again, in 30 s",
    ]


def test_it_stops_at_the_first_that_does_not_come_back_and_tells_the_others() -> None:
    async def story(host: Host) -> None:
        host.engines.ends["a"] = FAILED
        await host.rolls.run("abc", "weekly", id="r1")

    host = on_host(story)
    assert host.engines.restarted == ["a"]
    assert host.texts("action_failed", "engine/a") == ["restart failed: a is failed: why"]
    for name in "bc":
        (text,) = host.texts("rolling_stopped", f"engine/{name}")
        assert text == "not restarted: the rolling restart stopped at a: a is failed: why"
    assert (host.kept.outcome, host.kept.done) == ("failed", 0)


def test_a_refusal_of_the_first_is_an_answer_and_leaves_no_trace() -> None:
    async def story(host: Host) -> None:
        host.engines.refusals["a"] = [Conflict("a is the last healthy target of route chat")]
        with pytest.raises(Conflict, match="last healthy target"):
            await host.rolls.run("abc", "weekly", id="r1")
        assert host.rolls.last is None
        await host.rolls.run("abc", "weekly", id="r2", now=True)

    host = on_host(story)
    assert host.engines.restarted == ["a now", "b now", "c now"]
    assert host.kept.id == "r2"
    assert not [told for told in host.told if told[0] == "rolling_stopped"]


def test_another_target_gets_a_moment_to_be_seen_serving() -> None:
    async def story(host: Host) -> None:
        host.engines.refusals["b"] = [Conflict("b is the last healthy target of route chat")] * 5
        await host.rolls.run("abc", "weekly", id="r1")
        assert host.kept.outcome == "ok"
        host.engines.refusals["b"] = [Conflict("b is the last healthy target of route chat")] * int(PATIENCE_S * 4)
        await host.rolls.run("abc", "again", id="r2")
        assert host.kept.error == "stopped at b: b is the last healthy target of route chat"

    on_host(story)


def test_a_stop_and_an_undrain_count_more() -> None:
    async def story(host: Host) -> None:
        task = asyncio.create_task(host.rolls.run("abc", "weekly", id="r1"))
        await asyncio.sleep(TAKES_S / 2)
        host.engines.wishes["b"] = "down"
        await task
        assert host.kept.error == "stopped at b: b was stopped meanwhile"
        await host.rolls.run("bc", "stopped ones too", id="r2")
        assert host.kept.outcome == "ok", "it was stopped already when this was asked"
        host.engines.ends["a"] = DRAINING
        await host.rolls.run("ab", "weekly", id="r3")
        assert host.kept.error == "stopped at a: its restart was called off: no reason known"

    on_host(story)


def test_called_off_the_one_at_hand_finishes_and_the_others_are_left_alone() -> None:
    async def story(host: Host) -> None:
        with pytest.raises(Conflict, match="no rolling restart is under way"):
            host.rolls.cancel("uid 7")
        task = asyncio.create_task(host.rolls.run("abc", "weekly", id="r1"))
        await asyncio.sleep(TAKES_S * 1.5)
        assert host.rolls.cancel("uid 7").outcome == "cancelled"
        await task
        assert host.engines.life("b").started == 2.0

    host = on_host(story)
    assert host.engines.restarted == ["a", "b"]
    assert host.texts("rolling_stopped", "engine/c") == ["not restarted: the rolling restart was called off by uid 7"]
    assert not host.texts("rolling_stopped", "engine/b")
    assert (host.kept.outcome, host.kept.error) == ("cancelled", "was called off by uid 7")


def test_one_that_was_called_off_moves_no_later_one() -> None:
    async def story(host: Host) -> None:
        first = asyncio.create_task(host.rolls.run("abc", "weekly", id="r1"))
        await asyncio.sleep(TAKES_S * 0.5)
        host.rolls.cancel("uid 7")
        second = asyncio.create_task(host.rolls.run("bc", "weekly", id="r2"))
        await asyncio.sleep(TAKES_S * 0.8)
        assert first.done()
        under_way = host.rolls.under_way
        assert under_way is not None
        assert (under_way.id, under_way.done, under_way.at) == ("r2", 0, "b")
        await second

    assert on_host(story).engines.restarted == ["a", "b", "c"]


# --- the next daemon --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_s", [0.1, TAKES_S * 0.9, TAKES_S * 1.5, TAKES_S * 2.9])
def test_the_next_daemon_goes_on_and_nothing_is_restarted_twice(after_s: float) -> None:
    async def story(host: Host) -> None:
        await cut_off(host, after_s)
        assert host.kept.outcome is None
        assert (await host.next_daemon()).last == host.kept

    host = on_host(story)
    assert host.engines.restarted == ["a", "b", "c"]
    assert (host.kept.outcome, host.kept.done, host.kept.reason) == ("ok", 3, "weekly")
    assert [text for text in host.texts("rolling") if "goes on after a restart of the daemon: rolling" in text]


def test_a_restart_that_its_engine_never_heard_of_is_asked_for_again() -> None:
    async def story(host: Host) -> None:
        host.engines.writes_down = False
        task = asyncio.create_task(host.rolls.run("abc", "weekly", id="r1"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        host.disk = msgspec.structs.replace(host.kept, done=0, begun=True, old=1.0, outcome=None, error=None)
        host.engines.writes_down = True
        await host.next_daemon()

    host = on_host(story)
    assert host.engines.restarted == ["a", "b", "c"]
    assert host.kept.outcome == "ok"


def test_one_that_failed_while_no_daemon_ran_stops_it() -> None:
    async def story(host: Host) -> None:
        await cut_off(host, TAKES_S / 2)
        host.engines.ends["a"] = FAILED
        await host.next_daemon()

    host = on_host(story)
    assert host.engines.restarted == ["a"]
    assert host.kept.error == "stopped at a: a is failed: why"
    assert host.texts("rolling_stopped", "engine/c")


def test_the_one_before_must_still_serve_unless_somebody_stopped_it() -> None:
    async def story(host: Host) -> None:
        await cut_off(host, TAKES_S * 1.01)
        host.disk = msgspec.structs.replace(host.kept, begun=False, old=None)
        host.engines.ending.pop("b", None)
        host.engines.restarted.remove("b")
        host.engines.become("a", FAILED, None)
        await host.next_daemon()
        assert host.kept.error == "stopped at b: a, which was restarted before it, is failed"

        host.disk = msgspec.structs.replace(host.kept, outcome=None, error=None, ended=None)
        host.engines.wishes["a"] = "down"
        await host.next_daemon()
        assert host.kept.outcome == "ok"

    assert on_host(story).engines.restarted == ["a", "b", "c"]


def test_after_an_unclean_end_the_next_one_waits() -> None:
    async def story(host: Host) -> None:
        await cut_off(host, TAKES_S * 0.9)
        host.engines.not_before = host.clock.now().mono + 30.0
        before = host.clock.now().mono
        await host.next_daemon()
        assert host.clock.now().mono - before == pytest.approx(30.0 + 2 * TAKES_S, abs=2.0)

    host = on_host(story)
    (told,) = [text for text in host.texts("rolling") if "goes on" in text]
    assert "in 30 s, as the last daemon did not end in order" in told


def test_called_off_while_it_waits_nothing_more_is_restarted() -> None:
    async def story(host: Host) -> None:
        await cut_off(host, TAKES_S * 0.9)
        host.engines.not_before = host.clock.now().mono + 30.0
        host.rolls = host.daemon()
        host.rolls.resume(host.disk)
        await asyncio.sleep(5.0)
        host.rolls.cancel("uid 7")
        await asyncio.sleep(60.0)

    host = on_host(story)
    assert host.engines.restarted == ["a"]
    assert host.texts("rolling_stopped", "engine/b")


def test_one_that_is_long_past_is_given_up() -> None:
    async def story(host: Host) -> None:
        await cut_off(host, TAKES_S * 0.9)
        await asyncio.sleep(FORGET_S + 1)
        await host.next_daemon()

    host = on_host(story)
    assert host.engines.restarted == ["a"]
    assert host.kept.error == "was given up: nothing was heard of it for 1.0 h"
    assert host.texts("rolling_stopped", "engine/b")


def test_an_engine_that_left_the_configuration_and_a_surprise_are_told() -> None:
    async def story(host: Host) -> None:
        await cut_off(host, TAKES_S * 0.9)
        del host.engines.lives["b"]
        await host.next_daemon()
        assert host.kept.error == "stopped at b: no engine is called 'b'"

        host.disk = Rolling(id="r9", engines=("a", "c"), reason="x", began=0.0, changed=host.clock.now().wall)
        host.engines.refusals["a"] = [RuntimeError("boom")]
        await host.next_daemon()
        assert host.kept.error == "failed: RuntimeError('boom')"

    on_host(story)


def test_a_surprise_ends_it_and_the_next_may_be_asked_for() -> None:
    async def story(host: Host) -> None:
        host.engines.refusals["b"] = [RuntimeError("boom")]
        with pytest.raises(RuntimeError):
            await host.rolls.run("abc", "weekly", id="r1")
        assert host.kept.error == "failed: RuntimeError('boom')"
        await host.rolls.run("bc", "weekly", id="r2")
        assert host.kept.outcome == "ok"

    assert on_host(story).texts("rolling_stopped", "engine/c")


def test_what_is_over_is_only_remembered() -> None:
    async def story(host: Host) -> None:
        host.engines.refusals["b"] = [SuperviseError("vllm cannot be found")]
        await host.rolls.run("abc", "weekly", id="r1")
        rolls = await host.next_daemon()
        assert rolls.under_way is None
        assert rolls.last is not None
        assert rolling_told(rolls.last) == "rolling restart: 1 of 3 done, stopped at b: vllm cannot be found"

    assert on_host(story).engines.restarted == ["a"]
