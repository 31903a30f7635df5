"""Straight lines through few points, in plain floats: for two dozen they are faster than arrays."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from operator import mul
from typing import NamedTuple

_DISTINCT = 0.05
"""Where less of the work's spread is left beside the load's, the two cannot be told apart."""


class Line(NamedTuple):
    """Least squares: the slope, its standard error, and the levels with what the load explains taken away."""

    slope: float
    error: float
    levels: Sequence[float]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the least-squares slope of ``y`` on ``x``, 0.0 where ``x`` does not vary."""
    n = len(x)
    mx, my = sum(x) / n, sum(y) / n
    dx = [a - mx for a in x]
    sxx = _product(dx, dx)
    return _product(dx, [b - my for b in y]) / sxx if sxx > 0 else 0.0


def _product(p: Sequence[float], q: Sequence[float]) -> float:
    product: float = sum(map(mul, p, q))
    return product


def line(work: Sequence[float], levels: Sequence[float], load: Sequence[float]) -> Line | None:
    """Fit ``levels = a + slope * work + c * load`` with c >= 0. None where work and load cannot be told apart."""
    n = len(work)
    mx, my, mz = sum(work) / n, sum(levels) / n, sum(load) / n
    x, y, z = [w - mx for w in work], [v - my for v in levels], [q - mz for q in load]
    sxx, szz = _product(x, x), _product(z, z)
    if sxx <= 0:
        return None
    sxy, sxz, szy = _product(x, y), _product(x, z), _product(z, y)
    left = 1.0 if szz <= 0 else 1 - sxz * sxz / (sxx * szz)
    if left < _DISTINCT:
        return None
    c = 0.0 if szz <= 0 else max(0.0, (szy * sxx - sxy * sxz) / (sxx * szz * left))
    b = (sxy - c * sxz) / sxx
    rest = sum((v - b * w - c * q) ** 2 for w, v, q in zip(x, y, z, strict=True))
    error = sqrt(rest / max(1, n - 3) / (sxx * left))
    return Line(b, error, [v - c * q for v, q in zip(levels, z, strict=True)])
