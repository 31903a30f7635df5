"""Growth of something that should stay as it is, measured against the work done: a leak, not warm-up or a cache.

Numbers come as :class:`Sample`; minima over blocks of working time are kept at scales that double, so that the last
minutes and the whole life are seen alike in a memory that does not grow. What counts is a straight line by work: one
that bends down is a cache that fills, one that follows the load is the load's, one jump is something that was loaded,
and one that has always been there at this steepness is seen only by a window that reaches back half of the life.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

from alerts.straight import Line, line, slope

BLOCK_S = 20.0
"""Working time in a block of the finest scale."""
WINDOW = 24
"""Blocks that are judged together, 8 minutes at the finest scale."""
KEPT = 2 * WINDOW
SCALES = 12
"""The coarsest window spans 11 days of work."""
GAP_S = 30.0
"""Longer without a sample counts as this long."""
HALVES = 0.87
"""The later half rises at least so much of what the earlier one does. Over doubled work a root has
0.84, a logarithm 0.71."""
STEEPER = 1.5
"""What begins in the middle of a life rises by so much more than what was before."""
EVEN = 0.5
"""Each third of the way has at least this part of the whole slope, and at most its reciprocal."""
JUMP = 0.25
"""A larger part of the gain in one block is something that was loaded."""
BUSIER, RECORD = 1.02, 1.1
"""A load so far above all before it may have taken what its largest moment needed, and allocators keep that: then OWN
of the slope must be left beside what that explains; from RECORD on nothing can be told."""
OWN = 0.7
FEW = 1.0
"""Requests more than before that are chance, in an engine with few."""
TIGHT = 0.7
"""The lower bound of the slope is at least this part of it: levels wander by themselves, too."""
SURE = 3.0
"""Standard errors that the slope's lower bound lies below it."""
AGAIN = 1.2
"""Growth must be so much more than a fall that was seen."""
FORGET = 0.999
"""Of a fall that was seen, a block later: half of it after 4 hours of work."""


class Sample(NamedTuple):
    """One look: when (monotonic s), how much there is (bytes), and cumulative work; ``load`` is requests in the engine.

    ``requests`` or ``tokens`` is None where the engine does not count them.
    """

    at: float
    level: float
    requests: float | None
    tokens: float | None
    load: float


class Block(NamedTuple):
    """A stretch of working time: its least level, and means of what was done until then."""

    at: float
    low: float
    requests: float
    tokens: float
    load: float
    top: float
    """The highest load of any block of this life up to its end."""
    samples: int = 1


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
    """Work over which it was seen when it was found."""
    mark: tuple[float, float]
    """Work and level when it was last looked whether it goes on."""
    works_per_s: float
    """How fast work is done, pauses included."""

    @property
    def per_s(self) -> float:
        """Bytes a second at that pace."""
        return self.per_work * self.works_per_s


class Rules(NamedTuple):
    """When growth is worth a word. Bytes and work."""

    gain: float
    """Least growth that is claimed."""
    requests: float = 200.0
    """Least finished requests in a window; with fewer, chance decides."""
    tokens: float = 20_000.0
    """Least tokens, where requests are not counted."""


class Growth(NamedTuple):
    """What is remembered of one level. ``scales`` are blocks, finest first; ``halves`` wait for their pair."""

    first: tuple[float, float] | None = None
    """Requests and tokens when it was first seen: an engine that was there before opsboard was."""
    last: Sample | None = None
    open: Block | None = None
    open_s: float = 0.0
    scales: tuple[tuple[Block, ...], ...] = ()
    halves: tuple[Block | None, ...] = ()
    calm: tuple[float, ...] = ()
    """Of each scale the least slope by work that a whole window had: what fills up is never less steep than later."""
    high: float = 0.0
    fall: float = 0.0
    """The deepest fall below the highest level, slowly forgotten: what comes back down is no leak."""
    top: float = 0.0
    trend: Trend | None = None


def claimed_trend(growth: Growth) -> Trend:
    """Return the trend of a level that is claimed to grow."""
    if growth.trend is None:
        raise AssertionError("a claim needs a trend")
    return growth.trend


def add(growth: Growth, sample: Sample, rules: Rules) -> Growth:
    """Take in a sample that is later than the last one. Those between which nothing is done say nothing."""
    last = growth.last
    requests, tokens = sample.requests or 0.0, sample.tokens or 0.0
    if last is None:
        return growth._replace(first=growth.first or (requests, tokens), last=sample)
    if sample.at <= last.at:
        return growth
    if not (requests > (last.requests or 0.0) or tokens > (last.tokens or 0.0)):
        return growth._replace(last=sample)
    seconds = growth.open_s + min(sample.at - last.at, GAP_S)
    block = Block(sample.at, sample.level, requests, tokens, sample.load, 0.0)
    block = block if growth.open is None else _joined(growth.open, block)
    growth = growth._replace(last=sample, open=block, open_s=seconds)
    return growth if seconds < BLOCK_S else _closed(growth._replace(open=None, open_s=0.0), block, rules)


def _joined(one: Block, two: Block) -> Block:
    samples = one.samples + two.samples
    a, b = one.samples / samples, two.samples / samples
    return Block(
        a * one.at + b * two.at,
        min(one.low, two.low),
        a * one.requests + b * two.requests,
        a * one.tokens + b * two.tokens,
        a * one.load + b * two.load,
        max(one.top, two.top),
        samples,
    )


