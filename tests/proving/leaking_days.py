"""Simulated days of engines whose memory leaks, and of engines whose memory only looks like it.

``python -m tests.proving.leaking_days [--days 70] [--leaks 100] [--seed 1]`` lets memory_leak and gpu_memory_leak
judge them, a look every five seconds, and prints false alarms a day, recall and times to detect. Load follows the hour,
with a ramp to ten times and back in every four hours, half an hour to three long. What memory does legitimately is
drawn at random for each day: noise that remembers, memory that follows the load, caches that fill and stop, caches that
fill as the logarithm, a KV arena touched for the first time, models that are loaded and unloaded, allocators that keep
what their largest moment took, sawtooth collection, restarts, scrape gaps, quiet nights, a request a minute.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Iterator
from typing import NamedTuple

from alerts.base import Detector, Observation
from alerts.detectors import gpu_memory_leak, memory_leak
from opsboard.core.clock import Now
from opsboard.core.model import (
    EngineReading,
    EngineView,
    Finding,
    GpuProcess,
    GpuView,
    HostView,
    Outcome,
    ProcessView,
)
from tests.proving.intervals import most, share

DAY_S, EVERY_S, START = 86_400.0, 5.0, 1_700_000_000.0
MIB = float(1 << 20)
GIB = 1024 * MIB
ROLES = ("api_server", "engine_core", "worker")
SHAPES = ("plain", "plateau", "logarithm", "arena", "loads", "steps", "sawtooth")
EVERY_RAMP_S = 4 * 3600.0
SHORTEST_S, LONGEST_S = 900.0, 7 * DAY_S
"""How long memory lasts for leaks that are drawn, at the day's mean load."""
WAITED_S = 12 * 3600.0
"""A leak that is not found by then, or before memory is full, is missed."""


class Case(NamedTuple):
    """One engine's day: what its memory does, and whether it leaks (bytes a request from ``onset`` seconds on)."""

    seed: int
    shape: str
    gpu: bool = False
    leak: float = 0.0
    onset: float = 0.0
    by_token: bool = False
    seconds: float = DAY_S


class Opened(NamedTuple):
    """A claim: after how many seconds of the day, and what it said."""

    after_s: float
    finding: Finding


class Shape:
    """What memory does beside leaking, in one process or on one card."""

    def __init__(self, rnd: random.Random, kind: str, *, gpu: bool) -> None:
        self.random, self.kind = rnd, kind
        self.noise_bytes = rnd.uniform(0.5, 3 if gpu else 15) * MIB
        self.memory_s = math.exp(rnd.uniform(math.log(10), math.log(7200)))
        self.per_request = 0.0 if gpu else rnd.uniform(0.0, 2.0) * MIB
        self.size = math.exp(rnd.uniform(math.log(30), math.log(800))) * MIB
        self.work = math.exp(rnd.uniform(math.log(300), math.log(5000)))
        self.period_s = math.exp(rnd.uniform(math.log(300), math.log(4 * 3600)))
        self.tooth = rnd.uniform(5, 100) * MIB
        self.each = math.exp(rnd.uniform(math.log(0.25), math.log(4))) * MIB
        self.noise = 0.0
        self.loaded = 0.0
        self.peak = 0.0

    def level(self, t: float, work: float, load: float) -> float:
        """Return its bytes at ``t`` after ``work`` requests of this life with ``load`` in the engine."""
        keep = math.exp(-EVERY_S / self.memory_s)
        self.noise = keep * self.noise + self.noise_bytes * math.sqrt(1 - keep * keep) * self.random.gauss(0, 1)
        return self.noise + self.per_request * load + self._shape(t, work, load)

    def _shape(self, t: float, work: float, load: float) -> float:
        match self.kind:
            case "plateau":
                return self.size * (1 - math.exp(-work / self.work))
            case "logarithm":
                return 0.15 * self.size * math.log1p(work / 50)
            case "arena":
                return self.size * min(1.0, work / self.work)
            case "loads":
                if self.random.random() < EVERY_S / 14_400:
                    self.loaded = self.random.choice([0.0, 0.2, 1.0, 3.0]) * GIB
                return self.loaded
            case "steps":  # an allocator that keeps what its largest moment took
                self.peak = max(self.peak, load * self.random.lognormvariate(0, 0.3))
                return 32 * MIB * math.floor(self.each * self.peak / (32 * MIB))
            case "sawtooth":
                return self.tooth * (t % self.period_s) / self.period_s
            case _:
                return 0.0


