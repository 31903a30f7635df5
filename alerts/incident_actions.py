"""What was done about an incident, as a list that stays short. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from opsboard.core.incidents import IncidentAction
from opsboard.core.model import Transaction

ACTIONS_KEPT = 100
"""Of more the oldest are in the timeline only."""


def action_of(transaction: Transaction) -> IncidentAction:
    """Return a start or restart as an action."""
    return IncidentAction(
        id=transaction.id,
        kind=transaction.kind,
        time=transaction.began,
        outcome=transaction.outcome,
        reason=transaction.cause,
    )


def put(actions: Iterable[IncidentAction], done: IncidentAction) -> tuple[IncidentAction, ...]:
    """Return ``actions`` with ``done``: in the place of what it was, or was decided to be, before."""
    others = (one for one in actions if one.id != done.id and not _decided(one, done))
    return (*others, done)[-ACTIONS_KEPT:]


def _decided(one: IncidentAction, done: IncidentAction) -> bool:
    """Tell whether ``one`` is a policy's decision that led to ``done``: its reason names policy, incident, numbers."""
    return one.outcome is None and one.reason is not None and (one.kind, one.reason) == (done.kind, done.reason)
