"""A straight line through what an engine uses, with honest errors, in sums that forget.

``used = level + share * explained + each * finished``: what does not scale with the load, what does, and what is added
with each request that finished. Least squares, a page weighs 1 / explained because requests differ in size. Pages that
follow each other are alike, so errors come from the sums of spans of pages (clusters: Liang and Zeger 1986).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, sqrt
from typing import NamedTuple

from opsboard.core.model import Record

_SINGULAR = 1e-9
_WILD = 5


class Page(NamedTuple):
    """What one page says. ``explained`` (> 0) and ``used``: blocks; ``finished``: requests, of this life."""

    explained: float
    finished: float
    used: float


class Line(NamedTuple):
    """What was fitted. ``level``: blocks at zero load, now; ``each``: blocks a finished request; ``_off``: 1 sigma."""

    level: float
    level_off: float
    share: float
    each: float
    each_off: float


class Fit(Record, frozen=True, kw_only=True):
    """Sums by weight. ``finished`` counts from :attr:`origin`, which is the end of the last span."""

    origin: float = 0.0
    sums: tuple[float, ...] = (0.0,) * 9
    """Of weights times 1, explained, finished, their squares and products; then times used."""
    noise: tuple[float, ...] = (0.0,) * 6
    """Squares and products of what spans had left over."""
    spans: float = 0.0
    """How many those are, by weight."""
    taken: int = 0
    """All spans. The first are held against no line: it is a wild one yet."""
    line: Line | None = None

    @property
    def explained(self) -> float:
        """Mean blocks explained."""
        return self.sums[3] / self.sums[1] if self.sums[1] > 0 else 0.0

    @property
    def used(self) -> float:
        """Mean blocks in use."""
        return self.sums[7] / self.sums[1] if self.sums[1] > 0 else 0.0

    @property
    def swing(self) -> float:
        """Blocks by which the load rose with each request that finished."""
        one, x, g, _, xg, gg = self.sums[:6]
        bottom = gg * one - g * g
        return (xg * one - x * g) / bottom if bottom > _SINGULAR * gg * one else 0.0


def took(fit: Fit, pages: Iterable[Page], keep: float) -> Fit:
    """Take in a span of pages. ``keep``: the weight that older ones have from now on, 0..1."""
    one = x = g = xx = xg = gg = u = xu = gu = 0.0
    left = left_x = left_g = 0.0
    origin, line, finished = fit.origin, fit.line, fit.origin
    for explained, finished, used in pages:
        weight, done = 1.0 / explained, finished - origin
        one += weight
        x += 1.0
        g += weight * done
        xx += explained
        xg += done
        gg += weight * done * done
        u += weight * used
        xu += used
        gu += weight * done * used
        if line is not None:
            over = weight * (used - line.level - line.share * explained - line.each * done)
            left += over
            left_x += over * explained
            left_g += over * done
    old, taken = fit.sums, fit.taken + 1
    sums = tuple(was * keep + now for was, now in zip(old, (one, x, g, xx, xg, gg, u, xu, gu), strict=True))
    noise, spans = fit.noise, fit.spans
    if line is not None and taken > _WILD:
        square = keep * keep
        now = (left * left, left * left_x, left * left_g, left_x * left_x, left_x * left_g, left_g * left_g)
        noise = tuple(was * square + more for was, more in zip(noise, now, strict=True))
        spans = spans * square + 1.0
    sums, noise = _moved(sums, noise, finished - origin)
    return Fit(origin=finished, sums=sums, noise=noise, spans=spans, taken=taken, line=_line(sums, noise))


def _moved(sums: tuple[float, ...], noise: tuple[float, ...], by: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Count finished requests from ``by`` later on."""
    one, x, g, xx, xg, gg, u, xu, gu = sums
    n11, n12, n13, n22, n23, n33 = noise
    return (
        (one, x, g - by * one, xx, xg - by * x, gg - 2 * by * g + by * by * one, u, xu, gu - by * u),
        (n11, n12, n13 - by * n11, n22, n23 - by * n12, n33 - 2 * by * n13 + by * by * n11),
    )


def _line(sums: tuple[float, ...], noise: tuple[float, ...]) -> Line | None:
    one, x, g, xx, xg, gg, u, xu, gu = sums
    c11, c12, c13 = xx * gg - xg * xg, xg * g - x * gg, x * xg - xx * g
    c22, c23, c33 = one * gg - g * g, x * g - one * xg, one * xx - x * x
    bottom = one * c11 + x * c12 + g * c13
    if bottom <= _SINGULAR * abs(one * xx * gg):
        return None
    i11, i12, i13, i22, i23, i33 = (part / bottom for part in (c11, c12, c13, c22, c23, c33))
    return Line(
        i11 * u + i12 * xu + i13 * gu,
        sqrt(_spread(noise, i11, i12, i13)),
        i12 * u + i22 * xu + i23 * gu,
        i13 * u + i23 * xu + i33 * gu,
        sqrt(_spread(noise, i13, i23, i33)),
    )


def _spread(noise: tuple[float, ...], a: float, b: float, c: float) -> float:
    n11, n12, n13, n22, n23, n33 = noise
    return max(0.0, a * a * n11 + b * b * n22 + c * c * n33 + 2 * (a * b * n12 + a * c * n13 + b * c * n23))


def level(fit: Fit, each: float) -> tuple[float, float] | None:
    """Return the level now and its error (1 sigma) where ``each`` is known from elsewhere; None where none follows."""
    one, x, g, xx, xg, _, u, xu, _ = fit.sums
    bottom = one * xx - x * x
    if bottom <= _SINGULAR * one * xx:
        return None
    n11, n12, _, n22, _, _ = fit.noise
    spread = xx * xx * n11 - 2 * xx * x * n12 + x * x * n22
    return (xx * (u - each * g) - x * (xu - each * xg)) / bottom, sqrt(max(0.0, spread)) / bottom


def kept(passed_s: float, memory_s: float) -> float:
    """Return the weight of what is ``passed_s`` old."""
    return exp(-passed_s / memory_s)
