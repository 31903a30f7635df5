"""One life that is watched: what of it may hang without hiding the rest."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from opsboard.core.clock import SystemClock
from opsboard.supervise import life as lives
from opsboard.supervise.adopt import Remains
from opsboard.supervise.budget import Budget
from opsboard.supervise.launch import LaunchSpec, fingerprint
from opsboard.supervise.ledger import Ledger
from opsboard.supervise.life import Life
from opsboard.supervise.processes import look
from opsboard.supervise.runners.base import Place
from opsboard.supervise.situation import Answers, Body, Event
from opsboard.supervise.world import Surroundings, World
from tests.support.in_loop import in_loop
from tests.support.waiting import wait_until_async


class Owner:
    """Believes what it is told."""

    body = Body.ALIVE

    def __init__(self) -> None:
        self.heard: list[Event] = []

    def apply(self, event: Event) -> None:
        self.heard.append(event)

    def reborn(self, remains: Remains) -> None:
        raise AssertionError(remains)

    def publish(self) -> None:
        """Nobody watches."""


async def _serves(_url: str) -> bool:
    return True


async def _no_phases(_engine: str) -> dict[str, float]:
    return {}


SPEC = LaunchSpec(name="a", command=("serve",), url="http://127.0.0.1:8001")


def watched(owner: Owner, place: Path, url: str | None = None) -> Life:
    """Return a life that this process lives, which listens at ``url``."""
    clock = SystemClock()
    world = World(
        runtime_dir=place,
        clock=clock,
        ready_probe=_serves,
        on_life=lambda _life: None,
        on_event=lambda _event: None,
        on_wish=lambda _name, _wish: None,
        phase_seconds=_no_phases,
        around=Surroundings(),
        ledger=Ledger(Budget(), now=clock.now()),
    )
    remains = Remains(
        directory=str(place),
        instance="i",
        life=1,
        started=0.0,
        log_offset=0,
        socket="",
        argv_sha256=fingerprint(SPEC.command),
        url=url,
        same_boot=True,
        main=look(os.getpid()),
        shim=look(os.getpid()),
    )
    return Life(owner, SPEC, Place(place, place), world, remains=remains, last_seconds={})


@in_loop
async def test_a_log_that_cannot_be_read_hides_the_phases_and_not_that_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lives, "READ_S", 0.02)
    owner, hang = Owner(), threading.Event()
    life = watched(owner, tmp_path)
    assert life.start_up is not None
    monkeypatch.setattr(life.start_up, "look", lambda _now: hang.wait(10))
    life.watch()
    await wait_until_async(lambda: owner.heard == [Answers()], what="it is seen to serve")
    hang.set()
    await asyncio.gather(*life.close(), return_exceptions=True)


@pytest.mark.parametrize(
    ("url", "same"), [(None, True), (SPEC.url, True), ("http://localhost:8001", True), ("http://127.0.0.1:8002", False)]
)
def test_whether_the_next_life_listens_elsewhere(tmp_path: Path, url: str | None, *, same: bool) -> None:
    assert (watched(Owner(), tmp_path, url).differs_from(SPEC) is None) is same
