"""What was looked at, gathered into blocks of working time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """One look: when (monotonic s), how much there is (bytes), and cumulative work; ``load`` is requests in the engine.

    ``requests`` or ``tokens`` is None where the engine does not count them.
    """

    at: float
    level: float
    requests: float | None
    tokens: float | None
    load: float


class Block(NamedTuple):
    """A stretch of working time: its least level, and means of what was done until then."""

    at: float
    low: float
    requests: float
    tokens: float
    load: float
    top: float
    """The highest load of any block of this life up to its end."""
    samples: int = 1

    def work(self, unit: str) -> float:
        """Return how much was done until then, in requests or in tokens."""
        return self.tokens if unit == "token" else self.requests


def works(blocks: Sequence[Block], unit: str) -> list[float]:
    """Return of each how much was done until then."""
    return [block.tokens for block in blocks] if unit == "token" else [block.requests for block in blocks]


def block_of(sample: Sample) -> Block:
    """Return a block of one sample."""
    return Block(sample.at, sample.level, sample.requests or 0.0, sample.tokens or 0.0, sample.load, 0.0)


def joined(one: Block, two: Block) -> Block:
    """Return both as one block."""
    samples = one.samples + two.samples
    a, b = one.samples / samples, two.samples / samples
    return Block(
        a * one.at + b * two.at,
        min(one.low, two.low),
        a * one.requests + b * two.requests,
        a * one.tokens + b * two.tokens,
        a * one.load + b * two.load,
        max(one.top, two.top),
        samples,
    )