class Day:
    """One engine's day, look by look."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.random = random.Random(case.seed)
        rnd = self.random
        least = 1 / 60 if rnd.random() < 0.5 and not case.leak else 0.5
        self.rate = math.exp(rnd.uniform(math.log(least), math.log(20)))
        """Requests a second at the mean."""
        self.swing = rnd.uniform(0.2, 0.9)
        self.phase = rnd.uniform(0, DAY_S)
        self.ramps = list(self._ramps())
        self.tokens_each = rnd.uniform(200, 2000)
        self.room = rnd.choice([4, 16, 64, 256]) * GIB
        self.shapes = self._shapes()
        self.born, self.lives = 0.0, 0
        self.restarts = sorted(rnd.uniform(0, case.seconds) for _ in range(rnd.choice([0, 0, 1, 2])))
        if case.leak:
            self.restarts = []
        self.done = self.tokens = self.leaked = 0.0
        self.gap_until = 0.0
        self.full = math.inf
        """When memory was full."""
        self.warm = math.inf
        """When warm-up was over by what the documents say."""

    @property
    def arena(self) -> float:
        """Tokens in a KV cache that lies in host memory; 0: it does not."""
        return self.shapes[2].work * self.tokens_each if self.case.shape == "arena" and not self.case.gpu else 0.0

    def _ramps(self) -> Iterator[tuple[float, float]]:
        """Yield when load begins to rise, and for how long it does before it falls as long."""
        at = 0.0
        while at < self.case.seconds:
            rises = self.random.uniform(900, 5400)
            yield at + self.random.uniform(0, EVERY_RAMP_S - rises), rises
            at += EVERY_RAMP_S

    def _shapes(self) -> list[Shape]:
        odd = self.random.randrange(2 if self.case.shape != "arena" else 1)
        leaky = 2 if self.case.shape == "arena" else odd
        kinds = [self.case.shape if at == leaky else "plain" for at in range(len(ROLES))]
        return [Shape(self.random, kind, gpu=self.case.gpu) for kind in kinds]

    def eta_s(self) -> float:
        """Return how long room lasts at the mean rate, in s."""
        return self.room / (self.case.leak * self.rate) if self.case.leak else math.inf

    def looks(self) -> Iterator[Observation]:
        """Yield what is seen, every five seconds but in gaps."""
        t = 0.0
        seconds, requests = (900.0, 2000.0) if self.arena else (300.0 if self.case.gpu else 120.0, 200.0)
        while t < self.case.seconds:
            t += EVERY_S
            if self.restarts and t >= self.restarts[0]:
                self.restarts.pop(0)
                self.born, self.done, self.tokens, self.lives = t, 0.0, 0.0, self.lives + 1
                self.shapes, self.gap_until = self._shapes(), t + 60
            load, made = self._work(t)
            if t >= seconds and self.done >= requests and self.tokens >= 2 * self.arena:
                self.warm = min(self.warm, t)
            if self.case.leak and t >= self.case.onset:
                self.leaked += self.case.leak * made
                if self.leaked > 0.95 * self.room:
                    self.full = t
                    return
            if self.random.random() < EVERY_S / 7200:
                self.gap_until = max(self.gap_until, t + self.random.uniform(5, 120))
            if t >= self.gap_until:
                yield self._look(t, load)

    def _work(self, t: float) -> tuple[float, float]:
        """Let requests finish. Return how many are in the engine, and finished requests in units of the leak."""
        share = 1 + self.swing * math.sin(2 * math.pi * (t + self.phase) / DAY_S)
        share *= 1 + 9 * max(0.0, *(1 - abs((t - at) / rises - 1) for at, rises in self.ramps))
        rate = self.rate * share
        made = max(0.0, round(self.random.gauss(rate * EVERY_S, math.sqrt(rate * EVERY_S))))
        each = self.tokens_each * self.random.lognormvariate(0, 0.2)
        self.done += made
        self.tokens += made * each
        units = made * each / self.tokens_each if self.case.by_token else made
        return max(0.0, round(self.random.gauss(5 * rate, math.sqrt(5 * rate)))), units

    def _look(self, t: float, load: float) -> Observation:
        now = Now(START + t, 1000.0 + t)
        counters = {"requests_finished": self.done, "generation_tokens": round(self.tokens)}
        view = EngineView(
            kind="vllm", running=load, waiting=0.0, process_start=START + self.born, counters=counters,
            kv_capacity_tokens=self.arena or None,
        )  # fmt: skip
        levels = [shape.level(t, self.done, load) for shape in self.shapes]
        levels[1 if self.case.shape == "arena" else 0 if self.shapes[0].kind != "plain" else 1] += self.leaked
        base = 700 * MIB
        gpus: tuple[GpuView, ...] = ()
        processes = tuple(
            ProcessView(pid=10 * self.lives + at, started=START + self.born, name=role, role=role,
                        rss_anon_bytes=round(base + level), swap_bytes=0)
            for at, (role, level) in enumerate(zip(ROLES, levels, strict=True))
        )  # fmt: skip
        if self.case.gpu:
            held = 70 * GIB + max(levels)
            card = GpuProcess(pid=10 * self.lives + 2, memory_bytes=round(held), engine="a")
            used, total = round(held + GIB), round(70 * GIB + self.room + GIB)
            gpus = (
                GpuView(index=0, uuid="GPU-a", memory_used_bytes=used, memory_total_bytes=total, processes=(card,)),
            )
            processes = ()
        host = HostView(memory_available_bytes=round(max(0.0, self.room - sum(levels))))
        return Observation(
            engine="a", now=now, fresh=True, processes=processes, looked=now.mono, gpus=gpus, host=host,
            reading=EngineReading(engine="a", outcome=Outcome.OK, view=view),
        )  # fmt: skip


def judged(day: Day, detector: Detector) -> list[Opened]:
    """Return what a detector claims of a day, each when it opened."""
    state, before, opened = detector.begin(detector.params()), None, []
    for seen in day.looks():
        state, finding, *_ = detector.step(state, seen)
        if finding is not None and before is None:
            opened.append(Opened(seen.now.wall - START, finding))
        before = finding
    return opened


def detector_of(case: Case) -> Detector:
    """Return the detector that is to judge it."""
    return gpu_memory_leak.DETECTOR if case.gpu else memory_leak.DETECTOR


def healthy(days: int, seed: int, *, gpu: bool) -> tuple[int, list[str]]:
    """Judge so many days without a leak; return what was claimed, a line each."""
    told = []
    for at in range(days):
        case = Case(seed * 100_000 + at, SHAPES[at % len(SHAPES)], gpu=gpu)
        told += [
            f"{case.shape} {case.seed}: {one.after_s / 3600:.1f} h: {one.finding.summary}"
            for one in judged(Day(case), detector_of(case))
        ]
    return days, told


class Leaking(NamedTuple):
    """What became of one leak."""

    case: Case
    eta_s: float
    """How long memory lasted: at the day's mean load, or less where a ramp filled it."""
    early: int
    """Claims before it began."""
    after_s: float | None
    """From its onset, or the end of warm-up, to its claim; None: never."""


