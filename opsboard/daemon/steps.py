"""A sleep or a waking as it is carried out: its steps with their times, and what became of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, OpsboardError
from opsboard.core.model import Transaction
from opsboard.core.text import sanitise
from opsboard.supervise import transaction
from opsboard.supervise.transaction import ABORTED, FAILED, OK, Course


class Steps:
    """Begun by ``with``; whatever ends that is the outcome, which goes to ``record``. ``show`` gets every change.

    One that is cancelled goes nowhere: the next daemon begins it anew.
    """

    def __init__(
        self,
        clock: Clock,
        record: Callable[[Transaction], object],
        show: Callable[[Transaction], object],
        *,
        engine: str,
        kind: Literal["sleep", "wake"],
        cause: str,
        automatic: bool,
    ) -> None:
        """Begin now."""
        now = clock.now()
        self._clock = clock
        self._record = record
        self._show = show
        whole = Transaction(
            id=uuid.uuid4().hex, engine=engine, kind=kind, began=now.wall, cause=cause, automatic=automatic
        )
        self._course = Course(transaction=whole, step_began=now.mono)

    def at(self, name: str) -> None:
        """Begin a step, which ends the one before."""
        self._move(transaction.at(self._course, name, self._clock.now()))

    def say(self, text: str, outcome: str) -> None:
        """Tell about the step under way, and what it is if it ends now."""
        if (name := self._course.under_way) is not None:
            self._move(transaction.at(self._course, name, self._clock.now(), sanitise(text), outcome))

    @property
    def seconds(self) -> float:
        """What the steps that are over took together."""
        return sum(step.seconds or 0.0 for step in self._course.transaction.steps)

    def told(self) -> str:
        """Return each step and its seconds, for people."""
        steps = self._course.transaction.steps
        return ", ".join(f"{step.name} {step.seconds:.1f} s" for step in steps if step.seconds is not None)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """End it, with ``error`` as what became of it."""
        if isinstance(error, asyncio.CancelledError):
            return
        outcome = OK if error is None else ABORTED if isinstance(error, Conflict) else FAILED
        text = error.message if isinstance(error, OpsboardError) else None if kind is None else kind.__name__
        self._move(transaction.over(self._course, self._clock.now(), outcome, text))
        self._record(self._course.transaction)

    def _move(self, course: Course) -> None:
        self._course = course
        self._show(course.transaction)
