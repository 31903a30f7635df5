"""Whether an engine that is never idle uses blocks that its load does not explain, and ever more of them.

The load explains as many blocks as requests run, times what one holds on average (:mod:`alerts.kv_sizes`). What is lost
does not come and go with the load, and grows with the requests that finish: a line is fitted for both. That a mix of
requests changed would look like it for a while; so three things must agree: the line over the last ten minutes, a
shorter one, and the tokens on the page, which count every long request that the sizes do not know of yet.
"""

from __future__ import annotations

from math import exp, hypot, inf
from typing import NamedTuple

from msgspec.structs import replace

from alerts.kv_accounting import Blocks
from alerts.kv_drift import Drift, Sums
from alerts.kv_fit import Fit, Page, kept, level, took
from alerts.kv_growth import HOUR_S, Growth
from alerts.kv_sizes import Sizes, ended
from alerts.theil_sen import Slope
from opsboard.core.model import Record

SPAN_S = 15.0
"""Pages of one span, which is an error's unit; requests that take longer make errors look smaller than they are."""
LONG_S, SHORT_S = 600.0, 200.0
"""Older spans weigh less: 1/e after so long."""
SPANS = 8.0
"""By weight: below nothing is said."""
RISES, ABOVE, STILL = 5.0, 4.0, 3.0
"""Scores of the growth, of the level, and of the level by the shorter line."""
HIGH = 2.0
"""Score of the level below which no other suspicion is believed."""
SHARE, AGREES = 0.12, 0.4
"""The level is at least this part of what the load explains, and of the longer line's that of the shorter."""
TOO_MUCH = 1.5
"""Where the part in use of what is explained grows by so much, requests have changed."""
MOST = 1.15
"""No more of what is explained is ever in use rightly."""
_ROUNDED = 0.5
"""Blocks of each request that are not full, on average."""
STANDS = 0.15
"""And this part of it where requests are as large as the largest of late."""
_UNSURE = 0.25
"""By so much the blocks for what is explained may be wrong where the load itself rises."""
HOLDS = 0.5
"""A claim stands while the level is at least this part of what was claimed."""
_CLAIMED = 1.645
"""One-sided, 95 %."""
_PART, _DOUBT = 0.35, 2.0
"""This part of the growth, at least, is what the tokens leave over, or may be by so many times its scatter."""
FEW = 5.0
"""Stretches between two of those, by weight, below which the tokens say nothing."""
DATED_S = 450.0
"""A growth that began no longer ago is compared with the last minutes only."""
LARGEST_S = 900.0
"""So long it is remembered how large requests were."""
_HOUR = exp(-SPAN_S / 3600.0)
LEFT = 10.0
"""Requests whose clients went away, by weight, that tell what each held."""


class Level(Record, frozen=True, kw_only=True):
    """What is remembered of one rank. Instants are monotonic seconds."""

    sizes: Sizes = Sizes()
    pages: tuple[Page, ...] = ()
    """Of the span that is not over."""
    began: float = -inf
    """When that began."""
    long: Fit = Fit()
    short: Fit = Fit()
    pace: float = 0.0
    """Requests that finish in a second."""
    before: Blocks | None = None
    """The last page of the span before, where that told how many had gone."""
    fell: float = 0.0
    gone: float = 0.0
    """Blocks that the tokens explain more, without anybody using them, and requests gone, of late, by weight."""
    usual: float = 0.0
    """Blocks in use for each that was explained, of late, while nothing was claimed."""
    spans: int = 0
    """Of those."""
    mean: float = 0.0
    """Tokens that a running request held on average, as the shorter line has them."""
    largest: float = 0.0
    """Tokens that a running request held at most on average, of late."""
    claim: Claim | None = None

    @property
    def explained(self) -> float | None:
        """Blocks that the load of the last minutes needs, at the share that is in use of late; None: not known yet."""
        return self.usual * self.short.explained if self.spans and self.short.sums[1] else None

    def allows(self, lost: int) -> bool:
        """Tell whether so many may be lost: as far as it is known, about as many are in use beyond the load."""
        line = self.long.line
        if line is None or self.long.spans < SPANS:
            return True
        return line.level >= HIGH * line.level_off and line.level + HIGH * line.level_off >= AGREES * lost


class Claim(NamedTuple):
    """What is claimed. Blocks; ``since``: monotonic s."""

    lost: int
    level: float
    since: float
    each: float
    each_off: float
    score: float


def paged(state: Level, pages: tuple[Blocks, Blocks], drift: Drift, mono: float, passed_s: float) -> Level:
    """Take in the last page and the next, ``passed_s`` later."""
    old, new = pages
    sizes = ended(state.sizes, old, new, passed_s)
    holds, span = sizes.running, state.pages
    calm = new.waiting == 0 and new.preemptions == old.preemptions
    if holds is not None and calm and new.running and new.finished is not None:
        span = (*span, Page(new.running * (holds / new.size + _ROUNDED), new.finished, float(new.used)))
    if mono - state.began < SPAN_S or not span:
        began = state.began if state.began > -inf else mono
        return Level(
            sizes=sizes, pages=span, began=began, long=state.long, short=state.short, pace=state.pace,
            before=state.before, fell=state.fell, gone=state.gone, usual=state.usual, spans=state.spans,
            mean=state.mean, largest=state.largest, claim=state.claim,
        )  # fmt: skip
    return _judged(_spanned(replace(state, sizes=sizes, pages=span), new, mono), new, drift, mono)


