"""Simulated days of KV blocks: how soon leaks are claimed, and how often what is none.

``python -m tests.proving.kv_days [--hours 24] [--seeds 8] [--first-seed 1]`` lives through ten kinds of healthy
traffic, with and without the requests known, and through a grid of leaks; it prints a line each, and exits 1 when
something was claimed that was not so. The traffic is that of tests/support/block_flow.py.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from typing import NamedTuple

from alerts.base import Observation
from alerts.detectors.kv_leak import DETECTOR
from opsboard.core.clock import Now
from opsboard.core.model import Finding
from tests.support.block_flow import BORN, NAME, Flow, Leak, Load, Shape

DAY_S = 86_400
BEGINS_S = 300.0


def hourly(second: float) -> float:
    """Return a load that comes and goes in an hour."""
    return 0.6 + 0.4 * math.sin(second / 3600 * 2 * math.pi)


def nightly(second: float) -> float:
    """Return a load with a pause of 20 s in every two minutes."""
    return 1.0 if second % 120 < 100 else 0.0


HEALTHY = {
    "plain": Load(),
    "clients leave early": Load(abort_early=True),
    "no shared prefixes": Load(prefix_share=0.0),
    "one shared prefix": Load(prefix_share=0.95, prefixes=1, prefix_tokens=1024),
    "hours, bursts, all leave": Load(share=hourly, gone_every_s=400.0, burst_every_s=1500.0),
    "heavy tails": Load(prompt=(250.0, 1.5), output=(110.0, 1.3)),
    "long answers": Load(rate=2.0, output=(600.0, 0.8)),
    "many leave": Load(abort_share=0.2),
    "few leave": Load(abort_share=0.005),
    "pauses": Load(share=nightly),
    "one a minute": Load(rate=1 / 60),
}

LEAKS = {
    "a block a request": Leak(share=1.0, begins=BEGINS_S),
    "a block on 5 %": Leak(share=0.05, begins=BEGINS_S),
    "a block on 2 %": Leak(share=0.02, begins=BEGINS_S),
    "all blocks on 10 %": Leak(share=0.1, blocks=0, begins=BEGINS_S),
    "all blocks on 2 %": Leak(share=0.02, blocks=0, begins=BEGINS_S),
    "all blocks on abort": Leak(share=1.0, blocks=0, aborted=True, begins=BEGINS_S),
}


class Lived(NamedTuple):
    """What came of one life."""

    claims: int
    found: Finding | None
    """The first claim."""
    at: float
    """Seconds from the first loss to it."""
    lost: int
    """Blocks that were lost then."""


def live(load: Load, leak: Leak | None, seconds: int, seed: int, *, known: bool, lag: float = 0.02) -> Lived:
    """Live through ``seconds``; stop at the first claim where something leaks."""
    flow = Flow(load, seed, leak, Shape(blocks=40_000))
    state = DETECTOR.begin(DETECTOR.params())
    claims, first, before = 0, None, None
    for second in flow.seconds(seconds, lag=lag):
        seen = Observation(
            engine=NAME,
            now=Now(wall=BORN + second.second, mono=second.second),
            reading=second.reading,
            inflight=second.inflight if known else None,
        )
        state, found, *_ = DETECTOR.step(state, seen)
        claims += found is not None and before is None
        before = found
        if found is not None and first is None:
            first = found
            if leak is not None and flow.losses:
                return Lived(claims, found, second.second - flow.losses[0], second.leaked)
    return Lived(claims, first, math.inf, flow.leaked)


def main() -> int:
    """Print the tables; exit 1 when something was claimed that was not so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0, help="of healthy life, of each kind and seed")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=1)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    seconds, false, days = round(options.hours * 3600), 0, 0.0
    for known in (False, True):
        for name, load in HEALTHY.items():
            lives = [live(load, None, seconds, seed, known=known) for seed in seeds]
            claims = sum(one.claims for one in lives)
            false, days = false + claims, days + seconds * len(lives) / DAY_S
            told = next((one.found.summary for one in lives if one.found is not None), "")
            print(f"healthy, {_how(known=known)}, {name}: {claims} claims {told}", flush=True)
    # Of a Poisson process that gave nothing in n days: below 3 / n a day, with 95 %.
    print(f"{days:.1f} engine-days: {false} false" + ("" if false else f", below {3 / days:.3f} a day (95 %)"))
    for known, share in ((True, None), (False, nightly), (False, None)):
        for name, leak in LEAKS.items():
            load = Load() if share is None else Load(share=share)
            until = round(BEGINS_S) + (900 if known or share else 3600)
            lives = [live(load, leak, until, seed, known=known) for seed in seeds]
            _tell(f"{_how(known=known)}, {'with pauses' if share else 'never idle'}, {name}", lives)
    return 1 if false else 0


def _how(*, known: bool) -> str:
    return "requests known" if known else "page alone"


def _tell(what: str, lives: list[Lived]) -> None:
    found = sorted((one for one in lives if one.at < math.inf), key=lambda one: one.at)
    if not found:
        print(f"{what}: found 0 of {len(lives)}", flush=True)
        return
    when = f"{statistics.median(one.at for one in found):.0f} s, {found[-1].at:.0f} s the latest"
    blocks = statistics.median(one.lost for one in found)
    within = sum(one.at <= 900 for one in found)
    print(
        f"{what}: found {len(found)} of {len(lives)}, {within} within 15 m; median {when}; {blocks:.0f} blocks lost",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
