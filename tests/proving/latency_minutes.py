"""Short cold recordings for the latency detector: an engine just begun, mixed traffic, one fault of two minutes.

``python -m tests.proving.latency_minutes [--episodes 100] [--seed 1]``

Like the recordings of a real vLLM: steps of some 15 ms, 3 to 7 requests a second, ramps, long prompts, bursts, cold
prefix caches, everybody leaving at once. The fault begins after 80 to 150 s.
"""

from __future__ import annotations

import argparse
import random
import sys
from typing import NamedTuple

import msgspec

from alerts.base import Observation
from alerts.detectors.latency import DETECTOR
from opsboard.core.clock import Now
from opsboard.core.model import EngineReading, Outcome
from opsboard.sim.model import Shape
from tests.proving.builds import Build, Load, Noise
from tests.proving.fluid_engine import FluidEngine

SHAPE = Shape(
    blocks=700, block_size=32, max_num_seqs=48, step_s=0.0146, decode_s=0.000115, prefill_s=0.00003, context_s=1e-8
)
SIZES, PREFILL_SIZES = (1.0, 1.15, 1.19, 1.30), (1.0, 2.0, 4.0)
"""Steps of 15 % more make tokens take some 12 % longer here, of 19 % more 15 %."""
FAULT_S, GRACE_S, AFTER_S = 120.0, 20.0, 60.0
KINDS = ("even", "even", "even", "ramp", "long", "cold", "burst", "abort")


class Phase(NamedTuple):
    """What clients do for a while, in seconds from the beginning."""

    kind: str
    start: float
    end: float


class Result(msgspec.Struct):
    """What came of an episode. Seconds after the fault began, and after it ended; None: not at all."""

    found: float | None = None
    closed: float | None = None
    false: list[str] = []
    overload: bool = False
    """It preempted: then nothing is judged."""


def episode(seed: int, size: float, *, prefill: bool = False) -> Result:
    """Live through one: steps, or with ``prefill`` prompts, take ``size`` times as long; 1 is no fault."""
    pick = random.Random(f"minutes {seed}")
    noise = Noise(quick=pick.choice((0.03, 0.04, 0.05)), minutes=pick.choice((0.01, 0.02)), minutes_s=40.0)
    rate, prompt, output = pick.uniform(3.0, 7.0), pick.choice((150.0, 250.0, 350.0)), pick.choice((60.0, 90.0))
    engine = FluidEngine(Build(name="cold", shape=SHAPE, noise=noise), seed)
    engine.cold_s = 3.0
    began = pick.uniform(80.0, 150.0)
    ended = began + FAULT_S
    seconds = int(ended + AFTER_S)
    phases: list[Phase] = []
    while not phases or phases[-1].end < seconds:
        start = phases[-1].end if phases else 0.0
        phases.append(Phase(pick.choice(KINDS), start, start + pick.uniform(20.0, 60.0)))
    state, result, was_open = DETECTOR.begin(DETECTOR.params()), Result(), False
    for second in range(seconds):
        phase = next(one for one in phases if second < one.end)
        if phase.kind == "abort" and second == int(phase.start) + 1:
            engine.leave()
        slow = size if began <= second < ended else 1.0
        engine.slow_step, engine.slow_prefill = (1.0, slow) if prefill else (slow, 1.0)
        view = engine.second(_load(phase, second, rate, prompt, output))
        result.overload = view.counters.get("preemptions", 0.0) > 0
        reading = EngineReading(engine="a", outcome=Outcome.OK, view=view)
        seen = Observation(engine="a", now=Now(1_700_000_000.0 + second, float(second)), reading=reading)
        state, claim, *_ = DETECTOR.step(state, seen)
        if claim is not None and not was_open:
            if size > 1.0 and result.found is None and began <= second < ended + GRACE_S:
                result.found = second - began
            else:
                result.false.append(f"{second - began:+.0f} s, {phase.kind}: {claim.summary}")
        if claim is None and was_open and second >= ended:
            result.closed = second - ended
        was_open = claim is not None
    return result


def _load(phase: Phase, second: int, rate: float, prompt: float, output: float) -> Load:
    load = Load(rate=rate, prompt=prompt, output=output, abort=0.5)
    part = (second - phase.start) / (phase.end - phase.start)
    match phase.kind:
        case "ramp":
            load.rate *= 1 + min(1.0, 3 * part, 3 * (1 - part))
        case "long":
            load.prompt, load.rate = 4 * prompt, 0.6 * rate
        case "cold":
            load.cached = 0.0
        case "burst":
            load.rate *= 2.5 if second // 10 % 2 else 0.5
    return load


def main() -> int:
    """Print a line a size; exit 1 at a false alarm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100, help="of each size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prefill", action="store_true", help="slow prompts instead of slow steps")
    options = parser.parse_args()
    false = 0
    for size in PREFILL_SIZES if options.prefill else SIZES:
        seeds = range(options.seed, options.seed + options.episodes)
        results = [episode(seed, size, prefill=options.prefill) for seed in seeds]
        late = sorted(one.found for one in results if one.found is not None)
        over = sorted(one.closed for one in results if one.closed is not None)
        missed = [one for one in results if one.found is None and size > 1.0]
        wrong = [text for one in results for text in one.false]
        false += len(wrong)
        print(
            f"x {size:g}: found {len(late)} of {len(results)}"
            + (f", after {late[len(late) // 2]:.0f} s (median), {late[-1]:.0f} s (slowest)" if late else "")
            + (f"; missed {len(missed)}, {sum(one.overload for one in missed)} of them preempted" if missed else "")
            + (f"; over {over[len(over) // 2]:.0f} s after its end (median)" if over else "")
            + f"; {len(wrong)} false",
            flush=True,
        )
        for text in wrong[:8]:
            print(f"  FALSE {text}")
    return 1 if false else 0


if __name__ == "__main__":
    sys.exit(main())