def leaking(count: int, seed: int, *, gpu: bool) -> list[Leaking]:
    """Judge so many engines whose memory leaks, from their first request on or from a moment in the first two hours."""
    found = []
    rnd = random.Random(f"{seed} {gpu}")
    for at in range(count):
        eta_s = math.exp(rnd.uniform(math.log(SHORTEST_S), math.log(LONGEST_S)))
        onset = rnd.choice([0.0, rnd.uniform(1200, 7200)])
        case = Case(
            seed * 100_000 + 50_000 + at, rnd.choice(SHAPES), gpu=gpu, leak=1.0, onset=onset,
            by_token=rnd.random() < 0.3, seconds=onset + min(1.2 * eta_s, WAITED_S),
        )  # fmt: skip
        case = case._replace(leak=Day(case).eta_s() / eta_s)
        day = Day(case)
        opened = judged(day, detector_of(case))
        after = [one.after_s - max(onset, day.warm) for one in opened if one.after_s >= onset]
        lasts_s = min(eta_s, day.full - onset)
        found.append(Leaking(case, lasts_s, len(opened) - len(after), after[0] if after else None))
    return found


def _table(rows: list[Leaking]) -> Iterator[str]:
    for low, high in ((0, 0.25), (0.25, 1), (1, 4), (4, 24), (24, 168), (0.25, 4), (0.25, 24)):
        ours = [row for row in rows if low <= row.eta_s / 3600 < high]
        times = sorted(row.after_s / 60 for row in ours if row.after_s is not None)
        if times:
            least = share(len(times), len(ours)).low
            soon = f"median {times[len(times) // 2]:.0f} min, slowest {times[-1]:.0f} min"
            yield f"lasts {low:g} to {high:g} h: {len(times)} of {len(ours)} found (at least {least:.3f}), {soon}"
    yield f"claims before the leak began: {sum(row.early for row in rows)} in {len(rows)}"
    yield from (f"missed: {row}" for row in rows if row.eta_s < DAY_S and row.after_s is None)


def main(argv: list[str]) -> None:
    """Print what became of healthy and of leaking days."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--days", type=int, default=70)
    parser.add_argument("--leaks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("memory_leak", "gpu_memory_leak"))
    options = parser.parse_args(argv)
    for name, gpu in (("memory_leak", False), ("gpu_memory_leak", True)):
        if options.only in {None, name}:
            days, told = healthy(options.days, options.seed, gpu=gpu)
            at_most = f"at most {most(len(told)) / days:.3f} a day"
            print(f"{name}: {len(told)} false alarms in {days} engine-days ({at_most})", *told, sep="\n  ", flush=True)
            print(*_table(leaking(options.leaks, options.seed, gpu=gpu)), sep="\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
