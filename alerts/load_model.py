"""How long something takes under a load: learnt from an engine's own past, to compare like with like.

``seconds = W + a * load_1 + b * load_2 + ...``, bent at a few knots of each load: what a step costs as long as memory
bandwidth decides, and the bends where computing does, where CUDA graphs pad and where prompts come in chunks. Least
squares on relative errors with Huber's weights (P. J. Huber, 1964) over all that was seen, with a memory that fades.
What lies outside of all that was seen, or where the fit has not settled, is not predicted.
"""

from __future__ import annotations

from math import exp, log
from typing import NamedTuple

from msgspec.structs import replace

from opsboard.core.model import Record

STEP = log(1.5)
"""Loads that differ by less than half are alike."""
KNOWN = 5.0
"""So many observations make a load known, and what lies between two known ones."""
YOUNG = 40.0
"""Below this the fit there has to be settled, too:"""
_SETTLED = 0.04
"""the last observations are off by no more than this on average."""
_FARTHER = 2
"""So many steps beyond what is known are predicted, if they hardly matter: were the slope there"""
STEEPER = 3.0
"""steeper by so many times of itself (unless ``steeper`` says otherwise), it would be no more than"""
_BEYOND = 0.03
"""this part of the whole, which is then expected, too."""
_DOUBT = 0.03
"""Relative standard error of a prediction; one that is less sure is none."""
_HUBER = 2.0
_NOISE_LEAST = 0.01
_PRIOR, _PRIOR_BENT = 1.0, 4.0
"""No slope, no bend: believed as much as so many observations."""
_SOLVE_PART, _SOLVE_EVERY = 8, 10
"""Solved again when an eighth more is known, and at least every so many observations."""

Loads = tuple[float, ...]


class Seen(NamedTuple):
    """Loads that are alike: how often they were seen, and by how much (logarithm) the last ones were off."""

    often: float = 0.0
    off: float = 0.0


