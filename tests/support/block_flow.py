"""KV blocks of a simulated vLLM, exact at every reading, without its steps: an engine-day in some seconds.

Requests come, hold ceil(tokens / block) blocks each, share the blocks of common prefixes and go, or their clients go
away. Only what a page says once a second is worked out. Queues and preemption are not here: opsboard/sim has them.
"""

from __future__ import annotations

import heapq
import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from opsboard.core.inflight import InflightRequest
from opsboard.core.model import EngineReading, EngineView, Outcome, RankView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "a"
BORN = 1_700_000_000.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of it. Lengths in tokens are lognormal: median and sigma."""

    rate: float = 5.0
    """Requests a second at most."""
    share: Callable[[float], float] = lambda _second: 1.0
    """What part of that, second by second, 0..1."""
    prompt: tuple[float, float] = (250.0, 0.9)
    output: tuple[float, float] = (110.0, 0.8)
    longest: int = 6000
    prefixes: int = 6
    prefix_tokens: int = 256
    prefix_share: float = 0.4
    abort_share: float = 0.04
    abort_early: bool = False
    """Clients go away soon after they came, else at any time."""
    gone_every_s: float = 0.0
    """So often all clients go away at once; 0: never."""
    burst_every_s: float = 0.0
    """So often there are ten minutes of prompts that are eight times as long; 0: never."""


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks that are kept: ``blocks`` of a ``share`` of the requests that end (0: all it holds)."""

    share: float
    blocks: int = 1
    aborted: bool = False
    """Of those whose clients went away, else of finished ones."""
    begins: float = 300.0


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The engine."""

    blocks: int = 4000
    size: int = 32
    tokens_per_s: float = 62.0
    prefill_s: float = 0.00005
    """For each token of a prompt."""
    stretch: float = 1.0
    """Blocks for each that ceil(tokens / size) gives: hybrid models have more."""


class Second(NamedTuple):
    """One reading: ``inflight`` is what a gateway knew ``lag`` seconds before the page, ``leaked`` the truth."""

    second: float
    reading: EngineReading
    inflight: tuple[InflightRequest, ...]
    leaked: int


class Request:
    __slots__ = ("aborted", "counted", "ends", "first", "hit", "output", "prefix", "prompt", "sent")

    def __init__(self, sent: float, prompt: int, output: int, prefix: int | None) -> None:
        self.sent, self.prompt, self.output, self.prefix = sent, prompt, output, prefix
        self.first = self.ends = sent
        self.hit = self.counted = 0
        self.aborted = False


class Flow:
    """The engine under a load. Iterate :meth:`seconds` once."""

    def __init__(self, load: Load, seed: int, leak: Leak | None = None, shape: Shape | None = None) -> None:
        self.load, self.leak, self.shape = load, leak, shape or Shape()
        self.losses: list[float] = []
        """When blocks were lost."""
        self.leaked = 0
        self._random = random.Random(seed)
        self._live: dict[int, Request] = {}
        self._holders = [0] * load.prefixes
        self._cached = [False] * load.prefixes
        self._events: list[tuple[float, int, int]] = []
        self._number = 0
        self._arrives = self._next(0.0)
        self._gone = load.gone_every_s or math.inf
        self._counters = dict.fromkeys(
            (
                *("prompt_tokens", "generation_tokens", "completed_prompt_tokens", "completed_generation_tokens"),
                *("requests_begun", "requests_completed", "iterations", "preemptions"),
                *("prompt_tokens_cached", "completed_prefill_tokens"),
            ),
            0.0,
        )

    def seconds(self, count: int, every: float = 1.0, lag: float = 0.02) -> Iterator[Second]:
        """Yield a reading every so often."""
        now = 0.0
        while now < count:
            self._advance(now - lag)
            known = self._inflight(now - lag)
            self._advance(now)
            yield Second(now, self._page(now), known, self.leaked)
            now += every

    def _advance(self, now: float) -> None:
        """Let happen what happens until then."""
        while True:
            ends = self._events[0][0] if self._events else math.inf
            if min(ends, self._arrives, self._gone) > now:
                return
            if self._gone <= min(ends, self._arrives):
                self._all_go(self._gone)
                self._gone += self.load.gone_every_s
            elif self._arrives <= ends:
                self._arrive(self._arrives)
                self._arrives = self._next(self._arrives)
            else:
                at, what, number = heapq.heappop(self._events)
                self._begin(number) if what == 0 else self._end(number, at)

    # --- requests

    def _next(self, now: float) -> float:
        """Return when the next request comes: a Poisson process, thinned out."""
        while True:
            now += self._random.expovariate(self.load.rate)
            share = self.load.share(now)
            if share >= 1.0 or self._random.random() < share:
                return now

    def _arrive(self, now: float) -> None:
        load, draw = self.load, self._random
        burst = load.burst_every_s and now % load.burst_every_s > load.burst_every_s - 600
        prompt = int(draw.lognormvariate(math.log(load.prompt[0] * (8 if burst else 1)), load.prompt[1]))
        output = int(draw.lognormvariate(math.log(load.output[0]), load.output[1]))
        prefix = draw.randrange(load.prefixes) if draw.random() < load.prefix_share else None
        prompt = min(load.longest, max(4, prompt)) + (load.prefix_tokens if prefix is not None else 0)
        request = Request(now, prompt, max(1, min(2000, output)), prefix)
        if prefix is not None:
            request.hit = load.prefix_tokens // self.shape.size * self.shape.size if self._cached[prefix] else 0
            self._cached[prefix] = True
            self._holders[prefix] += 1
        request.first = now + 0.02 + (prompt - request.hit) * self.shape.prefill_s
        request.ends = request.first + (request.output - 1) / self.shape.tokens_per_s
        if draw.random() < load.abort_share:
            request.aborted = True
            part = draw.random() ** (4 if load.abort_early else 1)
            request.ends = now + part * (request.ends - now)
        self._number += 1
        self._live[self._number] = request
        if request.first <= request.ends:
            heapq.heappush(self._events, (request.first, 0, self._number))
        heapq.heappush(self._events, (request.ends, 1, self._number))

    def _all_go(self, now: float) -> None:
        for number, request in list(self._live.items()):
            request.aborted, request.ends = True, now
            self._end(number, now)

    def _begin(self, number: int) -> None:
        if number in self._live:
            self._counters["prompt_tokens"] += self._live[number].prompt
            self._counters["prompt_tokens_cached"] += self._live[number].hit
            self._counters["requests_begun"] += 1

    def _end(self, number: int, now: float) -> None:
        request = self._live.pop(number, None)
        if request is None:
            return
        self._generate(request, now)
        held = self._held(request, now)
        if request.prefix is not None:
            self._holders[request.prefix] -= 1
        if not request.aborted:
            self._counters["requests_completed"] += 1
            self._counters["completed_prompt_tokens"] += request.prompt
            self._counters["completed_generation_tokens"] += request.output
            self._counters["completed_prefill_tokens"] += request.prompt - request.hit
        leak = self.leak
        leaks = leak is not None and now >= leak.begins and leak.aborted == request.aborted
        if leak is not None and leaks and held and self._random.random() < leak.share:
            self.leaked += min(held, leak.blocks or held)
            self.losses.append(now)

    # --- what is seen

    def _generated(self, request: Request, now: float) -> int:
        if now < request.first:
            return 0
        return min(request.output, int((min(now, request.ends) - request.first) * self.shape.tokens_per_s + 1e-6) + 1)

    def _generate(self, request: Request, now: float) -> None:
        made = self._generated(request, now) if request.first <= request.ends else 0
        self._counters["generation_tokens"] += made - request.counted
        request.counted = made

    def _held(self, request: Request, now: float) -> int:
        made = self._generated(request, now)
        if made:
            tokens = request.prompt + made - 1
        else:
            part = (now - request.sent) / max(1e-9, request.first - request.sent)
            tokens = request.hit + int((request.prompt - request.hit) * min(1.0, part))
        return -(-tokens // self.shape.size)

    def _page(self, now: float) -> EngineReading:
        shape, used = self.shape, 0
        common = self.load.prefix_tokens // shape.size
        for request in self._live.values():
            self._generate(request, now)
            used += self._held(request, now)
        # Blocks of a prefix are there once for all that hold it.
        used -= sum(common * (count - 1) for count in self._holders if count > 1)
        used = max(0, math.ceil(used * shape.stretch)) + self.leaked
        self._counters["iterations"] += 60.0 if self._live else 0.0
        pool = shape.blocks - 1
        fields: dict[str, Any] = {
            "running": float(len(self._live)), "waiting": 0.0, "kv_usage": min(1.0, used / pool),
            "counters": dict(self._counters),
        }  # fmt: skip
        rank = RankView(rank="0", kv_blocks=shape.blocks, kv_block_tokens=shape.size, **fields)
        view = EngineView(kind="vllm", model="m", process_start=BORN, ranks=(rank,), **fields)
        return EngineReading(engine=NAME, outcome=Outcome.OK, view=view)

    def _inflight(self, now: float) -> tuple[InflightRequest, ...]:
        return tuple(
            InflightRequest(id=str(number), prompt_tokens=one.prompt, generated_tokens=self._generated(one, now))
            for number, one in self._live.items()
        )