def _closed(growth: Growth, block: Block, rules: Rules) -> Growth:
    """Put a whole block to the others of its scale; every other one completes one of the next scale, too."""
    block = block._replace(top=max(growth.top, block.load))
    high = max(block.low, block.low + FORGET * (growth.high - block.low))
    growth = growth._replace(top=block.top, high=high, fall=max(growth.fall * FORGET, high - block.low))
    if growth.trend is not None:
        trend = _gone_on(growth.trend, block)
        if trend is None:  # what is over is not found again in what is remembered of it
            done = block.requests, block.tokens
            return Growth(first=done, last=growth.last, high=high, fall=growth.fall, top=growth.top)
        growth = growth._replace(trend=trend)
    scales, halves, calm = list(growth.scales), list(growth.halves), list(growth.calm)
    changed = []
    for scale in range(SCALES):
        if scale == len(scales):
            scales.append(())
            halves.append(None)
            calm.append(inf)
        scales[scale] = (*scales[scale][-KEPT + 1 :], block)
        changed.append(scale)
        half = halves[scale]
        halves[scale] = block if half is None else None
        if half is None:
            break
        block = _joined(half, block)
    if growth.trend is None:
        found = (_leak(growth, scales[scale], growth.calm[scale : scale + 1], rules) for scale in changed)
        growth = growth._replace(trend=next(filter(None, found), None))
        for scale in changed:
            calm[scale] = min(calm[scale], _slope(scales[scale][-WINDOW:]))
    return growth._replace(scales=tuple(scales), halves=tuple(halves), calm=tuple(calm))


def _slope(window: Sequence[Block]) -> float:
    """Return bytes a request (a token, where requests are not counted) over a whole window, inf before it is one."""
    unit = "request" if window[-1].requests else "token"
    work = [_work(block, unit) for block in window]
    return slope(work, [block.low for block in window]) if len(window) == WINDOW and work[-1] > work[0] else inf


# --- is it one? ---


def _leak(growth: Growth, blocks: Sequence[Block], calm: Sequence[float], rules: Rules) -> Trend | None:
    """Return what the last ``WINDOW`` blocks show, None: no leak that can be told from something else."""
    window = blocks[-WINDOW:]
    least = max(rules.gain, AGAIN * growth.fall)
    if len(window) < WINDOW or window[-1].low - window[0].low < least:
        return None
    for unit in _units(window, rules):
        known = calm if unit == "request" or not window[-1].requests else ()
        trend = _straight(growth, blocks, unit, least, min(known, default=inf))
        if trend is not None:
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


def _straight(growth: Growth, blocks: Sequence[Block], unit: str, least: float, calm: float) -> Trend | None:
    window = blocks[-WINDOW:]
    work = [_work(block, unit) for block in window]
    found = line(work, [block.low for block in window], [block.load for block in window])
    if found is None or found.slope - SURE * found.error < TIGHT * found.slope or found.slope <= 0:
        return None
    span = work[-1] - work[0]
    gain = found.slope * span
    if gain < least or not _even(work, found) or max(b - a for a, b in pairwise(found.levels)) > JUMP * gain:
        return None
    if window[-1].top > RECORD * window[0].top + FEW:
        return None
    if window[-1].top > BUSIER * window[0].top + FEW:
        rest = line(work, [block.low for block in window], [block.top for block in window])
        if rest is None or rest.slope < OWN * found.slope:
            return None
    older = blocks[-KEPT:-WINDOW]
    before = slope([_work(block, unit) for block in older], [block.low for block in older]) if len(older) > 3 else None
    began = growth.first[unit == "token"] if growth.first is not None else 0.0
    late = work[0] - began > span
    if late and before is None:
        return None
    # What was before the older blocks may still tell; so long ago, chance has had more time, too.
    calmer = late and found.slope >= STEEPER * calm and gain >= 2 * least
    if before is not None and not calmer and found.slope < (STEEPER if late else HALVES) * before:
        return None
    rising = before is not None and before > EVEN * found.slope
    # Where it began within the window, the later half has less of what was before.
    rate = found.slope if rising or before is None else slope(work[WINDOW // 2 :], found.levels[WINDOW // 2 :])
    at, base = _beginning(older, window, unit, rate, rising=rising)
    elapsed = window[-1].at - window[0].at
    gained = max(window[-1].low - base, gain)
    return Trend(
        unit=unit,
        per_work=rate,
        low_per_work=min(rate, found.slope - SURE * found.error),
        base=base,
        since=at,
        gain=gained,
        opened_gain=gained,
        span=span,
        mark=(work[-1], window[-1].low),
        works_per_s=span / elapsed if elapsed > 0 else 0.0,
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


def _beginning(
    older: Sequence[Block], window: Sequence[Block], unit: str, rate: float, *, rising: bool
) -> tuple[float, float]:
    """Return when it began and from which level: where the line meets what was before it."""
    if not older or rising:
        first = older[0] if older else window[0]
        return first.at, first.low
    base = sum(block.low for block in older) / len(older)
    half = window[WINDOW // 2 :]
    work, level = sum(_work(block, unit) for block in half) / len(half), sum(block.low for block in half) / len(half)
    begun = work - (level - base) / rate
    met = (block for block in (*older, *window) if _work(block, unit) >= begun)
    return next(met, window[0]).at, base


# --- does it go on? ---


def _gone_on(trend: Trend, block: Block) -> Trend | None:
    """Take a block in. None: it came back down, or as much work again was done and hardly anything was added."""
    work, gain = _work(block, trend.unit), block.low - trend.base
    if gain < EVEN * trend.opened_gain:
        return None
    since_work, since_level = trend.mark
    if work - since_work < trend.span:
        return trend._replace(gain=gain)
    rate = (block.low - since_level) / (work - since_work)
    if rate < 0.25 * trend.per_work:
        return None
    low = rate * trend.low_per_work / trend.per_work
    return trend._replace(gain=gain, per_work=rate, low_per_work=low, mark=(work, block.low))


def _work(block: Block, unit: str) -> float:
    return block.tokens if unit == "token" else block.requests
