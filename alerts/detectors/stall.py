"""An engine that has work and makes no progress, although its server answers.

Progress is an engine step, a token, a finished request. In a prefill none of them moves, but KV use, running or
waiting do. A suspicion asks for a canary of one token; only what that says, or a long time, makes it certain.
"""

from __future__ import annotations

from math import inf
from operator import attrgetter

from msgspec.structs import replace

from alerts.base import Detector, Observation, Step
from opsboard.core.clock import Now
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineState,
    EngineView,
    Finding,
    Outcome,
    Record,
)

PROGRESS = ("iterations", "generation_tokens", "prompt_tokens", "requests_finished")
_STIR = attrgetter("kv_usage", "running", "waiting")
_SERVES = frozenset({EngineState.READY, EngineState.DRAINING})
_BEING_MENDED = frozenset({EngineState.BACKING_OFF, EngineState.PARKED, EngineState.STOPPING, EngineState.STARTING})
_START_SLACK_S = 2.0
"""``process_start`` moves a little when the wall clock is slewed; a restart moves it by more."""


class Params(Record, frozen=True, kw_only=True):
    """Seconds, unless it says steps. They count time without progress while there is work."""

    suspect_s: float = 5.0
    """From here canaries are asked for. The longest seen in 1,400 s of a healthy real vLLM was under 1 s."""
    confirm_s: float = 10.0
    """With a canary that got no answer, from here it is certain: above any one step, and 15 s hold with a deadline of
    5 s. An engine that makes long pauses by itself gets twice its longest, up to ``alone_s``."""
    unheard_s: float = 12.0
    """Where no canary tells anything, from here it is claimed, unconfirmed."""
    alone_s: float = 120.0
    """And from here it is confirmed by its length alone. vLLM's own timeout is 300 s."""
    warm_steps: float = 100.0
    """A life with fewer steps may be compiling kernels for its first requests: that may take ``fresh_s``."""
    fresh_s: float = 300.0
    prefill_s: float = 300.0
    """Longer than this KV use may not move without a token: that is no prefill, it is a loop of preemptions."""
    gap_s: float = 20.0
    """Two pages farther apart say nothing about the time between: the machine may have slept."""
    again_s: float = 10.0
    """Between two canaries, and the first rest after one that was answered; the rest doubles up to ``rest_s``."""
    rest_s: float = 60.0
    idle_canary_s: float = 0.0
    """An engine without work is asked so often, 0: never. It finds a hang before the next user does."""


class State(Record, frozen=True, kw_only=True):
    """What is remembered of one life. Monotonic seconds, but ``moved_wall`` (Unix)."""

    params: Params
    view: EngineView | None = None
    at: float = 0.0
    moved: float = 0.0
    """When it was last seen to progress, by its page or by a canary."""
    moved_wall: float = 0.0
    work: str | None = None
    """The predicate that says it has something to do."""
    flat_s: float = 0.0
    equal: int = 0
    """Pages in a row that were as the one before."""
    tokenless_s: float = 0.0
    longest_s: float = 0.0
    """The longest pause that ended by itself."""
    asked: float = -inf
    rest_until: float = -inf
    refuted: int = 0
    timeouts: int = 0
    heard: CanaryReading | None = None
    claim: Finding | None = None


def begin(params: Params) -> State:
    """Know nothing."""
    return State(params=params)


def step(state: State, seen: Observation) -> Step:
    """Take in one observation."""
    if seen.life is not None and seen.life.state not in _SERVES:
        claim = state.claim if seen.life.state in _BEING_MENDED else None  # over when it serves again
        return Step(State(params=state.params, claim=claim), claim)
    if seen.canary is not None:
        state = _heard(state, seen.canary, seen.now)
    if seen.fresh and seen.reading is not None and seen.reading.outcome is Outcome.OK:
        state = _looked(state, seen.reading.view, seen)
    return _judge(state, seen)


# --- what came ---


