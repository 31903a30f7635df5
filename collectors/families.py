"""Questions that every dialect asks of a page: which of these names is there, what is its sum, what its histogram."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite
from operator import lt
from typing import NamedTuple

from collectors.base import Column, Page
from collectors.layout import Labels
from opsboard.core import histogram as histograms
from opsboard.core.model import Histogram


def present(page: Page, names: Iterable[str], suffix: str = "") -> str | None:
    """Return the first of ``names`` that has samples (under ``suffix``), None when none has."""
    return next((name for name in names if page.column(name + suffix).values), None)


def known(value: float | None) -> float | None:
    """Return ``value``, or None for NaN and infinities: no engine means one of those."""
    return value if value is not None and isfinite(value) else None


def number(text: str | None) -> float | None:
    """Return the number that a label holds; None for ``None``, words and nonsense."""
    try:
        return known(float(text)) if text else None
    except ValueError:
        return None


def total(page: Page, name: str, keep: Callable[[Labels], bool] | None = None) -> float | None:
    """Return the sum over the samples of ``name`` that ``keep`` wants; None when there are none or one is no number."""
    labels, values = page.column(name)
    if keep is not None:
        values = [value for own, value in zip(labels, values, strict=True) if keep(own)]
    return known(sum(values)) if values else None


def by_label(page: Page, name: str, label: str, default: str = "", most: float = inf) -> dict[str, float]:
    """Return the samples of ``name`` summed by one label; those outside 0..``most`` or no number are left out."""
    sums: dict[str, float] = {}
    for labels, value in page.rows(name):
        if isfinite(value) and 0 <= value <= most:
            key = labels.get(label, default)
            sums[key] = sums.get(key, 0.0) + value
    return sums


def histogram(page: Page, name: str, ranks: tuple[str, ...]) -> Histogram | None:
    """Return the histogram ``name``, summed over the values of the labels ``ranks``. Bounds are read from the page.

    None when it is missing or no histogram can look like that: no +Inf bucket, counts that descend or are no numbers,
    ranks with other bounds. The same object as for the page before when none of its lines changed.
    """
    buckets, sums = page.column(f"{name}_bucket"), page.column(f"{name}_sum")
    key = ("histogram", name, ranks)
    kept = page.kept.get(key)
    if kept is None:
        kept = page.kept[key] = _Kept(_groups(buckets.labels, ranks))
    if kept.buckets is not buckets or kept.sums is not sums:
        kept.buckets, kept.sums = buckets, sums
        kept.histogram = _histogram(kept.groups, buckets.values, total(page, f"{name}_sum"))
    return kept.histogram


@dataclass(slots=True)
class _Kept:
    """What is known of a histogram between two pages of one layout."""

    groups: Sequence[_Group] | None
    buckets: Column | None = None
    sums: Column | None = None
    histogram: Histogram | None = None


class _Group(NamedTuple):
    """The buckets of one rank: ascending bounds, and where in the column their counts stand."""

    bounds: tuple[float, ...]
    places: tuple[int, ...]


def _groups(buckets: Sequence[Labels], ranks: tuple[str, ...]) -> Sequence[_Group] | None:
    """Return the buckets by rank; None when one has bounds that no histogram has."""
    ranked: dict[tuple[str | None, ...], list[tuple[float, int]]] = {}
    for place, labels in enumerate(buckets):
        rank = tuple([labels.get(label) for label in ranks])
        ranked.setdefault(rank, []).append((_bound(labels.get("le", "")), place))
    groups = [_Group(*zip(*sorted(found), strict=True)) for found in ranked.values()]
    good = all(all(map(lt, bounds, bounds[1:])) and bounds[-1] == inf for bounds, _ in groups)
    return groups if good else None


def _histogram(groups: Sequence[_Group] | None, values: Sequence[float], total_s: float | None) -> Histogram | None:
    if groups is None:
        return None
    parts = []
    for bounds, places in groups:
        counts = tuple([values[place] for place in places])
        if not histograms.is_cumulative(counts) or not isfinite(counts[-1]):
            return None
        parts.append(Histogram(bounds=bounds, counts=counts))
    merged = histograms.merge(parts)
    return None if merged is None else Histogram(bounds=merged.bounds, counts=merged.counts, total=total_s)


@lru_cache(maxsize=4096)
def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
