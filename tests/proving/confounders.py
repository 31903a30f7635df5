"""What looks like trouble and is none: traffic that changes, lives that end, pages that come late or are otherwise.

Each kind comes again and again through an episode, at random times; ``mixed`` draws another one each time. What is a
fact of the whole episode (no shared prefixes, one request a minute) holds all the time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec.structs import replace

from opsboard.core.clock import Now
from opsboard.core.model import EngineView, Histogram
from tests.proving.builds import Build, Load
from tests.proving.engine_page import START
from tests.proving.fluid_engine import FluidEngine

WINDOWS = (
    "ramp", "burst", "long_prompts", "long_answers", "cold_cache", "all_leave", "many_leave", "idle", "restart",
    "upgrade", "other_model", "gap", "twice_and_late", "clock_step", "asleep", "lease",
)  # fmt: skip
"""Those that come and go."""
ALWAYS = (
    "steady", "hours", "pauses", "no_prefix", "one_prefix", "heavy_tails", "trickle", "busy", "overload",
    "other_buckets", "without_steps", "slow_scrape", "frozen_gauges", "two_ranks",
)  # fmt: skip
"""Those that hold all the time."""
KINDS = (*WINDOWS, *ALWAYS, "mixed")
MIXED = tuple(kind for kind in WINDOWS if kind != "lease")
"""A connector is there for good, or it is not."""

LIVES = frozenset({"restart", "upgrade", "other_model", "asleep"})
"""These end what was wrong, so they do not come while a fault is there."""
UNREAD_S = 60.0
"""A starting engine has no page for so long."""


class Window(NamedTuple):
    """Something out of the ordinary, in seconds of the episode."""

    kind: str
    start: float
    end: float


def windows(kind: str, seed: int, seconds: float) -> Iterator[Window]:
    """Yield what happens, one after the other."""
    pick = random.Random(f"windows {kind} {seed}")
    at = 400.0 + pick.expovariate(1 / 300.0)
    while at < seconds:
        what = pick.choice(MIXED) if kind == "mixed" else kind
        yield Window(what, at, at + (pick.uniform(30.0, 480.0) if what == "lease" else pick.uniform(60.0, 600.0)))
        at += 720.0 + pick.expovariate(1 / 600.0)


class Around:
    """What goes on around an engine in one episode."""

    def __init__(self, kind: str, build: Build, seed: int, seconds: float) -> None:
        """Begin at 0 s. ``kind`` is one of :data:`KINDS`."""
        self.kind, self.build = kind, build
        self._random = random.Random(f"around {kind} {seed}")
        self._coming = windows(kind, seed, seconds) if kind in {*WINDOWS, "mixed"} else iter(())
        self._due = next(self._coming, None)
        self.doing: Window | None = None
        self._unread_until = -1.0
        self._phase = self._random.uniform(0.0, 2 * math.pi)
        self._frozen: EngineView | None = None
        self._shift = 0.0

    def tick(self, t: float, engine: FluidEngine, *, faulty: bool) -> None:
        """Let begin and end what does at ``t``."""
        if self._due is not None and t >= self._due.start:
            due, self._due = self._due, next(self._coming, None)
            if not (faulty and due.kind in LIVES):
                self.doing = due
                self._begin(engine, due, t)
        if self.doing is not None and t >= self.doing.end:
            engine.asleep, engine.held_blocks = False, 0
            self.doing = None

    def load(self, t: float) -> Load:
        """Return the load of a moment."""
        build = self.build
        day = 0.8 if self.kind == "steady" else 0.6 + 0.35 * math.sin(2 * math.pi * t / 7200 + self._phase)
        load = Load(rate=build.rate * day, prompt=build.prompt, output=build.output)
        shape = _SHAPES.get(self.kind)
        if shape is not None:
            shape(load, t)
        if self.doing is not None:
            part = (t - self.doing.start) / (self.doing.end - self.doing.start)
            _during(self.doing.kind, load, t, part)
        return load

    def pages(self, view: EngineView, now: Now) -> list[tuple[Now, EngineView]]:
        """Return what is read of a page that is there now, and when as its reader's clock says."""
        t = now.mono
        if t < self._unread_until:
            return []
        doing = "" if self.doing is None else self.doing.kind
        now = Now(wall=now.wall + self._shift, mono=t)
        view = self._otherwise(view)
        if doing == "gap" and self.doing is not None:
            since = t - self.doing.start
            return [] if since % 150 < min(120.0, self.doing.end - self.doing.start) else [(now, view)]
        if doing == "twice_and_late" and self._random.random() < 0.2:
            before = Now(wall=now.wall - 2.0, mono=t)
            return [(now, view), (before, view)] if self._random.random() < 0.5 else []
        return [(now, view)]

    def _begin(self, engine: FluidEngine, due: Window, t: float) -> None:
        match due.kind:
            case "all_leave":
                engine.leave()
            case "asleep":
                engine.leave()
                engine.asleep = True
            case "lease":
                engine.held_blocks = self._random.randint(2, 60)
            case "clock_step":
                self._shift += self._random.choice((-5.0, 5.0))
            case "restart" | "upgrade" | "other_model":
                engine.restart()
                self._unread_until = t + UNREAD_S
                if due.kind == "upgrade":
                    major, minor, patch = engine.version.split(".")
                    engine.version = f"{major}.{int(minor) + 1}.{patch}"
                if due.kind == "other_model":
                    engine.model = "other" if engine.model == "sim" else "sim"

    def _otherwise(self, view: EngineView) -> EngineView:
        """Return the page as another version, or configuration, shows it."""
        if self.kind == "lease":
            return replace(view, kv_connectors=("nixl",))
        if self.kind == "without_steps":
            counters = {name: value for name, value in view.counters.items() if name != "iterations"}
            ranks = tuple(replace(rank, counters=counters) for rank in view.ranks)
            return replace(view, counters=counters, ranks=ranks)
        if self.kind == "other_buckets" and int(view.counters["requests_begun"] / 500) % 2:
            return replace(view, histograms={name: _coarse(one) for name, one in view.histograms.items()})
        if self.kind == "frozen_gauges":
            return self._gauges_frozen(view)
        return view

    def _gauges_frozen(self, view: EngineView) -> EngineView:
        """Before 0.12 nothing wrote gauges when the last request went: they stay as they were until the next step."""
        if view.running or view.waiting or self._frozen is None:
            self._frozen = view
            return view
        old = self._frozen
        rank = replace(view.ranks[0], running=old.running, waiting=old.waiting, kv_usage=old.kv_usage)
        return replace(view, running=old.running, waiting=old.waiting, kv_usage=old.kv_usage, ranks=(rank,))


