"""What is told and kept of an engine while its situation changes: the steps of a restart, and the notes on the disk."""

from __future__ import annotations

import uuid
from pathlib import Path

from opsboard.core.model import Transaction
from opsboard.core.text import sanitise
from opsboard.supervise import transaction
from opsboard.supervise.memo import Memo, Notes
from opsboard.supervise.situation import SERVING, Situation
from opsboard.supervise.transaction import Course
from opsboard.supervise.watching import remember_ready
from opsboard.supervise.world import World, log


class Chronicle:
    """Follows one engine. Nothing here decides, and a disk that is full stops nothing."""

    def __init__(self, engine: str, directory: Path, world: World) -> None:
        """Keep notes in the bundle ``directory``."""
        self._engine = engine
        self._directory = directory
        self._world = world
        self._memo = Memo(engine, directory)
        self._course: Course | None = None
        self._situation: Situation | None = None
        self._instance: str | None = None

    @property
    def transaction(self) -> Transaction | None:
        """The start or restart under way, or the last one."""
        return self._course.transaction if self._course is not None else None

    def read(self) -> Notes:
        """Return what the last daemon wrote down. Blocks shortly."""
        return self._memo.read()

    def resume(self, begun: Transaction | None) -> None:
        """Go on with what the last daemon began, or tell of it again: it may have been killed before that was kept."""
        self._course = None if begun is None else transaction.resumed(begun, self._world.clock.now())
        if begun is not None and begun.outcome is not None:
            self._world.around.on_transaction(begun)

    def follow(self, situation: Situation, instance: str | None, *, clears: bool, sure: bool) -> None:
        """Take in a new situation.

        ``instance`` is the life that is there or about to begin; ``clears``: memory has to be proven free before the
        next one; not ``sure``: nothing is known yet, so that what is written down stays.
        """
        before, self._situation, self._instance = self._situation, situation, instance
        was_over = self._course is None or self._course.transaction.outcome is not None
        self._course = transaction.follow(
            self._course,
            situation,
            self._world.clock.now(),
            engine=self._engine,
            new_id=uuid.uuid4().hex,
            clears=clears,
        )
        if sure:
            self._write()
        if self._course is not None and not was_over and self._course.transaction.outcome is not None:
            self._world.around.on_transaction(self._course.transaction)
        if situation.state in SERVING and before is not None and before.state not in SERVING:
            self._write_ready(situation.since)

    def begin_step(self, name: str) -> None:
        """Tell that a step begins which the situation does not show."""
        if self._course is not None and self._course.under_way not in {None, name}:
            self._course = transaction.at(self._course, name, self._world.clock.now())
            self._write()

    def tell_step(self, text: str, outcome: str) -> None:
        """Say something about the step under way, and what it is if it ends now."""
        if self._course is not None and (name := self._course.under_way) is not None:
            self._course = transaction.at(self._course, name, self._world.clock.now(), sanitise(text), outcome)

    def _write(self) -> None:
        if self._situation is None:
            return
        now, drain_by = self._world.clock.now(), self._situation.drain_by
        until = None if drain_by is None else now.wall + (drain_by - now.mono)
        self._memo.remember(self._situation, self._course, self._instance, until)

    def _write_ready(self, since: float) -> None:
        """Keep beside the life that it was ready: a daemon that is killed must not wait for it again."""
        if self._instance is None:
            return
        try:
            remember_ready(self._directory, self._instance, since)
        except OSError as error:
            log.warning("engine %s: cannot write down that it was ready: %s", self._engine, error)
