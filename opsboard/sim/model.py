"""The scheduler of a simulated engine: continuous batching, chunked prefill, preemption, all in the caller's time.

Pure: no I/O and no clock. Time enters with every call, in seconds of any clock that never goes back, so the same code
runs inside a real process and through an engine-day in seconds. The rules are vLLM's V1 scheduler
(``vllm/v1/core/sched/scheduler.py``): running requests first, in order; one that finds no block preempts the newest;
waiting ones are admitted while batch, token budget and blocks allow; all but the last prompt token may come from the
prefix cache.
"""

from __future__ import annotations

import random
from collections import deque

import msgspec

from opsboard.sim.blocks import BlockPool
from opsboard.sim.faults import Faults


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a simulated engine and how long its steps take.

    A step takes ``step_s``, ``decode_s`` for each decoding request, ``prefill_s`` for each prefill token and
    ``context_s`` for each token of context attended to: a model of some 7 billion parameters on one large GPU.
    """

    blocks: int = 700
    block_size: int = 16
    max_num_seqs: int = 48
    max_model_len: int = 8192
    max_batched_tokens: int = 2048
    step_s: float = 0.012
    decode_s: float = 0.00012
    prefill_s: float = 0.00004
    context_s: float = 0.00000005
    jitter: float = 0.03
    """Steps differ by up to this share of their time."""

    @property
    def capacity_tokens(self) -> int:
        """Tokens that fit into the cache; one block is the null block."""
        return (self.blocks - 1) * self.block_size


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One request as the scheduler sees it: no text, only sizes.

    ``hashes`` name the contents of the prompt's full blocks, each including all before it. ``output_tokens`` is how
    many it will generate before it ends with ``finish`` (``stop`` or ``length``).
    """

    id: int
    prompt_tokens: int
    hashes: tuple[int, ...]
    output_tokens: int
    finish: str
    seed: int = 0


class FirstToken(msgspec.Struct, frozen=True, array_like=True):
    """What is known when a prompt is done: when it was queued and first scheduled, and what the cache supplied."""

    id: int
    queued: float
    scheduled: float
    prompt_tokens: int
    cached_tokens: int


class Finished(msgspec.Struct, frozen=True, array_like=True):
    """A request that generated its last token in this step."""

    id: int
    reason: str
    preemptions: int


class Stats(msgspec.Struct, frozen=True, array_like=True):
    """The scheduler after a step; counters are those of this step alone."""

    running: int
    waiting: int
    kv_usage: float
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0


class StepResult(msgspec.Struct, frozen=True, array_like=True):
    """One engine step: ``tokens`` are the requests that got a token each, ``first`` and ``finished`` are among them."""

    began: float
    ends: float
    tokens: tuple[int, ...]
    first: tuple[FirstToken, ...]
    finished: tuple[Finished, ...]
    stats: Stats


class _Live:
    """A request on its way: ``computed`` of ``total`` tokens lie in ``blocks``, of which ``named`` are cached."""

    __slots__ = (
        "blocks",
        "cached",
        "chain",
        "computed",
        "generated",
        "named",
        "preemptions",
        "queued",
        "request",
        "scheduled",
    )

    def __init__(self, request: Request, now: float) -> None:
        self.request = request
        self.queued = now
        self.scheduled: float | None = None
        self.computed = 0
        self.generated = 0
        self.cached = 0
        self.named = 0
        self.preemptions = 0
        self.blocks: list[int] = []
        self.chain = list(request.hashes)

    @property
    def total(self) -> int:
        return self.request.prompt_tokens + self.generated


