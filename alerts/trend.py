"""Whether blocks of working time show a leak, and whether one that was found goes on.

What counts is a straight line by work: one that bends down is a cache that fills, one that follows the load is the
load's, one jump is something that was loaded, and one that has always been there at this steepness is seen only by a
window that reaches back half of the life.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple, Protocol

from alerts.blocks import Block, Sample, works
from alerts.straight import Line, line, slope

WINDOW = 24
"""Blocks that are judged together, 4 minutes at the finest scale."""
KEPT = 2 * WINDOW
HALVES = 0.87
"""The later half rises at least so much of what the earlier one does. Over doubled work a root has
0.84, a logarithm 0.71."""
STEEPER = 1.5
"""What begins in the middle of a life rises by so much more than what was before."""
EVEN = 0.5
"""Each third of the way has at least this part of the whole slope, and at most its reciprocal."""
JUMP = 0.25
"""A larger part of the gain in one block is something that was loaded."""
HELD = 16.0 * (1 << 20)
"""Bytes that a request under way may take, and allocators keep: prompts of 100,000 tokens, images."""
BUSIER, RECORD = 1.02, 1.1
"""Where that may be most of the gain and the load is so far above all before: then OWN of the slope must be left
beside what the highest load explains; from RECORD on nothing can be told."""
OWN = 0.7
FEW = 1.0
"""Requests more than before that are chance, in an engine with few."""
TIGHT = 0.7
"""The lower bound of the slope is at least this part of it: levels wander by themselves, too."""
SURE = 3.0
"""Standard errors that the slope's lower bound lies below it."""
AGAIN = 1.2
"""Growth must be so much more than a fall that was seen."""
GOES_ON_S = 480.0
"""Work of so long at least tells whether it goes on,"""
SLOWS = 0.25
"""and at least this part of its pace is left."""


class Rules(NamedTuple):
    """When growth is worth a word. Bytes and work."""

    gain: float
    """Least growth that is claimed."""
    quick_per_s: float = 0.0
    """Least pace (bytes a second) of what is claimed after the shortest window: others have time for a longer look."""
    requests: float = 50.0
    """Least finished requests in a window; with fewer, chance decides."""
    tokens: float = 5_000.0
    """Least tokens, where requests are not counted."""


class Trend(NamedTuple):
    """A leak as far as it is known. Bytes, seconds; ``unit`` is the work that explains it best."""

    unit: str
    per_work: float
    low_per_work: float
    """The lower end of its interval, ``SURE`` standard errors below."""
    base: float
    """The level before it."""
    since: float
    """When it began (monotonic s)."""
    gain: float
    opened_gain: float
    span: float
    """Work after which it is looked whether it goes on."""
    mark: tuple[float, float]
    """Work and level when it was last looked whether it goes on."""
    works_per_s: float
    """How fast work is done, pauses included."""

    @property
    def per_s(self) -> float:
        """Bytes a second at that pace."""
        return self.per_work * self.works_per_s


class Past(Protocol):
    """What else is remembered of the level."""

    @property
    def first(self) -> Sample | None:
        """When it was first seen."""

    @property
    def fall(self) -> float:
        """The deepest fall that was seen lately, in bytes."""


def mean_slope(window: Sequence[Block]) -> float:
    """Return bytes a request (a token, where requests are not counted) over a whole window, inf before it is one."""
    if len(window) < WINDOW:
        return inf
    work = works(window, "request" if window[-1].requests else "token")
    return slope(work, [block.low for block in window]) if work[-1] > work[0] else inf


# --- is it one? ---


def find(blocks: Sequence[Block], past: Past, calm: float, rules: Rules, *, quick: bool = False) -> Trend | None:
    """Return what the last ``WINDOW`` blocks show, None: no leak that can be told from something else.

    ``calm`` is the least slope that a window of this scale had; ``quick``: the scale is the finest one.
    """
    window = blocks[-WINDOW:]
    least = max(rules.gain, AGAIN * past.fall)
    if len(window) < WINDOW or window[-1].low - window[0].low < least:
        return None
    for unit in _units(window, rules):
        known = calm if unit == "request" or not window[-1].requests else inf
        trend = _straight(past, blocks, unit, least, known)
        if trend is not None and (not quick or trend.per_s >= rules.quick_per_s):
            return trend
    return None


def _units(window: Sequence[Block], rules: Rules) -> Iterator[str]:
    """Yield the kinds of work of which enough was done."""
    first, last = window[0], window[-1]
    requests, tokens = last.requests - first.requests, last.tokens - first.tokens
    if requests >= rules.requests:
        yield "request"
    if tokens >= rules.tokens and (requests >= rules.requests or not last.requests):
        yield "token"


