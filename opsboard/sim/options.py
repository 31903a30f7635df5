"""What a simulated engine is started with."""

from __future__ import annotations

import msgspec

from opsboard.core.errors import UsageError
from opsboard.core.secret import Secret
from opsboard.sim.faults import Faults, parse
from opsboard.sim.model import Shape
from opsboard.sim.profiles import Profile, profile_named


class SimOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of ``opsboard sim``, unchecked. ``faults`` are ``NAME`` or ``NAME=VALUE``."""

    host: str = "127.0.0.1"
    port: int = 8000
    profile: str = "vllm-0.32"
    model: str = "sim-7b"
    faults: tuple[str, ...] = ()
    startup_seconds: float = 5.0
    step_ms: float = 12.0
    blocks: int = 700
    block_size: int = 16
    max_num_seqs: int = 48
    max_model_len: int = 8192
    seed: int = 0
    dev_mode: bool = False
    """Whether the development endpoints are served."""
    api_key: Secret | None = None
    """What ``/v1`` asks for."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """Checked options, as the processes of the engine use them."""

    options: SimOptions
    profile: Profile
    shape: Shape
    faults: Faults


def check(options: SimOptions) -> Setup:
    """Check ``options``. Raises UsageError and NotFound, saying which one is wrong and what is allowed."""
    for name in ("blocks", "block_size", "max_num_seqs", "max_model_len"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    if options.startup_seconds < 0 or options.step_ms <= 0:
        raise UsageError("--startup-seconds must be 0 or more and --step-ms more than 0")
    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port {options.port} is no port")
    shape = Shape(
        blocks=options.blocks,
        block_size=options.block_size,
        max_num_seqs=options.max_num_seqs,
        max_model_len=options.max_model_len,
        step_s=options.step_ms / 1000.0,
    )
    if shape.capacity_tokens < options.max_model_len:
        raise UsageError(
            f"{options.blocks} blocks of {options.block_size} hold {shape.capacity_tokens} tokens, "
            f"fewer than one request of --max-model-len {options.max_model_len}",
            hint="more --blocks, or a smaller --max-model-len",
        )
    return Setup(options=options, profile=profile_named(options.profile), shape=shape, faults=parse(options.faults))