class EngineModel:
    """The engine. Call :meth:`step` while :attr:`has_work`; its next call belongs at ``result.ends`` or later."""

    def __init__(self, shape: Shape, faults: Faults | None = None, seed: int = 0) -> None:
        """Begin idle; ``seed`` decides the jitter of steps and which blocks leak."""
        self.shape = shape
        self.faults = faults if faults is not None else Faults()
        self.pool = BlockPool(shape.blocks)
        self.admits = True
        """False keeps what waits waiting: a paused engine."""
        self._random = random.Random(seed)
        self._running: list[_Live] = []
        self._waiting: deque[_Live] = deque()
        self._live: dict[int, _Live] = {}
        self._leaked: set[int] = set()
        self._owed = {"leak": 0.0, "leak_on_abort": 0.0, "leak_per_hour": 0.0, "preemption_storm": 0.0}
        self._last: float | None = None
        self._preemptions = self._queries = self._hits = 0

    @property
    def has_work(self) -> bool:
        """True while a request is running or waiting."""
        return bool(self._live)

    @property
    def can_step(self) -> bool:
        """True while a step would do something."""
        return bool(self._running or (self.admits and self._waiting))

    @property
    def leaked_blocks(self) -> int:
        """Blocks that faults have taken for ever."""
        return len(self._leaked)

    def stats(self) -> Stats:
        """Return the gauges of this moment, with no counts."""
        return Stats(len(self._running), len(self._waiting), self.pool.usage)

    def add(self, request: Request, now: float) -> None:
        """Queue a request. Raises ValueError when it can never fit."""
        if request.prompt_tokens + request.output_tokens > self.shape.capacity_tokens:
            raise ValueError(f"request {request.id} needs more than the whole cache")
        live = self._live[request.id] = _Live(request, now)
        self._waiting.append(live)

    def abort(self, id: int) -> bool:
        """Forget a request, as when its client went away; False when it has already ended."""
        live = self._live.pop(id, None)
        if live is None:
            return False
        if live in self._running:
            self._running.remove(live)
        else:
            self._waiting.remove(live)
        self._free(live, "leak_on_abort")
        return True

    def step(self, now: float) -> StepResult:
        """Run one batch that begins at ``now``; the tokens it made are there at ``result.ends``."""
        self._preemptions = self._queries = self._hits = 0
        self._age(now)
        batch = self._schedule(now)
        ends = now + self._duration(batch)
        tokens: list[int] = []
        first: list[FirstToken] = []
        finished: list[Finished] = []
        for live, count in batch:
            live.computed += count
            self._remember(live)
            if live.computed == live.total:
                tokens.append(live.request.id)
                if live.generated == 0:
                    first.append(self._first(live, now))
                live.generated += 1
                if live.generated >= live.request.output_tokens:
                    finished.append(Finished(live.request.id, live.request.finish, live.preemptions))
        for one in finished:
            live = self._live.pop(one.id)
            self._running.remove(live)
            self._free(live, "leak")
        stats = Stats(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_usage=self.pool.usage,
            preemptions=self._preemptions,
            prefix_queries=self._queries,
            prefix_hits=self._hits,
        )
        return StepResult(now, ends, tuple(tokens), tuple(first), tuple(finished), stats)

    # -- scheduling

    def _schedule(self, now: float) -> list[tuple[_Live, int]]:
        budget = self.shape.max_batched_tokens
        batch: list[tuple[_Live, int]] = []
        index = 0
        while index < len(self._running) and budget > 0:
            live = self._running[index]
            count = min(live.total - live.computed, budget)
            if not self._grow(live, count):
                break
            batch.append((live, count))
            budget -= count
            index += 1
        if not self._preemptions:
            self._admit(now, budget, batch)
        return batch

    def _grow(self, live: _Live, count: int) -> bool:
        """Find blocks for ``count`` more tokens, preempting the newest until there are some; False: it was itself."""
        need = self._blocks_for(live.computed + count) - len(live.blocks)
        while need > self.pool.free:
            victim = self._running[-1]
            self._preempt(victim)
            if victim is live:
                return False
        live.blocks += self.pool.take(need)
        return True

    def _admit(self, now: float, budget: int, batch: list[tuple[_Live, int]]) -> None:
        while self.admits and self._waiting and budget > 0 and len(self._running) < self.shape.max_num_seqs:
            live = self._waiting[0]
            # The last token is always computed: its logits are what the first new token comes from.
            cached = self.pool.cached_prefix(live.chain[: (live.total - 1) // self.shape.block_size])
            hit = len(cached) * self.shape.block_size
            count = min(live.total - hit, budget)
            need = self._blocks_for(hit + count) - len(cached)
            if need + self.pool.unreferenced(cached) > self.pool.free:
                return
            self._waiting.popleft()
            self.pool.hold(cached)
            live.blocks = cached + self.pool.take(need)
            live.computed, live.named = hit, len(cached)
            if live.scheduled is None:
                live.scheduled, live.cached = now, hit
                self._queries += live.request.prompt_tokens
                self._hits += hit
            self._running.append(live)
            batch.append((live, count))
            budget -= count

    def _preempt(self, victim: _Live) -> None:
        self._running.remove(victim)
        self.pool.release(victim.blocks)
        victim.blocks, victim.computed = [], 0
        victim.preemptions += 1
        self._preemptions += 1
        self._waiting.appendleft(victim)

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.shape.block_size)

    def _remember(self, live: _Live) -> None:
        """Name the contents of the blocks that are full now; those of generated text follow from the request's seed."""
        full = live.computed // self.shape.block_size
        while len(live.chain) < full:
            live.chain.append(hash((live.chain[-1] if live.chain else 0, live.request.seed, len(live.chain))))
        for index in range(live.named, full):
            self.pool.remember(live.blocks[index], live.chain[index])
        live.named = full

    def _first(self, live: _Live, now: float) -> FirstToken:
        scheduled = now if live.scheduled is None else live.scheduled
        return FirstToken(live.request.id, live.queued, scheduled, live.request.prompt_tokens, live.cached)

    def _duration(self, batch: list[tuple[_Live, int]]) -> float:
        shape = self.shape
        prefill = sum(count for _, count in batch if count > 1)
        decode = sum(1 for _, count in batch if count == 1)
        context = sum(live.computed for live, _ in batch)
        prefill_s = prefill * shape.prefill_s * self.faults.value("slow_prefill", 1.0)
        seconds = shape.step_s + decode * shape.decode_s + prefill_s + context * shape.context_s
        seconds *= self.faults.value("slow_step", 1.0)
        return seconds * (1.0 + shape.jitter * (2.0 * self._random.random() - 1.0))

    # -- faults

    def _age(self, now: float) -> None:
        """Let the faults that go by time act for the time since the last step."""
        passed = 0.0 if self._last is None else now - self._last
        self._last = now
        per_hour = self.faults.value("leak_per_hour")
        if per_hour:
            for _ in range(self._due("leak_per_hour", per_hour * passed / 3600.0)):
                self._leak_a_free_block()
        storm = self.faults.value("preemption_storm")
        if storm:
            for _ in range(min(self._due("preemption_storm", storm * min(passed, 1.0)), len(self._running))):
                self._preempt(self._running[-1])

    def tick(self, now: float) -> bool:
        """Let time pass on an idle engine; True when a fault changed the gauges."""
        before = len(self._leaked)
        self._age(now)
        return len(self._leaked) != before

    def _due(self, name: str, amount: float) -> int:
        """Add ``amount`` to what is owed and return the whole part, which is owed no more."""
        owed = self._owed[name] + amount
        whole = int(owed + 1e-9)
        self._owed[name] = owed - whole
        return whole

    def _free(self, live: _Live, fault: str) -> None:
        """Give a request's blocks back, but for those a leak keeps: one reference too many, as real leaks do it."""
        each = self.faults.value(fault)
        if each:
            count = self._due(fault, each)
            fresh = [block for block in live.blocks if block not in self._leaked]
            kept = self._random.sample(fresh, min(count, len(fresh)))
            self.pool.hold(kept)
            self._leaked.update(kept)
        self.pool.release(live.blocks)
        live.blocks = []

    def _leak_a_free_block(self) -> None:
        if self.pool.free:
            self._leaked.update(self.pool.take(1))
