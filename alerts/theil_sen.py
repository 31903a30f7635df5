"""How fast something grows, unmoved by single odd points: the median of the slopes of all pairs, with an interval.

Sen (1968), "Estimates of the regression coefficient based on Kendall's tau": with n points of which k pairs have a
slope, the interval lies between the slopes ranked (k ± z * sqrt(n (n - 1) (2 n + 5) / 18)) / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

Z90 = 1.645
"""Two-sided 90 % of a normal distribution."""


class Slope(NamedTuple):
    """Units of y for one of x. ``low`` and ``high`` bound it; None: too few points to say."""

    value: float
    low: float | None
    high: float | None

    def times(self, factor: float) -> Slope:
        """Return it in other units of y or x."""
        low, high = (None if one is None else one * factor for one in (self.low, self.high))
        return Slope(self.value * factor, low, high)


def slope(points: Sequence[tuple[float, float]], z: float = Z90) -> Slope | None:
    """Return the slope through ``points`` (x, y); None when no two of them differ in x. O(n^2): keep n below 50."""
    slopes = sorted(
        (second[1] - first[1]) / (second[0] - first[0])
        for place, first in enumerate(points)
        for second in points[place + 1 :]
        if second[0] != first[0]
    )
    if not slopes:
        return None
    count, pairs = len(points), len(slopes)
    middle = (slopes[(pairs - 1) // 2] + slopes[pairs // 2]) / 2
    spread = z * sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low, high = int((pairs - spread) / 2), int((pairs + spread) / 2 + 0.5)
    if pairs <= spread or high >= pairs:
        return Slope(middle, None, None)
    return Slope(middle, slopes[low], slopes[high])
