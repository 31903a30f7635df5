"""What people use today, in the same harness: thresholds, EWMA, Mann-Kendall, Page-Hinkley, the idle floor alone.

Each rule looks at one value a minute of one series, as an alert over recorded metrics does. A claim stands until its
rule has been silent for ten minutes, so that one trouble is one claim. None is tuned: numbers are those of the books.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from alerts.base import Detector, Observation, Step
from opsboard.core.histogram import quantile, subtract
from opsboard.core.model import Finding, Histogram, Record

MINUTE_S = 60.0
HOLD_S = 600.0
ENOUGH = 30
"""Values before a rule that compares with the past says anything."""

KV_FULL = 0.95
SLOW_P99_S = 0.1
"""The objective for gaps between tokens that the static rule knows."""
MEMORY_LEFT = 0.1
"""Of what there was."""


class Nothing(Record, frozen=True, kw_only=True):
    """There is nothing to set."""


Series = Callable[[Observation, "Minute"], float | None]


class Minute:
    """What a series remembers from one minute to the next."""

    def __init__(self) -> None:
        self.due = -math.inf
        self.gaps: Histogram | None = None
        self.first: float | None = None
        self.rule: Any = None
        self.silent_since = math.inf
        self.claim: Finding | None = None
        self.idle = 0


def _kv(seen: Observation, _minute: Minute) -> float | None:
    view = None if seen.reading is None else seen.reading.view
    return None if view is None else view.kv_usage


def _gaps(seen: Observation, minute: Minute) -> Histogram | None:
    view = None if seen.reading is None else seen.reading.view
    new = None if view is None else view.histograms.get("itl")
    old, minute.gaps = minute.gaps, new
    return None if old is None or new is None else subtract(new, old)


def _itl(seen: Observation, minute: Minute) -> float | None:
    gaps = _gaps(seen, minute)
    return None if gaps is None or gaps.total is None or gaps.count < 20 else gaps.total / gaps.count


def _slowest(seen: Observation, minute: Minute) -> float | None:
    gaps = _gaps(seen, minute)
    at = None if gaps is None else quantile(gaps, 0.99)
    return None if at is None else at.value


def _host(seen: Observation, _minute: Minute) -> float | None:
    levels = [one.rss_anon_bytes for one in seen.processes if one.rss_anon_bytes is not None]
    return float(sum(levels)) if levels else None


def _gpu(seen: Observation, _minute: Minute) -> float | None:
    held = [one.memory_bytes for card in seen.gpus for one in card.processes if one.memory_bytes is not None]
    return float(sum(held)) if held else None


def _host_left(seen: Observation, minute: Minute) -> float | None:
    left = None if seen.host is None else seen.host.memory_available_bytes
    if left is None:
        return None
    minute.first = float(left) if minute.first is None else max(minute.first, float(left))
    return left / minute.first if minute.first else None


def _gpu_left(seen: Observation, _minute: Minute) -> float | None:
    card = next(iter(seen.gpus), None)
    if card is None or card.memory_used_bytes is None or not card.memory_total_bytes:
        return None
    return 1.0 - card.memory_used_bytes / card.memory_total_bytes


# --- rules: each takes a value and tells whether it is wrong


class Ewma:
    """Roberts' control chart: a mean that forgets, against 3 sigma of its own (lambda .2)."""

    def __init__(self) -> None:
        self.count, self.mean, self.square, self.smooth = 0, 0.0, 0.0, 0.0

    def __call__(self, value: float) -> bool:
        part = 0.2
        self.smooth = value if not self.count else self.smooth + part * (value - self.smooth)
        sd = math.sqrt(self.square / (self.count - 1)) if self.count > 1 else 0.0
        wrong = self.count >= ENOUGH and self.smooth > self.mean + 3 * sd * math.sqrt(part / (2 - part))
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self.square += off * (value - self.mean)
        return wrong


class MannKendall:
    """A rising trend in the last hour, one-sided p < .01."""

    def __init__(self) -> None:
        self.values: deque[float] = deque(maxlen=60)
        self.score = 0

    def __call__(self, value: float) -> bool:
        values = self.values
        if len(values) == 60:  # pairs of the one that goes
            first = values[0]
            self.score -= sum((one > first) - (one < first) for one in values)
            values.popleft()
        self.score += sum((value > one) - (value < one) for one in values)
        values.append(value)
        n = len(values)
        if n < ENOUGH or self.score <= 0:
            return False
        return (self.score - 1) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18) > 2.326