def _straight(past: Past, blocks: Sequence[Block], unit: str, least: float, calm: float) -> Trend | None:
    window = blocks[-WINDOW:]
    work = works(window, unit)
    loads = [block.load for block in window]
    if HELD * (max(loads) - min(loads)) <= (1 - OWN) * (window[-1].low - window[0].low):
        loads = [0.0] * WINDOW  # it cannot explain much, and rises along with work where it rises evenly
    found = line(work, [block.low for block in window], loads)
    if found is None or found.slope - SURE * found.error < TIGHT * found.slope or found.slope <= 0:
        return None
    span = work[-1] - work[0]
    gain = found.slope * span
    if gain < least or not _even(work, found) or max(b - a for a, b in pairwise(found.levels)) > JUMP * gain:
        return None
    if _load_may_explain(window, work, found.slope, gain):
        return None
    older = blocks[-KEPT:-WINDOW]
    before = _before(past, older, window[0], unit, span)
    if before is None:
        return None
    # What was before the older blocks may still tell; so long ago, chance has had more time, too.
    calmer = found.slope >= STEEPER * calm and gain >= 2 * least and _late(past, blocks, unit)
    began = calmer or found.slope >= STEEPER * before
    if not began and not _as_ever(past, blocks, unit, found.slope, before):
        return None
    rising = bool(older) and before > EVEN * found.slope
    # Where it began within the window, the later half has less of what was before.
    rate = found.slope if rising else slope(work[WINDOW // 2 :], found.levels[WINDOW // 2 :])
    at, base = _beginning(older, window, unit, rate, rising=rising)
    elapsed = max(1.0, window[-1].at - window[0].at)
    gained = max(window[-1].low - base, gain)
    return Trend(
        unit=unit,
        per_work=rate,
        low_per_work=min(rate, found.slope - SURE * found.error),
        base=base,
        since=at,
        gain=gained,
        opened_gain=gained,
        span=max(span, span / elapsed * GOES_ON_S),
        mark=(work[-1], window[-1].low),
        works_per_s=span / elapsed,
    )


def _even(work: Sequence[float], found: Line) -> bool:
    """Tell whether it rises alike all the way: as a line, not as what fills up or came in one piece."""
    size = WINDOW // 4
    means = [
        (sum(work[at : at + size]) / size, sum(found.levels[at : at + size]) / size) for at in range(0, WINDOW, size)
    ]
    for (w0, y0), (w1, y1) in pairwise(means):
        rate = (y1 - y0) / (w1 - w0) if w1 > w0 else inf
        if not EVEN * found.slope <= rate <= found.slope / EVEN:
            return False
    if slope(work[-size:], found.levels[-size:]) < EVEN * found.slope:
        return False
    half = WINDOW // 2
    return slope(work[half:], found.levels[half:]) >= HALVES * slope(work[:half], found.levels[:half])


def _load_may_explain(window: Sequence[Block], work: Sequence[float], per_work: float, gain: float) -> bool:
    """Tell whether requests under way may hold what was gained: more of them than ever before."""
    before, now = window[0].top, window[-1].top
    if HELD * (now - before) <= (1 - OWN) * gain or now <= BUSIER * before + FEW:
        return False
    if now > RECORD * before + FEW:
        return True
    rest = line(work, [block.low for block in window], [block.top for block in window])
    return rest is None or rest.slope < OWN * per_work


def _as_ever(past: Past, blocks: Sequence[Block], unit: str, per_work: float, before: float) -> bool:
    """Tell whether it has risen so ever since it was first seen, and for so long that a cache would have bent."""
    if len(blocks) < WINDOW + WINDOW // 2:
        return False
    window = blocks[-WINDOW:]
    whole = _since_first(past, window[0], unit, window[-1].work(unit) - window[0].work(unit))
    if per_work < HALVES * max(before, whole or 0.0):
        return False
    return not _late(past, blocks, unit) or (whole is not None and per_work * HALVES <= whole)


def _late(past: Past, blocks: Sequence[Block], unit: str) -> bool:
    """Tell whether more was done before all these blocks than in them: there what fills up slowly looks straight."""
    first, last = blocks[0].work(unit), blocks[-1].work(unit)
    return past.first is not None and first - _done(past.first, unit) > last - first


def _before(past: Past, older: Sequence[Block], begins: Block, unit: str, span: float) -> float | None:
    """Return how steep it was before the window, in bytes a unit of work. None: too little was seen of that.

    Where there are few blocks, what its warm-up took counts, too: a cache that fills was steeper there.
    """
    if len(older) >= WINDOW // 2:
        return slope(works(older, unit), [block.low for block in older])
    return _since_first(past, begins, unit, span)


def _since_first(past: Past, begins: Block, unit: str, span: float) -> float | None:
    """Return how steep it was from the first look on, warm-up and all. None: too little was done since."""
    if past.first is None:
        return None
    done = begins.work(unit) - _done(past.first, unit)
    return (begins.low - past.first.level) / done if done > span / WINDOW else None


def _done(sample: Sample, unit: str) -> float:
    return (sample.tokens if unit == "token" else sample.requests) or 0.0


def _beginning(
    older: Sequence[Block], window: Sequence[Block], unit: str, rate: float, *, rising: bool
) -> tuple[float, float]:
    """Return when it began and from which level: where the line meets what was before it."""
    if not older or rising:
        first = older[0] if older else window[0]
        return first.at, first.low
    base = sum(block.low for block in older) / len(older)
    half = window[WINDOW // 2 :]
    work, level = sum(works(half, unit)) / len(half), sum(block.low for block in half) / len(half)
    begun = work - (level - base) / rate
    met = (block for block in (*older, *window) if block.work(unit) >= begun)
    return next(met, window[0]).at, base


# --- does it go on? ---


def gone_on(trend: Trend, block: Block) -> Trend | None:
    """Take a block in. None: it came back down, or as much work again was done and hardly anything was added."""
    work, gain = block.work(trend.unit), block.low - trend.base
    if gain < EVEN * trend.opened_gain:
        return None
    since_work, since_level = trend.mark
    if work - since_work < trend.span:
        return trend._replace(gain=gain)
    rate = (block.low - since_level) / (work - since_work)
    if rate < SLOWS * trend.per_work:
        return None
    low = rate * trend.low_per_work / trend.per_work
    return trend._replace(gain=gain, per_work=rate, low_per_work=low, mark=(work, block.low))
