"""The simulated engine's own model, read as pages: block-exact, with queues, preemption, prefixes and leaks."""

from __future__ import annotations

import random
from typing import Any

from opsboard.core.inflight import InflightRequest
from opsboard.core.model import EngineReading, EngineView, Outcome, RankView
from opsboard.sim.faults import Faults
from opsboard.sim.metrics import HISTOGRAMS, EngineMetrics
from opsboard.sim.model import EngineModel, Request, Shape


class Modelled:
    """An engine, the requests it gets, and its page."""

    def __init__(self, shape: Shape, seed: int, *, told: bool = False, **faults: float) -> None:
        """``told``: its page has the tokens that fit, as from 0.26 on."""
        self.shape, self.told = shape, told
        self.model = EngineModel(shape, Faults(faults), seed)
        self.metrics = EngineMetrics(dict.fromkeys(HISTOGRAMS, (1.0,)), shape.block_size)
        self.random = random.Random(seed)
        self.now = 0.0
        self.sent: dict[int, Request] = {}
        self.generated: dict[int, int] = {}
        self._number = 0

    def send(self, prompt: int, output: int, family: int | None = None) -> int:
        """Send a request; prompts of one family begin alike."""
        self._number += 1
        hashes = tuple(
            hash((self._number if family is None else family, index))
            for index in range(prompt // self.shape.block_size)
        )
        request = Request(self._number, prompt, hashes, output, "stop", self._number)
        self.model.add(request, self.now)
        self.metrics.arrived(request.id, self.now, prompt, output)
        self.sent[request.id], self.generated[request.id] = request, 0
        return request.id

    def leave(self, number: int) -> None:
        """Let the client of a request go away."""
        if self.model.abort(number):
            self.metrics.forget(number)
            self.metrics.scheduler(self.model.stats())
            self._gone(number)

    def leave_one(self) -> None:
        """Let some client go away."""
        if self.sent:
            self.leave(self.random.choice(list(self.sent)))

    def steps(self, count: int) -> None:
        """Let it work."""
        for _ in range(count):
            if not self.model.can_step:
                return
            result = self.model.step(self.now)
            self.now = result.ends
            self.metrics.stepped(result, result.ends)
            for number in result.tokens:
                self.generated[number] += 1
            for finished in result.finished:
                self._gone(finished.id)

    def drain(self) -> None:
        """Let it work until nothing is left to do; what can never be done is given up."""
        self.steps(3000)
        for number in list(self.sent):
            self.leave(number)

    def page(self) -> EngineReading:
        """Return what its page says now."""
        values, histograms = self.metrics.values, self.metrics.histograms
        counters = {
            "prompt_tokens": values["prompt_tokens"],
            "generation_tokens": values["generation_tokens"],
            "prompt_tokens_cached": values["prompt_cached"],
            "requests_begun": float(sum(histograms["ttft"].counts)),
            "requests_completed": float(sum(histograms["e2e"].counts)),
            "completed_prompt_tokens": histograms["prompt_len"].total,
            "completed_generation_tokens": histograms["output_len"].total,
            "completed_prefill_tokens": histograms["computed_len"].total,
            "iterations": float(sum(histograms["iteration"].counts)),
            "preemptions": values["preemptions"],
        }
        fields: dict[str, Any] = {name: float(values[name]) for name in ("running", "waiting", "kv_usage")}
        blocks, size = self.shape.blocks, self.shape.block_size
        fits = float(blocks * size) if self.told else None
        rank = RankView(
            rank="0", kv_blocks=blocks, kv_block_tokens=size, kv_capacity_tokens=fits, counters=counters, **fields
        )
        view = EngineView(kind="vllm", model="m", process_start=1.0, ranks=(rank,), counters=counters, **fields)
        return EngineReading(engine="a", outcome=Outcome.OK, view=view)

    def inflight(self) -> tuple[InflightRequest, ...]:
        """Return what a gateway knows."""
        return tuple(
            InflightRequest(id=str(one.id), prompt_tokens=one.prompt_tokens, generated_tokens=self.generated[one.id])
            for one in self.sent.values()
        )

    def _gone(self, number: int) -> None:
        del self.sent[number], self.generated[number]
