"""The engine of block_flow.py under loads that change what their requests are like, which no leak is."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import msgspec

from tests.support.block_flow import Flow, Leak, Load, Request, Shape

if TYPE_CHECKING:
    from collections.abc import Callable


class Long(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of another kind that join. Lengths in tokens: medians of lognormals."""

    begins: float
    every: float = 0.0
    """Seconds between them; 0: each when the one before has ended."""
    prompt: float
    output: float


class MixedFlow(Flow):
    """An engine whose load is ``loads`` of the second; ``long`` ones may join."""

    def __init__(
        self, loads: Callable[[float], Load], seed: int, leak: Leak | None, shape: Shape, long: Long | None = None
    ) -> None:
        super().__init__(loads(0.0), seed, leak, shape)
        self._loads, self._long = loads, long
        self._joins = math.inf if long is None else long.begins

    def _advance(self, now: float) -> None:
        self.load = self._loads(now)
        while self._long is not None and self._joins <= now:
            super()._advance(self._joins)
            self._join(self._joins, self._long)
        super()._advance(now)

    def _join(self, now: float, long: Long) -> None:
        prompt = int(self._random.lognormvariate(math.log(long.prompt), 0.3))
        request = Request(now, prompt, int(self._random.lognormvariate(math.log(long.output), 0.3)), None)
        request.first = now + 0.02 + prompt * self.shape.prefill_s
        request.ends = request.first + (request.output - 1) / self.shape.tokens_per_s
        self._number += 1
        self._live[self._number] = request
        heapq.heappush(self._events, (request.first, 0, self._number))
        heapq.heappush(self._events, (request.ends, 1, self._number))
        self._joins = now + long.every if long.every else request.ends
