"""Questions that every dialect asks of a page: which of these names is there, what is its sum, what its histogram."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from math import inf, isfinite
from operator import lt

from collectors.base import Page
from opsboard.core import histogram as histograms
from opsboard.core.model import Histogram

Labels = Mapping[str, str]


def present(page: Page, names: Iterable[str], suffix: str = "") -> str | None:
    """Return the first of ``names`` that has samples (under ``suffix``), None when none has."""
    return next((name for name in names if page.samples.get(name + suffix)), None)


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
    rows = page.samples.get(name, ())
    values = [value for labels, value in rows if keep is None or keep(labels)]
    return known(sum(values)) if values else None


def by_label(page: Page, name: str, label: str, default: str = "", most: float = inf) -> dict[str, float]:
    """Return the samples of ``name`` summed by one label; those outside 0..``most`` or no number are left out."""
    sums: dict[str, float] = {}
    for labels, value in page.samples.get(name, ()):
        if isfinite(value) and 0 <= value <= most:
            key = labels.get(label, default)
            sums[key] = sums.get(key, 0.0) + value
    return sums


def histogram(page: Page, name: str, ranks: tuple[str, ...]) -> Histogram | None:
    """Return the histogram ``name``, summed over the values of the labels ``ranks``. Bounds are read from the page.

    None when it is missing or no histogram can look like that: no +Inf bucket, counts that descend or are no numbers,
    ranks with other bounds.
    """
    groups: dict[tuple[str | None, ...], list[tuple[float, float]]] = {}
    for labels, count in page.samples.get(f"{name}_bucket", ()):
        rank = tuple([labels.get(label) for label in ranks])
        groups.setdefault(rank, []).append((_bound(labels.get("le", "")), count))
    parts = []
    for buckets in groups.values():
        buckets.sort()
        bounds, counts = zip(*buckets, strict=True)
        ascending = all(map(lt, bounds, bounds[1:])) and histograms.is_cumulative(counts)
        if bounds[-1] != inf or not ascending or not isfinite(counts[-1]):
            return None
        parts.append(Histogram(bounds=bounds, counts=counts))
    merged = histograms.merge(parts)
    if merged is None:
        return None
    return Histogram(bounds=merged.bounds, counts=merged.counts, total=total(page, f"{name}_sum"))


@lru_cache(maxsize=4096)
def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
