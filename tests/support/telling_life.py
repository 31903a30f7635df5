"""The part of a daemon that tells people, in a process of its own, to be killed.

Store, pipeline state, flow, desk, messenger, workers, notifier and transport are the real ones. Only where incidents
come from is not: they are claimed here, far faster than detectors would, and closed as a person does. What a channel
rests after a failure is shortened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import resource
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path

from msgspec.structs import replace

from alerts import delivery
from alerts.incidents import Claim
from alerts.notifier import Rate
from opsboard.config.load import load
from opsboard.core.clock import SystemClock
from opsboard.core.incidents import Incident
from opsboard.core.registry import notifiers
from opsboard.daemon import messenger
from opsboard.daemon.flow import Flow
from opsboard.daemon.incident_desk import open_desk
from opsboard.daemon.messenger import Messenger
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.subscribers import Newest
from opsboard.daemon.tasks import TaskBook
from opsboard.daemon.taskset import TaskSet
from opsboard.store.store import Store

SHORTER_S = (0.0, 0.01, 0.02, 0.05)
PAUSE_S = 0.01
"""Between two changes of incidents, in the mean."""
POLL_S = 0.02


class Teller:
    """What of a daemon tells people, and the incidents that it tells of."""

    def __init__(self, store: Store, state: PipelineState, flow: Flow, known: Path) -> None:
        self.store = store
        self.state = state
        self.flow = flow
        self._clock = SystemClock()
        self._known = os.open(known, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def open(self, name: str, severity: str = "page") -> Future[None]:
        """Open an incident; the future is done when it is on disk."""
        now = self._clock.now()
        claim = Claim(
            detector="stall",
            subject=f"engine/{name}",
            severity=severity,  # type: ignore[arg-type]
            summary=f"{name} stands still",
            since=now.wall,
            confirmed=True,
            evidence={"waiting": 3},
        )
        (change,) = self.state.incidents.see(claim.subject, [claim], now)
        written = self.flow.incident(change)
        uid = change.incident.uid
        written.add_done_callback(lambda _: os.write(self._known, f"{uid}\n".encode()))
        return written

    def change(self, chance: random.Random) -> None:
        """Say something of one that is open."""
        rules, now = self.state.incidents, self._clock.now()
        if not rules.open:
            return
        one = chance.choice(rules.open)
        if chance.random() < 0.5:
            self.resolve(one)
        elif one.acknowledged is None:
            self.flow.incident(rules.acknowledge(one, now, "ann", "on it"))
        else:
            self.flow.incident(rules.note(one, now, "ann", f"seen {chance.random()}"))

    def resolve(self, one: Incident) -> Future[None]:
        """Close one, as a person does."""
        return self.flow.incident(self.state.incidents.resolve(one, self._clock.now(), "ann", "known"))

    async def told(self) -> None:
        """Wait until nothing waits to be sent."""
        while any(waiting for waiting, _, _ in (await self.store.outbox.counts()).values()):
            await asyncio.sleep(POLL_S)


@contextlib.asynccontextmanager
async def teller(root: Path) -> AsyncIterator[Teller]:
    """Run one on ``root/state`` with the channels of ``root/opsboard.toml``."""
    loaded = load(root / "opsboard.toml", notifiers=notifiers().found)
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as ending, asyncio.TaskGroup() as group:
        tasks = TaskSet(group, TaskBook())
        store = Store.open(root / "state", clock)
        ending.push_async_callback(store.close)
        state = PipelineState("gpu-a")
        flow = Flow(clock, state, store, Newest(lambda: b""))
        await open_desk(clock, state, store, flow, ending)
        await Messenger(clock, state, store, flow, tasks).begin(loaded, ending)
        yield Teller(store, state, flow, root / "known")
        await tasks.close()


def hasten() -> None:
    """Be silent and impatient; only for a process of its own."""
    logging.disable()
    vars(delivery)["SCHEDULE_S"] = SHORTER_S
    found = notifiers().found
    found["webhook"] = replace(found["webhook"], rate=Rate(every_s=0.001, burst=1000))


def live(root: str, seed: int) -> None:
    """Open and close incidents until killed."""
    hasten()
    asyncio.run(_live(Path(root), random.Random(seed)))


async def _live(root: Path, chance: random.Random) -> None:
    async with teller(root) as one:
        n = 0
        while True:
            if chance.random() < 0.5:
                one.open(f"{os.getpid()}-{n}")
                n += 1
            else:
                one.change(chance)
            await asyncio.sleep(chance.expovariate(1 / PAUSE_S))


def fill(root: str) -> None:
    """Open a page while no file may grow, until ``root/heard`` is there; end when nothing waits to be told.

    Raises AssertionError when the page was on disk before.
    """
    hasten()
    vars(messenger)["PATIENCE_S"] = 0.2

    async def main() -> None:
        async with teller(Path(root)) as one:
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
            page = one.open("a")
            while not (Path(root) / "heard").exists():
                await asyncio.sleep(POLL_S)
            assert not page.done()
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            await asyncio.wrap_future(page)
            await one.told()

    asyncio.run(main())


def settle(root: str) -> None:
    """Tell all that is left to tell, then end."""
    hasten()

    async def main() -> None:
        async with teller(Path(root)) as one:
            await one.told()

    asyncio.run(main())
