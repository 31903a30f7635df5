"""What is done to a real engine: stages of load and faults, lengths drawn by the seed.

A fault is labelled from the stage in which it begins. What leaks is gone for good, so such a fault has no end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from opsboard.core.model import Record
from tests.proving.real.clients import Load

FOR_GOOD = ("kv_leak", "memory_leak")
BUSY = Load()
QUIET = Load(rate=1.5)
NOBODY = Load(rate=0.0)
OVERLOAD = Load(rate=14.0, prompt=1.3)
LONG = Load(prompt=4.0, shared=0.0)
COLD = Load(rate=5.0, shared=0.9, fresh_prefixes=True)
STEP_S = 0.0155
"""A step under ``BUSY``, as clients see it: what is slower by a share is slower by that share of it."""


class Stage(Record, frozen=True, kw_only=True):
    """A stretch of a scenario. ``faults``: see faulty.py; they last as long as the stage."""

    seconds: float
    load: Load = BUSY
    faults: Mapping[str, float] = {}
    wrong: tuple[str, ...] = ()
    """Detectors that should claim something because of them."""
    also: tuple[str, ...] = ()
    """Those that may, because it is a true consequence."""
    leave: bool = False
    """Whether everybody goes away at its beginning."""


Story = Callable[["Drawn"], list[Stage]]


class Drawn:
    """Lengths of stages, a sixth more or less by chance."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, seconds: float) -> float:
        """Return about so many seconds."""
        return round(seconds * self._random.uniform(5 / 6, 7 / 6), 1)


def _leak(faults: Mapping[str, float], load: Load = BUSY, begins: float = 80.0, busy: float = 110.0) -> Story:
    """Leak under a load that is never idle, and through an idle moment at the end."""

    def story(about: Drawn) -> list[Stage]:
        def leaking(seconds: float, load: Load = load) -> Stage:
            return Stage(seconds=seconds, load=load, faults=faults, wrong=("kv_leak",))

        return [
            Stage(seconds=about(begins), load=load),
            leaking(about(busy)),
            leaking(12.0, NOBODY),
            leaking(about(25.0)),
            leaking(8.0, NOBODY),
        ]

    return story


def _one_off(about: Drawn) -> list[Stage]:
    """Lose 1 % of the pool at once."""
    return [
        Stage(seconds=about(80.0)),
        Stage(seconds=about(50.0), faults={"lose": 7}, wrong=("kv_leak",)),
        Stage(seconds=12.0, load=NOBODY, wrong=("kv_leak",)),
        Stage(seconds=about(20.0), wrong=("kv_leak",)),
        Stage(seconds=8.0, load=NOBODY, wrong=("kv_leak",)),
    ]


def _lease(about: Drawn) -> list[Stage]:
    """Hold the blocks of every tenth request for others for 30 s, also while nobody asks; they come back."""
    lease = {"leak_share": 0.1, "lease_s": 30.0}
    return [
        Stage(seconds=about(60.0)),
        Stage(seconds=about(90.0), faults=lease),
        Stage(seconds=40.0, load=NOBODY, faults=lease),
        Stage(seconds=about(40.0), faults=lease),
        Stage(seconds=40.0, load=NOBODY),
    ]


def _slow(first: float, second: float) -> Story:
    """Slow every step by a share, twice, and hang: under load, then while nobody asks."""

    def story(about: Drawn) -> list[Stage]:
        return [
            Stage(seconds=about(110.0)),
            Stage(seconds=about(95.0), faults={"step_s": first * STEP_S}, wrong=("latency",)),
            Stage(seconds=about(50.0)),
            Stage(seconds=about(65.0), faults={"step_s": second * STEP_S}, wrong=("latency",)),
            Stage(seconds=about(45.0)),
            Stage(seconds=28.0, faults={"hang_s": 25.0}, wrong=("stall",)),
            Stage(seconds=about(30.0)),
        ]

    return story


