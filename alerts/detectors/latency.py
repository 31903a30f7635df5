"""Tokens or prompts that take longer than the load explains, compared with the engine's own past under like load.

What is normal is learnt as a function of batch, context and prefill, and stays known over restarts, upgrades and
changes of configuration, so that these are compared. Load that was never seen is learnt, not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import exp
from statistics import fmean
from typing import Annotated, NamedTuple

from msgspec import Meta
from msgspec.structs import replace

from alerts.base import Detector, Learning, Observation, Step, check_seconds, unread
from alerts.company import Company
from alerts.engine_work import Account, Work, lacking, take
from alerts.load_model import STEEPER, LoadModel
from alerts.regression import Rules, Took, Watch
from opsboard.core.clock import Now
from opsboard.core.judgement import Unknown
from opsboard.core.lives import SERVES
from opsboard.core.model import EngineState, EngineView, Event, Finding, Outcome, Record

_WARM_STEPS = 1000.0
"""A life that was at work for so many steps when first seen has compiled what it compiles."""
_NEAR_S = 120.0
"""An event this close to the beginning is told beside it."""
_EVENTS = 8
_CONCLUDED = frozenset({
    "latency", "stall", "engine_down", "kv_leak", "memory_leak", "gpu_memory_leak", "preemption_storm",
    "throughput_collapse", "output_drift", "slo_burn", "detector_broken",
})  # fmt: skip
_BLIND_S = 15.0
"""Work that could not be compared for so long is told."""
_UNLIKE = "the load is like none that was seen before, and is learnt first"
_FIRST_S = 15.0
"""What is too slow from its first moments on was so since the start."""
_MORE_PROMPTS = 0.5
"""More prefill on average is more steps that have some, each of a size that was seen: hardly steeper beyond."""
_PROMPTS_AT_ONCE_S = 15.0
_SURE_S = 30.0


class Params(Record, frozen=True, kw_only=True):
    """Seconds are seconds at work; idle ones do not count."""

    tolerance: Annotated[
        float, Meta(ge=0.02, le=1, description="token latency may be this share above what the load explains")
    ] = 0.08
    prefill_tolerance: Annotated[float, Meta(ge=0.05, le=2, description="and the time that prompts take, this")] = 0.25
    patience_s: Annotated[
        float,
        Meta(description="twice the tolerance is claimed after this long, more sooner, less later; at least 1s"),
    ] = 30.0
    settle_s: Annotated[
        float, Meta(description="after a start or waking so much work is not looked at: it compiles and warms up")
    ] = 20.0
    learn_s: Annotated[float, Meta(description="so much work is learnt before anything is judged; at least 1s")] = 45.0
    memory_s: Annotated[
        float,
        Meta(description="what was learnt fades over this time; what creeps in more slowly is not found; at least 1s"),
    ] = 86_400.0
    adopt_s: Annotated[
        float, Meta(description="a change that has lasted so long is the new normal, and its finding closes")
    ] = 7 * 86_400.0
    gap_s: Annotated[float, Meta(description="pages farther apart say nothing about the time between")] = 20.0

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense."""
        check_seconds(self, ("patience", "learn", "memory"))


class Identity(NamedTuple):
    """What makes lives alike. A change is compared with what was before; another model is not."""

    model: str | None
    version: str | None
    config: Mapping[str, str]
    process_start: float | None


class Change(Record, frozen=True, kw_only=True):
    """How a life differs from the one before. Wall and monotonic seconds of its first page."""

    wall: float
    mono: float
    what: str
    """``restart``, ``upgrade``, ``configuration``, or ``waking`` of the same process."""
    text: str


class State(Record, frozen=True, kw_only=True):
    """What is remembered of an engine over its lives."""

    params: Params
    tokens: Watch
    prompts: Watch
    account: Account = Account()
    company: Company = Company()
    identity: Identity | None = None
    before: Identity | None = None
    change: Change | None = None
    settled_s: float = 0.0
    events: tuple[Event, ...] = ()
    last: tuple[Work | None, Work | None] = (None, None)
    claim: Finding | None = None


def begin(params: Params) -> State:
    """Know nothing."""
    tokens = Rules(
        tolerance=params.tolerance, patience_s=params.patience_s, learn_s=params.learn_s, memory_s=params.memory_s
    )
    prompts = replace(tokens, tolerance=params.prefill_tolerance, learn_s=2 * params.learn_s)
    return State(
        params=params,
        tokens=Watch(
            rules=tokens,
            model=LoadModel(
                grain=(1.0, 500.0, 8.0),
                knots=((4.0, 16.0, 48.0, 128.0), (), (128.0,)),
                steeper=(STEEPER, STEEPER, _MORE_PROMPTS),
            ),
        ),
        prompts=Watch(
            rules=prompts, model=LoadModel(grain=(50.0, 1.0, 8.0), knots=((1000.0, 8000.0), (32.0,), (128.0,)))
        ),
    )


