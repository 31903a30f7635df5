"""What else may slow an engine: slow clocks, others on its GPUs, the host's CPUs, rejected drafts, lost cache hits.

Each has a usual value, learnt while all is well, and one of now. None of them is proof; what has moved is named.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, inf, isfinite
from typing import NamedTuple

from msgspec.structs import replace

from alerts.base import Observation
from opsboard.core.model import EngineView, GpuView, Record

_NOW_S = 15.0
_USUAL_S = 3600.0
_BEFORE_S = 60.0
"""What came up to so long before the trouble may have to do with it."""


class Rule(NamedTuple):
    """When a value has moved: by this share of what is usual, and by this at least. Negative: it fell."""

    share: float
    least: float
    said: str


RULES = {
    "sm_clock_mhz": Rule(-0.05, 0.0, "its GPU's SM clock fell from {was:.0f} to {now:.0f} MHz"),
    "draft_acceptance": Rule(-0.08, -0.03, "accepted drafts fell from {was:.0%} to {now:.0%}"),
    "host_cpu_ratio": Rule(0.15, 0.15, "the host's CPUs went from {was:.0%} to {now:.0%} busy"),
    "prefix_hit_rate": Rule(-0.2, -0.1, "prefix-cache hits fell from {was:.0%} to {now:.0%}"),
}

_RATES = {
    "draft_acceptance": ("spec_accepted_tokens", "spec_draft_tokens"),
    "prefix_hit_rate": ("prefix_hits", "prefix_queries"),
}
_SLOWS = frozenset({"hw_slowdown", "hw_thermal", "sw_thermal", "hw_power_brake", "sw_power_cap", "reliability"})


class Cause(NamedTuple):
    """What moved, by name and in a few words."""

    name: str
    text: str


class Guest(NamedTuple):
    """Something that is there or not: when (monotonic s) it was first and last seen, and what to say of it."""

    first: float
    last: float
    cause: Cause


class Company(Record, frozen=True, kw_only=True):
    """What was seen of all that. ``usual`` and ``present`` are means that fade, by name."""

    age_s: float = 0.0
    looked: float = 0.0
    """When its GPUs were last seen."""
    usual: dict[str, float] = {}
    present: dict[str, float] = {}
    guests: dict[str, Guest] = {}
    counters: dict[str, float] = {}

    def take(self, seen: Observation, view: EngineView, seconds: float, *, well: bool) -> Company:
        """Take in a reading that came ``seconds`` after the last one; ``well``: nothing is suspicious."""
        values = dict(self._rates(view))
        cards = [gpu for gpu in seen.gpus if any(process.engine == seen.engine for process in gpu.processes)]
        clocks = [gpu.sm_clock_mhz for gpu in cards if gpu.sm_clock_mhz is not None]
        if clocks:
            values["sm_clock_mhz"] = min(clocks)
        if seen.host is not None and seen.host.cpu_ratio is not None:
            values["host_cpu_ratio"] = seen.host.cpu_ratio
        values = {name: value for name, value in values.items() if isfinite(value)}
        age_s = self.age_s + seconds
        return replace(
            self,
            age_s=age_s,
            looked=seen.now.mono if cards else self.looked,
            present=_faded(self.present, values, seconds / _NOW_S),
            usual=_faded(self.usual, values, seconds / max(1.0, min(age_s, _USUAL_S))) if well else self.usual,
            guests=self._guests(_found(cards, seen.engine), seen.now.mono) if cards or self.guests else {},
            counters={name: view.counters[name] for pair in _RATES.values() for name in pair if name in view.counters},
        )

    def moved(self, since: float) -> list[Cause]:
        """Return what has moved and may have to do with what began at ``since``; the likeliest first."""
        there = (guest for guest in self.guests.values() if guest.last >= self.looked)
        found = [guest.cause for guest in there if guest.first >= since - _BEFORE_S]
        for name, rule in RULES.items():
            was, now = self.usual.get(name), self.present.get(name)
            if was is None or now is None:
                continue
            change = now - was
            if change * rule.share > 0 and abs(change) >= max(abs(rule.share * was), abs(rule.least)):
                found.append(Cause(name, rule.said.format(was=was, now=now)))
        return found

    def _rates(self, view: EngineView) -> Iterable[tuple[str, float]]:
        old, new = self.counters, view.counters
        for name, (part, whole) in _RATES.items():
            if part in old and whole in old and part in new and new.get(whole, 0.0) > old[whole]:
                yield name, (new[part] - old[part]) / (new[whole] - old[whole])

    def _guests(self, causes: Iterable[tuple[str, Cause]], mono: float) -> dict[str, Guest]:
        guests = {key: guest for key, guest in self.guests.items() if mono - guest.last < _USUAL_S}
        for key, cause in causes:
            known = guests.get(key)
            new = mono if self.age_s else -inf  # who was there at the first look came at no known time
            guests[key] = Guest(new if known is None else known.first, mono, cause)
        return guests


def _found(cards: Iterable[GpuView], engine: str) -> Iterable[tuple[str, Cause]]:
    for gpu in cards:
        for reason in gpu.throttle or ():
            if reason in _SLOWS:
                yield f"{gpu.uuid} {reason}", Cause("throttle", f"GPU {gpu.index} throttles ({reason})")
        for process in gpu.processes:
            if process.engine != engine:
                name = process.engine or process.name or "another process"
                text = f"{name} (pid {process.pid}) came to GPU {gpu.index}"
                yield f"{gpu.uuid} {process.pid}", Cause("co_tenant", text)


def _faded(old: dict[str, float], values: dict[str, float], part: float) -> dict[str, float]:
    share = 1.0 - exp(-max(0.0, part))
    return {**old, **{name: old.get(name, value) * (1 - share) + value * share for name, value in values.items()}}
