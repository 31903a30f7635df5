"""A start or a restart as people see it: its steps one after another, each with its time and its outcome. Pure.

drain (a restart that waits for requests under way) → end → clear (its GPU memory is proven free) → launch → start →
canary (its answer is compared) → serving. Which step it is follows from the machine's situation: there is no second
opinion of where an engine is.
"""

from __future__ import annotations

import msgspec

from opsboard.core.clock import Now
from opsboard.core.model import EngineState, Record, Step, Transaction
from opsboard.supervise.situation import GOES_ON, Body, Situation

DRAIN, END, CLEAR, LAUNCH, START, CANARY, SERVING = "drain", "end", "clear", "launch", "start", "canary", "serving"
OK, SKIPPED, CUT, DIFFERS, ABORTED, FAILED = "ok", "skipped", "cut", "differs", "aborted", "failed"
_LAUNCHING = frozenset({CLEAR, LAUNCH})


class Course(Record, frozen=True, kw_only=True):
    """A transaction and when its present step began, in seconds of the monotonic clock."""

    transaction: Transaction
    step_began: float
    outcome: str | None = None
    """Of the present step when the next one begins, as far as it was told."""

    @property
    def under_way(self) -> str | None:
        """The step that is under way."""
        steps = self.transaction.steps
        return steps[-1].name if self.transaction.outcome is None and steps else None


def follow(
    course: Course | None, situation: Situation, now: Now, *, engine: str, new_id: str, clears: bool
) -> Course | None:
    """Return the course after the machine came into ``situation``.

    ``new_id`` names the transaction if one begins now; ``clears`` tells that processes have to be proven gone first.
    """
    name = _step_of(situation, clears=clears)
    going = course if course is not None and course.transaction.outcome is None else None
    if name is None and situation.state is EngineState.BACKING_OFF and situation.cause == GOES_ON:
        return course  # it is still the same restart
    if name is None:
        return course if going is None else _close(going, situation, now)
    if going is None:
        going = _begin(engine, new_id, name, situation, now)
    if going.under_way in _LAUNCHING and name in _LAUNCHING:  # told by who carries it out
        return going
    return at(going, name, now)


def at(course: Course, name: str, now: Now, text: str | None = None, outcome: str | None = None) -> Course:
    """Be in a step, which ends the one before; ``text`` tells about it, ``outcome`` what it is if it ends now."""
    if course.under_way != name:
        course = _end_step(course, now, course.outcome or (CUT if course.under_way == DRAIN else OK))
        step = Step(name=name, started=now.wall)
        transaction = msgspec.structs.replace(course.transaction, steps=(*course.transaction.steps, step))
        course = Course(transaction=transaction, step_began=now.mono)
    course = course if text is None else _change_last(course, text=text)
    return course if outcome is None else msgspec.structs.replace(course, outcome=outcome)


def resumed(transaction: Transaction, now: Now) -> Course:
    """Go on with what another daemon began. Its open step is timed by the wall clock, the only one both know."""
    began = transaction.steps[-1].started if transaction.steps else transaction.began
    return Course(transaction=transaction, step_began=now.mono - max(0.0, now.wall - began))


def _begin(engine: str, new_id: str, first: str, situation: Situation, now: Now) -> Course:
    again = situation.automatic or first in {DRAIN, END, CLEAR}
    transaction = Transaction(
        id=new_id,
        engine=engine,
        kind="restart" if again else "start",
        began=now.wall,
        cause=situation.cause,
        automatic=situation.automatic,
    )
    return Course(transaction=transaction, step_began=now.mono)


def _step_of(situation: Situation, *, clears: bool) -> str | None:
    match situation.state, situation.body:
        case EngineState.DRAINING, _ if situation.drain_by is not None:
            return DRAIN
        case EngineState.STOPPING, Body.ENDING if situation.wanted:
            return END
        case EngineState.STARTING, Body.LAUNCHING:
            return CLEAR if clears else LAUNCH
        case EngineState.STARTING, Body.ALIVE:
            return CANARY if situation.proving else START
    return None


def _close(course: Course, situation: Situation, now: Now) -> Course:
    match situation.state:
        case EngineState.READY if course.under_way == DRAIN:
            return over(course, now, ABORTED, _by("called off", situation))
        case EngineState.READY:
            return over(at(course, SERVING, now), now, OK)
        case EngineState.DRAINING:
            return over(at(course, SERVING, now, situation.message), now, SKIPPED)
        case EngineState.STOPPED | EngineState.STOPPING:
            return over(course, now, ABORTED, _by("stopped", situation))
    return over(course, now, FAILED, situation.message)


def _by(what: str, situation: Situation) -> str:
    return f"{what}: {situation.cause}" if situation.cause else what


def over(course: Course, now: Now, outcome: str, text: str | None = None) -> Course:
    """End the step under way, and with it the whole."""
    course = _end_step(course, now, outcome, text)
    whole = OK if outcome == SKIPPED else outcome
    transaction = msgspec.structs.replace(course.transaction, ended=now.wall, outcome=whole)
    return msgspec.structs.replace(course, transaction=transaction)


def _end_step(course: Course, now: Now, outcome: str, text: str | None = None) -> Course:
    if course.under_way is None:
        return course
    seconds = max(0.0, now.mono - course.step_began)
    if text is None:
        return _change_last(course, seconds=seconds, outcome=outcome)
    return _change_last(course, seconds=seconds, outcome=outcome, text=text)


def _change_last(course: Course, **changes: float | str) -> Course:
    *before, last = course.transaction.steps
    steps = (*before, msgspec.structs.replace(last, **changes))
    transaction = msgspec.structs.replace(course.transaction, steps=steps)
    return msgspec.structs.replace(course, transaction=transaction)