def step(state: State, seen: Observation) -> Step:
    """Take in one observation."""
    if seen.events:
        state = replace(state, events=(*state.events, *_told(seen.events))[-_EVENTS:])
    reading = seen.reading
    if seen.life is not None and seen.life.state not in SERVES:
        if seen.life.state is EngineState.STOPPED and state.claim is not None:
            state = replace(state, tokens=state.tokens.dropped(), prompts=state.prompts.dropped(), claim=None)
        return Step(state, state.claim, unknown=unread(seen))
    if not seen.fresh or reading is None or reading.outcome is not Outcome.OK or reading.view is None:
        return Step(state, state.claim, unknown=_unknown(state, seen))
    if reading.view.asleep:
        return Step(replace(state, account=Account()), state.claim, unknown=unread(seen))
    state = _looked(state, reading.view, seen)
    return Step(state, state.claim, unknown=_unknown(state, seen))


def _told(events: Iterable[Event]) -> Iterable[Event]:
    """Leave out what was itself concluded from readings."""
    return (event for event in events if event.kind not in _CONCLUDED)


# --- what came ---


def _looked(state: State, view: EngineView, seen: Observation) -> State:
    before, now = state.account, seen.now
    taken = take(before, view, now.mono, state.params.gap_s)
    if taken.account is before:
        return state
    state = replace(state, account=taken.account)
    state = _born(state, view, now) if taken.born else _known(state, view)
    well = not (state.tokens.suspicious or state.prompts.suspicious)
    seconds = now.mono - before.at if before.meter is not None else 0.0
    state = replace(state, company=state.company.take(seen, view, seconds, well=well))
    if taken.tokens is not None or taken.prompts is not None:
        state = _judged(state, taken.tokens, taken.prompts, now.mono)
    return _claimed(state, seen)


def _born(state: State, view: EngineView, now: Now) -> State:
    """Another life, or the first that is seen: what is normal stays known unless it serves another model."""
    before, params = state.identity, state.params
    identity = _identity(view)
    if before is None:
        warm = view.counters.get("iterations", 0.0) >= _WARM_STEPS
        return replace(state, identity=identity, settled_s=params.settle_s if warm else 0.0)
    if _another_model(before, view):
        return replace(begin(params), account=state.account, identity=identity)
    return replace(
        state,
        tokens=state.tokens.again(),
        prompts=state.prompts.again(),
        identity=identity,
        before=before,
        change=_change(before, identity, now.wall, now.mono),
        settled_s=0.0,
    )


def _known(state: State, view: EngineView) -> State:
    """Versions and configurations may be told later than the first page of a life."""
    identity, before, change = state.identity, state.before, state.change
    if identity is not None and _another_model(identity, view):
        return replace(begin(state.params), account=state.account, identity=_identity(view))
    if identity is None or (view.version == identity.version and view.config == identity.config):
        return state
    identity = _identity(view)
    if before is not None and change is not None:
        change = _change(before, identity, change.wall, change.mono)
    return replace(state, identity=identity, change=change)


def _identity(view: EngineView) -> Identity:
    return Identity(view.model, view.version, view.config, view.process_start)


def _another_model(before: Identity, view: EngineView) -> bool:
    return bool(before.model and view.model and before.model != view.model)


def _change(before: Identity, after: Identity, wall: float, mono: float) -> Change:
    """Return what is different since another life began."""
    if before.version and after.version and before.version != after.version:
        return Change(
            wall=wall, mono=mono, what="upgrade", text=f"the change from version {before.version} to {after.version}"
        )
    keys = sorted(key for key in before.config.keys() & after.config.keys() if before.config[key] != after.config[key])
    if keys:
        told = ", ".join(f"{key} {before.config[key]} → {after.config[key]}" for key in keys[:2])
        text = f"the change of configuration ({told})"
        return Change(wall=wall, mono=mono, what="configuration", text=text)
    if before.process_start is not None and before.process_start == after.process_start:
        return Change(wall=wall, mono=mono, what="waking", text="it woke up")
    return Change(wall=wall, mono=mono, what="restart", text="the restart")


