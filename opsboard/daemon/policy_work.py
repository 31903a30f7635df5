"""Carries out what policies decide: written down first, begun once, followed to its end, also over a crash.

A decision that is on disk and was not begun is taken up by the next daemon, if it still holds; whether it was begun is
told by supervision's own record of the restart, which is there before anything is done (``transaction.json``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol

from msgspec.structs import replace

from alerts.incidents import Change, Incidents
from alerts.policy import Deed
from opsboard.core.clock import Clock, Now
from opsboard.core.errors import NotFound, OpsboardError, StoreError
from opsboard.core.incidents import Incident, IncidentAction
from opsboard.core.model import EngineState, LifeView, Transaction
from opsboard.core.policy_runs import PolicyRun
from opsboard.core.text import sanitise
from opsboard.daemon.supervising import heed
from opsboard.store.state import AuditEntry

log = logging.getLogger("opsboard.daemon")

REFUSED = "refused"
WRITE_S = 5.0
"""How long a decision waits for the disk; what is not on it is not carried out."""
BEGIN_S = 120.0
"""How long supervision may take to find out whether a restart can be begun."""
OLD_S = 3600.0
"""What was decided longer ago and not begun is given up: by then somebody may have gone another way."""
SAME_LIFE_S = 2.0


class Hands(Protocol):
    """The supervisor."""

    @property
    def not_before(self) -> float:
        """Until then (monotonic s) automation only looks."""

    async def renew(self, name: str, reason: str) -> None:
        """Restart an engine by ourselves: drained, counted, never the last one of a route."""

    async def drain(self, name: str, reason: str) -> None:
        """Take an engine out of service and leave it running."""

    def life(self, name: str) -> LifeView:
        """Return what is known of an engine."""


class Records(Protocol):
    """What is asked of the store."""

    def policy_run(self, run: PolicyRun, incident: Incident | None) -> Future[None]:
        """Keep a decision, with its incident."""

    async def transactions(self, engine: str, limit: int = 20) -> list[Transaction]:
        """Return the newest restarts of an engine that are over."""

    def audit(self, entry: AuditEntry) -> Future[None]:
        """Remember what was done, and why."""


class PolicyWork:
    """All decisions that count, and those under way."""

    def __init__(
        self,
        clock: Clock,
        hands: Hands,
        records: Records,
        incidents: Incidents,
        *,
        carry: Callable[[Change], object],
        still: Callable[[PolicyRun], str | None],
    ) -> None:
        """``carry`` writes a changed incident down and tells of it; ``still`` says why a decision holds no more."""
        self._clock = clock
        self._hands = hands
        self._records = records
        self._incidents = incidents
        self._carry = carry
        self._still = still
        self._runs: dict[str, tuple[PolicyRun, float]] = {}
        """By id, with when each was decided (monotonic s)."""
        self._begun: set[str] = set()
        """Those that supervision took from this daemon."""
        self._refused: dict[str, float] = {}
        """When (monotonic s) what is to be done about an incident, by uid, was refused last."""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # --- what there is

    def deeds(self, but: str | None = None) -> list[Deed]:
        """Return what counts against cool-downs and budgets, and what is under way; all ``but`` one."""
        return [
            Deed(
                policy=run.policy,
                engine=run.engine,
                mono=mono,
                dry=run.dry,
                under_way=run.outcome is None,
                failed=run.outcome == "failed",
            )
            for run, mono in self._runs.values()
            if run.outcome != REFUSED and run.id != but
        ]

    def last(self, policy: str, incident: Incident) -> PolicyRun | None:
        """Return what a policy decided last about an incident."""
        runs = [run for run, _ in self._runs.values() if (run.policy, run.uid) == (policy, incident.uid)]
        return max(runs, key=lambda run: run.t, default=None)

    def refused_since(self, mono: float) -> frozenset[str]:
        """Return the incidents, by uid, about which something was refused after ``mono`` (monotonic s)."""
        self._refused = {uid: at for uid, at in self._refused.items() if at > mono}
        return frozenset(self._refused)

    def resume(self, runs: Iterable[PolicyRun]) -> None:
        """Go on with what earlier daemons decided. What is dated later than now is as old as it is young."""
        now = self._clock.now()
        self._runs.update({run.id: (run, now.mono - abs(now.wall - run.t)) for run in runs})

    def forget(self, before: float) -> None:
        """Forget what was over and decided ``before`` (monotonic s)."""
        self._runs = {run.id: (run, at) for run, at in self._runs.values() if run.outcome is None or at >= before}

    # --- what is done

    def begin(self, run: PolicyRun, incident: Incident, *, quiet: bool = False) -> None:
        """Carry a decision out; returns at once. ``quiet``: it was told before. One that is over is only kept."""
        now = self._clock.now()
        self._runs[run.id] = (run, now.mono)
        action = _action(run)
        would = f"policy {run.policy} would {' and '.join(run.do)} it now (dry run)"
        text = would if run.dry else f"policy {run.policy} decides: {', '.join(run.do)}"
        change = self._incidents.decide(incident, action, now, None if quiet else text)
        newest = incident if change is None else change.incident
        written = self._records.policy_run(run, newest)
        if change is not None:
            self._carry(change)
        if run.outcome is not None:
            heed(written)
        else:
            self._task(run.id, self._carry_out(run, written))

    async def look(self) -> None:
        """Follow what is under way."""
        for run, _ in list(self._runs.values()):
            if run.outcome is None and run.id not in self._tasks:
                await self._follow(run)

    async def close(self) -> None:
        """Let go; what was begun goes on, and the next daemon follows it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, run: PolicyRun, written: Future[None]) -> None:
        try:
            async with asyncio.timeout(WRITE_S):  # cancelled, it is taken back where it was not begun
                await asyncio.wrap_future(written)
        except TimeoutError:
            self._end(run, REFUSED, f"it cannot be written down: the disk has not taken it for {WRITE_S:g} s")
            return
        except StoreError as error:
            self._end(run, REFUSED, f"it cannot be written down: {error.message}")
            return
        await self._act(run)

    async def _act(self, run: PolicyRun) -> None:
        subject, action = f"engine/{run.engine}", f"policy {run.policy}: {', '.join(run.do)}"
        entry = AuditEntry(t=self._clock.now().wall, action=action, subject=subject, reason=run.reason)
        heed(self._records.audit(entry))
        try:
            async with asyncio.timeout(BEGIN_S):
                if run.kind == "restart":
                    await self._hands.renew(run.engine, run.reason)
                    self._begun.add(run.id)
                else:
                    await self._hands.drain(run.engine, run.reason)
                    self._end(run, "ok", "out of service")
        except TimeoutError:
            self._end(run, REFUSED, f"whether it can be begun is not known after {BEGIN_S:g} s")
        except OpsboardError as error:
            self._end(run, REFUSED, error.message)
        except Exception as error:
            log.exception("policy %s on engine %s", run.policy, run.engine)
            self._end(run, REFUSED, sanitise(repr(error), 200))

    async def _follow(self, run: PolicyRun) -> None:
        try:
            life = self._hands.life(run.engine)
        except NotFound:
            self._end(run, REFUSED, f"{run.engine} is not configured any more")
            return
        course = life.transaction
        if course is None or not _led_to(run, course):
            try:
                over = [one for one in await self._records.transactions(run.engine) if _led_to(run, one)]
            except StoreError:
                return
            course = over[-1] if over else None
        if course is not None:
            if course.outcome is not None:
                self._end(run, course.outcome, _last_word(course))
        elif run.id in self._begun:
            self._end(run, "aborted", "something else was done with it meanwhile")
        else:
            self._take_up(run, life, self._clock.now())

    def _take_up(self, run: PolicyRun, life: LifeView, now: Now) -> None:
        """Carry out what an earlier daemon decided and did not begin, where it still holds."""
        if run.kind == "drain" and life.state is EngineState.DRAINING:
            self._end(run, "ok", "out of service")
        elif abs(now.wall - run.t) > OLD_S:
            self._end(run, REFUSED, "it was not begun within an hour")
        elif (incident := self._incidents.find(run.incident)) is None or not incident.open:
            self._end(run, REFUSED, "the incident is over")
        elif now.mono < self._hands.not_before or life.state is not EngineState.READY:
            return
        elif run.life is not None and (life.started is None or abs(life.started - run.life) > SAME_LIFE_S):
            self._end(run, REFUSED, f"{run.engine} has begun a new life since")
        elif (why := self._still(run)) is not None:
            self._end(run, REFUSED, why)
        else:
            self._task(run.id, self._act(run))

    def _end(self, run: PolicyRun, outcome: str, text: str | None) -> None:
        now, before = self._clock.now(), self._runs.get(run.id)
        run = replace(run, ended=now.wall, outcome=outcome, text=text)
        self._runs[run.id] = (run, now.mono if before is None else before[1])
        self._begun.discard(run.id)
        if outcome == REFUSED:
            self._refused[run.uid] = now.mono
        incident = self._incidents.find(run.incident)
        change: Change | None = None
        # Of a restart that was begun, supervision has told the incident itself.
        if incident is not None and any(action.id == run.id for action in incident.actions):
            why = f": {text}" if text else ""
            told = f"policy {run.policy}: {run.kind} {outcome}{why}"
            known = any(entry.text == told for entry in incident.timeline)
            change = self._incidents.decide(incident, _action(run), now, None if known else told)
        heed(self._records.policy_run(run, None if change is None else change.incident))
        if change is not None:
            self._carry(change)

    def _task(self, id: str, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"policy:{id}")
        self._tasks[id] = task
        task.add_done_callback(lambda _done: self._tasks.pop(id, None))


def _action(run: PolicyRun) -> IncidentAction:
    reason = run.reason if run.outcome != REFUSED else f"{run.reason}; not begun: {run.text}"
    return IncidentAction(id=run.id, kind=run.kind, time=run.t, outcome=run.outcome, reason=reason)


def _led_to(run: PolicyRun, course: Transaction) -> bool:
    """Tell whether a restart is the one that was decided: its cause names policy, incident and numbers."""
    return course.cause == run.reason and course.id != run.before


def _last_word(course: Transaction) -> str | None:
    steps: Sequence[str | None] = [step.text for step in course.steps]
    return steps[-1] if steps else None