def acquitted(state: Level) -> Level:
    """Begin anew: nothing is lost for sure. What requests are like is still known."""
    return Level(sizes=state.sizes, usual=state.usual, spans=state.spans, mean=state.mean, largest=state.largest)


def _spanned(state: Level, new: Blocks, mono: float) -> Level:
    passed_s = mono - state.began
    holds = state.sizes.running or 0.0
    largest = max(holds, holds + (state.largest - holds) * kept(passed_s, LARGEST_S))
    mean = holds if not state.mean else holds + (state.mean - holds) * kept(passed_s, SHORT_S)
    first = state.long.origin if state.long.sums[1] else state.pages[0].finished
    long = state.long if state.long.sums[1] else Fit(origin=first)
    short = state.short if state.short.sums[1] else Fit(origin=first)
    pace = (state.pages[-1].finished - first) / passed_s
    keep = kept(passed_s, SHORT_S)
    fell, gone = state.fell * keep, state.gone * keep
    before = state.before
    if new.tokens is None or new.begun is None or new.waiting:
        now = None
    else:
        now = new
        if before is not None and before.tokens is not None and before.begun is not None:
            fell += (new.tokens - before.tokens) / new.size - (new.used - before.used)
            gone += (new.begun - new.running) - (before.begun - before.running)
    return replace(
        state,
        pages=(),
        began=mono,
        long=took(long, state.pages, kept(passed_s, LONG_S)),
        short=took(short, state.pages, keep),
        largest=largest,
        mean=mean,
        pace=pace if not state.pace else state.pace + (1 - keep) * (pace - state.pace),
        before=now,
        fell=fell,
        gone=gone,
    )


def _judged(state: Level, new: Blocks, drift: Drift, mono: float) -> Level:
    line, holds = state.long.line, state.sizes.running
    if state.claim is None:
        ratio = min(state.short.used / state.short.explained, MOST)
        spans = state.spans + 1
        usual = state.usual + max(1 - _HOUR, 1 / spans) * (ratio - state.usual)
        state = replace(state, usual=usual, spans=spans)
    if line is None or holds is None or state.long.spans < SPANS:
        return replace(state, claim=None)
    short = level(state.short, line.each)
    if short is None:
        return replace(state, claim=None)
    lost = int(line.level - _CLAIMED * line.level_off)
    if state.claim is not None:
        if lost >= HOLDS * state.claim.lost and short[0] >= HOLDS * state.claim.lost:
            return replace(state, claim=state.claim._replace(lost=max(lost, 0), each=line.each, each_off=line.each_off))
        return replace(state, claim=None)
    share = line.share
    usual = state.usual
    # The longer line still holds the time before; where the shorter one is steeper, that is how fast it was.
    steep = line.each if state.short.line is None else max(line.each, state.short.line.each)
    aged_s = line.level / steep / state.pace if steep > 0 and state.pace > 0 else 0.0
    off = hypot(line.each_off, _UNSURE * share * state.long.swing)
    score = line.each / off if off > 0 else 0.0
    # Long requests end seldom: where some did of late, others may be under way.
    above = state.short.used - usual * state.short.explained * max(1.0, state.largest / state.mean)
    if not (
        score >= RISES
        and AGREES * usual <= share <= TOO_MUCH * usual
        and line.level >= ABOVE * line.level_off
        and line.level >= SHARE * share * max(state.short.explained, state.long.explained)
        and short[0] >= STILL * short[1]
        and short[0] >= AGREES * line.level
        and above >= STANDS * line.level
        and _unexplained(state, drift.sums[0 if aged_s < DATED_S else 1], steep, share * holds / new.size)
    ):
        return state
    return replace(state, claim=Claim(lost, line.level, mono - aged_s, line.each, line.each_off, score))


def _unexplained(state: Level, between: Sums, each: float, holds: float) -> bool:
    """Tell whether the tokens on the page leave room for the growth of ``each`` blocks a finished request.

    ``between`` two clients that go away they leave over what is lost (:mod:`alerts.kv_drift`). Where blocks are lost
    with those clients themselves, each seems to have held next to nothing of the ``holds`` blocks of one that runs.
    """
    if (
        between.count >= FEW
        and between.done > 0
        and between.each + _DOUBT * between.scatter / between.done >= _PART * each
    ):
        return True
    return state.gone >= LEFT and state.fell < 0.5 * holds * state.gone


def pace(claim: Claim, a_second: float) -> Growth:
    """Return how fast blocks are lost, with the bounds of 90 %. ``a_second``: requests that finish."""
    off = _CLAIMED * claim.each_off
    hourly = Slope(claim.each, claim.each - off, claim.each + off).times(a_second * HOUR_S)
    return Growth(per_hour=hourly, per_finished=claim.each)
