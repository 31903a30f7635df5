"""What an engine generates when so many requests run, learnt from its own healthy past, in spans of five seconds.

A larger batch never gives fewer tokens a second, and a smaller one no less than its share, so every batch that was seen
is a lower bound of what any other should give, as long as contexts are no longer and prompts take no more of the time
than they did. Beyond the largest batch seen a step takes longer by no more than twice as much a request as it did
before; half as much again is the most that is expected there, because nobody knows where computing begins to decide.
"""

from __future__ import annotations

from math import inf, isfinite, log2
from typing import NamedTuple

from opsboard.core.lives import other_process
from opsboard.core.model import EngineView, Record

SPAN_S = 5.0
GAP_S = 20.0
"""Readings farther apart say nothing of the time between."""
LEAST = 6
"""Spans from which a level is learnt."""
_MEMORY = 60
"""Spans over which it is averaged: 5 min."""
_SLOW = 0.7
"""What gives less than this part of a level is not learnt: it may be the trouble itself."""
_MORE = 1.5
"""Contexts and prompts this many times as large as those of a level are another load."""
_HEALTHY = 0.5
"""Preemptions a finished request with which a full KV cache still gives what it can."""
_BEYOND = 1.5
_STEEPER = 2.0
_COUNTED = ("generation_tokens", "prompt_tokens", "preemptions", "requests_finished")


class Span(NamedTuple):
    """What was seen of one span. Counts of all ranks together."""

    seconds: float
    generated: float
    prompts: float
    """Prompt tokens a second: those that were counted, or those by which the KV cache grew, if that is more."""
    preempted: float
    finished: float
    running: float
    """Mean."""
    waiting: float
    """The fewest of any reading."""
    usage: float
    """KV use 0..1, the highest."""
    context: float
    """KV use for each running request, 0..1."""

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.generated / self.seconds


class Level(NamedTuple):
    """What one size of batch gives; means over ``spans``, at most the last few minutes."""

    spans: int
    running: float
    rate: float
    prompts: float
    context: float


class Meter(NamedTuple):
    """What one page says."""

    counts: tuple[float, ...]
    running: float
    waiting: float
    usage: float


class Past(Record, frozen=True, kw_only=True):
    """What is remembered of one life. Monotonic seconds."""

    view: EngineView | None = None
    meter: Meter | None = None
    at: float = 0.0
    grown: float = 0.0
    """KV use that was added since the span began, 0..1 summed."""
    began: float = 0.0
    first: Meter | None = None
    seen: tuple[Meter, ...] = ()
    levels: tuple[tuple[int, Level], ...] = ()


class Taken(NamedTuple):
    """What a page leads to. ``broken``: what came before is of another life, or too long ago, which ``gap`` tells."""

    past: Past
    span: Span | None = None
    broken: bool = False
    gap: bool = False


def take(past: Past, view: EngineView, mono: float) -> Taken:
    """Take in a page; one that lacks a number ends what was begun."""
    meter = _meter(view)
    if meter is None:
        return Taken(Past(levels=past.levels), broken=True)
    if past.view is not None and past.meter is not None and past.first is not None:
        if mono <= past.at:
            return Taken(past)
        fell = any(new < old for new, old in zip(meter.counts, past.meter.counts, strict=True))
        if other_process(past.view, view) or fell:
            return Taken(_begun(Past(), view, meter, mono), broken=True)
        if mono - past.at <= GAP_S:
            grown = past.grown + max(0.0, meter.usage - past.meter.usage)
            seen = (*past.seen, meter)
            if mono - past.began < SPAN_S:
                return Taken(_with(past, view, meter, mono, grown=grown, seen=seen))
            span = _span(past.first, seen, mono - past.began, grown, view.kv_capacity_tokens)
            return Taken(_begun(past, view, meter, mono), span)
    return Taken(_begun(past, view, meter, mono), broken=True, gap=past.meter is not None)


