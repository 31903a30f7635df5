"""An engine that throws requests back to its queue again and again, and computes them anew instead of finishing them.

Preemption is how vLLM lives with a full KV cache, so a rate alone is no fault: 7 % of the requests of a saturated one
are preempted, nearly all of them once. A storm is preemption without need, or one that costs what it should save.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from msgspec import Meta
from msgspec.structs import replace

from alerts.base import Detector, Learning, Observation, Step, unread
from alerts.token_level import SPAN_S, Past, Span, expected, lacking, learn, take
from opsboard.core.lives import SERVES
from opsboard.core.model import Finding, Outcome, Record

_KNOWN = 0.8
"""So much of the window has to be known."""


class Params(Record, frozen=True, kw_only=True):
    """Preemptions a finished request, unless it says otherwise."""

    window_s: Annotated[float, Meta(description="how far back is looked; at least 15s")] = 30.0
    least: Annotated[float, Meta(ge=1, description="preemptions in it, in most of its spans of 5 s")] = 10.0
    roomy: Annotated[float, Meta(gt=0, lt=1, description="KV use (0..1) below which nothing need be preempted")] = 0.6
    without_need: Annotated[float, Meta(gt=0, description="from here a storm where there is room all the time")] = 0.3
    costly: Annotated[float, Meta(gt=0, description="from here one where the cache is full, if it also costs")] = 1.0
    cost: Annotated[
        float, Meta(gt=0, lt=1, description="that is: fewer tokens than this part of what it gave with as many running")
    ] = 0.6
    alone: Annotated[float, Meta(gt=0, description="from here one, whatever it costs")] = 8.0

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense together."""
        if self.window_s < 3 * SPAN_S:
            raise ValueError(f"`window`: expected at least {3 * SPAN_S:g}s")


class Seen(NamedTuple):
    """One span, and what part of its level it gave; None: no level is known."""

    ended: float
    """Monotonic seconds."""
    span: Span
    part: float | None


class State(Record, frozen=True, kw_only=True):
    """What is remembered of one life."""

    params: Params
    past: Past = Past()
    spans: tuple[Seen, ...] = ()
    claim: Finding | None = None


def begin(params: Params) -> State:
    """Know nothing."""
    return State(params=params)


def step(state: State, seen: Observation) -> Step:
    """Take in one observation."""
    if seen.life is not None and seen.life.state not in SERVES:
        return Step(State(params=state.params), unknown=unread(seen))
    if not seen.fresh or seen.reading is None:
        return _said(state, seen)
    if seen.reading.outcome is not Outcome.OK or seen.reading.view is None:
        return _said(state, seen)
    past, span, broken, gap = take(state.past, seen.reading.view, seen.now.mono)
    if broken:  # a claim outlasts a time that nobody saw, until enough is known again
        return _said(State(params=state.params, past=past, claim=state.claim if gap else None), seen)
    if span is None:
        return _said(replace(state, past=past), seen)
    level = expected(past, span)
    part = None if level is None else span.rate / level.rate
    kept = [one for one in state.spans if seen.now.mono - one.ended < state.params.window_s - span.seconds / 2]
    spans = (*kept, Seen(seen.now.mono, span, part))
    claim = _claim(state, spans, seen)
    return _said(State(params=state.params, past=learn(past, span), spans=spans, claim=claim), seen)


def _said(state: State, seen: Observation) -> Step:
    """Return what is claimed, or why nothing can be."""
    needed_s = _KNOWN * state.params.window_s
    known_s = sum([one.span.seconds for one in state.spans])
    if known_s >= needed_s:
        return Step(state, state.claim, unknown=unread(seen))
    why = unread(seen)
    if why is None and state.past.meter is None and seen.reading is not None and seen.reading.view is not None:
        why = lacking(seen.reading.view)
    return Step(state, state.claim, unknown=why or Learning(known_s, needed_s, "s of pages"))


def _claim(state: State, spans: tuple[Seen, ...], seen: Observation) -> Finding | None:
    params = state.params
    preempted = sum(one.span.preempted for one in spans)
    finished = sum(one.span.finished for one in spans)
    stormy = [one for one in spans if one.span.preempted > 0]
    known_s = sum(one.span.seconds for one in spans)
    if known_s < _KNOWN * params.window_s:
        return state.claim
    if preempted < params.least or 3 * len(stormy) < 2 * len(spans):
        return None
    each, usage = preempted / max(finished, 1.0), max(one.span.usage for one in spans)
    parts = [one.part for one in spans if one.part is not None]
    part = sum(parts) / len(parts) if len(parts) * 2 >= len(spans) else None
    ease = 0.8 if state.claim is not None else 1.0  # what stands is not taken back for a little less
    needless = usage < params.roomy and each >= ease * params.without_need
    costly = each >= ease * params.costly and part is not None and part < params.cost / ease
    if not (needless or costly or each >= ease * params.alone):
        return None
    why = "without_need" if needless else "costly" if costly else "many"
    began_s = seen.now.mono - stormy[0].ended + stormy[0].span.seconds
    counted = f"{preempted:.0f} preemptions in {known_s:.0f} s while {finished:.0f} requests finished"
    return Finding(
        detector="preemption_storm",
        engine=seen.engine,
        summary=f"{counted}{_so(why, usage, part)}",
        since=seen.now.wall - began_s if state.claim is None else state.claim.since,
        confirmed=True,
        evidence={
            "predicate": why,
            "preemptions": preempted,
            "finished": finished,
            "preemptions_per_finished": round(each, 3),
            "window_s": round(known_s, 3),
            "kv_usage_highest": round(usage, 4),
            "tokens_per_s": round(sum(one.span.generated for one in spans) / known_s, 1),
            "part_of_own_level": None if part is None else round(part, 3),
            "running": round(spans[-1].span.running, 2),
            "waiting": spans[-1].span.waiting,
        },
    )


def _so(why: str, usage: float, part: float | None) -> str:
    if why == "without_need":
        return f", although its KV cache was never more than {100 * usage:.0f} % full"
    if why == "costly" and part is not None:
        return f": it gives {100 * part:.0f} % of the tokens that it gave with as many running"
    return ": it computes the same requests over and over"


DETECTOR = Detector(
    name="preemption_storm",
    severity="page",
    summary="an engine that preempts without need, or so often that it hardly gets on",
    params=Params,
    begin=begin,
    step=step,
)
