"""An engine that should serve and cannot: nobody listens, its processes are gone or half gone, it ended by itself.

Each kind of evidence alone is a claim; a second kind, or the same at a second look, confirms it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

from msgspec import Meta
from msgspec.structs import replace

from alerts.base import Detector, Observation, Step, check_seconds
from opsboard.core.lives import EXITS_WITH_0, SERVES, other_process
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    EngineState,
    EngineView,
    Finding,
    Outcome,
    Record,
)

NOBODY = frozenset({"refused", "unreachable"})
"""Reasons of a failed page that say: nobody is there."""
NO_ANSWER = frozenset({"timeout", "connect_timeout", None})
"""Reasons that may be a busy server; a recording tells none. With any other reason somebody answers."""
UNDER_WAY = frozenset({EngineState.STARTING, EngineState.STOPPING})
_UNSEEN = "nothing was seen of it yet"
ENDED = frozenset({EngineState.FAILED, EngineState.BACKING_OFF, EngineState.PARKED})


class Params(Record, frozen=True, kw_only=True):
    """Readings in a row, and seconds."""

    refusals: Annotated[
        int,
        Meta(ge=1, description="pages refused in a row; one or two may fall into a restart by somebody else"),
    ] = 3
    silent_s: Annotated[float, Meta(description="pages without an answer for so long; a busy server answers late")] = (
        30.0
    )
    silent_confirm_s: Annotated[float, Meta(description="and, with an unanswered canary, certain")] = 60.0
    again_s: Annotated[float, Meta(description="between two canaries, at least 1s")] = 10.0

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense together."""
        check_seconds(self, ("again",), [("silent", "silent_confirm")])


class State(Record, frozen=True, kw_only=True):
    """What is remembered. Monotonic seconds, but ``*_wall`` (Unix)."""

    params: Params
    life: float | None = None
    """When the supervised life began."""
    served: bool = False
    """It was in service, as supervision says, before what came now."""
    page: EngineView | None = None
    """The last one that told when its process began."""
    failures: int = 0
    failing: float | None = None
    failing_wall: float | None = None
    looked: float | None = None
    crew: frozenset[int] = frozenset()
    """API servers that were seen with an EngineCore beside them."""
    seen_any: bool = False
    coreless: int = 0
    """Looks in a row at which such a server had none any more."""
    empty: int = 0
    """Looks in a row at which no process was there any more."""
    answered: bool = False
    """A page was read since: the last one before may have been its own."""
    lost_wall: float | None = None
    refused: int = 0
    """Canaries in a row that were refused while the page was read."""
    refused_tokens: float | None = None
    canary: CanaryReading | None = None
    """The last one of this trouble."""
    asked: float = float("-inf")
    claim: Finding | None = None


class Case(NamedTuple):
    """One predicate that holds."""

    predicate: str
    text: str
    since: float
    confirmed: bool


def begin(params: Params) -> State:
    """Know nothing."""
    return State(params=params)


def step(state: State, seen: Observation) -> Step:
    """Take in one observation."""
    life = seen.life
    if life is not None and life.state in UNDER_WAY:
        return Step(State(params=state.params, claim=state.claim), state.claim)  # down until it serves again
    if life is not None and life.state in ENDED:
        doubted = state.served and life.pid is not None  # it runs: a detector's claim made supervision act
        return Step(state, state.claim) if doubted else _ended(state, seen)
    if life is not None and life.state not in SERVES:
        return Step(State(params=state.params))
    if life is not None and life.started != state.life:
        state = State(params=state.params, life=life.started, claim=state.claim)
    if life is not None and not state.served:
        state = replace(state, served=True)
    if seen.canary is not None:
        state = _heard(state, seen.canary, seen)
    if seen.fresh and seen.reading is not None:
        state = _read(state, seen.reading, seen)
    if seen.looked is not None and seen.looked != state.looked:
        state = _looked(state, seen)
    nothing = life is None and seen.reading is None and seen.looked is None
    return _judge(state, seen).saying(_UNSEEN if nothing else None)


# --- what came ---


def _read(state: State, reading: EngineReading, seen: Observation) -> State:
    """Take in a page, or that there is none."""
    if reading.outcome is Outcome.FAILED and reading.reason in NOBODY | NO_ANSWER:
        return replace(
            state,
            failures=state.failures + 1,
            failing=seen.now.mono if state.failing is None else state.failing,
            failing_wall=seen.now.wall if state.failing_wall is None else state.failing_wall,
        )
    view = reading.view
    if view is not None and state.page is not None and other_process(state.page, view):  # somebody restarted it
        state = State(params=state.params, life=state.life, served=state.served, claim=state.claim)
    if state.failing is not None:
        state = replace(state, failures=0, failing=None, failing_wall=None, canary=None)
    if state.empty:
        state = replace(state, answered=True)
    tokens = None if view is None else view.counters.get("generation_tokens")
    if state.refused and tokens is not None and tokens != state.refused_tokens:  # it serves others
        state = replace(state, refused=0, refused_tokens=None, canary=None)
    return state if view is None or view.process_start is None else replace(state, page=view)


def _looked(state: State, seen: Observation) -> State:
    """Take in a new look at its processes."""
    state = replace(state, looked=seen.looked)
    if not seen.processes:
        answered = state.answered and state.empty > 0
        return replace(state, empty=state.empty + 1, answered=answered, lost_wall=state.lost_wall or seen.now.wall)
    servers = frozenset(process.pid for process in seen.processes if process.role == "api_server")
    if any(process.role == "engine_core" for process in seen.processes):
        return replace(state, seen_any=True, crew=servers, coreless=0, empty=0, lost_wall=None)
    if state.crew & servers:
        return replace(state, coreless=state.coreless + 1, empty=0, lost_wall=state.lost_wall or seen.now.wall)
    return replace(state, seen_any=True, crew=frozenset(), coreless=0, empty=0, lost_wall=None)


