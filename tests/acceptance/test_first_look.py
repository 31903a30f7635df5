"""Wishes that come while it is not known yet what there is of an engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from opsboard.core.errors import Conflict
from opsboard.core.model import EngineState, Transaction
from opsboard.supervise import bundle, keeper
from opsboard.supervise.adopt import examine_within
from opsboard.supervise.orphans import ours
from opsboard.supervise.processes import boot_id
from opsboard.supervise.runners import shim
from opsboard.supervise.world import Surroundings
from tests.support.herd import free_port
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from pathlib import Path

    from opsboard.supervise.adopt import Remains
    from tests.support.herd import Herd


class Looks:
    """Each look at a bundle waits for a word when it is done; the first ``blind`` of them see nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, blind: int = 0) -> None:
        self.waiting = 0
        self.go_on = asyncio.Event()
        self._blind = blind
        monkeypatch.setattr(shim, "examine_within", self._late)
        monkeypatch.setattr(keeper, "ADOPT_AGAIN_S", 0.05)

    async def _late(self, directory: Path, budget_s: float) -> Remains | None:
        if self._blind:
            self._blind -= 1
            raise TimeoutError
        found = await examine_within(directory, budget_s)
        self.waiting += 1
        await self.go_on.wait()
        return found


def test_a_start_during_the_first_look_makes_no_second_life(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        looks = Looks(monkeypatch)
        supervisor = herd.supervisor()
        await supervisor.adopt_all()
        supervisor.apply([herd.spec("a", "idle", autostart=True)])
        start = asyncio.create_task(supervisor.start("a", "by hand"))
        await wait_until_async(lambda: looks.waiting == 1)
        assert supervisor.life("a").state is EngineState.STOPPED
        looks.go_on.set()
        await start
        await wait_until_async(lambda: "up\n" in herd.log("a"))
        await supervisor.close()

    asyncio.run(story())
    assert len(herd.births("a")) == 1


def test_a_stop_counts_more_than_what_an_older_look_saw(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing that may run is started or restarted: that would end it."""
    asyncio.run(herd.launch(herd.spec("a", "idle")))
    herd.wait_up("a")
    herd.wishes["a"] = "up"

    async def story() -> None:
        looks = Looks(monkeypatch, blind=1)
        supervisor = herd.supervisor(herd.spec("a", "stubborn", restart="always", stop_timeout_s=0.3))
        await supervisor.adopt_all()
        for wish in (supervisor.start, supervisor.restart):
            with pytest.raises(Conflict, match="a may run, nobody knows: could not be looked at"):
                await wish("a", "impatient")
        await wait_until_async(lambda: looks.waiting == 1)
        assert herd.remains("a").main is not None
        stop = asyncio.create_task(supervisor.stop("a", "by hand"))
        await wait_until_async(lambda: supervisor.life("a").state is EngineState.STOPPING)
        looks.go_on.set()
        await stop
        assert supervisor.life("a").state is EngineState.STOPPED
        assert herd.remains("a").again is False
        assert "adopted" not in [event.kind for event in herd.events]
        await supervisor.close()

    asyncio.run(story())
    assert herd.remains("a").lives is False


@pytest.mark.parametrize(
    "damage", [{"life": "x"}, {"process": "x"}, {"process": {"pid": "12"}}, {"started": None}, {"log_offset": []}]
)
def test_a_damaged_record_keeps_nobody_else_waiting(
    herd: Herd, monkeypatch: pytest.MonkeyPatch, damage: dict[str, object]
) -> None:
    """Its engine may run: it is not started before somebody has mended that."""
    monkeypatch.setattr(keeper, "ADOPT_AGAIN_S", 0.05)
    good = {"instance": "i", "boot_id": boot_id(), "shim": None, "process": None}
    for name in ("a", "old"):
        herd.bundle(name).mkdir(parents=True)
        bundle.write(str(herd.bundle(name)), bundle.IDENTITY, good | damage)
        bundle.write(str(herd.bundle(name)), bundle.STATUS, {"instance": "i", "processes": ["x"]})

    async def story() -> None:
        supervisor = herd.supervisor(herd.spec("a", "idle", autostart=True), herd.spec("b", "idle"))
        await supervisor.adopt_all()
        assert supervisor.life("b").state is EngineState.STOPPED
        assert supervisor.life("a").state is EngineState.FAILED
        assert f"a record in {herd.bundle('a')} is damaged, mend or remove it" in (supervisor.life("a").message or "")
        assert supervisor.life("a").hint is None, "neither a stop nor a start can do anything now"
        with pytest.raises(Conflict, match="a may run, nobody knows"):
            await supervisor.start("a", "impatient")
        bundle.write(str(herd.bundle("a")), bundle.IDENTITY, good)
        await wait_until_async(lambda: "damaged" not in (supervisor.life("a").message or ""))
        assert ours(herd.bundle("a").parent).left == ()
        await supervisor.close()

    asyncio.run(story())
    bundle.remove(str(herd.bundle("old")), bundle.IDENTITY)
    assert [event.subject for event in herd.events if event.kind == "not_configured"] == ["engine/old"]


def test_what_a_killed_daemon_was_about_to_start_leaves_no_secret(herd: Herd) -> None:
    herd.bundle("a").mkdir(parents=True)
    left = [herd.bundle("a") / f"{name}.json{new}" for name in ("launch", "rehearsal") for new in ("", ".new")]
    for file in left:
        file.write_text('{"env": {"TOKEN": "hush"}}')

    async def story() -> None:
        supervisor = herd.supervisor(herd.spec("a", "idle"))
        await supervisor.adopt_all()
        await supervisor.close()

    asyncio.run(story())
    assert [file for file in left if file.exists()] == []


def test_the_last_restart_is_told_again_by_the_next_daemon(herd: Herd) -> None:
    """The last one may have been killed between the note in the bundle and the record of actions."""
    told: list[Transaction] = []

    async def story() -> None:
        for number in (1, 2):
            around = Surroundings(on_transaction=told.append)
            supervisor = herd.supervisor(herd.spec("a", "serve", port), around=around)
            await supervisor.adopt_all()
            if number == 1:
                await supervisor.start("a", "test")
            await wait_until_async(lambda: len(told) == number)  # noqa: B023
            await supervisor.close()

    port = free_port()
    asyncio.run(story())
    assert told[0].outcome == "ok"
    assert told[1] == told[0]
