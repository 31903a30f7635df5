"""What the pages of one rank have shown of KV blocks that nobody holds: while it worked, and while it was idle."""

from __future__ import annotations

from msgspec.structs import replace

from alerts.kv_accounting import Blocks
from alerts.kv_bound import Ledger, excess, opened, turned, unsettles
from alerts.kv_drift import GAP_S, Drift, ended, lost, went
from alerts.kv_level import Level, paged
from alerts.kv_level import acquitted as settled
from alerts.kv_votes import Votes, acquitted, begun, limited, voted
from opsboard.core.model import Record

IDLE_READINGS = 3
"""So many idle readings prove what all of them show; of different idle moments two do."""
SUSPECTED = 8
"""Fewer blocks are not claimed by drift alone."""
PAGES = 60
"""So many pages are looked back on for the least that was in use."""
_SMOOTH = 0.02
LEAST_SHARE = 0.002
"""Of the pool: by the bound alone fewer blocks are no evidence, nor is one."""


class Moment(Record, frozen=True):
    """One idle reading: the counters tell one idle moment from the next."""

    counted: tuple[float, ...]
    used: int


class Waiting(Record, frozen=True):
    """A reading whose vote waits for the next page (see :func:`alerts.kv_bound.unsettles`)."""

    beyond: float
    bound: float
    used: int
    mono: float
    before: Blocks | None
    """The page before it, where that was settled too."""


class Rank(Record, frozen=True, kw_only=True):
    """What is remembered of one rank. Instants are monotonic seconds."""

    last: Blocks
    at: float
    ledger: Ledger | None
    votes: Votes
    drift: Drift = Drift()
    level: Level = Level()
    low: tuple[int, ...] = ()
    """Blocks in use on the last pages: no more can be lost."""
    load: float = 0.0
    """Running requests, smoothed."""
    waiting: Waiting | None = None
    idle: tuple[Moment, ...] = ()
    idle_lost: int = 0
    moments: int = 0
    """Idle moments in which blocks were in use, since all were accounted for."""
    clean: float | None = None
    """When all blocks were last accounted for."""
    reserved: int = 0
    """In use before any request was: nobody lost them."""
    resting: float | None = None
    """Since when it is idle and nobody asked for more than a canary does."""

    @property
    def lost(self) -> int:
        """Blocks that are lost at least."""
        return max(self.idle_lost, self.votes.lost)

    @property
    def drifted(self) -> int:
        """Blocks that are lost by its drift, which is no proof."""
        found = lost(self.drift, self.last.finished) if self.votes.trusted else 0
        return self._held(found, max(SUSPECTED, self.votes.least)) if self.level.allows(found) else 0

    @property
    def raised(self) -> int:
        """Blocks that are lost by the level above its load, which is no proof either."""
        return 0 if self.level.claim is None else self._held(self.level.claim.lost, SUSPECTED)

    @property
    def suspected(self) -> int:
        """Blocks that are lost by any evidence that is no proof."""
        return max(self.drifted, self.raised)

    def _held(self, found: int, least: int) -> int:
        """Return what of it was in use on all of the last pages, 0 where that is less than ``least``."""
        held = min(found, *self.low) if self.low else 0
        return held if held >= least else 0


def met(new: Blocks, mono: float) -> Rank:
    """Begin with the first page of a life."""
    least = max(2, round(LEAST_SHARE * new.pool))
    untouched = new.idle and not any(new.counted) and not new.steps
    rank = Rank(
        last=new,
        at=mono,
        ledger=opened(new),
        votes=begun(least, told=new.told),
        reserved=new.used if untouched and new.counted else 0,
    )
    rank = _idled(rank, new, max(0, new.used - rank.reserved), mono) if new.idle else rank
    return _rested(rank, new, mono)


