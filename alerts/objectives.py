"""What of an engine's page counts for an objective of `[slo]`: how many events were bad, of how many.

Exact counts, no quantiles. A histogram counts exactly at the upper bounds of its buckets only, so a limit that is none
is judged at the next one above: what is called bad has surely broken the objective.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from math import inf, isfinite
from typing import NamedTuple

from opsboard.config.schema import Slo
from opsboard.core.model import EngineView, Histogram

LATE = 0.05
"""The part that may be late where 95 % must be in time."""
_SLACK = 1.0 + 1e-9
"""Bounds are decimal fractions, read from text."""


class Objective(NamedTuple):
    """One line of `[slo]`."""

    name: str
    allowed: float
    """The part of the events that may be bad, 0..1: its error budget."""
    limit_s: float | None = None
    """What is later is bad; None: what failed is."""
    histogram: str = ""
    event: str = "requests"


class Counted(NamedTuple):
    """Cumulative counts since the process began. ``edge_s``: what is later was counted as bad, None: what failed."""

    bad: float
    total: float
    edge_s: float | None


def objectives(slo: Slo) -> Iterable[Objective]:
    """Yield those that are set."""
    if slo.ttft_p95 is not None:
        yield Objective("ttft_p95", LATE, slo.ttft_p95, "ttft", "first tokens")
    if slo.itl_p95 is not None:
        yield Objective("itl_p95", LATE, slo.itl_p95, "itl", "gaps between tokens")
    if slo.e2e_p95 is not None:
        yield Objective("e2e_p95", LATE, slo.e2e_p95, "e2e", "requests")
    if slo.availability is not None:
        yield Objective("availability", 1.0 - slo.availability / 100.0)


def counted(objective: Objective, view: EngineView) -> Counted | None:
    """Return what a page has counted for an objective; None where it does not tell."""
    if objective.limit_s is None:
        return _outcomes(view)
    histogram = view.histograms.get(objective.histogram)
    return None if histogram is None else _late(histogram, objective.limit_s)


def _late(histogram: Histogram, limit_s: float) -> Counted | None:
    index = bisect_left(histogram.bounds, limit_s / _SLACK)
    if index >= len(histogram.bounds) or histogram.bounds[index] == inf:
        return None  # beyond its last bound a histogram tells nothing apart
    return _sound(histogram.count - histogram.counts[index], histogram.count, histogram.bounds[index])


def _outcomes(view: EngineView) -> Counted | None:
    """Count requests that failed, and before vLLM told of them, answers with a 5xx."""
    good = view.counters.get("requests_finished")
    bad = view.counters.get("requests_failed", view.counters.get("http_5xx"))
    return None if good is None or bad is None else _sound(bad, good + bad, None)


def _sound(bad: float, total: float, edge_s: float | None) -> Counted | None:
    return Counted(bad, total, edge_s) if isfinite(total) and 0.0 <= bad <= total else None
