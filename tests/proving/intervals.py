"""What few events allow to say: exact intervals of shares and of rates, without a library for two bisections."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """From ``low`` to ``high``, with :data:`CONFIDENCE`."""

    low: float
    high: float


def share(hits: int, trials: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval of Clopper and Pearson (Biometrika 1934) for a share 0..1; without trials it is all of it."""
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} of {trials}")
    tail = (1.0 - confidence) / 2
    low = 0.0 if hits == 0 else _bisect(lambda p: 1.0 - _binomial(hits - 1, trials, p) < tail, 0.0, 1.0)
    high = 1.0 if hits == trials else _bisect(lambda p: _binomial(hits, trials, p) > tail, 0.0, 1.0)
    return Interval(low, high)


def most(events: int, confidence: float = CONFIDENCE) -> float:
    """Return the largest mean of a Poisson process that is not refuted (one-sided) by having seen ``events``."""
    return _bisect(lambda mean: _poisson(events, mean) > 1.0 - confidence, 0.0, 10.0 + 3.0 * events)


def _binomial(hits: int, trials: int, p: float) -> float:
    """Return the chance of at most ``hits``."""
    if p <= 0.0 or p >= 1.0:
        return 1.0 if p <= 0.0 or hits >= trials else 0.0
    whole = math.lgamma(trials + 1)
    return math.fsum(
        math.exp(
            whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * math.log(p) + (trials - k) * math.log1p(-p)
        )
        for k in range(hits + 1)
    )


def _poisson(events: int, mean: float) -> float:
    """Return the chance of at most ``events``."""
    if mean <= 0.0:
        return 1.0
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(events + 1))


def _bisect(below: Callable[[float], bool], low: float, high: float) -> float:
    """Return where ``below`` turns from true to false."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