def expected(past: Past, span: Span) -> Level | None:
    """Return the level that such a span should reach at least, None where none is known of a like load."""
    known = [
        level
        for _, level in past.levels
        if level.spans >= LEAST
        and span.prompts <= _MORE * level.prompts + 1.0
        and span.context <= _MORE * level.context
    ]
    if not known or span.running < 1.0:
        return None
    bounds = [level._replace(rate=level.rate * min(1.0, span.running / level.running)) for level in known]
    best, top = max(bounds, key=lambda level: level.rate), max(known, key=lambda level: level.running)
    beyond = _beyond(top, min(known, key=lambda level: level.running), span.running)
    return best._replace(rate=max(best.rate, beyond))


def _beyond(top: Level, low: Level, running: float) -> float:
    """Return the tokens a second that a batch larger than ``top`` should give, from how steps grew from ``low`` on."""
    if running <= top.running or top.running < _MORE * low.running:
        return 0.0
    step_s, short_s = top.running / top.rate, low.running / low.rate
    slope = max(0.0, (step_s - short_s) / (top.running - low.running))
    return min(running / (step_s + _STEEPER * slope * (running - top.running)), _BEYOND * top.rate)


def learn(past: Past, span: Span) -> Past:
    """Take a span into the level of its size, unless it may be the trouble itself."""
    if span.running < 1.0 or span.generated <= 0.0 or span.preempted > _HEALTHY * span.finished:
        return past
    size, levels = _size(span.running), dict(past.levels)
    old = levels.get(size, Level(0, 0.0, 0.0, 0.0, 0.0))
    if old.spans >= LEAST and span.rate < _SLOW * old.rate:
        return past
    spans = min(old.spans + 1, _MEMORY)
    means = (
        before + (now - before) / spans
        for before, now in zip(old[1:], (span.running, span.rate, span.prompts, span.context), strict=True)
    )
    levels[size] = Level(spans, *means)
    return Past(
        view=past.view, meter=past.meter, at=past.at, grown=past.grown, began=past.began, first=past.first,
        seen=past.seen, levels=tuple(levels.items()),
    )  # fmt: skip


def _size(running: float) -> int:
    """Return the class of a batch: sizes of one class differ by a factor of 2 at most."""
    return round(log2(max(1.0, running)))


def _begun(past: Past, view: EngineView, meter: Meter, mono: float) -> Past:
    return Past(view=view, meter=meter, at=mono, began=mono, first=meter, levels=past.levels)


def _with(past: Past, view: EngineView, meter: Meter, mono: float, *, grown: float, seen: tuple[Meter, ...]) -> Past:
    return Past(
        view=view, meter=meter, at=mono, grown=grown, began=past.began, first=past.first, seen=seen, levels=past.levels
    )


def _span(first: Meter, seen: tuple[Meter, ...], seconds: float, grown: float, capacity: float | None) -> Span:
    last, many = seen[-1], len(seen)
    generated, prompts, preempted, finished = (new - old for new, old in zip(last.counts, first.counts, strict=True))
    running, usage = sum(one.running for one in seen) / many, sum(one.usage for one in seen) / many
    into_cache = 0.0 if capacity is None else grown * capacity - generated
    return Span(
        seconds=seconds,
        generated=generated,
        prompts=max(prompts, into_cache) / seconds,
        preempted=preempted,
        finished=finished,
        running=running,
        waiting=min(one.waiting for one in seen),
        usage=max(one.usage for one in seen),
        context=usage / max(1.0, running),
    )


def lacking(view: EngineView) -> str | None:
    """Return for people which numbers a page lacks that nothing can be said without; None: it has them."""
    gauges = {"running": view.running, "waiting": view.waiting, "kv_usage": view.kv_usage}
    known = {**view.counters, **{name: value for name, value in gauges.items() if value is not None}}
    names = [name for name in (*gauges, *_COUNTED) if not isfinite(known.get(name, inf))]
    return f"its page does not tell {', '.join(names)}" if names else None


def _meter(view: EngineView) -> Meter | None:
    counters = view.counters
    if view.running is None or view.waiting is None or view.kv_usage is None or view.asleep:
        return None
    if any(name not in counters for name in _COUNTED):
        return None
    prompts = counters.get("prompt_tokens_computed", counters["prompt_tokens"])
    counts = (counters["generation_tokens"], prompts, counters["preemptions"], counters["requests_finished"])
    if not all(map(isfinite, (*counts, view.running, view.waiting, view.kv_usage))):
        return None
    return Meter(counts, view.running, view.waiting, view.kv_usage)
