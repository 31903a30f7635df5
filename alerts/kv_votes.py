"""Single readings that speak for lost KV blocks, and what so many of them prove together.

A reading may mislead: two numbers of it need not be of the same instant. What is lost stays lost, so readings need not
follow each other: what several of the last ones show at least is proven, as long as more than that is in use.
"""

from __future__ import annotations

from math import floor

from msgspec.structs import replace

from opsboard.core.model import Record

KEPT = 60
"""Readings that are remembered."""
NEEDED = 5
"""Of these so many must show it. In 2,000 readings of a real engine one misled (a race between page and gateway)."""
TRIED = 10
"""Readings with a tight bound and nothing lost that show that the law holds for this engine."""
FAILED = 3
"""Before that, so many beyond the bound show that it does not: its requests hold more than we know of."""
TIGHT = 0.5
"""A bound is tight when at least this share of it is used."""


class Votes(Record, frozen=True, kw_only=True):
    """Blocks beyond the bound in the last readings. ``least``: fewer are no evidence."""

    least: int = 1
    shown: tuple[int, ...] = ()
    lost: int = 0
    """Proven by them."""
    since: float | None = None
    """When (monotonic s) the first of those came that prove it."""
    first: float | None = None
    held: int = 0
    broken: int = 0

    @property
    def trusted(self) -> bool:
        """The law was seen to hold for this engine."""
        return self.held >= TRIED and self.broken < FAILED

    @property
    def distrusted(self) -> bool:
        """It was seen not to."""
        return self.broken >= FAILED


def begun(least: int = 1, *, told: bool) -> Votes:
    """Begin. ``told``: the engine itself says that the law holds for it, so that it need not be tried."""
    return Votes(least=least, held=TRIED if told else 0)


def voted(votes: Votes, beyond: float, bound: float, used: int, mono: float) -> Votes:
    """Take in a reading: ``beyond`` blocks more are used than ``bound``, which is what can be explained."""
    blocks = floor(beyond + 1e-9)
    if not votes.trusted:
        if blocks >= votes.least:
            return replace(votes, broken=min(votes.broken + 1, FAILED))
        tight = bound > 0 and used >= TIGHT * bound
        return replace(votes, held=min(votes.held + 1, TRIED)) if tight and not votes.distrusted else votes
    shown = (*votes.shown[1 - KEPT :], blocks)
    positive = blocks >= votes.least
    first = votes.first if any(one >= votes.least for one in votes.shown) else None
    if first is None and positive:
        first = mono
    proven = sorted(shown)[-NEEDED] if len(shown) >= NEEDED else 0
    lost = max(votes.lost, proven) if proven >= votes.least else votes.lost
    since = first if lost and not votes.lost else votes.since
    return replace(votes, shown=shown, first=first, lost=lost, since=since)


def limited(votes: Votes, used: int) -> Votes:
    """Take back what cannot be lost, because no more than ``used`` are in use at all."""
    if votes.lost <= used and (not votes.shown or max(votes.shown) <= used):
        return votes
    lost = min(votes.lost, used)
    return replace(
        votes,
        shown=tuple(min(one, used) for one in votes.shown),
        lost=lost if lost >= votes.least else 0,
        since=votes.since if lost >= votes.least else None,
    )


def acquitted(votes: Votes) -> Votes:
    """Begin anew: nothing is lost for sure. Whether the law holds is tried again if it was seen not to."""
    return Votes(least=votes.least, held=votes.held if votes.trusted else 0)
