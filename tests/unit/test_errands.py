"""What is counted before a restart by ourselves, and what cannot be found out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.errors import Conflict, NotFound, OpsboardError, SuperviseError
from opsboard.core.model import EngineState, FatalVerdict, Restart
from opsboard.supervise import errands, machine
from opsboard.supervise.budget import Budget
from opsboard.supervise.keeper import Keeper
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.ledger import Ledger
from opsboard.supervise.situation import Answers, Launched, Prepared, Ready, Situation, Start, Unprepared
from opsboard.supervise.world import Surroundings, World, nobody
from tests.support.in_loop import in_loop

SPEC = LaunchSpec(name="a", command=("serve",), url="http://127.0.0.1:1", gpus=("0",))


class Place:
    """A world that writes restarts down when it is told to."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = ManualClock()
        self.written: list[Restart] = []
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.wedged: str | None = None
        self.ledger = Ledger(Budget(per_engine=1), now=self.clock.now(), jitter=lambda: 0.0)
        around = Surroundings(
            on_restart=self._write,
            on_taken_back=self.written.remove,
            wedged=lambda _gpus: self.wedged,
            room=_silent,
            cleared=_silent,
        )
        self.world = World(
            runtime_dir=tmp_path,
            clock=self.clock,
            ready_probe=_silent,
            on_life=lambda _life: None,
            on_event=lambda _event: None,
            on_wish=lambda _name, _wish: None,
            phase_seconds=_silent,
            around=around,
            ledger=self.ledger,
        )

    async def _write(self, restart: Restart) -> None:
        self.written.append(restart)
        await self.may_write.wait()

    async def count(self) -> Prepared | Unprepared:
        return await errands.count(self.world, SPEC, Situation(since=0.0, cause="it died", served_s=700.0))


async def _silent(*_any: object) -> Any:
    return await asyncio.Event().wait()


@in_loop
async def test_what_is_counted_is_written_with_what_the_life_had_served(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert await place.count() == Prepared(place.written[0])
    assert (place.written[0].served_s, place.written[0].gpus) == (700.0, ("0",))
    assert isinstance(await place.count(), Unprepared), "one is allowed"


@in_loop
async def test_a_gpu_that_needs_a_reset_is_no_reason_to_count(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.wedged = "GPU 0 needs a reset"
    assert await place.count() == Unprepared("GPU 0 needs a reset: it died", FatalVerdict.PARK)
    assert not place.written


@in_loop
async def test_what_is_called_off_while_it_is_counted_counts_no_more(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.may_write.clear()
    counting = asyncio.create_task(place.count())
    while not place.written:
        await asyncio.sleep(0)
    counting.cancel()
    await asyncio.wait([counting])
    assert (counting.cancelled(), place.written) == (True, [])
    place.may_write.set()
    assert isinstance(await place.count(), Prepared), "the only one that is allowed is still there"


@in_loop
async def test_a_planned_restart_of_what_was_stopped_meanwhile_is_not_counted(tmp_path: Path) -> None:
    place = Place(tmp_path)
    keeper = Keeper(SPEC, tmp_path / "a", place.world)
    keeper._situation = _serving(place)
    place.may_write.clear()
    renewing = asyncio.create_task(keeper.renew("24 h old", nobody))
    while not place.written:
        await asyncio.sleep(0)
    keeper._situation = Situation(since=0.0, state=EngineState.STOPPED)
    place.may_write.set()
    with pytest.raises(SuperviseError, match="it does not serve any more"):
        await renewing
    assert place.written == []
    await keeper.close()


@in_loop
async def test_a_planned_restart_that_would_take_the_last_target_after_all_is_not_counted(tmp_path: Path) -> None:
    place = Place(tmp_path)
    keeper = Keeper(SPEC, tmp_path / "a", place.world)
    keeper._situation = _serving(place)

    for error in (Conflict("a is the last healthy target of route chat"), NotFound("there is no engine a any more")):

        def refuse(error: OpsboardError = error) -> None:
            raise error

        with pytest.raises(type(error), match=error.message):
            await keeper.renew("24 h old", refuse)
        assert (place.written, keeper.view.state) == ([], EngineState.READY)
    await keeper.close()


def _serving(place: Place) -> Situation:
    situation, now = Situation(since=0.0), place.clock.now()
    for event in (Start("up"), Launched(900.0), Answers(), Ready()):
        situation, _ = machine.step(situation, event, now)
    return situation


@in_loop
async def test_what_cannot_be_found_out_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a start, nor the memory of processes that are gone."""
    for name in ("ROOM_S", "CLEAR_S", "WRITE_S"):
        monkeypatch.setattr(errands, name, 0.0)
    world = Place(tmp_path).world
    await errands.room(world, SPEC)
    await errands.clear(world, [1], None)