def _storms(about: Drawn) -> list[Stage]:
    """Prompts that cost more, preemption without need, and a collapse under overload that was fine before."""
    return [
        Stage(seconds=about(100.0)),
        Stage(seconds=about(80.0), faults={"prefill_s": 45e-6}, wrong=("latency",)),
        Stage(seconds=about(50.0)),
        Stage(seconds=about(40.0), faults={"preempt": 10.0}, wrong=("preemption_storm",), also=("latency",)),
        Stage(seconds=about(45.0)),
        Stage(seconds=about(50.0), load=OVERLOAD),
        Stage(
            seconds=about(45.0),
            load=OVERLOAD,
            faults={"step_s": 0.075},
            wrong=("throughput_collapse",),
            also=("latency",),
        ),
        Stage(seconds=about(30.0)),
    ]


def _hang_idle(about: Drawn) -> list[Stage]:
    """Hang in the first step after a rest."""
    return [
        Stage(seconds=about(60.0)),
        Stage(seconds=15.0, load=NOBODY),
        Stage(seconds=28.0, faults={"hang_s": 25.0}, wrong=("stall",)),
        Stage(seconds=about(25.0)),
    ]


def _healthy(about: Drawn) -> list[Stage]:
    """Nothing is wrong: ramp, cold prefixes, long contexts, a rest, everybody leaves, overload with preemption."""
    ramp = [Stage(seconds=about(12.0), load=Load(rate=rate)) for rate in (2.0, 4.0, 6.0, 8.0, 10.0, 6.0)]
    return [
        Stage(seconds=about(50.0), load=Load(rate=3.0)),
        *ramp,
        Stage(seconds=about(35.0), load=COLD),
        Stage(seconds=about(30.0), load=LONG),
        Stage(seconds=12.0, load=NOBODY),
        Stage(seconds=about(20.0), load=Load(rate=8.0)),
        Stage(seconds=about(15.0), load=QUIET, leave=True),
        Stage(seconds=about(45.0), load=OVERLOAD),
        Stage(seconds=20.0, load=NOBODY),
    ]


def _host_leak(about: Drawn) -> list[Stage]:
    """Keep 300 kB a request for a quarter of an hour, beside traffic that comes and goes and steps that get slow."""

    def leaking(seconds: float, slower: float = 0.0, load: Load = BUSY) -> Stage:
        wrong = ("memory_leak", "latency") if slower else ("memory_leak",)
        return Stage(seconds=seconds, load=load, faults={"hoard": 300_000, "step_s": slower * STEP_S}, wrong=wrong)

    return [
        Stage(seconds=about(150.0)),
        leaking(about(150.0)),
        leaking(about(70.0), slower=0.3),
        leaking(about(80.0)),
        leaking(about(60.0), load=Load(rate=8.0)),
        leaking(about(80.0)),
        leaking(about(90.0), slower=0.2),
        leaking(about(200.0)),
    ]


STORIES: Mapping[str, Story] = {
    "healthy": _healthy,
    "lease": _lease,
    "leak_abort": _leak({"leak_share": 1.0, "leak_aborted": 1}, Load(aborts=0.06)),
    "leak_whole_2pct": _leak({"leak_share": 0.02}),
    "leak_block_each": _leak({"leak_share": 1.0, "leak_blocks": 1}, Load(rate=3.0), busy=90.0),
    "leak_one_off": _one_off,
    "slow_15_30": _slow(0.15, 0.3),
    "slow_20_40": _slow(0.2, 0.4),
    "storms": _storms,
    "hang_idle": _hang_idle,
    "host_leak": _host_leak,
}
DEV = (("leak_abort", 101), ("slow_15_30", 102), ("storms", 103), ("healthy", 104))
TEST = (
    ("host_leak", 201),
    ("leak_whole_2pct", 202),
    ("leak_block_each", 203),
    ("hang_idle", 204),
    ("slow_20_40", 205),
    ("leak_one_off", 206),
    ("healthy", 207),
)
"""Split before anybody looked: what is mended is mended by those of ``DEV``."""
