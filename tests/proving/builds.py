"""The engines that are simulated: their times, what is not straight about them, and what their clients do."""

from __future__ import annotations

import msgspec

from opsboard.sim.model import Shape


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """How step times wander (standard deviations of logarithms): from slice to slice, over minutes, over hours."""

    quick: float = 0.04
    minutes: float = 0.02
    minutes_s: float = 60.0
    hours: float = 0.012
    hours_s: float = 7200.0
    pause_every_s: float = 90.0
    """The machine does something else now and then, for 30 to 300 ms."""


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """One engine: its times, and what is not straight about them."""

    name: str
    shape: Shape
    padded: bool = False
    """Decoding batches cost as the next of 1, 2, 4, 8, 16, 24, 32, ..."""
    bend: float = 1e9
    """From this batch on a request costs thrice as much."""
    rate: float = 2.0
    """Requests a second by day."""
    prompt: float = 300.0
    output: float = 150.0
    noise: Noise = Noise()


class Load(msgspec.Struct):
    """What clients do at present: requests a second, tokens (medians of lognormal lengths)."""

    rate: float
    prompt: float
    output: float
    cached: float = 0.3
    """Of the prompts of 60 % of the requests so much is in the prefix cache; 0: there is none."""
    shared: float = 0.4
    """So many of those have it in common with others that run; the rest with their own past."""
    one_prefix: bool = False
    """All of them the same one."""
    spread: float = 0.75
    """Standard deviation of the logarithm of lengths."""
    abort: float = 0.5
    """Of those that decode, so many give up in a minute."""


_GPU = Shape(blocks=12_000, max_num_seqs=128)

BUILDS = (
    Build(name="small", shape=Shape(blocks=3000), rate=3.0),
    Build(name="padded", shape=_GPU, padded=True, rate=8.0, prompt=500.0),
    Build(name="bends", shape=_GPU, bend=40.0, rate=7.0, prompt=400.0),
    Build(
        name="large",
        shape=Shape(
            blocks=12_000, step_s=0.04, decode_s=0.0003, prefill_s=0.0002, context_s=2e-7, max_model_len=65_536
        ),
        rate=1.0, prompt=1500.0, output=300.0,
    ),
    Build(name="trickle", shape=Shape(blocks=3000), rate=0.05),
    Build(name="noisy", shape=Shape(blocks=3000), rate=3.0, noise=Noise(quick=0.08, minutes=0.035, hours=0.02)),
    Build(name="tight", shape=Shape(blocks=700), rate=4.0),
    Build(name="roomy", shape=Shape(blocks=40_000, max_num_seqs=128), rate=5.0, prompt=250.0, output=110.0),
)  # fmt: skip
