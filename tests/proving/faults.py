"""What is wrong in an episode: the grid of faults, how large they are, and what each does to the simulated engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.proving.builds import Build
from tests.proving.fluid_engine import FluidEngine

HOUR_S = 3600.0


class Kind(NamedTuple):
    """One row of the grid."""

    name: str
    detector: str
    """Whose it is to claim."""
    sizes: tuple[float, ...]
    builds: tuple[str, ...]
    confounders: tuple[str, ...]
    """What goes on at the same time."""
    warm_s: float = 1500.0
    """So long nothing is wrong."""
    lasts_s: float = 600.0
    also: tuple[str, ...] = ()
    """Who else tells a true consequence."""
    known: tuple[bool, ...] = (False,)
    """Whether the requests under way are known."""
    every_s: float = 1.0
    asked: bool = False
    """Whether the engine may be sent canaries."""
    times: int = 1
    """So often in a round."""


_BUSY = ("steady", "hours", "ramp", "burst", "all_leave", "many_leave", "heavy_tails", "one_prefix")
_QUIET = ("pauses",)
_WORK = ("steady", "hours", "ramp", "burst", "long_prompts", "cold_cache", "all_leave", "no_prefix", "gap")
_ROOMY = ("roomy",)
_PACED = ("small", "padded", "bends", "large", "noisy")
_STEADY = ("steady", "hours", "ramp", "gap", "burst")

GRID = (
    # One more block on a share of the requests; all blocks of some; all blocks of those whose clients go away.
    Kind("a block", "kv_leak", (1.0, 0.05, 0.02), _ROOMY, _BUSY, 600.0, 900.0, known=(True, False)),
    Kind("whole requests", "kv_leak", (0.1, 0.02, 0.005), _ROOMY, _BUSY, 600.0, 900.0, known=(True, False)),
    Kind("on abort", "kv_leak", (1.0,), _ROOMY, _BUSY, 600.0, 900.0, known=(True, False)),
    Kind("a block, quiet moments", "kv_leak", (1.0, 0.05, 0.02), _ROOMY, _QUIET, 600.0, 900.0),
    Kind("whole requests, quiet moments", "kv_leak", (0.1, 0.02), _ROOMY, _QUIET, 600.0, 900.0),
    Kind("slow steps", "latency", (1.08, 1.15, 1.30, 2.0), _PACED, _WORK, also=("throughput_collapse",), times=3),
    Kind("slow prompts", "latency", (1.5, 2.0), _PACED, _WORK, also=("throughput_collapse",), times=3),
    Kind("hang", "stall", (20.0, 30.0, 300.0), ("small", "padded", "large"), ("steady", "hours", "burst"), 900.0,
         times=2),
    Kind("hang, asked", "stall", (30.0, 300.0), ("small", "padded"), ("steady", "hours", "burst"), 900.0, asked=True),
    Kind("thrown back", "preemption_storm", (2.0, 5.0, 15.0), ("small", "padded"), _STEADY, 900.0, 300.0,
         also=("latency", "throughput_collapse"), times=2),
    # One while somebody waits; else they are slow steps, and latency's matter.
    Kind("collapse", "throughput_collapse", (3.0, 4.0, 6.0), ("small", "padded"), ("busy",), 1500.0, 300.0,
         also=("latency", "preemption_storm"), times=2),
    # Hours until memory is full.
    Kind("host memory", "memory_leak", (0.75, 2.0, 8.0, 16.0), ("small",), ("steady", "hours", "ramp"),
         5400.0, 2700.0, every_s=5.0),
    Kind("GPU memory", "gpu_memory_leak", (0.75, 2.0, 8.0, 16.0), ("small",), ("steady", "hours", "ramp"),
         5400.0, 2700.0, every_s=5.0),
    # Times the budget of 1 %.
    Kind("errors", "slo_burn", (0.9, 2.0, 6.0, 20.0, 100.0), ("small",), ("steady", "hours"), 2400.0, 1800.0),
)  # fmt: skip


def lasts(kind: Kind, size: float) -> float:
    """Return for how many seconds it is there."""
    if kind.detector == "stall":
        return size
    if kind.detector in {"memory_leak", "gpu_memory_leak"} and size > 4.0:
        return 0.25 * size * HOUR_S
    return kind.lasts_s


def _slow(engine: FluidEngine, size: float) -> None:
    engine.slow_step = size


def _slow_prompts(engine: FluidEngine, size: float) -> None:
    engine.slow_prefill = size


def _block(engine: FluidEngine, size: float) -> None:
    engine.leak_share, engine.leak_blocks, engine.leak_aborted = size, 1, False


def _whole(engine: FluidEngine, size: float) -> None:
    engine.leak_share, engine.leak_blocks, engine.leak_aborted = size, 0, False


def _aborted(engine: FluidEngine, size: float) -> None:
    engine.leak_share, engine.leak_blocks, engine.leak_aborted = size, 0, True


def _hang(engine: FluidEngine, _size: float) -> None:
    engine.hung = True


def _throw(engine: FluidEngine, size: float) -> None:
    engine.thrown_a_second = size


def _fail(engine: FluidEngine, size: float) -> None:
    engine.errors = min(1.0, ALLOWED * size)


ALLOWED = 0.01
"""Of the requests of an engine with the objective of the row `errors`: 99 % are to succeed."""
AT_FIRST = 0.1
"""Times the budget, before: with half of it three failures among the first 300 requests are more than 1x."""

BEGIN: dict[str, Callable[[FluidEngine, float], None]] = {
    "a block": _block, "whole requests": _whole, "on abort": _aborted, "a block, quiet moments": _block,
    "whole requests, quiet moments": _whole, "slow steps": _slow, "slow prompts": _slow_prompts, "hang": _hang,
    "hang, asked": _hang, "thrown back": _throw, "collapse": _slow, "errors": _fail,
}  # fmt: skip


def end(engine: FluidEngine) -> None:
    """Let all be as it should; what has leaked is gone."""
    engine.slow_step = engine.slow_prefill = 1.0
    engine.leak_share = engine.thrown_a_second = engine.errors = 0.0
    engine.hung = False


def bytes_a_request(build: Build, room: float, hours: float, *, mean: float = 0.6) -> float:
    """Return how much a request leaks so that ``room`` bytes last so many hours at the mean rate."""
    return room / (hours * HOUR_S * build.rate * mean)
