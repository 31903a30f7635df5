"""The simulated scheduler in virtual time, as the views of its page a second: real block accounting, no text."""

from __future__ import annotations

import random
from math import inf

from opsboard.core.model import EngineReading, EngineView, Histogram, Outcome
from opsboard.sim.faults import Faults
from opsboard.sim.model import EngineModel, Request, Shape
from tests.support.watched import NAME

COUNTERS = ("preemptions", "generation_tokens", "prompt_tokens", "requests_begun", "requests_finished", "iterations",
            "prefix_queries", "prefix_hits")  # fmt: skip


class Modelled:
    """An engine and its clients. Lengths are lognormal, arrivals Poisson, prompts of their own."""

    def __init__(self, shape: Shape | None = None, seed: int = 1) -> None:
        self.faults = Faults()
        self.model = EngineModel(shape or Shape(), self.faults, seed)
        self.random = random.Random(seed)
        self.prompt, self.output = 160.0, 110.0
        self.now = 0.0
        self.counters = dict.fromkeys(COUNTERS, 0.0)
        self.gap_s = self.gaps = 0.0
        self._last: dict[int, float] = {}
        self._id = 0
        self._due = 0.0

    def second(self, rate: float) -> EngineReading:
        """Let a second pass with ``rate`` requests; return the page."""
        end = self.now + 1.0
        while self.now < end:
            self._arrive(rate)
            if not self.model.can_step:
                self.model.tick(self.now)
                self.now = min(end, self._due if rate else end)
                continue
            result = self.model.step(self.now)
            self.now = result.ends
            for id_ in result.tokens:
                if id_ in self._last:
                    self.gap_s += self.now - self._last[id_]
                    self.gaps += 1
                self._last[id_] = self.now
            for done in result.finished:
                del self._last[done.id]
            more = {"preemptions": result.stats.preemptions, "generation_tokens": len(result.tokens),
                    "prompt_tokens": sum(one.prompt_tokens for one in result.first),
                    "requests_begun": len(result.first), "requests_finished": len(result.finished),
                    "iterations": 1 if result.tokens else 0, "prefix_queries": result.stats.prefix_queries,
                    "prefix_hits": result.stats.prefix_hits}  # fmt: skip
            for name, count in more.items():
                self.counters[name] += count
        return self.page()

    def page(self) -> EngineReading:
        stats = self.model.stats()
        itl = Histogram(bounds=(inf,), counts=(self.gaps,), total=self.gap_s)
        view = EngineView(
            kind="vllm", process_start=100.0, running=float(stats.running), waiting=float(stats.waiting),
            kv_usage=stats.kv_usage, counters=dict(self.counters), histograms={"itl": itl},
        )  # fmt: skip
        return EngineReading(engine=NAME, outcome=Outcome.OK, view=view)

    def _arrive(self, rate: float) -> None:
        while rate and self._due <= self.now:
            self._due = max(self._due, self.now - 1.0) + self.random.expovariate(rate)
            self._id += 1
            most = self.model.shape.max_model_len // 2 - 1
            prompt = max(1, min(most, round(self.random.lognormvariate(0.0, 0.8) * self.prompt)))
            output = max(1, min(most, round(self.random.lognormvariate(0.0, 0.7) * self.output)))
            block = self.model.shape.block_size
            hashes = tuple(hash((self._id, n)) for n in range(prompt // block))
            self.model.add(Request(self._id, prompt, hashes, output, "stop", self._id), self.now)
