"""What people are shown of an engine: its situation and its life, put into the words of the board."""

from __future__ import annotations

from opsboard.core.clock import Now
from opsboard.core.model import EngineState, LifeView, Transaction
from opsboard.core.text import sanitise
from opsboard.supervise import transaction
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.life import Life
from opsboard.supervise.moves import hint
from opsboard.supervise.runners.registry import RUNNERS
from opsboard.supervise.situation import Body, Situation

_THERE = frozenset({Body.ALIVE, Body.ENDING})


def view(
    spec: LaunchSpec, situation: Situation, life: Life | None, now: Now, *, restarts: int, course: Transaction | None
) -> LifeView:
    """Return what is known at ``now``; ``course`` is the restart under way, or the last one."""
    there = life.remains if life is not None and life.remains.alive and situation.body in _THERE else None
    main = there.main if there is not None else None
    start_up = life.start_up if life is not None else None
    starting = start_up if situation.state is EngineState.STARTING else None
    unsure = situation.body is Body.LEFT and life is None
    return LifeView(
        engine=spec.name,
        state=situation.state,
        since=situation.since,
        supervised=not RUNNERS[spec.runner].replaces,
        pid=main.pid if main else None,
        pgid=main.group if main else None,
        started=there.started if there else None,
        url=there.url if there else None,
        restarts=restarts,
        phase=transaction.CANARY if starting and situation.proving else starting.phase if starting else None,
        progress=starting.progress(now.wall) if starting else None,
        phases=start_up.phases if start_up else (),
        message=_message(spec, situation, life),
        hint=None if unsure else hint(spec.name, situation),
        cause=None if situation.cause is None else sanitise(situation.cause),
        exit_code=situation.exit_code,
        transaction=course,
        until=None if situation.until is None else round(now.wall + (situation.until - now.mono), 1),
    )


def _message(spec: LaunchSpec, situation: Situation, life: Life | None) -> str | None:
    notes = [situation.message]
    if life is not None and situation.body is Body.ALIVE:
        notes += [life.note, life.differs_from(spec)]
    return sanitise("; ".join(note for note in notes if note)) or None