def read(rank: Rank, new: Blocks, mono: float, *, spec_tokens: int, lends: bool) -> Rank:
    """Take in the next page. ``lends``: blocks may be held for others (a KV connector), so that usage proves nothing.

    A page on which nothing moved proves nothing either, but that an idle engine is still idle.
    """
    old = rank.last
    if not new.idle and not _stepped(old, new):
        return replace(rank, at=mono)
    used = max(0, new.used - rank.reserved)
    rank = replace(
        rank,
        votes=limited(rank.votes, used),
        idle_lost=min(rank.idle_lost, used),
        idle=tuple(one if one.used <= used else Moment(one.counted, used) for one in rank.idle),
        low=(*rank.low[1 - PAGES :], used),
        load=rank.load + _SMOOTH * (new.running - rank.load),
    )
    if not lends:
        rank = _bounded(rank, old, new, mono, spec_tokens) if new.uniform else rank
        rank = replace(rank, level=paged(rank.level, (old, new), rank.drift, mono, mono - rank.at))
        rank = _idled(rank, new, used, mono) if new.idle else rank
    return _rested(replace(rank, last=new, at=mono), new, mono, old)


def _stepped(old: Blocks, new: Blocks) -> bool:
    """Tell whether the engine has made a step between the pages: else the second repeats what the first said."""
    return (old.steps, old.counted, old.used, old.running, old.waiting) != (
        new.steps, new.counted, new.used, new.running, new.waiting,
    )  # fmt: skip


def _bounded(rank: Rank, old: Blocks, new: Blocks, mono: float, spec_tokens: int) -> Rank:
    """Compare what is used with what the tokens on the page explain."""
    if rank.ledger is None:
        return replace(rank, ledger=opened(new), waiting=None)
    votes, waiting, drift = rank.votes, rank.waiting, rank.drift
    if waiting is not None and unsettles(rank.ledger, new):
        waiting = None
    if waiting is not None:
        votes = voted(votes, waiting.beyond, waiting.bound, waiting.used, waiting.mono)
    held = min(rank.low) / max(1.0, rank.load)
    if waiting is not None and waiting.before is not None:
        drift = went(drift, waiting.before, old, held, mono)
    else:
        drift = ended(drift, old.finished or 0.0, held, mono)
    ledger = turned(rank.ledger, old, new, rank.lost)
    beyond = None if ledger is None else excess(ledger, new, spec_tokens)
    rank = replace(rank, ledger=ledger, votes=votes, drift=drift, waiting=None)
    if beyond is None:
        return rank
    beyond -= rank.reserved
    before = old if waiting is not None and mono - rank.at <= GAP_S else None
    return replace(rank, waiting=Waiting(beyond, new.used - beyond, new.used, mono, before))


def _idled(rank: Rank, new: Blocks, used: int, mono: float) -> Rank:
    """Without a request nothing may be in use, however full the prefix cache is."""
    if used == 0:
        return replace(
            rank,
            votes=acquitted(rank.votes),
            drift=replace(Drift(), learnt=rank.drift.learnt),
            level=settled(rank.level),
            idle=(),
            idle_lost=0,
            moments=0,
            clean=mono,
            waiting=None,
        )
    before = rank.idle
    other = not before or before[-1].counted != new.counted
    idle = (*before[1 - IDLE_READINGS :], Moment(new.counted, used))
    proven = 0
    if len(idle) == IDLE_READINGS:
        proven = min(one.used for one in idle)
    if other and before:
        proven = max(proven, min(before[-1].used, used))
    return replace(
        rank, idle=idle, idle_lost=max(rank.idle_lost, proven), moments=min(rank.moments + other, IDLE_READINGS)
    )


def _rested(rank: Rank, new: Blocks, mono: float, old: Blocks | None = None) -> Rank:
    """Follow for how long it has been idle. A canary that comes and goes between two pages is no work."""
    asked = 0.0 if old is None or new.finished is None or old.finished is None else new.finished - old.finished
    if not new.idle or asked > 1:
        return replace(rank, resting=None)
    return rank if rank.resting is not None else replace(rank, resting=mono)


def returned(rank: Rank) -> Rank:
    """Take what is used now for lost: whoever may have been lent it has had the time to give it back."""
    used = max(0, rank.last.used - rank.reserved)
    return replace(rank, idle_lost=used, moments=IDLE_READINGS)
