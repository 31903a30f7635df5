"""Simulated days of KV blocks: how soon leaks are claimed, and how often what is none.

``python -m tests.proving.kv_days [--hours 24] [--seeds 8] [--first-seed 1]`` lives through many kinds of healthy
traffic, judged by the page alone and with the requests known, and through a grid of leaks; it prints a line for each,
and exits 1 when something was claimed that was not so. The traffic is that of tests/support/block_flow.py, and that
of block_mix.py where requests change.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from typing import TYPE_CHECKING, NamedTuple

from alerts.base import Observation
from alerts.detectors.kv_leak import DETECTOR
from opsboard.core.clock import Now
from opsboard.core.model import Finding
from tests.support.block_flow import BORN, NAME, Flow, Leak, Load, Shape
from tests.support.block_mix import Long, MixedFlow

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = Shape(blocks=40_000)
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


def at(second: float, before: Load, after: Load) -> Callable[[float], Load]:
    """Return a load that becomes another one."""
    return lambda now: before if now < second else after


def growing(second: float) -> Load:
    """Return a load whose prompts become four times as long within an hour."""
    return Load(prompt=(250.0 * (1 + 3 * min(1.0, max(0.0, (second - CHANGES_S) / 3600))), 0.9))


def nights(second: float) -> Load:
    """Return a load of few long documents in a third of each hour."""
    return Load(rate=1.0, prompt=(1500.0, 0.7)) if second % 3600 < 1200 else Load()


CHANGES_S = 2400.0
CHANGING: dict[str, tuple[Callable[[float], Load], Long | None]] = {
    "prompts grow": (growing, None),
    "prompts are longer from now on": (at(CHANGES_S, Load(), Load(prompt=(900.0, 0.9))), None),
    "answers are longer from now on": (at(CHANGES_S, Load(), Load(output=(400.0, 0.8))), None),
    "sharing ends": (at(CHANGES_S, Load(), Load(prefix_share=0.0)), None),
    "sharing begins": (at(CHANGES_S, Load(prefix_share=0.0), Load()), None),
    "the load doubles": (at(CHANGES_S, Load(rate=5.0), Load(rate=10.0)), None),
    "nobody leaves any more": (at(CHANGES_S, Load(abort_share=0.3), Load(abort_share=0.01)), None),
    "long documents at night": (nights, None),
    "one long request after the other": (lambda _: Load(), Long(begins=CHANGES_S, prompt=5000.0, output=600.0)),
    "reasoning joins": (lambda _: Load(), Long(begins=CHANGES_S, every=20.0, prompt=500.0, output=6000.0)),
}
"""What the load is in each second, and what joins."""

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


def live(flow: Flow, seconds: int, *, lag: float = 0.02) -> tuple[Lived, Lived]:
    """Live through ``seconds``, judged by the page alone and with the requests known; stop when both claim a leak."""
    lives = [Lived(0, None, math.inf, 0)] * 2
    states, before = [DETECTOR.begin(DETECTOR.params()) for _ in lives], [False, False]
    for second in flow.seconds(seconds, lag=lag):
        for number, inflight in enumerate((None, second.inflight)):
            old = lives[number]
            if old.at < math.inf:
                continue
            now = Now(wall=BORN + second.second, mono=second.second)
            seen = Observation(engine=NAME, now=now, reading=second.reading, inflight=inflight)
            states[number], found, *_ = DETECTOR.step(states[number], seen)
            if found is not None and not before[number]:
                at_s = second.second - flow.losses[0] if flow.losses else math.inf
                lives[number] = Lived(old.claims + 1, old.found or found, at_s, second.leaked)
            before[number] = found is not None
        if all(one.at < math.inf for one in lives):
            break
    return lives[0], lives[1]


def main() -> int:
    """Print the tables; exit 1 when something was claimed that was not so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0, help="of healthy life, of each kind and seed")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=1)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    seconds, false, days = round(options.hours * 3600), 0, 0.0
    for seed in seeds:
        flows = {name: Flow(load, seed, None, SHAPE) for name, load in HEALTHY.items()}
        flows |= {name: MixedFlow(loads, seed, None, SHAPE, long) for name, (loads, long) in CHANGING.items()}
        for name, flow in flows.items():
            for known, life in zip((False, True), live(flow, seconds), strict=True):
                false, days = false + life.claims, days + seconds / DAY_S
                if life.found is not None:
                    print(f"FALSE: seed {seed}, {_how(known=known)}, {name}: {life.found.summary}", flush=True)
        # Of a Poisson process that gave nothing in n days: below 3 / n a day, with 95 %.
        bound = "" if false else f", below {3 / days:.3f} a day (95 %)"
        print(f"{days:.1f} engine-days of {len(flows)} kinds: {false} false{bound}", flush=True)
    for share in (None, nightly):
        for name, leak in LEAKS.items():
            load = Load() if share is None else Load(share=share)
            until = round(BEGINS_S) + (900 if share else 3600)
            pairs = [live(Flow(load, seed, leak, SHAPE), until) for seed in seeds]
            for known in (False, True):
                lives = [pair[known] for pair in pairs]
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