class PageHinkley:
    """River's defaults, in percent of the mean: delta .005, threshold 50, alpha .9999, 30 values first."""

    def __init__(self) -> None:
        self.count, self.mean, self.sum, self.least = 0, 0.0, 0.0, 0.0

    def __call__(self, value: float) -> bool:
        self.count += 1
        self.mean += (value - self.mean) / self.count
        off = 100.0 * (value / self.mean - 1.0) if self.mean else 0.0
        self.sum = 0.9999 * self.sum + off - 0.005
        self.least = min(self.least, self.sum)
        wrong = self.count >= ENOUGH and self.sum - self.least > 50.0
        if wrong:
            self.count, self.mean, self.sum, self.least = 0, 0.0, 0.0, 0.0
        return wrong


def _above(limit: float) -> Callable[[], Callable[[float], bool]]:
    return lambda: lambda value: value > limit


def _below(limit: float) -> Callable[[], Callable[[float], bool]]:
    return lambda: lambda value: value < limit


def _baseline(rule: str, target: str, series: Series, begin: Callable[[], Callable[[float], bool]]) -> Detector:
    name = f"{rule}: {target}"

    def start(_params: msgspec.Struct) -> Minute:
        minute = Minute()
        minute.rule = begin()
        return minute

    def step(minute: Minute, seen: Observation) -> Step:
        mono = seen.now.mono
        if mono < minute.due:
            return Step(minute, minute.claim)
        minute.due = mono + MINUTE_S
        value = series(seen, minute)
        if value is not None and math.isfinite(value) and minute.rule(value):
            minute.silent_since = mono
            if minute.claim is None:
                minute.claim = Finding(detector=name, engine=seen.engine, summary=f"{value:g}", since=seen.now.wall)
        elif minute.claim is not None and mono - minute.silent_since > HOLD_S:
            minute.claim = None
        return Step(minute, minute.claim)

    return Detector(name=name, severity="note", summary=rule, params=Nothing, begin=start, step=step)


def _idle_floor() -> Detector:
    """Return the rule that an idle engine uses nothing, by itself."""
    name = "idle floor: kv_leak"

    def step(minute: Minute, seen: Observation) -> Step:
        view = None if seen.reading is None else seen.reading.view
        if view is None or not seen.fresh:
            return Step(minute, minute.claim)
        wrong = view.running == 0 and view.waiting == 0 and bool(view.kv_usage)
        minute.idle = minute.idle + 1 if wrong else 0
        mono = seen.now.mono
        if minute.idle >= 3:
            minute.silent_since = mono
            if minute.claim is None:
                minute.claim = Finding(detector=name, engine=seen.engine, summary="in use", since=seen.now.wall)
        elif minute.claim is not None and mono - minute.silent_since > HOLD_S:
            minute.claim = None
        return Step(minute, minute.claim)

    return Detector(
        name=name, severity="note", summary="idle floor", params=Nothing, begin=lambda _params: Minute(), step=step
    )


_TRENDS: tuple[tuple[str, Series], ...] = (
    ("kv_leak", _kv), ("latency", _itl), ("memory_leak", _host), ("gpu_memory_leak", _gpu),
)  # fmt: skip
_RULES: tuple[tuple[str, Callable[[], Callable[[float], bool]]], ...] = (
    ("EWMA 3 sigma", Ewma), ("Mann-Kendall", MannKendall), ("Page-Hinkley", PageHinkley),
)  # fmt: skip

BASELINES: tuple[Detector, ...] = (
    _baseline("static threshold", "kv_leak", _kv, _above(KV_FULL)),
    _baseline("static threshold", "latency", _slowest, _above(SLOW_P99_S)),
    _baseline("static threshold", "memory_leak", _host_left, _below(MEMORY_LEFT)),
    _baseline("static threshold", "gpu_memory_leak", _gpu_left, _below(MEMORY_LEFT)),
    _idle_floor(),
    *(_baseline(rule, target, series, begin) for target, series in _TRENDS for rule, begin in _RULES),
)
