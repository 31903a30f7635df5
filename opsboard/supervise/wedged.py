"""Is a GPU in a state that no restart of an engine cures?"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from opsboard.core.model import GpuView
from opsboard.core.xids import NEEDS_RESET

RECENT_S = 600.0
"""An Xid older than this did not end the life that ended now; the driver does not tell when a card has been reset."""


def wedged(cards: Iterable[GpuView], gpus: Collection[str] | None, now: float) -> str | None:
    """Return what a person must do to one of ``gpus`` before anything can run there; None when nothing is known.

    ``gpus`` are uuids or numbers; None, an engine that may use any, is judged only where there is but one card.
    ``now`` is Unix seconds.
    """
    known = tuple(cards)
    if gpus is None:
        known = known if len({card.index for card in known}) == 1 else ()
    for card in known:
        if gpus is not None and not {card.uuid, card.parent, str(card.index)} & set(gpus):
            continue
        if card.lost:
            return f"GPU {card.index} does not answer the driver: reset it or restart the host"
        recent = card.xid_time is not None and now - card.xid_time <= RECENT_S
        if recent and card.xid in NEEDS_RESET:
            return f"GPU {card.index}: Xid {card.xid}, {NEEDS_RESET[card.xid]}: reset it or restart the host"
    return None
