"""An engine that has work and makes no progress, although its server answers.

Progress is an engine step, a token, a finished request. In a prefill none of them moves, but KV use, running or
waiting do. A suspicion asks for a canary of one token; only what that says, or a long time, makes it certain.
"""

from __future__ import annotations

from collections.abc import Sized
from math import inf
from operator import attrgetter
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from alerts.base import Detector, Observation, Step, check_seconds, unread
from opsboard.core.clock import Now
from opsboard.core.lives import SERVES, other_process
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
_BEING_MENDED = frozenset({EngineState.BACKING_OFF, EngineState.PARKED, EngineState.STOPPING, EngineState.STARTING})
_SHOWN = frozenset({"H1", "H2", "H3"})
"""Predicates that show work: then time alone speaks, too."""
_TELLS_NOTHING = "its page counts neither steps nor generated tokens"
_GUESSED = {"H3c": 1, "H4": 2}
"""Those that do not, and how many unanswered canaries they need."""


class Params(Record, frozen=True, kw_only=True):
    """Seconds, unless it says steps. They count time without progress while there is work."""

    suspect_s: Annotated[
        float,
        # The longest seen in 1,400 s of a healthy real vLLM was under 1 s.
        Meta(description="from here canaries are asked for; at least 1s"),
    ] = 5.0
    connected_s: Annotated[
        float,
        # uvicorn closes what is idle for 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE), so that what is left waits. It is looked
        # at every second: half of one is for what is not exact.
        Meta(description="likewise, where only a connection of somebody else hints at work"),
    ] = 5.5
    confirm_s: Annotated[
        float,
        # Above any one step, and 15 s from hang to verdict hold with a canary's deadline of 5 s.
        Meta(
            description="with an unanswered canary, from here it is certain; an engine that made longer pauses by "
            "itself gets twice its longest, up to `alone`"
        ),
    ] = 10.0
    unheard_s: Annotated[float, Meta(description="without any canary, from here it is claimed, unconfirmed")] = 12.0
    alone_s: Annotated[
        float, Meta(description="and from here confirmed by its length alone; vLLM's own timeout is 300 s")
    ] = 120.0
    warm_steps: Annotated[
        float, Meta(ge=0, description="a life with fewer may be compiling kernels for its first requests")
    ] = 100.0
    fresh_s: Annotated[float, Meta(description="and gets this long before anything is asked or claimed")] = 300.0
    prefill_s: Annotated[
        float, Meta(description="so long KV use may move without a token; longer is a loop of preemptions")
    ] = 300.0
    gap_s: Annotated[
        float, Meta(description="pages farther apart say nothing about the time between: the machine may have slept")
    ] = 20.0
    again_s: Annotated[
        float, Meta(description="between two canaries, and the first rest after an answer; at least 1s")
    ] = 10.0
    rest_s: Annotated[
        float, Meta(description="the longest rest; a connection that an answer has cleared gets it at once")
    ] = 60.0
    idle_canary_s: Annotated[
        float, Meta(description="an engine without work is asked so often, and nobody need be connected; 0s: never")
    ] = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense together."""
        order = (("suspect", "confirm"), ("confirm", "alone"), ("again", "rest"))
        check_seconds(self, ("suspect", "connected", "again"), order)


class State(Record, frozen=True, kw_only=True):
    """What is remembered of one life. Instants are monotonic seconds."""

    params: Params
    view: EngineView | None = None
    at: float = 0.0
    moved: float = 0.0
    """When it was last seen to progress, by its page or by a canary."""
    quiet: float = 0.0
    """Since when its pages show no work and say nothing new."""
    answered: float = -inf
    """When a canary was last answered, in whatever way."""
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
    if seen.life is not None and seen.life.state not in SERVES:
        claim = state.claim if seen.life.state in _BEING_MENDED else None  # over when it serves again
        return Step(State(params=state.params, claim=claim), claim, unknown=unread(seen))
    if seen.canary is not None:
        state = _heard(state, seen.canary, seen.now)
    if seen.fresh and seen.reading is not None and seen.reading.outcome is Outcome.OK:
        state = _looked(state, seen.reading.view, seen)
    return _judge(state, seen).saying(_unknown(state, seen))


def _unknown(state: State, seen: Observation) -> str | None:
    """Return why it cannot tell whether there is progress; one page that fails is no reason."""
    if state.view is None:
        return unread(seen) or _TELLS_NOTHING
    return unread(seen) if seen.now.mono - state.at > state.params.gap_s else None


# --- what came ---


def _looked(state: State, view: EngineView | None, seen: Observation) -> State:
    """Take in a page: has anything moved since the one before?"""
    params, now, old = state.params, seen.now, state.view
    if view is None or view.asleep or not _tells(view):
        return State(params=params)
    work = _work(view, seen.inflight)
    if old is None or _another_life(old, view):
        return State(params=params, view=view, at=now.mono, moved=now.mono, quiet=now.mono, work=work)
    if any(view.counters.get(name) != old.counters.get(name) for name in PROGRESS):
        return replace(_moved(state, view, now), work=work)
    apart, stirred = now.mono - state.at, _STIR(view) != _STIR(old)
    state = replace(state, view=view, at=now.mono)
    if work is None:
        loud = stirred or state.work in _SHOWN or apart > params.gap_s
        return _unworked(replace(state, quiet=now.mono) if loud else state, seen, apart, stirred=stirred)
    counted = apart if apart <= params.gap_s and state.work is not None and now.mono >= state.rest_until else 0.0
    tokenless_s = state.tokenless_s + counted
    flat_s = 0.0 if stirred and tokenless_s < params.prefill_s else state.flat_s + counted
    return replace(
        state,
        work=work,
        flat_s=flat_s,
        equal=state.equal + 1 if flat_s else 0,
        tokenless_s=tokenless_s,
        timeouts=0 if stirred and not flat_s else state.timeouts,
    )


def _unworked(state: State, seen: Observation, apart: float, *, stirred: bool) -> State:
    """Take in a page that shows no work and no progress. Somebody may wait all the same, or have waited."""
    params, mono = state.params, seen.now.mono
    if stirred:
        return replace(state, work=None, flat_s=0.0, equal=0, tokenless_s=0.0, timeouts=0)
    waited_s = _waited(state, seen)
    asking = state.work == "H3c" and mono - state.asked < params.again_s  # who waits may give up meanwhile
    stays = asking or (state.timeouts and state.work == "H3c")
    ours_alone = "H4" if state.timeouts else None
    work = "H3c" if waited_s >= params.connected_s or stays else ours_alone
    counted = apart if apart <= params.gap_s and state.work in _GUESSED else 0.0
    flat_s = 0.0 if work is None else max(waited_s, state.flat_s + counted)
    return replace(state, work=work, flat_s=flat_s, equal=state.equal + 1 if flat_s else 0, tokenless_s=0.0)


def _waited(state: State, seen: Observation) -> float:
    """Return how long somebody had been connected at the last look while nothing moved, 0.0: nobody who could wait.

    A canary that is answered clears the connections that there are, for a while: they may be kept for later.
    """
    clients = seen.connections
    if clients is None or not clients.since:
        return 0.0
    cleared = state.answered if seen.now.mono - state.answered < state.params.rest_s else -inf
    first = min((since for since in clients.since if since > cleared), default=inf)
    return max(0.0, clients.looked - max(first, state.quiet))


def _moved(state: State, view: EngineView, now: Now) -> State:
    """It progresses. A pause that nobody doubted is how this engine is, but for those in which kernels are compiled."""
    normal = state.claim is None and not state.timeouts and state.work in _SHOWN and not _fresh(state)
    by_itself = now.mono - state.asked > 2 * state.params.again_s  # and not by the step of a canary
    return replace(
        state,
        view=view,
        at=now.mono,
        moved=now.mono,
        quiet=now.mono,
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
    shown = state.work in _SHOWN
    rest_s = min(params.again_s * 2**state.refuted, params.rest_s)
    return replace(
        state,
        moved=now.mono if canary.outcome is CanaryOutcome.OK else state.moved,
        quiet=now.mono,
        answered=now.mono,
        flat_s=0.0,
        equal=0,
        tokenless_s=0.0,
        timeouts=0,
        heard=canary,
        refuted=min(state.refuted + 1, 16) if shown else state.refuted,
        rest_until=now.mono + rest_s if shown else state.rest_until,
        work=state.work if shown else None,
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
    unanswered = state.timeouts >= _GUESSED.get(state.work, 1) and state.flat_s >= patience_s
    again = state.equal >= 2  # one pair of pages may lie around a time in which the whole machine stood still
    alone = again and state.work in _SHOWN and state.flat_s >= max(params.alone_s, patience_s)
    heard_enough = state.work in _SHOWN or state.timeouts
    long = again and heard_enough and state.flat_s >= max(params.unheard_s, patience_s)
    if unanswered or alone or long or state.claim:
        state = replace(state, claim=_finding(state, seen, patience_s, confirmed=unanswered or alone))
    resting = state.work in _SHOWN and mono < state.rest_until
    if unanswered or resting or mono - state.asked < params.again_s:
        return Step(state, state.claim)
    return Step(replace(state, asked=mono), state.claim, canary=True)


def _idle(state: State, mono: float) -> Step:
    """Ask an engine without work now and then, if that is wanted."""
    every_s = state.params.idle_canary_s
    due = every_s > 0 and mono - max(state.moved, state.asked) >= every_s
    return Step(replace(state, asked=mono), canary=True) if due else Step(state)


def _work(view: EngineView, inflight: Sized | None) -> str | None:
    """Return the predicate under which it surely has something to do."""
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
    other = other_process(old, new)
    if other is None:
        return any(new.counters.get(name, 0.0) < old.counters.get(name, 0.0) for name in PROGRESS)
    return other


_MEANS = {
    "H1": "requests run and no step ends",
    "H2": "requests wait and none is admitted",
    "H3": "requests are under way to it and no step begins",
    "H3c": "somebody is connected and no step begins",
    "H4": "it answers no request of ours",
}


def _finding(state: State, seen: Observation, patience_s: float, *, confirmed: bool) -> Finding:
    view, canary = state.view, state.heard if state.timeouts else None
    if view is None or state.work is None:
        raise AssertionError("a claim needs a page and work")
    began = seen.now.wall - (seen.now.mono - state.at) - state.flat_s
    told = "" if canary is None else f"; a one-token request got no answer within {canary.seconds:.1f} s"
    text = f"{_MEANS[state.work]}: no progress for {state.flat_s:.0f} s with {_count(view.running)} running and "
    core = next((process for process in seen.processes if process.role == "engine_core"), None)
    return Finding(
        detector="stall",
        engine=seen.engine,
        summary=f"{text}{_count(view.waiting)} waiting{told}",
        since=began if state.claim is None else state.claim.since,
        confirmed=confirmed,
        evidence={
            "predicate": state.work,
            "no_progress_s": round(state.flat_s, 3),
            "patience_s": patience_s,
            "running": view.running,
            "waiting": view.waiting,
            "inflight": None if seen.inflight is None else float(len(seen.inflight)),
            "connections": None if seen.connections is None else float(len(seen.connections.since or ())),
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
