"""What a daemon writes beside a life for the next daemon: what is to end, what is parked, what is under way.

Small files of the bundle, written in the moment of the decision, because a daemon may be killed in the next one.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from opsboard.core.model import EngineState, Record, Transaction
from opsboard.supervise import bundle
from opsboard.supervise.situation import Body, Situation
from opsboard.supervise.transaction import Course

log = logging.getLogger("opsboard.supervise")


class Notes(Record, frozen=True, kw_only=True):
    """What the last daemon wrote down. ``parked_since`` and ``drain_until`` are Unix seconds."""

    parked: str | None = None
    parked_since: float | None = None
    drained: bool = False
    doubt: str | None = None
    drain_until: float | None = None
    launching: str | None = None
    """The life that was about to begin."""
    waiting: str | None = None
    """Why it was to be tried again later."""
    automatic: bool = False
    transaction: Transaction | None = None


class Memo:
    """The notes of one engine; each file is only touched when what it says has changed."""

    def __init__(self, engine: str, directory: Path) -> None:
        """Write into the bundle ``directory``."""
        self._engine = engine
        self._directory = directory
        self._written: dict[str, Any] = {}

    def read(self) -> Notes:
        """Return what is written down; a file that is not understood says nothing. Blocks shortly; raises OSError."""
        place = str(self._directory)
        parked, service, course = (
            bundle.read(place, name) or {} for name in (bundle.PARKED, bundle.SERVICE, bundle.TRANSACTION)
        )
        try:
            return msgspec.convert(
                {
                    "parked": parked.get("why"),
                    "parked_since": parked.get("since"),
                    "drained": bool(service.get("drained")),
                    "doubt": service.get("doubt"),
                    "drain_until": course.get("drain_until"),
                    "launching": course.get("launching"),
                    "waiting": course.get("waiting"),
                    "automatic": bool(course.get("automatic")),
                    "transaction": course.get("transaction"),
                },
                Notes,
            )
        except msgspec.ValidationError as error:
            log.warning("engine %s: notes of the last daemon are not understood: %s", self._engine, error)
            return Notes()

    def remember(
        self, situation: Situation, course: Course | None, instance: str | None, drain_until: float | None
    ) -> None:
        """Write down what matters of a situation. ``instance`` is the life that is there or about to begin.

        A daemon that is killed between two files must have lost nothing: that a life is to end is written before the
        rest, and removed when it is written which one is to follow.
        """
        stop = _stop(situation, instance)
        if stop is not None:
            self._keep(bundle.STOP, stop)
        parked = situation.state is EngineState.PARKED
        self._keep(bundle.PARKED, {"why": situation.cause, "since": situation.since} if parked else None)
        held = situation.drained or situation.doubt is not None
        self._keep(bundle.SERVICE, {"drained": situation.drained, "doubt": situation.doubt} if held else None)
        self._keep(bundle.TRANSACTION, _course(situation, course, instance, drain_until), forget=False)
        if stop is None:
            self._keep(bundle.STOP, None, forget=situation.body is Body.LAUNCHING)

    def _keep(self, name: str, record: dict[str, Any] | None, *, forget: bool = True) -> None:
        """Replace or, with None and ``forget``, remove a file."""
        if (record is None and not forget) or (name in self._written and self._written[name] == record):
            return
        place = str(self._directory)
        try:
            if record is not None:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                bundle.write(place, name, {"protocol": bundle.PROTOCOL, **record})
            else:
                bundle.remove(place, name)
        except OSError as error:
            log.warning("engine %s: cannot write down %s: %s", self._engine, name, error)
        else:
            self._written[name] = record


def _stop(situation: Situation, instance: str | None) -> dict[str, Any] | None:
    """The life that is to end, and whether another one is to follow."""
    # What was to follow an older end is not wanted any more, whoever stopped it.
    stopped = situation.state is EngineState.STOPPED
    to_end = situation.body is Body.ENDING or stopped or (situation.body is Body.LAUNCHING and not situation.wanted)
    again = situation.wanted and not stopped
    return {"instance": instance, "again": again} if to_end and instance is not None else None


def _course(
    situation: Situation, course: Course | None, instance: str | None, drain_until: float | None
) -> dict[str, Any] | None:
    waiting = situation.state is EngineState.BACKING_OFF
    if course is None and not waiting:
        return None
    launching = situation.body is Body.LAUNCHING and situation.wanted
    return {
        "transaction": None if course is None else msgspec.to_builtins(course.transaction),
        "waiting": situation.cause if waiting else None,
        "automatic": situation.automatic,
        "launching": instance if launching else None,
        "drain_until": drain_until,
    }
