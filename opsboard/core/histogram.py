"""Arithmetic of cumulative histograms: difference, sum, quantiles with the bounds between which the truth lies."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from math import isinf
from operator import le, sub

from opsboard.core.model import Histogram
from opsboard.core.wire import Latency, Quantile


def subtract(new: Histogram, old: Histogram) -> Histogram | None:
    """Return the observations made between two readings of one histogram.

    None when that cannot be known: other bounds, or a reset between them (a bucket that lost observations).
    ``total`` is None when either side omits it or it went down (negative observations).
    """
    if new.bounds != old.bounds:
        return None
    counts = tuple(map(sub, new.counts, old.counts))
    if not is_cumulative(counts):
        return None
    total = None if new.total is None or old.total is None else new.total - old.total
    return Histogram(bounds=new.bounds, counts=counts, total=None if total is None or total < 0 else total)


def was_reset(new: Histogram, old: Histogram) -> bool:
    """Return whether ``new`` cannot follow ``old``: other bounds, or a bucket that lost observations."""
    if new.bounds != old.bounds:
        return True
    return new.counts != old.counts and not is_cumulative(tuple(map(sub, new.counts, old.counts)))


def is_cumulative(counts: tuple[float, ...]) -> bool:
    """Return whether the counts ascend from no less than 0, as cumulative ones must. False when one is NaN."""
    return all(map(le, (0.0, *counts), counts))


def merge(histograms: Iterable[Histogram]) -> Histogram | None:
    """Return the sum of histograms with equal bounds (ranks of one engine); None without any, or when bounds differ."""
    parts = list(histograms)
    if not parts or any(part.bounds != parts[0].bounds for part in parts):
        return None
    if len(parts) == 1:
        return parts[0]
    totals = [part.total for part in parts if part.total is not None]
    return Histogram(
        bounds=parts[0].bounds,
        counts=tuple(map(sum, zip(*(part.counts for part in parts), strict=True))),
        total=sum(totals) if len(totals) == len(parts) else None,
    )


def quantile(histogram: Histogram, q: float) -> Quantile | None:
    """Return the ``q`` quantile (0..1) and the bounds of its bucket, in the histogram's unit; None when empty.

    Interpolated linearly inside the bucket from 0 up, as ``histogram_quantile`` of Prometheus does. Above the last
    finite bound nothing is known but that: ``value`` and ``lower`` are that bound and ``upper`` is None. None too when
    no bound is finite.
    """
    bounds, counts = histogram.bounds, histogram.counts
    if not histogram.count > 0:
        return None
    rank = q * histogram.count
    index = min(bisect_left(counts, rank) if rank > 0 else bisect_right(counts, 0.0), len(counts) - 1)
    upper = bounds[index]
    if isinf(upper):
        last = bounds[index - 1] if index else None
        return None if last is None else Quantile(value=last, lower=last, upper=None)
    if index == 0 and upper <= 0:
        return Quantile(value=upper, lower=upper, upper=upper)
    lower, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    share = (rank - below) / (counts[index] - below)
    return Quantile(value=lower + (upper - lower) * max(0.0, min(1.0, share)), lower=lower, upper=upper)


def at_an_edge(found: Quantile) -> bool:
    """Return whether a quantile lies in the first bucket, interpolated from 0, or beyond the last one."""
    return found.upper is None or found.lower == 0 < found.upper


def latency(histogram: Histogram) -> Latency:
    """Return count, mean and the three quantiles that the board shows, in seconds."""
    count, total = histogram.count, histogram.total
    return Latency(
        count=count,
        mean=total / count if count > 0 and total is not None else None,
        p50=quantile(histogram, 0.50),
        p95=quantile(histogram, 0.95),
        p99=quantile(histogram, 0.99),
    )
