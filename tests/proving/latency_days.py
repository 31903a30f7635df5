"""Engine-days of the latency detector: false alarms a day, and how soon slow steps and slow prompts are found.

``python -m tests.proving.latency_days [--days 4] [--seed 1] [--only BUILD] [--healthy]``

Load follows the hour and is never still: ramps, long prompts, cold prefix caches, mass aborts, quiet nights, restarts,
upgrades, scrape gaps. Faults come at random, at +8, +15 and +30 %, and last ten minutes.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from alerts.base import Observation
from alerts.detectors.latency import DETECTOR, State
from opsboard.core.clock import Now
from opsboard.core.model import EngineReading, EngineView, Outcome
from tests.proving.builds import BUILDS as ALL
from tests.proving.builds import Build, Load
from tests.proving.fluid_engine import FluidEngine

DAY_S = 86_400
START = 1_700_000_000.0
FAULT_S = 600.0
GRACE_S = 120.0
FIRST_FAULT_S = 3 * 3600.0
"""Before that it has seen little of its load."""
SIZES = (1.08, 1.15, 1.30)
PREFILL_SIZES = (1.5, 2.0)

BUILDS = tuple(build for build in ALL if build.name in {"small", "padded", "bends", "large", "trickle", "noisy"})


class Episode(NamedTuple):
    """Something out of the ordinary. A fault when ``size`` is not 1."""

    kind: str
    start: float
    end: float
    size: float = 1.0


class Score(msgspec.Struct):
    """What came of one build."""

    days: float = 0.0
    false: list[tuple[float, str, str]] = []
    found: dict[str, list[float]] = {}
    closed: dict[str, list[float]] = {}
    missed: dict[str, int] = {}
    unjudged: dict[str, int] = {}
    """Nothing could be compared in more than a tenth of its time: preemption, load never seen, no traffic."""
    cost_s: float = 0.0
    readings: int = 0


def episodes(seed: int, seconds: float, faults_from: float) -> Iterator[Episode]:
    """Yield what happens, one after the other; faults from then on, nearly every other time."""
    pick = random.Random(f"episodes {seed}")
    at = 600.0
    kinds = ["ramp", "ramp", "long_prompts", "cold_cache", "abort", "idle", "restart", "upgrade", "gap", "burst"]
    while at < seconds:
        if at > faults_from and pick.random() < 0.4:
            slow = pick.random() < 0.8
            size = pick.choice(SIZES if slow else PREFILL_SIZES)
            episode = Episode("slow_step" if slow else "slow_prefill", at, at + FAULT_S, size)
        else:
            episode = Episode(pick.choice(kinds), at, at + pick.uniform(60.0, 600.0))
        yield episode
        at = episode.end + GRACE_S + pick.expovariate(1 / 600.0)


def load_at(build: Build, t: float, doing: Episode | None) -> Load:
    """Return the load of a moment."""
    day = 0.55 - 0.45 * math.cos(2 * math.pi * t / DAY_S)
    load = Load(rate=build.rate * day, prompt=build.prompt, output=build.output)
    if doing is None:
        return load
    part = (t - doing.start) / (doing.end - doing.start)
    match doing.kind:
        case "ramp":
            load.rate *= 1 + 3 * min(1.0, 3 * part, 3 * (1 - part))
        case "burst":
            load.rate *= 4 if int(t / 20) % 2 else 1
        case "long_prompts":
            load.prompt *= 10
        case "cold_cache":
            load.cached = 0.0
        case "idle":
            load.rate = 0.0
    return load


def run(build: Build, seed: int, seconds: int, *, faults_from: float = FIRST_FAULT_S) -> Score:
    """Live through it at one reading a second."""
    engine, score = FluidEngine(build, seed), Score(days=seconds / DAY_S)
    state = DETECTOR.begin(DETECTOR.params())
    coming = episodes(seed, seconds, faults_from)
    doing: Episode | None = None
    due = next(coming, None)
    fault: Episode | None = None
    was_open = seen_fault = False
    judged_s = 0
    for second in range(seconds):
        t = float(second)
        if due is not None and t >= due.start:
            doing, due = due, next(coming, None)
            _begin(engine, doing)
            if doing.size != 1.0:
                fault, seen_fault, judged_s = doing, was_open, 0
        if doing is not None and t >= doing.end:
            engine.slow_step = engine.slow_prefill = 1.0
            doing = None
        view = engine.second(load_at(build, t, doing))
        if doing is not None and doing.kind in {"gap", "restart", "upgrade"} and t - doing.start < 60:
            continue
        claim, state, cost_s = _judged(state, view, Now(wall=START + t, mono=t))
        judged_s += doing is not None and doing is fault and state.tokens.judged == t
        score.cost_s, score.readings = score.cost_s + cost_s, score.readings + 1
        name = "" if fault is None else f"{fault.kind} {fault.size:g}"
        if claim is not None and not was_open:
            if fault is None or seen_fault or t > fault.end + GRACE_S:
                doing_now = "nothing" if doing is None else doing.kind
                score.false.append((t, doing_now, claim))
            else:
                seen_fault = True
                score.found.setdefault(name, []).append(t - fault.start)
        if claim is None and was_open and seen_fault and fault is not None and t >= fault.end:
            score.closed.setdefault(name, []).append(t - fault.end)
        was_open = claim is not None
        if fault is not None and t > fault.end + GRACE_S and not was_open:
            if not seen_fault:
                lost = score.missed if judged_s > FAULT_S / 10 else score.unjudged
                lost[name] = lost.get(name, 0) + 1
            fault = None
    return score


def _begin(engine: FluidEngine, episode: Episode) -> None:
    match episode.kind:
        case "slow_step":
            engine.slow_step = episode.size
        case "slow_prefill":
            engine.slow_prefill = episode.size
        case "abort":
            engine.leave()
        case "restart" | "upgrade":
            engine.restart()
            if episode.kind == "upgrade":
                major, minor, patch = engine.version.split(".")
                engine.version = f"{major}.{int(minor) + 1}.{patch}"


def _judged(state: State, view: EngineView, now: Now) -> tuple[str | None, State, float]:
    reading = EngineReading(engine="a", outcome=Outcome.OK, view=view)
    seen = Observation(engine="a", now=now, reading=reading)
    began = time.process_time()
    step = DETECTOR.step(state, seen)
    return None if step.finding is None else step.finding.summary, step.state, time.process_time() - began


def main() -> int:
    """Print one block a build; exit 1 at a false alarm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=4.0, help="of each build")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[build.name for build in BUILDS])
    parser.add_argument("--healthy", action="store_true", help="no faults")
    options = parser.parse_args()
    false = 0
    for build in BUILDS:
        if options.only not in {None, build.name}:
            continue
        faults_from = math.inf if options.healthy else FIRST_FAULT_S
        score = run(build, options.seed, round(options.days * DAY_S), faults_from=faults_from)
        false += len(score.false)
        cost = 1e6 * score.cost_s / max(1, score.readings)
        print(f"{build.name}: {score.days:g} days, {len(score.false)} false, {cost:.0f} us a reading", flush=True)
        for t, doing, claim in score.false[:8]:
            print(f"  FALSE at {t:.0f} s during {doing}: {claim}")
        for name in sorted({*score.found, *score.missed, *score.unjudged}):
            late = sorted(score.found.get(name, []))
            after = sorted(score.closed.get(name, []))
            print(
                f"  {name}: found {len(late)} of {len(late) + score.missed.get(name, 0)}"
                + (f", after {late[len(late) // 2]:.0f} s (median), {late[-1]:.0f} s (slowest)" if late else "")
                + (f"; {score.unjudged[name]} more could not be judged" if name in score.unjudged else "")
                + (f"; over {after[len(after) // 2]:.0f} s after its end (median)" if after else "")
            )
    return 1 if false else 0


if __name__ == "__main__":
    sys.exit(main())
