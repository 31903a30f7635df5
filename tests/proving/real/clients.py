"""Clients of a real engine as they come and go: seeded arrivals, lengths of a public trace, and what is under way.

Lengths: quantiles of the Azure LLM inference trace 2023, conversations (CC-BY 4.0), a third of them, so that prompts
fit into the tiny model's 2048 positions.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Self

from opsboard.core.model import Record
from tests.real.client import Traffic, Truth

_PROMPT = (1, 60, 69, 124, 129, 132, 134, 138, 234, 328, 340, 348, 357, 366, 377, 396, 438, 626, 912, 1361, 1500)
_ANSWER = (2, 14, 18, 22, 26, 28, 30, 32, 34, 38, 43, 50, 59, 72, 128, 132, 133, 137, 141, 150, 333)
"""Tokens at 0 %, 5 % .. 100 % of the requests."""
_MOST_PROMPT, _MOST_ANSWER = 1600, 400
_PREFIX_TOKENS = 256
_GAP_S = 0.05
"""An engine that nobody asks is looked at again so often."""


class Load(Record, frozen=True, kw_only=True):
    """What comes from now on."""

    rate: float = 4.0
    """Requests a second, independent of each other."""
    prompt: float = 1.0
    answer: float = 1.5
    """Times the lengths above."""
    aborts: float = 0.04
    """Part of the clients that go away within their first seconds."""
    shared: float = 0.3
    """Part of the prompts that begin like others."""
    prefixes: int = 4
    """In so many ways."""
    fresh_prefixes: bool = False
    """Whether those are new ones: a cold cache."""


class Clients(Traffic):
    """A context manager: from ``begin`` on they come as ``load`` says, which may be set at any time."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(port, seed)
        self.load = Load(rate=0.0)
        self._under_way: dict[asyncio.Task[None], Truth] = {}
        self._prefixes: list[list[int]] = []
        self._cold = False

    def __enter__(self) -> Self:
        super().__enter__()
        self._workers = [asyncio.run_coroutine_threadsafe(self._arrive(), self._loop)]
        return self

    def all_leave(self) -> None:
        """Let every client go away at once."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._under_way])

    def at(self, instant: float) -> list[tuple[int, Truth]]:
        """Return who was under way at ``instant`` (monotonic s), with their numbers."""
        return [
            (number, one)
            for number, one in enumerate(self.requests)
            if 0.0 < one.sent <= instant and (one.ended is None or one.ended > instant)
        ]

    # --- in the loop ------------------------------------------------------------------------------------------------

    async def _arrive(self) -> None:
        while True:
            load = self.load
            if not load.rate:
                await asyncio.sleep(_GAP_S)
                continue
            await asyncio.sleep(self._random.expovariate(load.rate))
            if self.load is load:
                self._send(load)

    def _send(self, load: Load) -> None:
        draw = self._random.random
        tokens = min(_MOST_PROMPT, max(1, round(load.prompt * _quantile(_PROMPT, draw()))))
        truth = Truth(tokens, min(_MOST_ANSWER, max(1, round(load.answer * _quantile(_ANSWER, draw())))))
        prompt = self._prompt(tokens)
        if draw() < load.shared:
            head = self._prefix(load)[:tokens]
            prompt[: len(head)] = head
        self.requests.append(truth)
        task = self._loop.create_task(self._stream(truth, prompt))
        self._under_way[task] = truth
        task.add_done_callback(self._under_way.pop)
        if draw() < load.aborts:
            self._loop.call_later(0.1 + 2.0 * draw(), task.cancel)

    def _prefix(self, load: Load) -> list[int]:
        if load.fresh_prefixes != self._cold or len(self._prefixes) != load.prefixes:
            self._cold = load.fresh_prefixes
            self._prefixes = [self._prompt(_PREFIX_TOKENS) for _ in range(load.prefixes)]
        return self._random.choice(self._prefixes)


def _quantile(table: Sequence[int], q: float) -> float:
    """Return the value at ``q`` (0..1), on the line between its neighbours."""
    at = q * (len(table) - 1)
    low = min(math.floor(at), len(table) - 2)
    return table[low] + (at - low) * (table[low + 1] - table[low])
