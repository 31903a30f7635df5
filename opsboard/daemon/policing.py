"""Looks whether a policy is to act on an incident that is open, has it carried out, and tells what is not done and why.

The rules are `alerts/policy.py`, how it is done `policy_work.py`. Nothing here waits for an engine or a disk.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

from alerts.incidents import Change
from alerts.policy import Able, Scene, Verdict, judge, obstacle
from opsboard.config.schema import Policy
from opsboard.core.clock import Clock, Now
from opsboard.core.errors import NotFound
from opsboard.core.incidents import Incident, IncidentAction
from opsboard.core.model import EngineState, LifeView, Rolling
from opsboard.core.policy_runs import PolicyRun
from opsboard.core.text import sanitise
from opsboard.core.wire import RouteInfo
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.policy_work import REFUSED, Hands, PolicyWork, Records
from opsboard.store.store import StoreHealth
from opsboard.supervise.launch import LaunchSpec

POLICY_S = 1.0
"""How often it looks."""
AGAIN_S = 60.0
"""What supervision would not begin is tried again so often."""
KEPT_S = 31 * 86400.0
"""Longer than any window or cool-down that matters."""
SKIPPED = "skipped"
REASON_CHARS = 400
TOLD_MOST = 20
"""So many different reasons for not acting are told of a policy and an incident."""
_OVER_ALREADY = frozenset({"cooldown", "budget"})


class Supervision(Hands, Protocol):
    """The supervisor."""

    @property
    def specs(self) -> list[LaunchSpec]:
        """What would be started of each engine now."""


class Store(Records, Protocol):
    """What is asked of the store."""

    async def policy_runs(self, since: float) -> list[PolicyRun]:
        """Return those under way and those from ``since`` (Unix s) on."""


class Policing:
    """Looks every second. Changed only on the loop."""

    def __init__(
        self,
        clock: Clock,
        state: PipelineState,
        hands: Supervision,
        store: Store,
        *,
        policies: Callable[[], Sequence[Policy]],
        routes: Callable[[], Sequence[RouteInfo]],
        barred: Callable[[], str | None],
        carry: Callable[[Change], object],
    ) -> None:
        """``barred`` says why nothing may be done by itself now; ``carry`` takes a changed incident."""
        self._clock = clock
        self._state = state
        self._hands = hands
        self._policies = policies
        self._routes = routes
        self._barred = barred
        self._carry = carry
        self._work = PolicyWork(clock, hands, store, state.incidents, carry=carry, still=self._holds_no_more)
        self._stands: dict[str, float] = {}
        self._told: dict[tuple[str, str], set[str]] = {}

    async def look(self) -> None:
        """Follow what is under way, then decide."""
        await self._work.look()
        now = self._clock.now()
        if now.mono < self._hands.not_before or not self._state.incidents.open:
            self._stands = {}
            return
        self._work.forget(now.mono - KEPT_S)
        scene = self._scene(now)
        for verdict in judge(self._policies(), scene, now.mono):
            before = self._work.last(verdict.name, verdict.incident)
            refused = before is not None and before.outcome == REFUSED
            if verdict.why_not is not None:
                if before is None or refused or verdict.which not in _OVER_ALREADY:
                    self._not_done(verdict, now)
            else:
                self._decide(verdict, before if refused else None, now)

    def resume(self, runs: Iterable[PolicyRun]) -> None:
        """Go on with what earlier daemons decided."""
        self._work.resume(runs)

    async def close(self) -> None:
        """Let go of what is under way."""
        await self._work.close()

    def _scene(self, now: Now, but: str | None = None) -> Scene:
        incidents = self._state.incidents.open
        claimed = {one.uid for one in incidents if self._claimed(one)}
        self._stands = {uid: self._stands.get(uid, now.mono) for uid in claimed}
        waits = self._work.refused_since(now.mono - AGAIN_S)
        open_ = {one.uid for one in incidents}
        self._told = {key: told for key, told in self._told.items() if key[0] in open_}
        return Scene(
            incidents=incidents,
            stands={uid: since for uid, since in self._stands.items() if uid not in waits},
            engines=self._able(),
            routes=self._routes(),
            deeds=self._work.deeds(but),
            barred=self._barred(),
        )

    def _claimed(self, incident: Incident) -> bool:
        kind, _, engine = incident.subject.partition("/")
        return kind == "engine" and any(
            finding.detector == incident.detector for finding in self._state.judging.claims(engine)
        )

    def _able(self) -> dict[str, Able]:
        specs = {spec.name: spec for spec in self._hands.specs}
        found = {name: (track.state, specs.get(name)) for name, track in self._state.engines.items()}
        return {name: _able(name, spec, state) for name, (state, spec) in found.items() if state is not None}

    # --- what comes of it

    def _decide(self, verdict: Verdict, again: PolicyRun | None, now: Now) -> None:
        incident, dry = verdict.incident, verdict.policy.dry_run
        life = self._life(verdict.engine)
        about = f"{incident.detector} of {verdict.engine}: {incident.summary}"
        run = PolicyRun(
            id=uuid.uuid4().hex if again is None else again.id,
            policy=verdict.name,
            engine=verdict.engine,
            incident=incident.id,
            uid=incident.uid,
            t=now.wall,
            do=verdict.do,
            reason=sanitise(f"policy {verdict.name}, incident {incident.id}, {about}", REASON_CHARS),
            evidence=incident.evidence,
            life=None if life is None else life.started,
            before=None if life is None or life.transaction is None else life.transaction.id,
            ended=now.wall if dry else None,
            outcome="dry_run" if dry else None,
        )
        self._work.begin(run, incident, quiet=again is not None)

    def _not_done(self, verdict: Verdict, now: Now) -> None:
        """Tell why a policy does not act; the same is told once."""
        incident, why = self._state.incidents.find(verdict.incident.id), verdict.why_not or ""
        told = self._told.setdefault((verdict.incident.uid, verdict.name), set())
        # The rest moves: with the numbers, or with how others are just now.
        key = "eta" if verdict.which == "eta" else why.partition(" (")[0]
        if incident is None or key in told or len(told) >= TOLD_MOST:
            return
        told.add(key)
        name, reason = f"{incident.uid}/{verdict.name}", f"policy {verdict.name}: not done: {why}"
        if any(one.id == name and one.reason == reason for one in incident.actions):
            return  # an earlier daemon has told it
        do = verdict.do or verdict.policy.do
        kind = "restart" if "restart" in do else do[-1]
        action = IncidentAction(id=name, kind=kind, time=now.wall, outcome=SKIPPED, reason=reason)
        text = f"policy {verdict.name} holds back: {why}"
        change = self._state.incidents.decide(incident, action, now, text)
        if change is not None:
            self._carry(change)

    def _holds_no_more(self, run: PolicyRun) -> str | None:
        """Say why what an earlier daemon decided is not to be done any more; None: it is."""
        policy = next((one for one in self._policies() if one.name == run.policy), None)
        if policy is None or not set(run.do) <= set(policy.do):
            return "the policy is not what it was"
        if policy.dry_run:
            return "the policy is on a dry run now"
        return self._barred() or obstacle(policy, run.engine, self._scene(self._clock.now(), run.id))

    def _life(self, engine: str) -> LifeView | None:
        try:
            return self._hands.life(engine)
        except NotFound:
            return None


def _able(name: str, spec: LaunchSpec | None, state: EngineState) -> Able:
    """Return what may be done with an engine by itself."""
    if spec is None:
        why = f"{name} is observed: opsboard did not start it and cannot restart it"
        return Able(state=state, cannot=why)
    if spec.restart == "never":
        return Able(state=state, cannot=f'{name} has `restart = "never"`: opsboard restarts it only when asked')
    return Able(state=state, observed=spec.runner == "restart")


def barred(rolling: Rolling | None, health: StoreHealth) -> str | None:
    """Say why no policy acts now; None: nothing holds them back. ``rolling`` is the rolling restart under way."""
    if rolling is not None:
        return "a rolling restart is under way"
    return None if health.recorded else f"nothing can be written down: {health.message}"


async def open_policing(
    clock: Clock,
    state: PipelineState,
    hands: Supervision,
    store: Store,
    ending: AsyncExitStack,
    *,
    policies: Callable[[], Sequence[Policy]],
    routes: Callable[[], Sequence[RouteInfo]],
    barred: Callable[[], str | None],
    carry: Callable[[Change], object],
) -> Policing:
    """Go on with what the last daemon decided."""
    policing = Policing(clock, state, hands, store, policies=policies, routes=routes, barred=barred, carry=carry)
    policing.resume(await store.policy_runs(clock.now().wall - KEPT_S))
    ending.push_async_callback(policing.close)
    return policing
