"""Whether blocks are lost while an engine is never idle and its clients go away: a test, not a proof.

Between two clients that go away, blocks in use change by what tokens, rounding and shared prefixes change, and by what
is lost. Rounding and sharing are learnt (least squares on running requests and prefix hits); what is left must average
to zero over many such stretches: they are compared with their own scatter. What happens while a client goes away is
left out, because nobody knows what it held.
"""

from __future__ import annotations

from math import exp, inf, sqrt

from msgspec.structs import replace

from alerts.kv_accounting import Blocks
from alerts.kv_growth import HOUR_S, Growth
from alerts.theil_sen import Slope
from opsboard.core.model import Record

LONGEST = 30
"""Pages in one stretch."""
GAP_S = 15.0
"""Pages farther apart begin a new one."""
HORIZONS_S = (300.0, 900.0, 7200.0)
"""Older stretches weigh less: 1/e after so long. The first finds fast losses soon, the second slow ones at all."""
OPENS, CLOSES = 5.5, 3.0
"""Scores. The highest in 60 simulated hours of healthy traffic of ten kinds was 3.8."""
GROWN, OPENS_GROWN = 2.0, 3.5
"""And where by now that many times as much is in use for each running request as when the score began to rise."""
ENOUGH = 20.0
"""Stretches, by weight, below which nothing is said."""
_ONE_SIDED = 1.645
_FORGET = 0.999
_RIDGE = 5.0
"""So many pages' worth of what is expected before anything is learnt: half a block of rounding for each request, half
of all prefix hits shared."""


class Sums(Record, frozen=True):
    """Of stretches, by weight: blocks left over (left), requests finished (done), their squares and product."""

    count: float = 0.0
    left: float = 0.0
    done: float = 0.0
    left2: float = 0.0
    done2: float = 0.0
    both: float = 0.0
    under: float = 0.0
    """Squares of those with less than nothing left."""

    @property
    def each(self) -> float:
        """Blocks left over for each finished request."""
        return self.left / self.done if self.done > 0 else 0.0

    @property
    def scatter(self) -> float:
        """Standard deviation of ``left`` if nothing is lost but ``each``."""
        each = self.each
        return sqrt(max(0.0, self.left2 - 2 * each * self.both + each * each * self.done2))

    @property
    def score(self) -> float:
        """How many standard deviations ``left`` is above zero; 0 while there are too few stretches.

        The deviation is the geometric mean of two. That of all stretches holds the loss itself, which comes in lumps;
        that of the lower half is too small where sharing ends in larger lumps than it begins.
        """
        scatter = sqrt(self.scatter * sqrt(2 * self.under))
        return self.left / scatter if self.count >= ENOUGH and scatter > 0 else 0.0


class Drift(Record, frozen=True, kw_only=True):
    """What is remembered of one rank."""

    learnt: tuple[float, float, float, float, float] = (_RIDGE, 0.0, _RIDGE, _RIDGE / 2, -_RIDGE / 2)
    """Sums of running^2, running * hits, hits^2, running * change, hits * change; of differences between pages."""
    left: float = 0.0
    done: float = 0.0
    pages: int = 0
    sums: tuple[Sums, ...] = tuple(Sums() for _ in HORIZONS_S)
    at: float = -inf
    """When (monotonic s) a stretch last ended."""
    rising: float | None = None
    """Since when (monotonic s) the score is above 1."""
    before: float = 0.0
    """Requests that had finished then."""
    held: float = 0.0
    """And blocks in use for each running request."""
    speaks: bool = False
    """The score passed :data:`OPENS` and has not fallen to :data:`CLOSES` since."""

    @property
    def score(self) -> float:
        """The highest of the horizons."""
        return max(one.score for one in self.sums)

    @property
    def clearest(self) -> Sums:
        """The horizon that says it most clearly."""
        return max(self.sums, key=lambda one: one.score)


def pace(drift: Drift, finished: float | None, mono: float) -> Growth:
    """Return how fast it says that blocks are lost, with the bounds of 90 %."""
    sums = drift.clearest
    if drift.rising is None or finished is None or mono <= drift.rising or sums.done <= 0:
        return Growth()
    an_hour = (finished - drift.before) / (mono - drift.rising) * HOUR_S
    off = _ONE_SIDED * sums.scatter / sums.done
    hourly = Slope(sums.each, sums.each - off, sums.each + off).times(an_hour)
    return Growth(per_hour=hourly, per_finished=sums.each)


def lost(drift: Drift, finished: float | None) -> int:
    """Return the blocks that are lost at least (95 %, one-sided) since the score rose; 0 while it says nothing."""
    if not drift.speaks or finished is None:
        return 0
    sums = drift.clearest
    least = sums.each - _ONE_SIDED * sums.scatter / sums.done if sums.done > 0 else 0.0
    return max(0, int(least * (finished - drift.before)))


def went(drift: Drift, old: Blocks, new: Blocks, held: float, mono: float) -> Drift:
    """Take in two pages between which no client went away and that show no prefill.

    ``held``: blocks in use for each running request, of late.
    """
    if old.tokens is None or new.tokens is None or old.finished is None or new.finished is None:
        return drift
    change = new.used - old.used - (new.tokens - old.tokens) / new.size
    running = float(new.running - old.running)
    hits = 0.0 if old.hits is None or new.hits is None else (new.hits - old.hits) / new.size
    rr, rh, hh, rc, hc = drift.learnt
    bottom = rr * hh - rh * rh
    round_up, shared = ((rc * hh - hc * rh) / bottom, (hc * rr - rc * rh) / bottom) if bottom > 0 else (0.5, 0.0)
    drift = replace(
        drift,
        learnt=(
            rr * _FORGET + running * running,
            rh * _FORGET + running * hits,
            hh * _FORGET + hits * hits,
            rc * _FORGET + running * change,
            hc * _FORGET + hits * change,
        ),
        left=drift.left + change - round_up * running - shared * hits,
        done=drift.done + new.finished - old.finished,
        pages=drift.pages + 1,
    )
    return ended(drift, new.finished, held, mono) if drift.pages >= LONGEST else drift


def ended(drift: Drift, finished: float, held: float, mono: float) -> Drift:
    """End a stretch: a client went away, or that cannot be told."""
    if not drift.pages:
        return drift
    passed, left, done = mono - drift.at, drift.left, drift.done
    sums = tuple(
        _added(one, exp(-passed / horizon), left, done) for one, horizon in zip(drift.sums, HORIZONS_S, strict=True)
    )
    score = max(one.score for one in sums)
    drift = replace(drift, left=0.0, done=0.0, pages=0, sums=sums, at=mono)
    if score <= 1.0:
        return replace(drift, rising=None, speaks=False)
    if drift.rising is None:
        drift = replace(drift, rising=mono, before=finished, held=held)
    grown = 0.0 < GROWN * drift.held <= held
    opens = score >= (OPENS_GROWN if grown else OPENS)
    return replace(drift, speaks=opens or (drift.speaks and score > CLOSES))


def _added(sums: Sums, keep: float, left: float, done: float) -> Sums:
    return Sums(
        sums.count * keep + 1.0,
        sums.left * keep + left,
        sums.done * keep + done,
        sums.left2 * keep + left * left,
        sums.done2 * keep + done * done,
        sums.both * keep + left * done,
        sums.under * keep + (left * left if left < 0 else 0.0),
    )