def _looked(state: State, view: EngineView | None, seen: Observation) -> State:
    """Take in a page: has anything moved since the one before?"""
    params, now, old = state.params, seen.now, state.view
    if view is None or view.asleep or not _tells(view):
        return State(params=params)
    work = _work(view, seen.inflight) or ("H4" if state.timeouts else None)
    if old is None or _another_life(old, view):
        return State(params=params, view=view, at=now.mono, moved=now.mono, moved_wall=now.wall, work=work)
    if any(view.counters.get(name) != old.counters.get(name) for name in PROGRESS):
        return replace(_moved(state, view, now), work=_work(view, seen.inflight))
    apart = now.mono - state.at
    counted = apart if apart <= params.gap_s and state.work is not None and now.mono >= state.rest_until else 0.0
    tokenless_s = state.tokenless_s + counted if work else 0.0
    stirred = _STIR(view) != _STIR(old)
    flat_s = 0.0 if work is None or (stirred and tokenless_s < params.prefill_s) else state.flat_s + counted
    return replace(
        state,
        view=view,
        at=now.mono,
        work=work,
        flat_s=flat_s,
        equal=state.equal + 1 if flat_s else 0,
        tokenless_s=tokenless_s,
        timeouts=0 if stirred and not flat_s else state.timeouts,
    )


def _moved(state: State, view: EngineView, now: Now) -> State:
    """It progresses. A pause that nobody doubted is how this engine is, but for those in which kernels are compiled."""
    normal = state.claim is None and not state.timeouts and not _fresh(state)
    by_itself = now.mono - state.asked > 2 * state.params.again_s  # and not by the step of a canary
    return replace(
        state,
        view=view,
        at=now.mono,
        moved=now.mono,
        moved_wall=now.wall,
        flat_s=0.0,
        equal=0,
        tokenless_s=0.0,
        timeouts=0,
        longest_s=max(state.longest_s, state.flat_s) if normal else state.longest_s,
        refuted=0 if by_itself else state.refuted,
        rest_until=-inf if by_itself else state.rest_until,
    )


def _heard(state: State, canary: CanaryReading, now: Now) -> State:
    """Take in a canary: an answer is progress; silence speaks only if there was no progress since it was sent."""
    params = state.params
    if canary.outcome is CanaryOutcome.UNABLE:
        return state
    if canary.outcome is CanaryOutcome.TIMEOUT:
        counts = state.view is not None and now.mono - canary.seconds >= state.moved
        return replace(state, timeouts=state.timeouts + 1, heard=canary) if counts else state
    rest_s = min(params.again_s * 2**state.refuted, params.rest_s)
    answered = canary.outcome is CanaryOutcome.OK
    return replace(
        state,
        moved=now.mono if answered else state.moved,
        moved_wall=now.wall if answered else state.moved_wall,
        flat_s=0.0,
        equal=0,
        tokenless_s=0.0,
        timeouts=0,
        heard=canary,
        refuted=min(state.refuted + 1, 16),
        rest_until=now.mono + rest_s,
    )


# --- what follows ---


def _judge(state: State, seen: Observation) -> Step:
    params, mono = state.params, seen.now.mono
    if state.view is None:
        return Step(state)
    if state.work is None:
        return _idle(replace(state, claim=None) if state.claim else state, mono)
    fresh = _fresh(state)
    if state.flat_s < (params.fresh_s if fresh else params.suspect_s):
        return Step(replace(state, claim=None) if state.claim else state)
    learnt_s = min(2 * state.longest_s, params.alone_s)
    patience_s = params.fresh_s if fresh else max(params.confirm_s, learnt_s)
    ours_alone = state.work == "H4"  # one kind of evidence: it has to fail twice
    unanswered = state.timeouts >= (2 if ours_alone else 1) and state.flat_s >= patience_s
    again = state.equal >= 2  # one pair of pages may lie around a time in which the whole machine stood still
    confirmed = unanswered or (again and not ours_alone and state.flat_s >= max(params.alone_s, patience_s))
    if confirmed or state.claim or (again and state.flat_s >= max(params.unheard_s, patience_s)):
        state = replace(state, claim=_finding(state, seen, patience_s, confirmed=confirmed))
    if unanswered or mono < state.rest_until or mono - state.asked < params.again_s:
        return Step(state, state.claim)
    return Step(replace(state, asked=mono), state.claim, canary=True)


