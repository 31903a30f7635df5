"""What supervision asks of the daemon, answered as a test wants it, and the short words of such tests."""

from __future__ import annotations

from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from opsboard.core.errors import StoreError, SuperviseError
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineState,
    Finding,
    FindingChange,
    GpuReading,
    Outcome,
    Restart,
    Transaction,
)
from opsboard.supervise.budget import Budget
from opsboard.supervise.room import room
from opsboard.supervise.world import Inflight, Surroundings
from tests.support.herd import free_port
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence
    from pathlib import Path

    from opsboard.core.model import LifeView
    from opsboard.supervise.launch import LaunchSpec
    from opsboard.supervise.supervisor import Supervisor
    from tests.support.herd import Herd

QUICK = Budget(per_engine=3, first_s=0.05, cap_s=0.2)


class Around:
    """What supervision asks of the daemon, as a test wants it answered."""

    def __init__(self) -> None:
        self.requests: float | None = 0.0
        self.reads = 0
        self.others: str | None = None
        self.holds: str | None = None
        self.no_room: SuperviseError | None = None
        self.engines: Path | None = None
        """Where bundles lie that are really looked at."""
        self.unwritable: StoreError | None = None
        self.outcome = CanaryOutcome.UNABLE
        self.output = "violets"
        self.restarts: list[Restart] = []
        self.forgiven: list[str] = []
        self.transactions: list[Transaction] = []
        self.cleared: list[tuple[int, ...]] = []

    def surroundings(self) -> Surroundings:
        return Surroundings(
            room=self._room,
            cleared=self._cleared,
            golden=self._golden,
            inflight=self._inflight,
            serving_others=lambda _name: self.others,
            on_restart=self._on_restart,
            on_forgiven=self.forgiven.append,
            on_transaction=self.transactions.append,
        )

    async def _room(self, spec: LaunchSpec) -> None:
        if self.no_room is not None:
            raise self.no_room
        if self.engines is not None:
            await room(spec, _no_gpus, engines=self.engines)

    async def _cleared(self, pids: Collection[int], _gpus: Sequence[str] | None, _deadline_s: float) -> str | None:
        self.cleared.append(tuple(pids))
        return self.holds

    async def _golden(self, engine: str) -> CanaryReading:
        if self.outcome is not CanaryOutcome.OK:
            return CanaryReading(engine=engine, outcome=self.outcome, seconds=0.1)
        sha = sha256(self.output.encode()).hexdigest()
        return CanaryReading(engine=engine, outcome=self.outcome, seconds=0.1, output=self.output, output_sha256=sha)

    def _inflight(self, _name: str) -> Inflight | None:
        self.reads += 1
        return None if self.requests is None else Inflight(self.requests, float(self.reads))

    async def _on_restart(self, restart: Restart) -> None:
        if self.unwritable is not None:
            raise self.unwritable
        self.restarts.append(restart)


async def _no_gpus() -> GpuReading:
    return GpuReading(outcome=Outcome.NO_DATA)


@asynccontextmanager
async def supervised(herd: Herd, around: Around, *specs: LaunchSpec, **options: Any) -> AsyncIterator[Supervisor]:
    supervisor = herd.supervisor(
        *specs, around=around.surroundings(), restarts=around.restarts, **({"budget": QUICK} | options)
    )
    await supervisor.adopt_all()
    try:
        yield supervisor
    finally:
        await supervisor.close()


def spec(herd: Herd, name: str = "a", mode: str = "serve", value: object = None, **changes: Any) -> LaunchSpec:
    value = free_port() if value is None else value
    return herd.spec(name, mode, value, **({"restart": "on-failure", "stop_timeout_s": 1.0} | changes))


async def until(supervisor: Supervisor, state: EngineState, name: str = "a") -> LifeView:
    await wait_until_async(lambda: supervisor.life(name).state is state, what=f"{name} {state}")
    return supervisor.life(name)


def steps(life: LifeView) -> list[tuple[str, str | None]]:
    return [(step.name, step.outcome) for step in life.steps]


def stall(engine: str = "a", *, confirmed: bool = True, detector: str = "stall") -> FindingChange:
    finding = Finding(detector=detector, engine=engine, summary="12 running, no step for 9 s", since=0.0)
    return FindingChange(t=0.0, finding=msgspec.structs.replace(finding, confirmed=confirmed), open=True)
