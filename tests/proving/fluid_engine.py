"""A simulated engine in virtual time without text or single steps: engine-days in seconds.

It takes the times of :class:`opsboard.sim.model.Shape` and moves in slices of a quarter of a second in which the batch
stays as it is. Like vLLM it computes prompts in chunks, counts their tokens when the first token comes, counts
request times when requests end, forgets who went away, and preempts when blocks run out. What the straight model of
Shape lacks is added: steps that CUDA graphs pad, a bend where computing decides, and noise that remembers. Tokens and
KV blocks are whole numbers and exact at every page (:mod:`tests.proving.engine_page`).
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from itertools import chain

from opsboard.core.inflight import InflightRequest
from opsboard.core.model import EngineView
from tests.proving.builds import Build, Load
from tests.proving.engine_page import Counts, page

SLICE_S = 0.25
GROUPS = 6
"""System prompts that requests share, of 64, 128, ... tokens."""
MOST_WAITING = 200


class Request:
    """One request. ``compute`` tokens of its prompt (and of what it gave before) are to be computed, ``left`` still."""

    __slots__ = (
        "arrived", "compute", "ends", "group", "hit", "left", "made", "number", "output", "prefill_s", "prompt",
        "scheduled", "thrown",
    )  # fmt: skip

    def __init__(self, number: int, *, arrived: float, prompt: int, output: int, hit: int, group: int | None) -> None:
        self.number, self.arrived = number, arrived
        self.prompt, self.output = prompt, output
        self.hit, self.group = hit, group
        self.compute = self.left = prompt - hit
        self.scheduled = self.ends = math.nan
        self.prefill_s = 0.0
        self.made = 0
        """Tokens it gave before it was thrown back."""
        self.thrown = False

    def __lt__(self, other: Request) -> bool:
        """Who ends first comes first."""
        return self.ends < other.ends

    def given(self, clock: float) -> int:
        """Return how many tokens it has given, while it decodes."""
        return self.output - max(0, math.ceil(self.ends - clock))


class FluidEngine:
    """The engine; :meth:`second` lets one second pass and returns its page. What is wrong with it are its fields."""

    def __init__(self, build: Build, seed: int | str) -> None:
        """Begin a first life."""
        self.build = build
        self.random = random.Random(seed)
        self.version, self.model = "0.32.0", "sim"
        self.slow_step = self.slow_prefill = 1.0
        self.hung = self.asleep = False
        self.thrown_a_second = 0.0
        """So many are preempted without need."""
        self.leak_share, self.leak_blocks, self.leak_aborted = 0.0, 1, False
        """Of that share of the requests that end (those that are aborted, or the others) so many blocks (0: all)."""
        self.pool_share = 1.0
        """This much of its KV cache is there."""
        self.errors = 0.0
        """This share of requests ends in an error."""
        self.held_blocks = 0
        """Blocks that a KV connector holds for another engine."""
        self.now = 0.0
        self._minutes = self._hours = 0.0
        self._noise = [
            (math.exp(-SLICE_S / memory), sd * math.sqrt(1 - math.exp(-2 * SLICE_S / memory)))
            for sd, memory in ((build.noise.minutes, build.noise.minutes_s), (build.noise.hours, build.noise.hours_s))
        ]
        self._number = 0
        self.restart()

    def restart(self) -> None:
        """Begin another life: all counters at 0, cold, and slow until its kernels are compiled."""
        self.born = self.now
        self.cold_s = 12.0
        self.counts = Counts()
        self.leaked = 0
        self.first_leak: float | None = None
        """When the first block was lost, by this engine's time."""
        self.prefilling: deque[Request] = deque()
        self.decoding: list[Request] = []
        self.waiting: deque[Request] = deque()
        self.clock = 0.0
        """Tokens that a request decoding since the beginning of this life would have given."""
        self._context = 0.0
        self._view: EngineView | None = None

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self.decoding) + len(self.prefilling)

    @property
    def pool(self) -> int:
        """Blocks that there are for requests."""
        return int((self.build.shape.blocks - 1) * self.pool_share)

    def second(self, load: Load) -> EngineView:
        """Let a second pass under a load."""
        for _ in range(round(1 / SLICE_S)):
            self._arrive(load)
            if not self.hung:
                self._admit()
                self._slice(load)
            self.now += SLICE_S
        if self.hung and self._view is not None:
            return self._view
        self._fit()
        # Who ends within a slice decodes to its end here: what was added for it is put right once a second.
        self._context = float(sum(one.prompt + one.given(self.clock) for one in self.decoding))
        self._view = page(self)
        return self._view

    def answer(self) -> None:
        """Give one token to a request of opsboard's own, which shares its step with others."""
        self.counts.one_token()

    def leave(self) -> None:
        """All clients go away at once."""
        for one in self.decoding:
            self._left(one, self._blocks(one))
        for one in self.prefilling:
            self._left(one, -(-(one.hit + one.compute - one.left) // self.build.shape.block_size))
        self.decoding.clear()
        self.prefilling.clear()
        self.waiting.clear()
        self._context = 0.0

    def inflight(self, late_s: float = 0.03) -> tuple[InflightRequest, ...]:
        """Return what a gateway knows, whose last tokens are ``late_s`` old."""
        behind = round(late_s / self._step_s(len(self.decoding)))
        return (
            *(
                InflightRequest(
                    id=str(one.number), prompt_tokens=one.prompt,
                    generated_tokens=max(1, one.given(self.clock) - behind),
                )
                for one in self.decoding
            ),
            *(
                InflightRequest(id=str(one.number), prompt_tokens=one.prompt, generated_tokens=one.made)
                for one in chain(self.prefilling, self.waiting)
            ),
        )  # fmt: skip

    def used(self) -> int:
        """Return how many blocks somebody references; those of a common prefix are there once."""
        size, holders = self.build.shape.block_size, [0] * GROUPS
        used = self.leaked + self.held_blocks
        for one in self.decoding:
            used += self._blocks(one)
            if one.group is not None:
                holders[one.group] += 1
        for one in self.prefilling:
            used += -(-(one.hit + one.compute - one.left) // size)
            if one.group is not None and one.hit:
                holders[one.group] += 1
        return used - sum((count - 1) * _common(group) // size for group, count in enumerate(holders) if count > 1)

    def _blocks(self, one: Request) -> int:
        return -(-(one.prompt + one.given(self.clock) - 1) // self.build.shape.block_size)

    # -- requests

    def _arrive(self, load: Load) -> None:
        pick = self.random
        expected, count = math.exp(-load.rate * SLICE_S), 0
        product = pick.random()
        while product > expected and count < 100:
            product *= pick.random()
            count += 1
        shape = self.build.shape
        for _ in range(count):
            if len(self.waiting) >= MOST_WAITING:
                return
            prompt = min(shape.max_model_len // 2, max(4, int(load.prompt * pick.lognormvariate(0.0, load.spread))))
            output = min(shape.max_model_len // 4, max(2, int(load.output * pick.lognormvariate(0.0, load.spread))))
            hit, group = 0, None
            if load.cached and pick.random() < 0.6:
                if pick.random() < load.shared:
                    group = 0 if load.one_prefix else pick.randrange(GROUPS)
                    hit = _common(group)
                    prompt += hit
                else:
                    hit = int(load.cached * (prompt - 1)) // shape.block_size * shape.block_size
            self._number += 1
            self.waiting.append(
                Request(self._number, arrived=self.now, prompt=prompt, output=output, hit=hit, group=group)
            )

    def _admit(self) -> None:
        shape = self.build.shape
        taken = self._context + sum(one.prompt + one.made for one in self.prefilling)
        taken += (self.leaked + self.held_blocks + self.running) * shape.block_size
        room = self.pool * shape.block_size - taken
        while self.waiting and self.running < shape.max_num_seqs:
            tokens = self.waiting[0].prompt + self.waiting[0].made + shape.block_size
            if tokens >= room:
                return
            room -= tokens
            self.prefilling.append(self.waiting.popleft())

    def _step_s(self, batch: int) -> float:
        """Return the time of a step without prefill."""
        build, shape = self.build, self.build.shape
        if build.padded and batch:
            batch = batch if batch in {1, 2, 4} else -(-batch // 8) * 8
        decode = batch + 2 * max(0.0, batch - build.bend)
        return shape.step_s + decode * shape.decode_s + self._context * shape.context_s

    def _pace(self) -> float:
        """Return by how much steps take longer now."""
        pick = self.random
        (keep, sd), (keep_long, sd_long) = self._noise
        self._minutes = self._minutes * keep + pick.gauss(0.0, sd)
        self._hours = self._hours * keep_long + pick.gauss(0.0, sd_long)
        cold = 1.0
        if self.cold_s > 0 and self.running:
            self.cold_s -= SLICE_S
            cold = pick.uniform(1.0, 3.0)
        return self.slow_step * cold * math.exp(self._minutes + self._hours + pick.gauss(0.0, self.build.noise.quick))

    def _slice(self, load: Load) -> None:
        if not self.running:
            return
        shape, pick = self.build.shape, self.random
        batch, pace = len(self.decoding), self._pace()
        paused = pick.uniform(0.03, 0.3) if pick.random() < SLICE_S / self.build.noise.pause_every_s else 0.0
        paused = min(paused, 0.9 * SLICE_S)
        left = SLICE_S - paused
        step_s, token_s = self._step_s(batch) * pace, shape.prefill_s * self.slow_prefill * pace
        wanted = float(sum(one.left for one in self.prefilling))
        steps = (left - wanted * token_s) / step_s
        if wanted > max(steps, 0.0) * shape.max_batched_tokens:
            steps = left / (step_s + shape.max_batched_tokens * token_s)
            wanted = min(wanted, steps * shape.max_batched_tokens)
        elif not batch:
            steps = max(1.0, min(steps, wanted / shape.max_batched_tokens + 1))
        if batch:
            self.counts.gaps(steps, batch, left, paused)
            self._decode(steps, batch)
        self._prefill(wanted, step_s, token_s, gave_output=bool(batch))
        self._go_away(load)
        if self.thrown_a_second:
            for _ in range(min(len(self.decoding), int(self.thrown_a_second * SLICE_S + pick.random()))):
                self._throw()

    def _decode(self, steps: float, batch: int) -> None:
        self.clock += steps
        self._context += steps * batch
        while self.decoding and self.decoding[0].ends <= self.clock:
            one = heapq.heappop(self.decoding)
            self._context = max(0.0, self._context - one.prompt - one.output)
            failed = bool(self.errors) and self.random.random() < self.errors
            self.counts.completed(one, self.now + SLICE_S, failed=failed)
            self._leak(-(-(one.prompt + one.output - 1) // self.build.shape.block_size), aborted=False)
        if not self.decoding:
            self._context = 0.0
        if self._context > 0.9 * self.pool * self.build.shape.block_size:
            self._fit()

    def _fit(self) -> None:
        """Throw the newest back until the others fit."""
        while self.decoding and self.used() > self.pool:
            self._throw()

    def _throw(self) -> None:
        one = max(self.decoding, key=_number)
        self.decoding.remove(one)
        heapq.heapify(self.decoding)
        self.counts.preempted()
        one.made = one.given(self.clock)
        self._context = max(0.0, self._context - one.prompt - one.made)
        one.compute = one.left = one.prompt + one.made - one.hit
        one.thrown = True
        self.waiting.appendleft(one)

    def _prefill(self, tokens: float, step_s: float, token_s: float, *, gave_output: bool) -> None:
        budget = round(tokens)
        while self.prefilling and budget > 0:
            one = self.prefilling[0]
            if math.isnan(one.scheduled):
                one.scheduled = self.now
            took = min(budget, one.left)
            one.left -= took
            budget -= took
            if one.left > 0:
                return
            self.prefilling.popleft()
            one.ends = self.clock + one.output - one.made - 1
            heapq.heappush(self.decoding, one)
            self._context += one.prompt + one.made
            if not one.thrown:  # else its prompt was counted before
                one.prefill_s = self.now - one.scheduled + step_s + took * token_s
                self.counts.begun(one, self.now + SLICE_S, alone=not gave_output)

    def _go_away(self, load: Load) -> None:
        if self.decoding and self.random.random() < len(self.decoding) * load.abort * SLICE_S / 60:
            one = self.decoding.pop()
            self._context = max(0.0, self._context - one.prompt - one.given(self.clock))
            self._left(one, self._blocks(one))

    def _left(self, one: Request, held: int) -> None:
        self.counts.left(one.given(self.clock) if not math.isnan(one.ends) else one.made)
        self._leak(held, aborted=True)

    def _leak(self, held: int, *, aborted: bool) -> None:
        if self.leak_share and aborted is self.leak_aborted and self.random.random() < self.leak_share:
            self.leaked += min(held, self.leak_blocks or held)
            if self.first_leak is None:
                self.first_leak = self.now


def _common(group: int) -> int:
    """Return how many tokens the requests of a group share."""
    return 64 * (group + 1)


def _number(one: Request) -> int:
    return one.number