class LoadModel(Record, frozen=True, kw_only=True):
    """What was learnt. ``grain``: for each load, differences below this do not matter; ``knots``: where it may bend."""

    grain: Loads
    knots: tuple[tuple[float, ...], ...]
    steeper: Loads = ()
    """For each load, how much steeper than known it may be beyond what was seen; () is :data:`STEEPER` for all."""
    squares: tuple[float, ...] = ()
    """Upper triangle, row by row, of the sum of x * x' / y^2; ``x`` is 1, the loads, and what is beyond each knot."""
    products: tuple[float, ...] = ()
    """Sum of x / y."""
    weight: float = 0.0
    """Observations, which fade."""
    learnt: int = 0
    line: tuple[float, ...] = ()
    inverse: tuple[tuple[float, ...], ...] = ()
    seen: tuple[dict[int, Seen], ...] = ()
    noise: float = 0.05
    """Mean absolute relative error of one observation."""

    def expected(self, loads: Loads) -> float | None:
        """Return the seconds that a load explains; None: nothing like it was seen, or too little."""
        if not self.line:
            return None
        beyond = 0.0
        for index, (cells, at) in enumerate(zip(self.seen, self._cells(loads), strict=True)):
            known = [key for key, cell in cells.items() if cell.often >= KNOWN]
            if not known or not min(known) - 1 <= at <= max(known) + _FARTHER:  # downwards nothing bends
                return None
            cell = cells.get(at, Seen())
            if cell.often < YOUNG and abs(cell.off) > max(_SETTLED, self.noise):
                return None
            if at > max(known):
                beyond += self._beyond(index, loads[index], max(known))
        row = self._row(loads)
        seconds = _dot(self.line, row)
        if seconds <= 0 or beyond > _BEYOND * seconds:
            return None
        seconds += beyond
        lever = _dot(row, tuple(_dot(part, row) for part in self.inverse)) / seconds**2
        return seconds if self.noise**2 * lever <= _DOUBT**2 else None

    def _beyond(self, index: int, load: float, known: int) -> float:
        """Return what a load beyond the largest ``known`` cell may cost more than the line says, if it bends there."""
        edge = self.grain[index] * (exp((known + 0.5) * STEP) - 1.0)
        steeper = self.steeper[index] if self.steeper else STEEPER
        return steeper * self.line[1 + index] * max(0.0, load - edge)

    def learn(self, loads: Loads, seconds: float, fade: float, *, like: bool) -> LoadModel:
        """Take in an observation; what was before keeps the share ``fade`` of its weight.

        ``like``: the like of it was seen, so that one that is far off counts for less.
        """
        row = self._row(loads)
        straight = _dot(self.line, row) if self.line else seconds
        straight = min(max(straight, seconds / 2), seconds * 2)
        error = log(seconds / straight)
        noise = max(self.noise, _NOISE_LEAST)
        weight = min(1.0, _HUBER * noise / abs(error)) if like and error else 1.0
        part = weight / straight**2
        new = [part * a * b for i, a in enumerate(row) for b in row[i:]]
        squares = tuple([fade * a + b for a, b in zip(self.squares or [0.0] * len(new), new, strict=True)])
        total = [part * seconds * a for a in row]
        products = tuple([fade * a + b for a, b in zip(self.products or [0.0] * len(row), total, strict=True)])
        learnt, all_weight = self.learnt + 1, fade * self.weight + 1.0
        line, inverse = self.line, self.inverse
        if learnt >= 2 * len(row) and learnt % min(_SOLVE_EVERY, learnt // _SOLVE_PART or 1) == 0:
            line, inverse = self._solved(squares, products, all_weight)
        return replace(
            self,
            squares=squares,
            products=products,
            weight=all_weight,
            learnt=learnt,
            line=line,
            inverse=inverse,
            seen=self._saw(loads, error, fade),
            noise=self.noise + (abs(error) * weight - self.noise) / min(learnt, 300),
        )

    def forget(self, kept: float) -> LoadModel:
        """Keep the share ``kept`` of all weights: what comes now counts for more."""
        return replace(
            self,
            squares=tuple(kept * value for value in self.squares),
            products=tuple(kept * value for value in self.products),
            weight=kept * self.weight,
        )

    def _row(self, loads: Loads) -> tuple[float, ...]:
        beyond = [max(0.0, load - knot) for load, knots in zip(loads, self.knots, strict=True) for knot in knots]
        return (1.0, *loads, *beyond)

    def _cells(self, loads: Loads) -> list[int]:
        return [round(log(1.0 + load / grain) / STEP) for load, grain in zip(loads, self.grain, strict=True)]

    def _saw(self, loads: Loads, error: float, fade: float) -> tuple[dict[int, Seen], ...]:
        seen = []
        for cells, at in zip(self.seen or tuple({} for _ in loads), self._cells(loads), strict=True):
            cell = cells.get(at, Seen())
            count = fade * cell.often + 1.0
            seen.append({**cells, at: Seen(count, cell.off + (error - cell.off) / min(count, 10.0))})
        return tuple(seen)

    def _solved(
        self, squares: tuple[float, ...], products: tuple[float, ...], weight: float
    ) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
        """Return the line and the inverse of its normal equations. More load never makes it faster: slopes are >= 0."""
        size, slopes = len(products), len(self.grain)
        whole = _square(squares, size)
        used = [i for i in range(size) if whole[i][i] > 0.0]
        prior = [0.0, *[_PRIOR / weight] * slopes, *[_PRIOR_BENT / weight] * (size - slopes - 1)]
        inverse = full = _inverted(whole, used, prior)
        while True:
            line = [_dot(part, products) for part in inverse]
            worst = min(range(1, slopes + 1), key=line.__getitem__)
            if line[worst] >= 0.0:
                return tuple(line), full
            used.remove(worst)
            inverse = _inverted(whole, used, prior)


def _dot(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    return sum([a * b for a, b in zip(one, two, strict=True)])


def _square(upper: tuple[float, ...], size: int) -> list[list[float]]:
    """Return the symmetric matrix of an upper triangle."""
    whole = [[0.0] * size for _ in range(size)]
    values = iter(upper)
    for i in range(size):
        for j in range(i, size):
            whole[i][j] = whole[j][i] = next(values)
    return whole


def _inverted(whole: list[list[float]], used: list[int], prior: list[float]) -> tuple[tuple[float, ...], ...]:
    """Return the inverse of the ``used`` rows and columns, 0 elsewhere: Gauss-Jordan, scaled to a diagonal of 1."""
    size, count = len(whole), len(used)
    scale = [whole[i][i] ** -0.5 for i in used]
    rows = []
    for i, a in enumerate(used):
        left = [whole[a][b] * scale[i] * scale[j] for j, b in enumerate(used)]
        left[i] += prior[a] + 1e-9
        rows.append(left + [float(i == j) for j in range(count)])
    for i in range(count):
        pivot = rows[i][i]
        rows[i] = lead = [value / pivot for value in rows[i]]
        for k in range(count):
            factor = rows[k][i]
            if k != i and factor:
                rows[k] = [a - factor * b for a, b in zip(rows[k], lead, strict=True)]
    full = [[0.0] * size for _ in range(size)]
    for i, a in enumerate(used):
        for j, b in enumerate(used):
            full[a][b] = rows[i][count + j] * scale[i] * scale[j]
    return tuple(tuple(row) for row in full)
