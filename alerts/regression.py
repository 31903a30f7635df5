"""Whether something takes longer than its load explains, since when, and whether that is over.

A cumulative sum of what is beyond a tolerance (CUSUM with a dead band, on logarithms of observed / expected, each
clipped): one slow moment is nothing, a small excess that stays is. While anything is suspicious nothing is learnt.
"""

from __future__ import annotations

from math import exp, log
from statistics import median
from typing import NamedTuple

from msgspec.structs import replace

from alerts.load_model import LoadModel, Loads
from opsboard.core.model import Record

CLIP = 0.25
"""A second weighs no more than this, however slow it was."""
RECENT = 8
"""At least half of the last so many observations are beyond the tolerance when a claim opens."""
_STALE_S, _LOST_S = 120.0, 3600.0
"""A suspicion is dropped when so much work could not be judged; and a claim."""
WAITING, _AT_ONCE = 45, 4
"""So many observations wait to be learnt, and so many of them are at a time: a fault may drive an engine into loads
that it never had."""
_BLOCK_S = 30.0
_DIFFERENCE = 1.6
"""Variance for the squared difference of two such blocks: 0.5 if one says nothing of the next, more as it does."""
_BLOCKS_LEAST, _YOUNG = 10, 4.0
"""How many say how far it wanders, and how old (in times it takes to learn) what is known must be before."""
_NOISY = 2.5
"""An engine whose residuals wander by themselves gets a tolerance of so many standard deviations, up to the next."""
_WIDEST = log(1.25)
_STEADY, _UNSTEADIEST = 0.02, 3.0
"""Beyond such a standard deviation patience grows as its square, up to so many times: what a random walk needs."""

_ABSURD = 1e9
"""No load and no seconds a token are ever more, nor seconds less than its inverse; its squares can be counted with."""


class Took(NamedTuple):
    """One observation: ``seconds`` under ``loads``, in ``work_s`` of work that ended ``at`` (monotonic s)."""

    loads: Loads
    seconds: float
    work_s: float
    at: float


class Rules(Record, frozen=True, kw_only=True):
    """What counts. Seconds are seconds at work."""

    tolerance: float
    patience_s: float
    learn_s: float
    memory_s: float


class Watch(Record, frozen=True, kw_only=True):
    """What is known of one kind of work of an engine. ``at`` and ``since`` are monotonic seconds."""

    rules: Rules
    model: LoadModel
    trained_s: float = 0.0
    judged: float | None = None
    """When something could last be compared; None: never yet in this life."""
    first: float | None = None
    """And first in this life."""
    sum: float = 0.0
    since: float = 0.0
    """When the excess began: the last moment without any."""
    recent: tuple[float, ...] = ()
    level: float = 0.0
    """Mean excess since then, of the last minute when longer (logarithm)."""
    level_s: float = 0.0
    opened: float | None = None
    well: float = 0.0
    """Sum of what speaks for its end, while claimed."""
    better: float = 0.0
    """Sum of what is below the tolerance: then what was learnt is too slow by now."""
    blind_s: float = 0.0
    waiting: tuple[Took, ...] = ()
    """What came under loads never seen before, until what can be compared says that all is well."""
    block: tuple[float, float] = (0.0, 0.0)
    """Sum and seconds of the half minute under way."""
    last_block: float = 0.0
    wander: float = 0.0
    """Variance of what half a minute is off."""
    blocks: int = 0

    @property
    def ready(self) -> bool:
        """It has learnt enough to compare with."""
        return self.trained_s >= self.rules.learn_s

    @property
    def suspicious(self) -> bool:
        """It is slower than expected now, be it for a moment."""
        return self.sum > 0.0 or self.opened is not None

    @property
    def ratio(self) -> float:
        """Observed / expected."""
        return exp(self.level)

    @property
    def tolerance(self) -> float:
        """What is tolerated (logarithm): as configured, or more where it wanders by itself."""
        usual = log(1.0 + self.rules.tolerance)
        return usual if self.blocks < _BLOCKS_LEAST else max(usual, min(_WIDEST, _NOISY * self.wander**0.5))

    @property
    def patience(self) -> float:
        """The sum (logarithm times seconds) that is too much: a wandering engine gets more."""
        unsteady = 1.0 if self.blocks < _BLOCKS_LEAST else self.wander / _STEADY**2
        return self.tolerance * self.rules.patience_s * max(1.0, min(_UNSTEADIEST, unsteady))

    def again(self) -> Watch:
        """Return it for another life of the engine: what is normal stays known, and a claim stands until judged."""
        return replace(self, sum=0.0, recent=(), well=0.0, better=0.0, first=None, judged=None, blind_s=0.0, waiting=())

    def dropped(self) -> Watch:
        """Return it without a claim: nobody will judge it for a while."""
        return replace(self.again(), opened=None, level=0.0, level_s=0.0)

    def take(self, took: Took) -> Watch:
        """Take in one observation; one that no engine could make says nothing: a counter has jumped."""
        if not (1 / _ABSURD <= took.seconds <= _ABSURD and all(0.0 <= load <= _ABSURD for load in took.loads)):
            return self
        expected = self.model.expected(took.loads) if self.ready else None
        if expected is None:
            return _blind(self, took)
        excess, at = log(took.seconds / expected), took.at
        first = at if self.first is None else self.first
        since = at if self.first is None and self.opened is None else self.since
        watch = replace(
            self, judged=at, first=first, since=since, blind_s=0.0, recent=(*self.recent[1 - RECENT :], excess)
        )
        if watch.opened is not None:
            return _closing(watch, excess, took)
        if self.sum < self.patience / 2:
            watch = _wandered(watch, excess, took.work_s)
        return _opening(watch, excess, took)


