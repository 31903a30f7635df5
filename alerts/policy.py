"""What opsboard may do by itself about incidents now, and why not: the rules of `[[policy]]`. Pure: no clock, no I/O.

Only what is claimed now, stands long enough and is not in a person's hands is acted on. Whatever is asked, no policy
acts on an engine that nobody can stand in for, on more than its `at_once` of a route, within its cool-down or beyond
its budget. What a verdict leads to counts for the next one of the same look.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from alerts.timeline import told_s
from opsboard.config.policies import NOT_BUILT, detectors_of
from opsboard.config.schema import Policy
from opsboard.core.incidents import Incident, Urgency
from opsboard.core.model import EngineState, Record
from opsboard.core.routes import last_target
from opsboard.core.wire import RouteInfo

LEFT = ("exhausted_in_s", "eta_s")
"""Where the evidence of a leak says how long what it uses up will last."""
AT_REST = frozenset({EngineState.STOPPED.value, EngineState.ASLEEP.value})
"""Targets that do not serve because nobody wants them to: they are not out of service."""
BROKEN = frozenset({EngineState.FAILED, EngineState.BACKING_OFF, EngineState.PARKED})
_LOUDNESS: dict[Urgency, int] = {"note": 0, "ticket": 1, "page": 2}
_PREFIX = "engine/"


class Deed(Record, frozen=True, kw_only=True):
    """What a policy did, or would have done where ``dry``: at ``mono`` (monotonic s)."""

    policy: str
    engine: str
    mono: float
    dry: bool = False
    under_way: bool = False
    failed: bool = False
    """It did not come back."""


class Able(Record, frozen=True, kw_only=True):
    """An engine as far as policies care; ``cannot``: why opsboard may do nothing with it by itself, None: it may."""

    state: EngineState
    cannot: str | None = None
    observed: bool = False
    """All that can be done with it is a restart, by its owner's command."""


class Scene(Record, frozen=True, kw_only=True):
    """All that counts besides the policies."""

    incidents: Sequence[Incident] = ()
    stands: Mapping[str, float] = {}
    """Since when (monotonic s) each open incident, by uid, has been claimed to this daemon; absent: it is not now."""
    engines: Mapping[str, Able] = {}
    routes: Sequence[RouteInfo] = ()
    deeds: Sequence[Deed] = ()
    """What was done within the longest window and cool-down, and what is under way."""
    barred: str | None = None
    """Why nothing is done by itself now."""

    @property
    def busy(self) -> frozenset[str]:
        """Engines on which some policy acts now."""
        return frozenset(deed.engine for deed in self.deeds if deed.under_way)


class Verdict(Record, frozen=True, kw_only=True):
    """What a policy that is for an incident says: act, where ``why_not`` is None."""

    policy: Policy
    incident: Incident
    engine: str
    do: tuple[str, ...]
    """Of what the policy says, what there is."""
    why_not: str | None = None
    which: str | None = None
    """Which rule holds it back, in one word."""

    @property
    def name(self) -> str:
        """The policy's."""
        return self.policy.name or ""


def judge(policies: Sequence[Policy], scene: Scene, mono: float) -> list[Verdict]:
    """Return what is to be done at ``mono`` (monotonic s), and what is not although a policy is for it.

    The first policy for an incident counts. What is only not ripe yet (suspected, too quiet, too young, an engine that
    is being worked on) is no verdict.
    """
    verdicts: list[Verdict] = []
    for incident in sorted(scene.incidents, key=_urgency):
        engine = incident.subject.removeprefix(_PREFIX)
        able = scene.engines.get(engine)
        policy = next((one for one in policies if concerns(one, incident, scene.routes)), None)
        if policy is None or able is None or not policy.do or not _ripe(policy, incident, scene, mono):
            continue
        if able.state is not EngineState.READY or engine in scene.busy:
            continue
        do = tuple(word for word in policy.do if word not in NOT_BUILT)
        meant = Verdict(policy=policy, incident=incident, engine=engine, do=do)
        which, why_not = next(_against(meant, scene, mono), (None, None))
        verdicts.append(replace(meant, which=which, why_not=why_not))
        if why_not is None:
            dry = policy.dry_run
            deed = Deed(policy=meant.name, engine=engine, mono=mono, dry=dry, under_way=not dry)
            scene = replace(scene, deeds=(*scene.deeds, deed))
    return verdicts


def concerns(policy: Policy, incident: Incident, routes: Iterable[RouteInfo]) -> bool:
    """Tell whether a policy is for an incident."""
    engine = incident.subject.removeprefix(_PREFIX)
    return (
        incident.subject.startswith(_PREFIX)
        and incident.detector in detectors_of(policy)
        and (policy.engines is None or engine in policy.engines)
        and (policy.routes is None or any(route.model in policy.routes for route in routes_of(engine, routes)))
    )


def routes_of(engine: str, routes: Iterable[RouteInfo]) -> list[RouteInfo]:
    """Return the routes that an engine is a target of."""
    return [route for route in routes if engine in {target.name for target in route.targets}]


