"""Which episodes there are: one record each, drawn from a seed, so that a line of results can be played again.

They come in rounds. Each round has every row of the grid, every size and every confounder of healthy life once, so that
results are balanced wherever one stops. Seeds of ``dev`` may be looked at while detectors are made, those of ``test``
only judge.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

from opsboard.core.model import Record
from tests.proving import confounders
from tests.proving.faults import GRID, HOUR_S, Kind, lasts
from tests.proving.machine import SHAPES

SEEDS = {"dev": 1_000, "test": 7_000_000}
"""The first of each."""
APART = 100_000
"""Between seeds of the same fault in the same round."""
AFTER_S = 180.0
"""What goes on after a fault."""
HEALTHY_S = 2 * HOUR_S
HEALTHY_BUILDS = ("small", "padded", "bends", "large", "trickle", "noisy", "tight", "roomy")


class Case(Record, frozen=True, kw_only=True):
    """One episode of one engine. Seconds of the episode."""

    seed: int
    build: str
    confounder: str
    seconds: float
    fault: str = ""
    """A row of the grid; none: all is well."""
    size: float = 0.0
    onset: float = 0.0
    end: float = 0.0
    known: bool = False
    asked: bool = False
    every_s: float = 1.0
    memory: str = "plain"
    gpu: bool = False

    @property
    def name(self) -> str:
        """What tells it from all others."""
        what = f"{self.fault} {self.size:g}" if self.fault else "healthy"
        how = f"{', known' if self.known else ''}{', asked' if self.asked else ''}"
        return f"{what}{how} / {self.confounder} / {self.build} / {self.seed}"

    @property
    def scenario(self) -> str:
        """What it is an example of."""
        if not self.fault:
            return f"healthy: {self.confounder}"
        return f"{self.fault} {self.size:g}{', requests known' if self.known else ''}"


def rounds(seeds: str, first: int = 0) -> Iterator[list[Case]]:
    """Yield one round after the other, without end; ``seeds`` is a name of :data:`SEEDS`."""
    number = first
    while True:
        yield [*_faulty(SEEDS[seeds] + number), *_healthy(SEEDS[seeds] + number)]
        number += 1


def _faulty(seed: int) -> Iterator[Case]:
    for kind in GRID:
        for again, size, known in product(range(kind.times), kind.sizes, kind.known):
            yield _case(kind, size, known=known, seed=seed + again * APART)


def _case(kind: Kind, size: float, *, known: bool, seed: int) -> Case:
    pick = random.Random(f"{kind.name} {size} {seed}")
    onset = round(kind.warm_s + pick.uniform(0.0, 300.0))
    there = lasts(kind, size)
    memory = kind.detector in {"memory_leak", "gpu_memory_leak"}
    return Case(
        seed=seed, build=pick.choice(kind.builds), confounder=pick.choice(kind.confounders), fault=kind.name,
        size=size, onset=onset, end=onset + there, seconds=onset + there + AFTER_S, known=known,
        asked=kind.asked, every_s=kind.every_s, gpu=kind.detector == "gpu_memory_leak",
        memory=pick.choice(SHAPES) if memory else "plain",
    )  # fmt: skip


def _healthy(seed: int) -> Iterator[Case]:
    for at, confounder in enumerate(confounders.KINDS):
        pick = random.Random(f"healthy {confounder} {seed}")
        yield Case(
            seed=seed, build=pick.choice(HEALTHY_BUILDS), confounder=confounder, seconds=HEALTHY_S,
            every_s=5.0 if confounder == "slow_scrape" else pick.choice((1.0, 2.0, 2.0)), known=(at + seed) % 3 == 0,
            asked=(at + seed) % 2 == 0, memory=pick.choice(SHAPES), gpu=pick.random() < 0.5,
        )  # fmt: skip
