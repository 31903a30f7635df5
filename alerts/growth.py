"""Growth of something that should stay as it is, measured against the work done: what is remembered of it.

Numbers come as :class:`alerts.blocks.Sample`; minima over blocks of working time are kept at scales that double, so
that the last minutes and the whole life are seen alike in a memory that does not grow. Whether they show a leak is
told by :mod:`alerts.trend` each time a block is complete.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from alerts.blocks import Block, Sample, block_of, joined
from alerts.trend import KEPT, WINDOW, Rules, Trend, find, gone_on, mean_slope

BLOCK_S = 8.0
"""Working time in a block of the finest scale; a look every 5 s makes it 10."""
SCALES = 13
"""The coarsest window spans 9 days of work."""
GAP_S = 30.0
"""Longer without a sample counts as this long."""
FORGET = 0.9995
"""Of a fall that was seen, a block later: half of it after 3 to 4 hours of work."""


class Growth(NamedTuple):
    """What is remembered of one level. ``scales`` are blocks, finest first; ``halves`` wait for their pair."""

    first: Sample | None = None
    """When it was first seen: an engine may have been there before opsboard was."""
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
    """The highest load of a block so far."""
    trend: Trend | None = None


def claimed_trend(growth: Growth) -> Trend:
    """Return the trend of a level that is claimed to grow."""
    if growth.trend is None:
        raise AssertionError("a claim needs a trend")
    return growth.trend


def add(growth: Growth, sample: Sample, rules: Rules, *, warm: bool = True) -> Growth:
    """Take in a sample that is later than the last one. Those between which nothing is done say nothing.

    Until it is ``warm`` only where it began and the load are remembered.
    """
    last = growth.last
    if last is None:
        return growth._replace(first=growth.first or sample, last=sample)
    if sample.at <= last.at:
        return growth
    if not ((sample.requests or 0.0) > (last.requests or 0.0) or (sample.tokens or 0.0) > (last.tokens or 0.0)):
        return growth._replace(last=sample)
    seconds = growth.open_s + min(sample.at - last.at, GAP_S)
    block = block_of(sample) if growth.open is None else joined(growth.open, block_of(sample))
    if seconds < BLOCK_S:
        return growth._replace(last=sample, open=block, open_s=seconds)
    growth = growth._replace(last=sample, open=None, open_s=0.0, top=max(growth.top, block.load))
    return _closed(growth, block._replace(top=growth.top), rules) if warm else growth


def _closed(growth: Growth, block: Block, rules: Rules) -> Growth:
    """Put a whole block to the others of its scale; every other one completes one of the next scale, too."""
    high = max(block.low, block.low + FORGET * (growth.high - block.low))
    growth = growth._replace(high=high, fall=max(growth.fall * FORGET, high - block.low))
    if growth.trend is not None:
        trend = gone_on(growth.trend, block)
        if trend is None:  # what is over is not found again in what is remembered of it
            return Growth(first=growth.last, last=growth.last, high=high, fall=growth.fall, top=growth.top)
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
        block = joined(half, block)
    if growth.trend is None:
        for scale in changed:
            trend = find(scales[scale], growth, calm[scale], rules, quick=scale == 0)
            if trend is not None:
                growth = growth._replace(trend=trend)
                break
        for scale in changed:
            calm[scale] = min(calm[scale], mean_slope(scales[scale][-WINDOW:]))
    return growth._replace(scales=tuple(scales), halves=tuple(halves), calm=tuple(calm))
