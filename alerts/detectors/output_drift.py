"""An engine whose greedy answer to a fixed question is not what it was: damaged weights, a broken kernel.

Supervision asks after every start and says on the timeline what it found; a recording may hold the answers themselves.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from alerts.base import Detector, Learning, Observation, Off, Step
from opsboard.core.judgement import Unknown
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineState,
    EngineView,
    Event,
    Finding,
    LifeView,
    Record,
    Severity,
)

ACCEPTED = "golden_accepted"
"""What supervision tells when a person has taken the new answer as the right one."""
_CANARY, _OK = "canary", "ok"
_NOBODY_ASKS = Off("it is asked the fixed question only after starts of opsboard's own")
_KEPT = 4
"""Builds of which the golden answer is remembered."""
_SHOWN = 12


class Params(Record, frozen=True, kw_only=True):
    """Answers in a row. They count where readings bring them."""

    agree: Annotated[int, Meta(ge=1, description="equal answers that make the golden one")] = 2
    differ: Annotated[int, Meta(ge=1, description="other answers of an engine that does nothing else")] = 2
    differ_busy: Annotated[
        int, Meta(ge=1, description="and of one that does: what is batched with others may be rounded apart")
    ] = 4


class Build(Record, frozen=True, kw_only=True):
    """What has to be the same for answers to be comparable, and what the answer is."""

    key: tuple[str, ...]
    answer: str | None = None
    """The golden one; None: not enough equal ones yet."""
    last: str = ""
    equal: int = 0
    """How often the last one came in a row."""


class State(Record, frozen=True, kw_only=True):
    """What is remembered, over all lives of the engine."""

    params: Params
    builds: tuple[Build, ...] = ()
    """The newest last."""
    others: int = 0
    """Answers in a row that are not the golden one; of them ``idle`` came while nothing else ran."""
    idle: int = 0
    began: float = 0.0
    """When (Unix s) the first of them came."""
    claim: Finding | None = None
    told: bool = False
    """The claim is supervision's."""


def begin(params: Params) -> State:
    """Know nothing."""
    return State(params=params)


def step(state: State, seen: Observation) -> Step:
    """Take in one observation."""
    for event in seen.events:
        if event.subject == f"engine/{seen.engine}":
            state = _heard(state, event, seen.engine)
    if seen.life is not None and state.claim is not None and _over(seen.life, state.claim):
        state = replace(state, claim=None, told=False, others=0, idle=0)
    if seen.canary is not None:
        state = _answered(state, seen.canary, seen)
    return Step(state, state.claim, unknown=_unknown(state, seen))


def _unknown(state: State, seen: Observation) -> Unknown | None:
    """Return why no answers are compared. Those after starts of opsboard's own are supervision's."""
    if not state.builds:
        return None if seen.life is not None and seen.life.supervised else _NOBODY_ASKS
    build = state.builds[-1]
    return None if build.answer is not None else Learning(build.equal, state.params.agree, "equal answers")


# --- what supervision says ---


def _heard(state: State, event: Event, engine: str) -> State:
    if event.kind == ACCEPTED:
        return State(params=state.params)
    if event.kind != DETECTOR.name:
        return state
    sure = event.severity is Severity.ERROR
    finding = Finding(
        detector=DETECTOR.name,
        engine=engine,
        summary=event.text,
        since=event.t if state.claim is None else state.claim.since,
        confirmed=sure,
        evidence={"source": "after its start", "requests_under_way": not sure},
    )
    return replace(state, claim=finding, told=True)


def _over(life: LifeView, claim: Finding) -> bool:
    """Tell whether it was proven since, or stopped: then it gives no answers."""
    if life.state is EngineState.STOPPED:
        return True
    return any(one.name == _CANARY and one.outcome == _OK and one.started >= claim.since for one in life.steps)


# --- what it answers ---


def _answered(state: State, canary: CanaryReading, seen: Observation) -> State:
    """Take in an answer; only one that can be compared says anything."""
    view = None if seen.reading is None else seen.reading.view
    if canary.outcome is not CanaryOutcome.OK or canary.output_sha256 is None or view is None:
        return state
    params, said, key = state.params, canary.output_sha256, _key(view, canary)
    build = next((one for one in state.builds if one.key == key), Build(key=key))
    build = replace(build, last=said, equal=build.equal + 1 if said == build.last else 1)
    if build.answer is None and build.equal >= params.agree:
        build = replace(build, answer=said)
    others = tuple(one for one in state.builds if one.key != key)
    if not state.builds or state.builds[-1].key != key:  # another engine now: what the old one said is no drift of it
        state = replace(state, others=0, idle=0, claim=state.claim if state.told else None)
    state = replace(state, builds=(*others, build)[-_KEPT:])
    if build.answer is None:
        return state
    if said == build.answer:
        return replace(state, others=0, idle=0, claim=None, told=False)
    alone = view.running is not None and view.running <= 1
    began = seen.now.wall if state.others == 0 else state.began
    state = replace(state, others=state.others + 1, idle=state.idle + alone, began=began)
    sure = state.idle >= params.differ or state.others >= params.differ_busy
    if not sure or state.told:
        return state
    return replace(state, claim=_finding(state, build, canary, view, seen.engine))


def _key(view: EngineView, canary: CanaryReading) -> tuple[str, ...]:
    config = (f"{name}={value}" for name, value in sorted(view.config.items()))
    return (view.model or "", canary.version or view.version or "", *config)


def _finding(state: State, build: Build, canary: CanaryReading, view: EngineView, engine: str) -> Finding:
    golden, said = build.answer or "", canary.output_sha256 or ""
    return Finding(
        detector=DETECTOR.name,
        engine=engine,
        summary=(
            f"its answer to a fixed question has changed: the last {state.others} are not the golden one "
            f"({said[:_SHOWN]} instead of {golden[:_SHOWN]}), with the same model, version and configuration"
        ),
        since=state.began,
        confirmed=True,
        evidence={
            "source": "its answers",
            "answers_that_differ": float(state.others),
            "while_nothing_else_ran": float(state.idle),
            "golden_sha256": golden,
            "output_sha256": said,
            "model": view.model,
            "version": canary.version or view.version,
            "canary_s": canary.seconds,
        },
    )


DETECTOR = Detector(
    name="output_drift",
    severity="page",
    summary="an engine whose greedy answer to a fixed question is not what it was",
    lasting=True,
    params=Params,
    begin=begin,
    step=step,
)
