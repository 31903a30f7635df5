"""An engine that gives less than half of what it gave with as many requests running, while others wait.

Not the load: that is what its level is for (alerts/token_level.py). Nor a hang: an engine that gives nothing is a
stall's matter.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from msgspec import Meta
from msgspec.structs import replace

from alerts.base import Detector, Learning, Observation, Step, check_seconds, unread
from alerts.token_level import LEAST, SPAN_S, Level, Past, Span, expected, lacking, learn, take
from opsboard.core.judgement import Unknown
from opsboard.core.lives import SERVES
from opsboard.core.model import Finding, Outcome, Record

_UNLIKE = "requests wait under a load that was not seen before"


_UNLIKE_S = 600.0
"""A claim is dropped when the load has been another one for so long: nobody knows whether it is true."""


class Params(Record, frozen=True, kw_only=True):
    """Parts of what it gave before, 0..1, and seconds."""

    collapsed: Annotated[float, Meta(gt=0, lt=1, description="less than this is a collapse")] = 0.5
    recovered: Annotated[float, Meta(gt=0, lt=1, description="from here it is over")] = 0.7
    after_s: Annotated[float, Meta(description="so long it has to last, in spans of 5 s")] = 15.0
    calm_s: Annotated[float, Meta(description="and so long it has to be over, or nobody to wait")] = 15.0

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense together."""
        check_seconds(self, ("after", "calm"))
        if self.recovered < self.collapsed:
            raise ValueError(f"`recovered` ({self.recovered:g}) must not be less than `collapsed` ({self.collapsed:g})")


class Low(NamedTuple):
    """A span in which it gave too little."""

    span: Span
    level: Level


class State(Record, frozen=True, kw_only=True):
    """What is remembered of one life."""

    params: Params
    past: Past = Past()
    low_s: float = 0.0
    """How long it has given too little, without a break."""
    calm_s: float = 0.0
    """How long nothing has been wrong."""
    began: float = 0.0
    """When (Unix s) it gave too little first."""
    unlike: bool = False
    """Requests wait under a load for which no level is known."""
    unlike_s: float = 0.0
    """For how long they do, while a collapse is claimed."""
    claim: Finding | None = None


def begin(params: Params) -> State:
    """Know nothing."""
    return State(params=params)


def step(state: State, seen: Observation) -> Step:
    """Take in one observation."""
    if seen.life is not None and seen.life.state not in SERVES:
        return Step(State(params=state.params), unknown=unread(seen))
    if not seen.fresh or seen.reading is None or seen.reading.outcome is not Outcome.OK or seen.reading.view is None:
        return Step(state, state.claim, unknown=_unknown(state, seen))
    past, span, broken, gap = take(state.past, seen.reading.view, seen.now.mono)
    if broken:  # a claim outlasts a time that nobody saw
        claim, began = (state.claim, state.began) if gap else (None, 0.0)
        state = State(params=state.params, past=past, claim=claim, began=began)
        return Step(state, claim, unknown=_unknown(state, seen))
    state = replace(state, past=past)
    if span is not None:
        state = _judged(state, span, seen)
    return Step(state, state.claim, unknown=_unknown(state, seen))


def _unknown(state: State, seen: Observation) -> Unknown | None:
    """Return why it cannot be told what it should give."""
    why = unread(seen)
    if why is None and state.past.meter is None and seen.reading is not None and seen.reading.view is not None:
        why = lacking(seen.reading.view)
    if why is not None:
        return why
    most = max([level.spans for _, level in state.past.levels], default=0)
    if most < LEAST:
        return Learning(most * SPAN_S, LEAST * SPAN_S, "s with requests running")
    return _UNLIKE if state.unlike else None


def _judged(state: State, span: Span, seen: Observation) -> State:
    """Take in a span. One without anybody who waits, or without progress, says nothing of what could be given."""
    params, level = state.params, expected(state.past, span)
    wanted = span.waiting >= 1.0 and span.running >= 1.0
    if state.unlike is not (unlike := wanted and level is None):
        state = replace(state, unlike=unlike)
    if wanted and span.generated <= 0.0:
        return replace(state, low_s=0.0)  # a stall's matter; it does not say that a collapse is over
    if (
        wanted
        and level is not None
        and span.rate < (params.recovered if state.claim else params.collapsed) * level.rate
    ):
        began = seen.now.wall - span.seconds if state.low_s == 0.0 and state.claim is None else state.began
        state = replace(state, low_s=state.low_s + span.seconds, calm_s=0.0, began=began)
        if state.claim is None and state.low_s < params.after_s - span.seconds / 2:
            return state
        return replace(state, claim=_finding(state, Low(span, level), seen))
    unlike_s = state.unlike_s + span.seconds if wanted and level is None else 0.0
    if state.claim is not None and 0.0 < unlike_s <= _UNLIKE_S:
        return replace(state, unlike_s=unlike_s)  # another load: not known
    state = replace(state, past=learn(state.past, span), low_s=0.0, calm_s=state.calm_s + span.seconds, unlike_s=0.0)
    over = unlike_s > _UNLIKE_S
    return replace(state, claim=None) if over or state.calm_s >= params.calm_s - span.seconds / 2 else state


def _finding(state: State, low: Low, seen: Observation) -> Finding:
    span, level = low
    part = span.rate / level.rate
    return Finding(
        detector="throughput_collapse",
        engine=seen.engine,
        summary=(
            f"it gives {span.rate:.0f} tokens a second with {span.running:.0f} requests running and "
            f"{span.waiting:.0f} waiting, {100 * part:.0f} % of the {level.rate:.0f} that its past lets expect"
        ),
        since=state.began,
        confirmed=True,
        evidence={
            "tokens_per_s": round(span.rate, 1),
            "own_level_tokens_per_s": round(level.rate, 1),
            "part_of_own_level": round(part, 3),
            "lasts_s": round(seen.now.wall - state.began, 1),
            "running": round(span.running, 2),
            "waiting": span.waiting,
            "prompt_tokens_per_s": round(span.prompts, 1),
            "own_level_prompt_tokens_per_s": round(level.prompts, 1),
            "kv_usage_highest": round(span.usage, 4),
            "preemptions": span.preempted,
        },
    )


DETECTOR = Detector(
    name="throughput_collapse",
    severity="page",
    summary="an engine that gives less than half of the tokens it gave with as many running, while others wait",
    params=Params,
    begin=begin,
    step=step,
)