def _judged(state: State, tokens: Work | None, prompts: Work | None, mono: float) -> State:
    if state.settled_s < state.params.settle_s:
        return replace(state, settled_s=state.settled_s + (0.0 if tokens is None else tokens.busy_s))
    watch, other = state.tokens, state.prompts
    if tokens is not None:
        loads = (tokens.batch, tokens.context, tokens.prefill)
        watch = watch.take(Took(loads, tokens.token_s, tokens.busy_s, mono))
    if prompts is not None:
        loads = (prompts.prefill_tokens / prompts.finished, prompts.batch, prompts.prefill)
        work_s = min(prompts.seconds, _PROMPTS_AT_ONCE_S)
        other = other.take(Took(loads, prompts.prefill_s / prompts.finished, work_s, mono))
    adopt_s = state.params.adopt_s
    fresh = begin(state.params)
    if watch.opened is not None and mono - watch.opened > adopt_s:
        watch = fresh.tokens
    if other.opened is not None and mono - other.opened > adopt_s:
        other = fresh.prompts
    return replace(state, tokens=watch, prompts=other, last=(tokens or state.last[0], prompts or state.last[1]))


# --- what follows ---


def _unknown(state: State, seen: Observation) -> Unknown | None:
    """Return why it cannot tell whether tokens take too long: prompts may be compared later, or never."""
    why = unread(seen)
    if why is not None or seen.reading is None or seen.reading.view is None:
        return why
    view, watch = seen.reading.view, state.tokens
    if (state.account.meter is None or state.account.view is not view) and (lacks := lacking(view)):
        return lacks
    if not watch.ready:
        return Learning(watch.trained_s, watch.rules.learn_s)
    blind = watch.blind_s >= _BLIND_S and watch.trained_s >= watch.rules.learn_s + _BLIND_S
    return _UNLIKE if blind and view.running else None


def _claimed(state: State, seen: Observation) -> State:
    watch = state.tokens if state.tokens.opened is not None else state.prompts
    if watch.opened is None:
        return replace(state, claim=None) if state.claim else state
    return replace(state, claim=_finding(state, watch, seen))


def _finding(state: State, watch: Watch, seen: Observation) -> Finding:
    now, prefill = seen.now, watch is state.prompts
    began = _beginning(state, watch, now)
    causes = state.company.moved(watch.since)
    work = state.last[1] if prefill else state.last[0]
    if work is None or watch.opened is None:
        raise AssertionError("a claim needs work that was judged")
    seconds = work.prefill_s / work.finished if prefill else work.token_s
    said = f"{'prompts' if prefill else 'tokens'} take {watch.ratio - 1:.0%} longer than this load explains"
    said += f" ({1e3 * seconds:.3g} ms instead of {1e3 * seconds / watch.ratio:.3g})"
    said += f", {began.beside}" if began.beside else ""
    said += f"; {causes[0].text}" if causes else ""
    lasted = now.mono - watch.opened >= _SURE_S and watch.level > watch.tolerance
    return Finding(
        detector="latency",
        engine=seen.engine,
        summary=said,
        since=began.since if state.claim is None else min(began.since, state.claim.since),
        confirmed=lasted or bool(causes) or began.changed or (state.claim is not None and state.claim.confirmed),
        evidence={
            "of": "prefill" if prefill else "token",
            "ratio": round(watch.ratio, 4),
            "tolerance": round(exp(watch.tolerance) - 1.0, 4),
            "seconds": seconds,
            "expected_s": seconds / watch.ratio,
            "batch": round(work.batch, 2),
            "context_tokens": round(work.context, 1),
            "prefill_tokens_per_step": round(work.prefill, 2),
            "learnt_s": round(watch.trained_s, 1),
            "cause": causes[0].name if causes else None,
            "causes": "; ".join(cause.text for cause in causes) or None,
            "event": began.kind,
            "version": None if state.identity is None else state.identity.version,
            "version_before": None if state.before is None else state.before.version,
        },
    )


class Beginning(NamedTuple):
    """When a claim began (Unix s), and what happened then: in words, and its kind."""

    since: float
    beside: str | None = None
    kind: str | None = None
    changed: bool = False
    """It began with another life."""


def _beginning(state: State, watch: Watch, now: Now) -> Beginning:
    since, change = now.wall - (now.mono - watch.since), state.change
    if change is not None and watch.first is not None and change.mono <= watch.since <= watch.first + _FIRST_S:
        return Beginning(change.wall, f"since {change.text}", change.what, changed=True)
    near = [event for event in state.events if abs(event.t - since) <= _NEAR_S]
    if not near:
        return Beginning(since)
    event = min(near, key=lambda event: abs(event.t - since))
    return Beginning(since, f"from about when: {event.text}", event.kind)


def measured(state: State, mono: float) -> dict[str, float]:
    """Return observed / expected over the last accounts, of what could be compared at ``mono``."""
    watches = (("latency_ratio", state.tokens), ("prefill_ratio", state.prompts))
    return {field: exp(fmean(watch.recent)) for field, watch in watches if watch.judged == mono and watch.recent}


DETECTOR = Detector(
    name="latency",
    severity="ticket",
    summary="tokens or prompts that take longer than the load explains",
    lasting=True,
    params=Params,
    begin=begin,
    step=step,
    measured=measured,
)
