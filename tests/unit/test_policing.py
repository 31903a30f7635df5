"""Policies at work: decided once, written before it is begun, followed to its end, told; also over a crash."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from alerts.incidents import Change, Claim
from opsboard.config.units import Seconds
from opsboard.core.clock import ManualClock
from opsboard.core.errors import Conflict, NotFound, StoreError
from opsboard.core.model import EngineState, Finding, LifeView, Transaction
from opsboard.daemon import policy_work
from opsboard.daemon.pipeline import EngineSpec, PipelineState
from opsboard.daemon.policing import AGAIN_S, KEPT_S, Policing, barred
from tests.support.in_loop import in_loop
from tests.support.kept_incidents import done
from tests.support.policed import READY, policy, route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opsboard.config.schema import Policy
    from opsboard.core.incidents import Incident, IncidentAction
    from opsboard.core.policy_runs import PolicyRun
    from opsboard.core.wire import RouteInfo
    from opsboard.store.state import AuditEntry

STARTED = 1_699_000_000.0


class Disk:
    """What outlives daemons, and the engine."""

    def __init__(self) -> None:
        self.runs: dict[str, PolicyRun] = {}
        self.incidents: dict[int, Incident] = {}
        self.audits: list[AuditEntry] = []
        self.over: list[Transaction] = []
        self.error: StoreError | None = None
        self.stuck = False
        self.life = LifeView(engine="a", state=READY, since=STARTED, supervised=True, started=STARTED)
        self.begun: list[str] = []
        self.refusal: Exception | None = None

    def policy_run(self, run: PolicyRun, incident: Incident | None) -> Future[None]:
        if self.stuck:
            return Future()
        if self.error is not None:
            failed: Future[None] = Future()
            failed.set_exception(self.error)
            return failed
        self.runs[run.id] = run
        if incident is not None:
            self.incidents[incident.id] = incident
        return done()

    async def policy_runs(self, since: float) -> list[PolicyRun]:
        return [run for run in self.runs.values() if run.t >= since]

    async def transactions(self, engine: str, limit: int = 20) -> list[Transaction]:
        assert (engine, limit) == ("a", 20)
        return self.over

    def audit(self, entry: AuditEntry) -> Future[None]:
        self.audits.append(entry)
        return done()


class House:
    """A daemon with engine a and its leak; ``disk`` is what the last one left."""

    def __init__(self, *policies: Policy, disk: Disk | None = None, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.disk = disk or Disk()
        self.policies: Sequence[Policy] = policies or (policy(),)
        self.routes: Sequence[RouteInfo] = (route(a=READY, b=READY),)
        self.barred: str | None = None
        self.not_before = float("-inf")
        self.specs: list[Any] = [SimpleNamespace(name="a", restart="on-failure", runner="shim")]
        self.told: list[str] = []
        self.state = PipelineState("h", [EngineSpec(name="a", supervised=True), EngineSpec(name="b")])
        self.state.engines["a"].state = READY
        kept = [one for one in self.disk.incidents.values() if one.open]
        self.state.incidents.resume(kept, {}, 1 + len(self.disk.incidents))
        self.policing = Policing(
            self.clock,
            self.state,
            self,
            self.disk,
            policies=lambda: self.policies,
            routes=lambda: self.routes,
            barred=lambda: self.barred,
            carry=self.carry,
        )
        self.policing.resume(self.disk.runs.values())

    def carry(self, change: Change) -> None:
        self.disk.incidents[change.incident.id] = change.incident
        self.told += [change.told] if change.told else []

    def life(self, name: str) -> LifeView:
        if name not in self.state.engines:
            raise NotFound(f"no engine is called {name}")
        return self.disk.life

    async def renew(self, name: str, reason: str) -> None:
        if self.disk.refusal is not None:
            raise self.disk.refusal
        self.disk.begun.append(name)
        now, number = self.clock.now().wall, len(self.disk.begun)
        self.course(Transaction(id=f"t{number}", engine=name, kind="restart", began=now, cause=reason))
        self.be(EngineState.DRAINING)

    async def drain(self, name: str, reason: str) -> None:
        assert reason
        self.disk.begun.append(f"drain {name}")
        self.be(EngineState.DRAINING)

    def course(self, transaction: Transaction | None) -> None:
        self.disk.life = LifeView(
            engine="a", state=READY, since=STARTED, supervised=True, started=STARTED, transaction=transaction
        )

    def be(self, state: EngineState) -> None:
        self.state.engines["a"].state = state

    def leak(self, *, claimed: bool = True) -> None:
        """Have an incident open, and claim it or not."""
        now, finding = self.clock.now(), Finding(detector="kv_leak", engine="a", summary="lost 9", since=0.0)
        claim = Claim(
            detector="kv_leak", subject="engine/a", severity="ticket", summary="lost 9", since=now.wall, confirmed=True
        )
        self.state.incidents.see("engine/a", [claim], now)
        self.state.judging._claims = {("a", "kv_leak"): finding} if claimed else {}

    async def look(self, seconds: float = 1.0) -> None:
        """Look once, and let what it begins be done."""
        self.clock.advance(seconds)
        await self.policing.look()
        for _ in range(6):
            await asyncio.sleep(0)

    def actions(self) -> list[IncidentAction]:
        found = self.state.incidents.find(1)
        assert found is not None
        return list(found.actions)

    def outcomes(self) -> list[str | None]:
        return [one.outcome for one in self.actions()]

    def runs(self) -> list[tuple[str | None, str | None]]:
        return [(run.outcome, run.text) for run in self.disk.runs.values()]


@in_loop
async def test_a_decision_is_written_begun_once_and_followed_to_its_end() -> None:
    house = House(policy(do=("reroute", "drain", "restart"), after=Seconds(5)))
    house.leak()
    await house.look()
    assert (house.disk.runs, house.told) == ({}, []), "too young"
    await house.look(5)
    (run,) = house.disk.runs.values()
    reason = "policy p, incident 1, kv_leak of a: lost 9"
    assert (run.do, run.reason, run.life, run.outcome) == (("drain", "restart"), reason, STARTED, None)
    assert house.disk.begun == ["a"]
    assert house.told == ["policy p decides: drain, restart"]
    assert [(one.action, one.subject, one.uid, one.reason) for one in house.disk.audits] == [
        ("policy p: drain, restart", "engine/a", None, reason)
    ]
    course = house.disk.life.transaction
    assert course is not None
    house.state.incidents.act(course, house.clock.now())
    await house.look()
    assert [(one.id, one.outcome) for one in house.actions()] == [("t1", None)], "one action, not two"
    ended = Transaction(id="t1", engine="a", kind="restart", began=course.began, cause=reason, outcome="ok")
    house.state.incidents.act(ended, house.clock.now())
    house.course(ended)
    house.be(READY)
    await house.look()
    assert house.runs() == [("ok", None)]
    assert house.outcomes() == ["ok"]
    for _ in range(3):
        await house.look(3600)
    assert house.disk.begun == ["a"], "the cool-down holds"
    await house.look(3 * 3600)
    assert house.disk.begun == ["a", "a"]


@in_loop
async def test_a_dry_run_only_tells_and_keeps_its_pace() -> None:
    house = House(policy(dry_run=True))
    house.leak()
    for _ in range(3):
        await house.look()
    assert house.told == ["policy p would drain and restart it now (dry run)"]
    assert (house.outcomes(), house.disk.begun, house.disk.audits) == (["dry_run"], [], [])
    assert house.runs() == [("dry_run", None)]
    await house.look(6 * 3600)
    assert house.outcomes() == ["dry_run", "dry_run"]
    house.policies = (policy(),)
    await house.look()
    assert house.disk.begun == ["a"], "what was dry holds nothing back"


@in_loop
async def test_what_is_not_done_is_told_once_with_its_reason() -> None:
    house = House()
    house.routes = ()
    house.leak()
    for _ in range(3):
        await house.look()
    text = "policy p holds back: a is of no route: nobody is known to stand in for it"
    assert [told.partition(" (`")[0] for told in house.told] == [text]
    ((kind, outcome, reason),) = [(one.kind, one.outcome, one.reason) for one in house.actions()]
    assert (kind, outcome) == ("restart", "skipped")
    assert (reason or "").startswith("policy p: not done: a is of no route")
    house.barred = "a rolling restart is under way"
    await house.look()
    assert house.told[-1] == "policy p holds back: a rolling restart is under way"
    assert house.outcomes() == ["skipped"], "the newest reason"
    again = House(disk=house.disk, clock=house.clock)
    again.barred = house.barred
    again.leak()
    await again.look()
    assert again.told == [], "the next daemon knows"
    again.barred = None
    await again.look()
    assert (again.disk.begun, again.outcomes()) == (["a"], ["skipped", None])


@in_loop
async def test_what_moves_with_the_numbers_is_told_once() -> None:
    house = House(policy(eta=Seconds(60)))
    house.leak()
    await house.look()
    await house.look()
    assert house.told == ["policy p holds back: how long it lasts is not known"]


@in_loop
async def test_what_supervision_refuses_is_tried_again_every_minute_and_told_once() -> None:
    house = House()
    house.disk.refusal = Conflict("restarted 5 times within 60 min, and 5 are allowed")
    house.leak()
    for _ in range(3):
        await house.look()
    refused = f"policy p: restart refused: {house.disk.refusal}"
    assert house.told == ["policy p decides: drain, restart", refused]
    assert house.outcomes() == ["refused"]
    assert (house.actions()[0].reason or "").endswith(f"; not begun: {house.disk.refusal}")
    await house.look(AGAIN_S)
    assert (len(house.disk.runs), len(house.told), len(house.disk.audits)) == (1, 2, 2), "the same decision"
    house.disk.refusal = None
    await house.look(AGAIN_S)
    assert (house.disk.begun, house.outcomes()) == (["a"], [None])
    house.disk.refusal = RuntimeError("odd")
    other = House()
    other.disk.refusal = RuntimeError("odd")
    other.leak()
    await other.look()
    assert other.runs() == [("refused", "RuntimeError('odd')")]


@in_loop
async def test_nothing_is_done_that_cannot_be_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    house.disk.error = StoreError("state.db: disk full")
    house.leak()
    await house.look()
    assert house.disk.begun == []
    assert house.told[-1] == "policy p: restart refused: it cannot be written down: state.db: disk full"
    monkeypatch.setattr(policy_work, "WRITE_S", 0.0)
    stuck = House()
    stuck.disk.stuck = True
    stuck.leak()
    await stuck.look()
    await asyncio.sleep(0.01)
    assert stuck.disk.begun == []
    assert "the disk has not taken it for 0 s" in stuck.told[-1]
    await stuck.policing.close()


@in_loop
async def test_a_drain_alone_leaves_it_out_of_service() -> None:
    house = House(policy(do=("drain",)))
    house.leak()
    await house.look()
    assert house.disk.begun == ["drain a"]
    assert house.runs() == [("ok", "out of service")]
    assert [(one.kind, one.outcome) for one in house.actions()] == [("drain", "ok")]


@in_loop
async def test_who_may_not_be_restarted_is_left() -> None:
    for specs, words in (
        ([], "a is observed: opsboard did not start it"),
        ([SimpleNamespace(name="a", restart="never", runner="shim")], 'a has `restart = "never"`'),
    ):
        house = House()
        house.specs = list(specs)
        house.leak()
        await house.look()
        assert words in house.told[0]


def test_a_rolling_restart_and_an_unwritable_disk_bar_policies() -> None:
    good: Any = SimpleNamespace(recorded=True, message=None)
    bad: Any = SimpleNamespace(recorded=False, message="disk full")
    assert barred(None, good) is None
    assert barred(None, bad) == "nothing can be written down: disk full"
    assert barred(SimpleNamespace(), good) == "a rolling restart is under way"  # type: ignore[arg-type]


# --- over a crash


async def decided(*, begun: bool) -> Disk:
    """Return what a daemon leaves that is killed after the decision, before or after supervision has heard of it."""
    house = House()
    house.leak()
    house.clock.advance(1)
    await house.policing.look()
    await house.policing.close()
    if begun:
        (run,) = house.disk.runs.values()
        house.disk.begun.append("a")
        house.course(Transaction(id="t", engine="a", kind="restart", began=0.0, cause=run.reason))
    assert house.runs() == [(None, None)]
    return house.disk


@in_loop
async def test_what_was_decided_and_not_begun_is_begun_once() -> None:
    disk = await decided(begun=False)
    assert disk.begun == []
    house = House(disk=disk)
    house.not_before = house.clock.now().mono + 30
    await house.look(29)
    assert disk.begun == [], "automation only looks for a while"
    house.be(EngineState.STARTING)
    disk.life = LifeView(engine="a", state=EngineState.STARTING, since=0.0, supervised=True)
    await house.look()
    assert disk.begun == [], "it is not looked at yet"
    house.course(None)
    house.be(READY)
    for _ in range(3):
        await house.look(10)
    assert disk.begun == ["a"], "without a claim, which takes its time: it was decided"
    assert len(disk.runs) == 1


@in_loop
async def test_what_was_begun_is_followed_and_not_begun_again() -> None:
    disk = await decided(begun=True)
    house = House(disk=disk)
    await house.look()
    assert (disk.begun, house.runs()) == (["a"], [(None, None)])
    (run,) = disk.runs.values()
    house.course(Transaction(id="t9", engine="a", kind="restart", began=0.0, cause="asked by hand"))
    disk.over = [Transaction(id="t", engine="a", kind="restart", began=0.0, cause=run.reason, outcome="failed")]
    await house.look()
    assert (disk.begun, house.runs(), house.outcomes()) == (["a"], [("failed", None)], ["failed"])


@in_loop
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda house: setattr(house, "policies", ()), "the policy is not what it was"),
        (lambda house: setattr(house, "policies", (policy(dry_run=True),)), "the policy is on a dry run now"),
        (lambda house: setattr(house, "routes", ()), "a is of no route"),
        (lambda house: setattr(house, "barred", "a rolling restart is under way"), "a rolling restart is under way"),
        (lambda house: house.clock.advance(3700), "it was not begun within an hour"),
        (lambda house: house.state.engines.pop("a"), "a is not configured any more"),
        (
            lambda house: setattr(
                house.disk,
                "life",
                LifeView(engine="a", state=READY, since=0.0, supervised=True, started=STARTED + 60),
            ),
            "a has begun a new life since",
        ),
        (lambda house: house.state.incidents.leave([], house.clock.now()), "the incident is over"),
    ],
)
async def test_what_does_not_hold_any_more_is_closed(change: Any, why: str) -> None:
    disk = await decided(begun=False)
    house = House(disk=disk)
    change(house)
    await house.look()
    ((outcome, text),) = house.runs()
    assert (outcome, disk.begun) == ("refused", [])
    assert why in (text or "")


@in_loop
async def test_what_comes_between_is_no_success_and_old_decisions_are_forgotten() -> None:
    house = House()
    house.leak()
    await house.look()
    house.course(Transaction(id="other", engine="a", kind="restart", began=0.0, cause="asked by hand"))
    await house.look()
    assert house.runs() == [("aborted", "something else was done with it meanwhile")]
    house.be(READY)
    await house.look(KEPT_S)
    assert house.disk.begun == ["a", "a"]


@in_loop
async def test_what_is_refused_holds_back_no_other() -> None:
    house = House()
    house.state.engines["b"].state = READY
    house.routes = (route(a=READY, b=READY, c=READY),)
    house.specs.append(SimpleNamespace(name="b", restart="on-failure", runner="shim"))
    house.disk.refusal = Conflict("a could not be started again")
    house.leak()
    await house.look()
    house.disk.refusal = None
    now = house.clock.now()
    claim = Claim(
        detector="kv_leak", subject="engine/b", severity="ticket", summary="lost 3", since=now.wall, confirmed=True
    )
    house.state.incidents.see("engine/b", [claim], now)
    finding = Finding(detector="kv_leak", engine="b", summary="lost 3", since=0.0)
    house.state.judging._claims = {**house.state.judging._claims, ("b", "kv_leak"): finding}
    await house.look()
    assert house.disk.begun == ["b"]
    assert not any("out of service" in told for told in house.told)
