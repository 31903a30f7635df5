"""A simulated engine in virtual time without text or single steps: engine-days in seconds.

It takes the times of :class:`opsboard.sim.model.Shape` and moves in slices of a quarter of a second in which the batch
stays as it is. Like vLLM it computes prompts in chunks, counts their tokens when the first token comes, counts
request times when requests end, forgets who went away, and preempts when blocks run out. What the straight model of
Shape lacks is added: steps that CUDA graphs pad, a bend where computing decides, and noise that remembers.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from typing import NamedTuple

import msgspec

from opsboard.core.model import EngineView, Histogram
from opsboard.sim.model import Shape

SLICE_S = 0.25


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
    """What clients do at present."""

    rate: float
    prompt: float
    output: float
    cached: float = 0.3
    abort: float = 0.02
    """Of those that decode, so many give up in a minute."""


class _Request(NamedTuple):
    ends: float
    """By the clock of decoded tokens."""
    id: int
    prompt: int
    output: int
    computed: int
    prefill_s: float


class FluidEngine:
    """The engine; :meth:`second` lets one second pass and returns its page."""

    def __init__(self, build: Build, seed: int) -> None:
        """Begin a first life."""
        self.build = build
        self.random = random.Random(seed)
        self.version = "0.32.0"
        self.slow_step = self.slow_prefill = 1.0
        self.now = 0.0
        self._minutes = self._hours = 0.0
        self._ids = 0
        self.restart()

    def restart(self) -> None:
        """Begin another life: all counters at 0, cold, and slow until its kernels are compiled."""
        self.born = self.now
        self.cold_s = 12.0
        self.counters = dict.fromkeys(
            ("prompt_tokens", "prompt_tokens_computed", "generation_tokens", "requests_begun", "requests_completed",
             "completed_prompt_tokens", "completed_generation_tokens", "completed_prefill_tokens", "requests_finished",
             "preemptions", "prefix_queries", "prefix_hits", "iterations"), 0.0,
        )  # fmt: skip
        self.gap_s = self.gaps = self.prefill_s = 0.0
        self._decoding: list[_Request] = []
        self._context = 0.0
        self._clock = 0.0
        self._waiting: deque[tuple[int, int, int, bool]] = deque()
        """Each: prompt, output, tokens to compute, and whether it was preempted."""
        self._prefilling: deque[list[float]] = deque()
        """Each: prompt, output, tokens to compute, tokens left, when it was first scheduled, preempted."""

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._decoding) + len(self._prefilling)

    def second(self, load: Load) -> EngineView:
        """Let a second pass under a load."""
        for _ in range(round(1 / SLICE_S)):
            self._arrive(load)
            self._admit()
            self._slice(load)
            self.now += SLICE_S
        return self._page()

    def leave(self) -> None:
        """All clients go away at once."""
        self._decoding.clear()
        self._prefilling.clear()
        self._waiting.clear()
        self._context = 0.0

    # -- requests

    def _arrive(self, load: Load) -> None:
        pick = self.random
        expected, count = math.exp(-load.rate * SLICE_S), 0
        product = pick.random()
        while product > expected and count < 100:
            product *= pick.random()
            count += 1
        longest = self.build.shape.max_model_len
        for _ in range(count):
            if len(self._waiting) >= 200:
                return
            prompt = min(longest // 2, max(4, int(load.prompt * pick.lognormvariate(0.0, 0.8))))
            output = min(longest // 4, max(2, int(load.output * pick.lognormvariate(0.0, 0.7))))
            compute = max(1, int(prompt * (1.0 - load.cached * (pick.random() < 0.6))))
            self._waiting.append((prompt, output, compute, False))

    def _admit(self) -> None:
        shape = self.build.shape
        room = shape.capacity_tokens - self._context - sum(one[0] for one in self._prefilling)
        while self._waiting and self.running < shape.max_num_seqs and self._waiting[0][0] < room:
            prompt, output, compute, again = self._waiting.popleft()
            room -= prompt
            self._prefilling.append([prompt, output, compute, compute, math.nan, float(again)])

    def _step_s(self, batch: int) -> float:
        """Return the time of a step without prefill."""
        build, shape = self.build, self.build.shape
        if build.padded and batch:
            batch = next(size for size in (1, 2, 4, *range(8, 1024, 8)) if size >= batch)
        decode = batch + 2 * max(0.0, batch - build.bend)
        return shape.step_s + decode * shape.decode_s + self._context * shape.context_s

    def _pace(self) -> float:
        """Return by how much steps take longer now."""
        noise, pick = self.build.noise, self.random
        for name, sd, memory in (("_minutes", noise.minutes, noise.minutes_s), ("_hours", noise.hours, noise.hours_s)):
            keep = math.exp(-SLICE_S / memory)
            setattr(self, name, getattr(self, name) * keep + pick.gauss(0.0, sd * math.sqrt(1 - keep * keep)))
        cold = 1.0
        if self.cold_s > 0 and self.running:
            self.cold_s -= SLICE_S
            cold = pick.uniform(1.0, 3.0)
        return self.slow_step * cold * math.exp(self._minutes + self._hours + pick.gauss(0.0, noise.quick))

    def _slice(self, load: Load) -> None:
        if not self.running:
            return
        shape, pick = self.build.shape, self.random
        batch, pace = len(self._decoding), self._pace()
        paused = pick.uniform(0.03, 0.3) if pick.random() < SLICE_S / self.build.noise.pause_every_s else 0.0
        left = SLICE_S - min(paused, 0.9 * SLICE_S)
        step_s, token_s = self._step_s(batch) * pace, shape.prefill_s * self.slow_prefill * pace
        wanted = sum(one[3] for one in self._prefilling)
        steps = (left - wanted * token_s) / step_s
        if wanted > max(steps, 0.0) * shape.max_batched_tokens:
            steps = left / (step_s + shape.max_batched_tokens * token_s)
            wanted = min(wanted, steps * shape.max_batched_tokens)
        elif not batch:
            steps = max(1.0, min(steps, wanted / shape.max_batched_tokens + 1))
        if batch:
            self._decode(steps, batch)
            self.counters["iterations"] += steps
        self._prefill(wanted, step_s, token_s, gave_output=bool(batch))
        self._go_away(load)

    def _decode(self, steps: float, batch: int) -> None:
        self._clock += steps
        self.gaps += steps * batch
        self.gap_s += SLICE_S * batch
        self.counters["generation_tokens"] += steps * batch
        self._context += steps * batch
        while self._decoding and self._decoding[0].ends <= self._clock:
            one = heapq.heappop(self._decoding)
            self._context = max(0.0, self._context - one.prompt - one.output)
            for name, value in (
                ("requests_completed", 1), ("requests_finished", 1), ("completed_prompt_tokens", one.prompt),
                ("completed_generation_tokens", one.output), ("completed_prefill_tokens", one.computed),
            ):  # fmt: skip
                self.counters[name] += value
            self.prefill_s += one.prefill_s
        if not self._decoding:
            self._context = 0.0
        while self._context > self.build.shape.capacity_tokens and self._decoding:
            one = self._decoding.pop()
            self.counters["preemptions"] += 1
            done = max(0, one.output - int(one.ends - self._clock))
            self._context -= one.prompt + done
            heapq.heapify(self._decoding)
            again = one.prompt + done
            self._waiting.appendleft((again, max(1, one.output - done), again, True))

    def _prefill(self, tokens: float, step_s: float, token_s: float, *, gave_output: bool) -> None:
        while self._prefilling and tokens > 0:
            one = self._prefilling[0]
            if math.isnan(one[4]):
                one[4] = self.now
            took = min(tokens, one[3])
            one[3] -= took
            tokens -= took
            if one[3] > 0:
                return
            self._prefilling.popleft()
            prompt, output, computed = int(one[0]), int(one[1]), int(one[2])
            self._ids += 1
            seconds = self.now - one[4] + step_s + took * token_s
            heapq.heappush(
                self._decoding, _Request(self._clock + output - 1, self._ids, prompt, output, computed, seconds)
            )
            self._context += prompt
            if one[5]:
                self.counters["generation_tokens"] += 1
                continue  # its prompt and first token were counted before
            for name, value in (
                ("prompt_tokens", prompt), ("prompt_tokens_computed", computed), ("requests_begun", 1),
                ("generation_tokens", 1), ("prefix_queries", prompt), ("prefix_hits", prompt - computed),
                ("iterations", 0 if gave_output else 1),
            ):  # fmt: skip
                self.counters[name] += value

    def _go_away(self, load: Load) -> None:
        if self._decoding and self.random.random() < len(self._decoding) * load.abort * SLICE_S / 60:
            one = self._decoding.pop()
            heapq.heapify(self._decoding)
            self._context = max(0.0, self._context - one.prompt - one.output + max(0.0, one.ends - self._clock))

    def _page(self) -> EngineView:
        shape = self.build.shape
        itl = Histogram(bounds=(math.inf,), counts=(self.gaps,), total=self.gap_s)
        prefill = Histogram(bounds=(math.inf,), counts=(self.counters["requests_completed"],), total=self.prefill_s)
        return EngineView(
            kind="vllm", model="sim", version=self.version, running=float(self.running),
            waiting=float(len(self._waiting)), kv_usage=min(1.0, self._context / shape.capacity_tokens),
            kv_capacity_tokens=float(shape.capacity_tokens), process_start=1_700_000_000.0 + self.born,
            counters=dict(self.counters), histograms={"itl": itl, "prefill": prefill}, asleep=False,
        )  # fmt: skip