def _during(kind: str, load: Load, t: float, part: float) -> None:
    """Change a load as a window does, of which ``part`` (0..1) is over."""
    match kind:
        case "ramp":  # to four times of what is there, a tenfold one of its lowest hour
            load.rate *= 1 + 3 * min(1.0, 3 * part, 3 * (1 - part))
        case "burst":
            load.rate *= 4 if int(t / 20) % 2 else 1
        case "long_prompts":
            load.prompt *= 20
            load.rate *= 0.5
        case "long_answers":
            load.output *= 4
        case "cold_cache":
            load.cached = 0.0
        case "many_leave":
            load.abort = 3.0
        case "idle" | "asleep":
            load.rate = 0.0


def _pauses(load: Load, t: float) -> None:
    load.rate *= 1.0 if t % 120 < 95 else 0.0


def _trickle(load: Load, _t: float) -> None:
    load.rate = 1 / 60


def _busy(load: Load, _t: float) -> None:
    load.rate *= 2.5


def _overload(load: Load, t: float) -> None:
    load.rate *= 3.0 if t % 1800 > 1200 else 1.0


def _no_prefix(load: Load, _t: float) -> None:
    load.cached = 0.0


def _one_prefix(load: Load, _t: float) -> None:
    load.one_prefix, load.shared = True, 1.0


def _heavy(load: Load, _t: float) -> None:
    load.spread = 1.3


def _frozen(load: Load, t: float) -> None:
    load.rate *= 0.0 if t % 900 > 600 else 1.0


_SHAPES: dict[str, Callable[[Load, float], None]] = {
    "pauses": _pauses, "trickle": _trickle, "busy": _busy, "overload": _overload, "no_prefix": _no_prefix,
    "one_prefix": _one_prefix, "heavy_tails": _heavy, "frozen_gauges": _frozen,
}  # fmt: skip


def _coarse(one: Histogram) -> Histogram:
    """Leave every other bucket out, as somebody may have configured."""
    keep = [at for at in range(len(one.bounds)) if at % 2 or at == len(one.bounds) - 1]
    return Histogram(
        bounds=tuple(one.bounds[at] for at in keep), counts=tuple(one.counts[at] for at in keep), total=one.total
    )


def wall(t: float) -> float:
    """Return the date of a second of an episode, in Unix seconds."""
    return START + t
