"""What the SRE workbook's formula says of the errors of an episode: the truth that slo_burn is measured with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

RULES = ((0.02, 3600, 300), (0.05, 6 * 3600, 1800), (0.10, 86_400, 7200), (0.10, 3 * 86_400, 6 * 3600))
"""Part of the budget, long and short window (s): table 5-8 of chapter 5, for 30 days."""
PERIOD_S = 30 * 86_400
EVENTS_LEAST = 100.0
KNOWN_LEAST_S = 60
SLACK_S = 10.0
"""slo_burn knows the last hour to 5 s."""


class Count(NamedTuple):
    """Cumulative events after a second of the episode."""

    second: int
    bad: float
    total: float


def first(counts: Sequence[Count], allowed: float) -> float | None:
    """Return the second at which some rule holds first; None: never. ``counts``: one a second."""
    for at, now in enumerate(counts):
        if now.second - counts[0].second >= KNOWN_LEAST_S and any(_holds(counts, at, rule, allowed) for rule in RULES):
            return float(now.second)
    return None


def _holds(counts: Sequence[Count], at: int, rule: tuple[float, int, int], allowed: float) -> bool:
    part, long_s, short_s = rule
    rate = max(1.0, part * PERIOD_S / long_s) * allowed
    short, long = (_between(counts[max(0, at - window)], counts[at]) for window in (short_s, long_s))
    return short[1] >= EVENTS_LEAST and short[0] > rate * short[1] and long[0] > rate * long[1]


def _between(old: Count, new: Count) -> tuple[float, float]:
    return new.bad - old.bad, new.total - old.total