def _blind(watch: Watch, took: Took) -> Watch:
    """Nothing like it was seen: learn it, unless something is suspicious."""
    blind_s = watch.blind_s + took.work_s
    if watch.opened is not None and blind_s >= _LOST_S:  # nobody knows whether it is still true
        watch = watch.dropped()
    if watch.opened is not None or (watch.sum > 0.0 and blind_s < _STALE_S):
        return replace(watch, blind_s=blind_s)
    watch = replace(watch, sum=0.0, since=took.at, blind_s=blind_s)
    if not watch.ready:
        return _learnt(watch, took, like=False)
    watch = replace(watch, waiting=(*watch.waiting, took))
    return watch if len(watch.waiting) <= WAITING else _caught_up(watch)


def _opening(watch: Watch, excess: float, took: Took) -> Watch:
    tolerance, work_s, at = watch.tolerance, took.work_s, took.at
    total = max(0.0, watch.sum + _clipped(excess - tolerance) * work_s)
    if total == 0.0:
        better = max(0.0, watch.better + _clipped(-excess - tolerance) * work_s)
        watch = replace(watch, sum=0.0, since=at, level=0.0, level_s=0.0, better=better)
        if better > 2 * watch.rules.patience_s * tolerance:
            watch = replace(watch, better=0.0, model=watch.model.forget(0.05))
        return _learnt(_caught_up(watch), took, like=True)
    watch = _levelled(replace(watch, sum=total, better=0.0), excess, work_s)
    enough = total > watch.patience and len(watch.recent) == RECENT
    stays = enough and median(watch.recent) > tolerance
    return replace(watch, opened=at, well=0.0, waiting=()) if stays else watch


def _closing(watch: Watch, excess: float, took: Took) -> Watch:
    well = max(0.0, watch.well + _clipped(watch.tolerance / 2 - excess) * took.work_s)
    if well > watch.tolerance * watch.rules.patience_s / 3:
        return replace(watch, opened=None, sum=0.0, since=took.at, level=0.0, level_s=0.0, recent=(), well=0.0)
    watch = replace(watch, well=well)
    return watch if well else _levelled(watch, excess, took.work_s)


def _levelled(watch: Watch, excess: float, work_s: float) -> Watch:
    level_s = watch.level_s + work_s
    level = watch.level + (excess - watch.level) * min(1.0, work_s / min(level_s, 60.0))
    return replace(watch, level=level, level_s=level_s)


def _wandered(watch: Watch, excess: float, work_s: float) -> Watch:
    """Learn how far half a minute is off the one before: a slow drift is none of that, a real change counts little."""
    total, seconds = watch.block[0] + excess * work_s, watch.block[1] + work_s
    if seconds < _BLOCK_S:
        return replace(watch, block=(total, seconds))
    mean = total / seconds
    if watch.trained_s < _YOUNG * watch.rules.learn_s:
        return replace(watch, block=(0.0, 0.0), last_block=mean)
    blocks = watch.blocks + 1
    square = _DIFFERENCE * min(abs(mean - watch.last_block), log(1.0 + watch.rules.tolerance)) ** 2
    wander = watch.wander + (square - watch.wander) / min(blocks, 500)
    return replace(watch, block=(0.0, 0.0), last_block=mean, blocks=blocks, wander=wander)


def _caught_up(watch: Watch) -> Watch:
    """Learn some of what has waited."""
    for took in watch.waiting[:_AT_ONCE]:
        watch = _learnt(watch, took, like=False)
    return replace(watch, waiting=watch.waiting[_AT_ONCE:]) if watch.waiting else watch


def _learnt(watch: Watch, took: Took, *, like: bool) -> Watch:
    model = watch.model.learn(took.loads, took.seconds, exp(-took.work_s / watch.rules.memory_s), like=like)
    return replace(watch, model=model, trained_s=watch.trained_s + took.work_s)


def _clipped(value: float) -> float:
    return max(-CLIP, min(CLIP, value))