def _heard(state: State, canary: CanaryReading, seen: Observation) -> State:
    """Take in a canary. One that is refused while the page is read may be an overload: tokens then still flow."""
    if canary.outcome is CanaryOutcome.UNABLE:
        return state
    view = None if seen.reading is None else seen.reading.view
    tokens = None if view is None else view.counters.get("generation_tokens")
    kept = canary if _troubled(state) else None
    if canary.outcome is not CanaryOutcome.REFUSED or view is None:
        return replace(state, canary=kept, refused=0, refused_tokens=None)
    again = state.refused > 0 and tokens == state.refused_tokens
    refused = state.refused + 1 if again else 1
    return replace(state, canary=canary if again else kept, refused=refused, refused_tokens=tokens)


def _troubled(state: State) -> bool:
    return bool(state.failing is not None or state.coreless or state.empty)


# --- what follows ---


def _ended(state: State, seen: Observation) -> Step:
    """Supervision saw it end, or fail to begin: nothing is left to find out."""
    life = seen.life
    if life is None:
        raise AssertionError("only a supervised engine is seen to end")
    text = life.cause or life.message or "it ended by itself"
    if life.exit_code == 0 and EXITS_WITH_0 not in text:
        text += f" ({EXITS_WITH_0})"
    if state.coreless:
        text += "; its EngineCore was gone before"
    since = state.claim.since if state.claim else life.since
    claim = _finding(state, seen, Case("exited", text, since, confirmed=True))
    return Step(State(params=state.params, claim=claim), claim)


def _judge(state: State, seen: Observation) -> Step:
    case = next(_cases(state, seen), None)
    if case is None:
        read = seen.reading is not None and seen.reading.outcome is not Outcome.FAILED
        if read and state.claim is not None:
            state = replace(state, claim=None)
        return Step(state, state.claim)
    claim = _finding(state, seen, case)
    state = replace(state, claim=claim)
    settled = case.confirmed and case.predicate != "errors"  # which only an answer takes back where nobody else asks
    if settled or seen.now.mono - state.asked < state.params.again_s:
        return Step(state, claim)
    return Step(replace(state, asked=seen.now.mono), claim, canary=True)


def _cases(state: State, seen: Observation) -> Iterator[Case]:
    """Yield the predicates that hold, the most telling first."""
    params, wall = state.params, seen.now.wall
    reading, answer = seen.reading, None if state.canary is None else state.canary.outcome
    lost = state.lost_wall or wall
    failing_s = 0.0 if state.failing is None else seen.now.mono - state.failing
    since = state.failing_wall or wall
    bad = answer in {CanaryOutcome.REFUSED, CanaryOutcome.TIMEOUT}
    if state.empty and state.seen_any:
        if state.failing is not None:
            yield Case("gone", "its processes are gone and its page cannot be read", lost, confirmed=True)
        elif state.empty >= 2 and state.answered:
            known = seen.life is not None
            if known or state.page is not None:  # else somebody may have restarted it and it cannot be told
                yield Case("silent_death", "its processes are gone, and something still answers", lost, confirmed=known)
    if state.coreless:
        sure = state.coreless >= 2 or state.failing is not None or bad
        ending = state.failing is not None and reading is not None and reading.reason in NOBODY
        rest = "and nobody listens any more: it is ending" if ending else "while the API server lives"
        yield Case("half_death", f"its EngineCore is gone {rest}", lost, confirmed=sure)
    if state.refused >= 2:
        yield Case("errors", "its page is read, but it refuses requests and no token flows", wall, confirmed=True)
    if reading is None or state.failing is None:
        return
    if reading.reason in NOBODY and state.failures >= params.refusals:
        text = f"nobody has listened for {failing_s:.0f} s: {reading.error or reading.reason}"
        yield Case("refused", text, since, confirmed=answer is CanaryOutcome.REFUSED or bool(seen.zombies))
    elif failing_s >= params.silent_s:
        sure = answer is CanaryOutcome.TIMEOUT and failing_s >= params.silent_confirm_s
        text = f"its page has got no answer for {failing_s:.0f} s: {reading.error or 'no reason told'}"
        yield Case("silent", text, since, confirmed=sure)


def _finding(state: State, seen: Observation, case: Case) -> Finding:
    life, canary = seen.life, state.canary
    zombies = ", ".join(map(str, seen.zombies))
    text = f"{case.text} (zombie: pid {zombies})" if zombies else case.text
    return Finding(
        detector="engine_down",
        engine=seen.engine,
        summary=text,
        since=min(case.since, state.claim.since) if state.claim else case.since,
        confirmed=case.confirmed,
        evidence={
            "predicate": case.predicate,
            "pages_failed": float(state.failures),
            "page_error": None if seen.reading is None else seen.reading.error,
            "processes": float(len(seen.processes)) if seen.looked is not None else None,
            "engine_core_seen": any(process.role == "engine_core" for process in seen.processes)
            if seen.looked is not None
            else None,
            "zombies": zombies or None,
            "canary": None if canary is None else canary.outcome.value,
            "state": None if life is None else life.state.value,
            "exit_code": None if life is None or life.exit_code is None else float(life.exit_code),
        },
    )


DETECTOR = Detector(
    name="engine_down",
    severity="page",
    summary="an engine that should serve and cannot: unreachable, dead, half dead, or ended by itself",
    params=Params,
    begin=begin,
    step=step,
)