def _idle(state: State, mono: float) -> Step:
    """Ask an engine without work now and then, if that is wanted; at once again when the last one got no answer."""
    every_s = state.params.idle_canary_s
    due = every_s > 0 and mono - max(state.moved, state.asked) >= every_s
    return Step(replace(state, asked=mono), canary=True) if due else Step(state)


def _work(view: EngineView, inflight: float | None) -> str | None:
    """Return the predicate under which it has something to do."""
    if view.running:
        return "H1"
    if view.waiting:
        return "H2"
    return "H3" if inflight else None


def _tells(view: EngineView) -> bool:
    """Whether its page would show progress at all: what is missing is unknown, not 0."""
    return "iterations" in view.counters or "generation_tokens" in view.counters


def _fresh(state: State) -> bool:
    counters = {} if state.view is None else state.view.counters
    return counters.get("iterations", counters.get("generation_tokens", 0.0)) < state.params.warm_steps


def _another_life(old: EngineView, new: EngineView) -> bool:
    if old.process_start is not None and new.process_start is not None:
        return abs(new.process_start - old.process_start) > _START_SLACK_S
    return any(new.counters.get(name, 0.0) < old.counters.get(name, 0.0) for name in PROGRESS)


_MEANS = {
    "H1": "requests run and no step ends",
    "H2": "requests wait and none is admitted",
    "H3": "requests are under way to it and no step begins",
    "H4": "it answers no request of ours",
}


def _finding(state: State, seen: Observation, patience_s: float, *, confirmed: bool) -> Finding:
    view, canary = state.view, state.heard if state.timeouts else None
    if view is None or state.work is None:
        raise AssertionError("a claim needs a page and work")
    told = "" if canary is None else f"; a one-token request got no answer within {canary.seconds:.1f} s"
    text = f"{_MEANS[state.work]}: no progress for {state.flat_s:.0f} s with {_count(view.running)} running and "
    core = next((process for process in seen.processes if process.role == "engine_core"), None)
    return Finding(
        detector="stall",
        engine=seen.engine,
        summary=f"{text}{_count(view.waiting)} waiting{told}",
        since=state.moved_wall,
        confirmed=confirmed,
        evidence={
            "predicate": state.work,
            "no_progress_s": round(state.flat_s, 3),
            "patience_s": patience_s,
            "running": view.running,
            "waiting": view.waiting,
            "inflight": seen.inflight,
            "kv_usage": view.kv_usage,
            "iterations": view.counters.get("iterations"),
            "generation_tokens": view.counters.get("generation_tokens"),
            "canaries_unanswered": float(state.timeouts),
            "canary_s": None if canary is None else canary.seconds,
            "engine_core_cpu_ratio": None if core is None else core.cpu_ratio,
            "gpu_utilization": _utilization(seen),
        },
    )


def _utilization(seen: Observation) -> float | None:
    """Return the busiest of its GPUs, 0..1: pinned near 1 it spins in a collective, at 0 it waits for something."""
    ours = [gpu.utilization for gpu in seen.gpus if any(held.engine == seen.engine for held in gpu.processes)]
    return max((share for share in ours if share is not None), default=None)


def _count(requests: float | None) -> str:
    return "an unknown number" if requests is None else f"{requests:.0f}"


DETECTOR = Detector(
    name="stall",
    severity="page",
    summary="an engine that has work and makes no progress, although its server answers",
    params=Params,
    begin=begin,
    step=step,
)