def obstacle(policy: Policy, engine: str, scene: Scene) -> str | None:
    """Say what keeps an engine in service whatever is wrong with it; None: it may be taken out for a while.

    That nobody else serves what it serves, or that as many as may be are out of service already.
    """
    busy = scene.busy - {engine}
    own = [_without(route, busy) for route in routes_of(engine, scene.routes)]
    if not own and not policy.alone:
        return f"{engine} is of no route: nobody is known to stand in for it (`alone = true` would do it all the same)"
    last = last_target(engine, own)
    if last is not None:
        return last
    if not own:
        return _crowded("no route", [name for name in sorted(busy) if not routes_of(name, scene.routes)], policy)
    outs = ((route, [one.name for one in route.targets if one.name != engine and _is_out(one.state)]) for route in own)
    return next((said for route, out in outs if (said := _crowded(f"route {route.model}", out, policy))), None)


def _without(route: RouteInfo, busy: Collection[str]) -> RouteInfo:
    """Return a route as it will be when those that are worked on do not serve any more."""
    out = EngineState.DRAINING.value
    serving = {EngineState.READY.value}
    targets = (replace(one, state=out) if one.name in busy and one.state in serving else one for one in route.targets)
    return replace(route, targets=tuple(targets))


def _crowded(what: str, out: Sequence[str], policy: Policy) -> str | None:
    if len(out) < policy.at_once:
        return None
    return f"out of service of {what}: {', '.join(out)}; at most {policy.at_once} at once"


def _is_out(state: str) -> bool:
    return state != EngineState.READY.value and state not in AT_REST


def _ripe(policy: Policy, incident: Incident, scene: Scene, mono: float) -> bool:
    since = scene.stands.get(incident.uid)
    loud = _LOUDNESS[incident.severity] >= _LOUDNESS[policy.severity]
    sure = incident.confirmed or not policy.confirmed
    return since is not None and loud and sure and mono - since >= policy.after


def _against(meant: Verdict, scene: Scene, mono: float) -> Iterator[tuple[str, str]]:
    """Yield what speaks against it, what a person would name first first: a word for it, and a sentence."""
    yield from _in_the_case(meant, scene.engines[meant.engine])
    yield from _in_the_limits(meant, scene, mono)
    if scene.barred is not None:
        yield "barred", scene.barred
    taken = obstacle(meant.policy, meant.engine, scene)
    if taken is not None:
        yield "others", taken


def _in_the_case(meant: Verdict, able: Able) -> Iterator[tuple[str, str]]:
    incident, eta = meant.incident, meant.policy.eta
    if not meant.do:
        yield "not_built", "opsboard routes no requests yet"
    if incident.acknowledged is not None:
        yield "acknowledged", f"acknowledged by {incident.acknowledged_by}: left to them"
    if incident.flapping:
        yield "flapping", "it comes and goes"
    left = left_s(incident)
    if eta is not None and left is None:
        yield "eta", "how long it lasts is not known"
    elif eta is not None and left is not None and left >= eta:
        yield "eta", f"it lasts for {told_s(left)} more; less than {told_s(eta)} is waited for"
    if able.cannot is not None:
        yield "cannot", able.cannot
    if able.observed and "restart" not in meant.do:
        yield "cannot", f"{meant.engine} is observed: opsboard knows no way to drain it"


def _in_the_limits(meant: Verdict, scene: Scene, mono: float) -> Iterator[tuple[str, str]]:
    policy, engine = meant.policy, meant.engine
    # What would have been done counts for what would be done, and only for that.
    mine = [deed for deed in scene.deeds if deed.dry == policy.dry_run]
    last = max((deed for deed in mine if deed.engine == engine), key=lambda deed: deed.mono, default=None)
    if last is not None and mono - last.mono < policy.cooldown:
        yield "cooldown", f"policy {last.policy} acted on {engine} less than {told_s(policy.cooldown)} ago"
    spent = sum(deed.policy == meant.name and mono - deed.mono < policy.window for deed in mine)
    if spent >= policy.at_most:
        yield "budget", f"done {spent} times within {told_s(policy.window)}, and {policy.at_most} are allowed"
    for deed in scene.deeds:
        able = scene.engines.get(deed.engine)
        if deed.failed and able is not None and able.state in BROKEN:
            yield "failed", f"{deed.engine}, restarted by policy {deed.policy} before, did not come back"


def left_s(incident: Incident) -> float | None:
    """Return how long what leaks will last, in s; None where the evidence does not say."""
    known = (incident.evidence.get(name) for name in LEFT)
    return next((float(value) for value in known if isinstance(value, int | float)), None)


def _urgency(incident: Incident) -> tuple[int, float, int]:
    """Order incidents: the loudest first, of these the one that ends soonest."""
    left = left_s(incident)
    return -_LOUDNESS[incident.severity], float("inf") if left is None else left, incident.id
