"""Sleep and wake: each step, what interrupts it, what is remembered, and what a standby does by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from collectors.sleeping import CannotSleep
from opsboard.core.errors import CollectError, Conflict, StoreError, SuperviseError
from opsboard.core.model import CanaryOutcome, EngineState
from opsboard.supervise.rest import Rest
from tests.support.sleepy import DRAINING, OTHER, READY, STOPPED, House, in_house

# --- by hand


def test_it_sleeps_when_nothing_is_under_way_and_wakes_when_it_answers(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.requests = 2.0
        task = asyncio.create_task(house.standby.sleep("a", "night"))
        await asyncio.sleep(5.0)
        assert house.done == ["drain a"], "two requests are under way"
        assert "goes to sleep when nothing is under way" in (house.board.engines["a"].doing or "")
        house.requests = 0.0
        await task
        assert house.done == ["drain a", "sleep a"]
        assert house.remembered() == Rest(wish="asleep", life=1.0)
        track = house.board.engines["a"]
        assert (track.standby, track.slept, track.wake_s) == (True, True, None)
        assert track.transaction == house.kept[-1]

        await house.standby.wake("a", "morning")
        assert house.done[2:] == ["wake a", "undrain a"]
        assert house.remembered() == Rest(wish="awake")
        assert (track.standby, track.slept) == (False, False)
        assert track.wake_s == pytest.approx(1.0, abs=0.1)

    house = in_house(main, tmp_path)
    assert house.steps() == [("sleep", "ok", ["drain", "sleep"]), ("wake", "ok", ["wake", "canary", "serving"])]
    (slept,), (woke,) = house.texts("slept"), house.texts("woke")
    assert slept.startswith("asleep in ")
    assert "sleep 2.0 s" in slept
    assert woke == "woke in 1.0 s (wake 1.0 s, canary 0.0 s, serving 0.0 s)"


def test_requests_that_do_not_end_get_no_more_than_their_time(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.requests = None
        await house.standby.sleep("a", "night")
        assert house.clock.now().mono == pytest.approx(10.0 + 2.0, abs=1.0)

    house = in_house(main, tmp_path)
    assert house.done == ["drain a", "sleep a"]
    assert [(step.outcome, step.text) for step in house.kept[0].steps] == [
        ("cut", "it is not known what is under way"),
        ("ok", None),
    ]


def test_the_last_target_stays_awake_unless_it_is_said(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.last_target = True
        with pytest.raises(Conflict, match="last healthy target") as caught:
            await house.standby.sleep("a", "night")
        assert caught.value.hint == "opsboard engine sleep a --now"
        assert house.remembered() == Rest()
        await house.standby.sleep("a", "night", now=True)
        assert house.sleeps

    in_house(main, tmp_path)


def test_what_cannot_sleep_is_left_in_service(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.cannot = "its command has no --enable-sleep-mode"
        with pytest.raises(CannotSleep, match="--enable-sleep-mode"):
            await house.standby.sleep("a", "night")
        house.become(STOPPED, pid=None)
        with pytest.raises(Conflict, match="a is stopped: only an engine that serves"):
            await house.standby.sleep("a", "night")

    house = in_house(main, tmp_path)
    assert (house.done, house.remembered()) == ([], Rest())


def test_one_that_does_not_fall_asleep_goes_on_and_serves(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.error = CollectError("the engine took /sleep, and is awake")
        with pytest.raises(CollectError, match="is awake"):
            await house.standby.sleep("a", "night")
        assert house.view.state is READY
        await asyncio.sleep(30)
        await house.standby.look()

    house = in_house(main, tmp_path)
    assert house.done == ["drain a", "sleep a", "wake a", "undrain a"]
    assert house.remembered() == Rest()
    assert house.steps() == [("sleep", "failed", ["drain", "sleep"])]


def test_a_wake_calls_a_sleep_off_that_still_drains(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.requests = 1.0
        task = asyncio.create_task(house.standby.sleep("a", "night"))
        await asyncio.sleep(2.0)
        await house.standby.wake("a", "no")
        with pytest.raises(Conflict, match="it was woken meanwhile"):
            await task
        assert house.view.state is READY

    house = in_house(main, tmp_path)
    assert house.done == ["drain a", "undrain a"]
    assert house.remembered().wish == "awake"


def test_of_a_wake_and_a_sleep_after_it_the_sleep_counts(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        await house.standby.sleep("a", "night")
        woken = asyncio.create_task(house.standby.wake("a", "morning"))
        await asyncio.sleep(0.5)
        slept = asyncio.create_task(house.standby.sleep("a", "no, night"))
        await asyncio.sleep(0)
        assert house.remembered().wish == "asleep"
        await asyncio.gather(woken, slept)
        assert house.sleeps

    house = in_house(main, tmp_path)
    assert "undrain a" not in house.done, "nobody was sent to it in between"
    assert house.remembered().wish == "asleep"


def test_an_undrain_calls_it_off_too(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.requests = 1.0
        task = asyncio.create_task(house.standby.sleep("a", "night"))
        await asyncio.sleep(2.0)
        await house.undrain("a", "by hand")
        with pytest.raises(Conflict, match="brought back into service"):
            await task

    house = in_house(main, tmp_path)
    assert (house.sleeps, house.remembered()) == (False, Rest(wish="awake"))


def test_one_that_dies_while_it_drains_is_put_to_sleep_in_its_next_life(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.requests = 1.0
        task = asyncio.create_task(house.standby.sleep("a", "night"))
        await asyncio.sleep(2.0)
        house.become(EngineState.BACKING_OFF, pid=None, started=None)
        with pytest.raises(Conflict, match="put to sleep when it serves again"):
            await task
        house.view = msgspec.structs.replace(house.view, started=9.0)
        house.requests = 0.0
        house.begin_life(DRAINING)
        await house.until(lambda: house.sleeps, "it sleeps again")

    in_house(main, tmp_path)


@pytest.mark.parametrize("outcome", [CanaryOutcome.TIMEOUT, CanaryOutcome.REFUSED])
def test_one_that_wakes_and_does_not_answer_stays_out_of_service(tmp_path: Path, outcome: CanaryOutcome) -> None:
    async def main(house: House) -> None:
        await house.standby.sleep("a", "night")
        house.outcome = outcome
        with pytest.raises(SuperviseError, match="a is awake, but the canary failed"):
            await house.standby.wake("a", "morning")
        assert house.view.state is DRAINING

    house = in_house(main, tmp_path)
    assert house.steps()[-1] == ("wake", "failed", ["wake", "canary"])
    assert not house.remembered().unfinished


def test_one_that_wakes_with_other_weights_stays_out_of_service(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        for _ in range(2):
            await house.standby.sleep("a", "night")
            await house.standby.wake("a", "morning")
        await house.standby.sleep("a", "night")
        house.answer = OTHER
        with pytest.raises(SuperviseError, match="differs from the golden one") as caught:
            await house.standby.wake("a", "morning")
        assert "opsboard engine undrain a" in (caught.value.hint or "")
        assert house.view.state is DRAINING

    in_house(main, tmp_path)


def test_one_that_was_undrained_asleep_is_asked_before_it_serves(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        await house.standby.sleep("a", "night")
        await house.undrain("a", "by hand")
        house.outcome = CanaryOutcome.REFUSED
        with pytest.raises(SuperviseError, match="a is awake, but the canary failed"):
            await house.standby.wake("a", "morning")
        assert house.view.state is DRAINING

    in_house(main, tmp_path)


def test_one_that_cannot_be_asked_serves(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        await house.standby.sleep("a", "night")
        house.outcome = CanaryOutcome.UNABLE
        await house.standby.wake("a", "morning")

    assert in_house(main, tmp_path).view.state is READY


def test_a_disk_that_keeps_no_answer_keeps_nobody_asleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_record: object, **_how: object) -> None:
        raise OSError(28, "No space left on device")

    async def main(house: House) -> None:
        await house.standby.sleep("a", "night")
        monkeypatch.setattr("opsboard.supervise.golden.bundle.write", full)
        await house.standby.wake("a", "morning")
        assert house.view.state is READY
        await asyncio.sleep(5.0)
        await house.standby.look()
        await asyncio.sleep(5.0)

    house = in_house(main, tmp_path)
    assert house.done.count("wake a") == 1
    said = [(step.name, step.outcome, step.text) for step in house.kept[-1].steps]
    assert ("canary", "skipped", "its answer cannot be kept: No space left on device") in said


def test_steps_are_shown_while_they_go_on(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        falls = asyncio.create_task(house.standby.sleep("a", "night"))
        shown = []
        while not falls.done():
            await asyncio.sleep(0.1)
            going = house.board.engines["a"].transaction
            shown += [] if going is None else [(going.kind, going.steps[-1].name, going.steps[-1].outcome)]
        await falls
        assert ("sleep", "drain", None) in shown
        assert ("sleep", "sleep", None) in shown

    in_house(main, tmp_path)


def test_waking_what_serves_does_nothing_and_says_so(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        await house.standby.wake("a", "morning")

    house = in_house(main, tmp_path)
    assert (house.done, house.kept) == ([], [])
    assert house.texts("woke") == ["is awake and serves already"]


def test_waking_what_is_stopped_starts_it(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        await house.standby.wake("a", "morning")
        assert house.view.state is READY
        house.starts_as = EngineState.FAILED
        house.become(STOPPED, pid=None)
        with pytest.raises(SuperviseError, match="a is failed"):
            await house.standby.wake("a", "again")

    house = in_house(main, tmp_path, standby=True, state=STOPPED)
    assert house.done == ["start a", "start a"]
    assert house.steps() == [("wake", "ok", ["start"]), ("wake", "failed", ["start"])]
    assert house.board.engines["a"].wake_s == pytest.approx(3.0, abs=0.3)


# --- by itself


def test_a_standby_sleeps_after_each_start_even_as_the_last_target(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.last_target = True
        await house.until(lambda: house.sleeps, "it sleeps")
        house.begin_life(DRAINING)
        await house.until(lambda: house.sleeps, "it sleeps in its next life")
        assert house.done == ["drain a", "sleep a", "sleep a"], "it was out of service already"

    house = in_house(main, tmp_path, standby=True)
    assert [one.automatic for one in house.kept] == [True, True]
    assert house.remembered().wish is None


def test_it_goes_out_of_service_in_the_moment_it_is_ready(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        before = house.clock.now().mono
        house.begin_life(READY)
        await asyncio.sleep(0)
        assert (house.done, house.clock.now().mono) == (["drain a"], before)

    in_house(main, tmp_path, standby=True, state=STOPPED)


def test_a_standby_that_was_woken_serves_on_until_it_is_stopped(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        await house.until(lambda: house.sleeps, "it sleeps")
        await house.standby.wake("a", "morning")
        house.begin_life(READY)  # a crash, or a restart
        for _ in range(20):
            await house.standby.look()
            await asyncio.sleep(1.0)
        assert not house.sleeps
        house.become(STOPPED, pid=None)
        house.begin_life(READY)
        await house.until(lambda: house.sleeps, "the configuration counts again")

    in_house(main, tmp_path, standby=True)


def test_a_restart_that_still_drains_comes_first(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.become(DRAINING, until=99.0)
        for _ in range(5):
            await house.standby.look()
            await asyncio.sleep(1.0)
        assert house.done == []

    in_house(main, tmp_path, standby=True, state=STOPPED)


def test_one_that_somebody_else_wakes_is_left_alone(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        await house.until(lambda: house.sleeps, "it sleeps")
        house.sleeps = False
        for _ in range(5):
            await house.standby.look()
            await asyncio.sleep(1.0)
        assert house.done == ["drain a", "sleep a"]

    in_house(main, tmp_path, standby=True)


def test_a_standby_that_cannot_sleep_is_stopped_and_that_is_told_once(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        for _ in range(2):
            await house.until(lambda: house.view.state is STOPPED, "it is stopped")
            house.view = msgspec.structs.replace(house.view, started=house.clock.now().wall)
            house.begin_life(READY)
        await house.until(lambda: house.view.state is STOPPED, "it is stopped again")

    async def cannot(house: House) -> None:
        house.cannot = "it has no /is_sleeping"
        house.begin_life(READY)
        await main(house)

    house = in_house(cannot, tmp_path, standby=True, state=STOPPED)
    (text,) = house.texts("cannot_sleep")
    assert text == (
        "cannot be put to sleep: it has no /is_sleeping; so this standby is stopped: `opsboard engine wake a` lets it "
        "serve (give it the flag)"
    )
    assert house.done[:2] == ["drain a", "stop a: standby: it has no /is_sleeping"]


def test_a_standby_that_fails_to_sleep_stays_out_of_service_and_is_tried_once_a_life(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.error = CollectError("no answer within 120 s")
        house.begin_life(READY)
        for _ in range(30):
            await house.standby.look()
            await asyncio.sleep(1.0)
        assert house.view.state is DRAINING

    house = in_house(main, tmp_path, standby=True, state=STOPPED)
    assert house.done == ["drain a", "sleep a", "wake a"]
    (text,) = house.texts("sleep_failed")
    assert "no answer within 120 s; it stays out of service" in text
    assert "`opsboard engine sleep a` tries again" in text


# --- the next daemon


def test_the_next_daemon_knows_who_sleeps_and_who_was_woken(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        await house.standby.sleep("a", "night")
        house.standby = house.daemon()
        house.standbys = {"a"}
        await house.standby.look()
        assert house.done == ["drain a", "sleep a"], "it sleeps already"
        await house.standby.wake("a", "morning")
        house.standby = house.daemon()
        for _ in range(5):
            await house.standby.look()
            await asyncio.sleep(1.0)
        assert house.view.state is READY
        assert house.board.engines["a"].wake_s == pytest.approx(1.0, abs=0.1)

    in_house(main, tmp_path)


def test_the_next_daemon_goes_on_with_a_sleep_and_with_a_wake(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        house.requests = 1.0
        task = asyncio.create_task(house.standby.sleep("a", "night"))
        await asyncio.sleep(1.0)
        task.cancel()  # the daemon is killed
        house.requests = 0.0
        house.standby = house.daemon()
        await house.until(lambda: house.sleeps, "it sleeps")
        task = asyncio.create_task(house.standby.wake("a", "morning"))
        await asyncio.sleep(0.5)
        task.cancel()
        assert house.remembered().unfinished
        house.standby = house.daemon()
        await house.until(lambda: house.view.state is READY, "it serves")
        await house.until(lambda: not house.remembered().unfinished, "it is done")

    house = in_house(main, tmp_path)
    assert [kind for kind, _, _ in house.steps()] == ["sleep", "wake"]


def test_what_cannot_be_read_or_written_is_told_and_hinders_nothing(tmp_path: Path) -> None:
    async def main(house: House) -> None:
        (tmp_path / "a" / "rest.json").write_text('{"wish": 3}')
        house.past_error = StoreError("the disk is silent")
        house.standby = house.daemon()
        await house.standby.look()
        (tmp_path / "a" / "rest.json").unlink()
        (tmp_path / "a" / "rest.json.new").mkdir()
        await house.standby.sleep("a", "night")
        assert house.sleeps

    house = in_house(main, tmp_path)
    assert any("that it is to sleep cannot be written down" in text for text in house.texts("not_remembered"))
