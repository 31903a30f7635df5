"""A made-up engine whose pages the latency detector judges, second by second."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from alerts.base import Observation
from alerts.detectors.latency import DETECTOR, Params, State
from opsboard.core.clock import Now
from opsboard.core.model import EngineReading, EngineView, Finding, Histogram, Outcome

WALL = 1_700_000_000.0


class Engine:
    """Pages of an engine whose steps take 10 ms, 0.2 ms a request, 30 us a prompt token; and who judges them."""

    def __init__(self, params: Params | None = None) -> None:
        self.random = random.Random(1)
        self.state: State = DETECTOR.begin(params or Params())
        self.t = 0.0
        self.slow = self.slow_prefill = 1.0
        self.extra: dict[str, Any] = {}
        """Other fields of its pages."""
        self.seen: dict[str, Any] = {}
        """What else is known beside them."""
        self.change: Callable[[EngineView], EngineView] = lambda view: view
        self.restart()

    def restart(self) -> None:
        """Begin another life."""
        self.born = WALL + self.t
        self.counters = dict.fromkeys(
            ("iterations", "generation_tokens", "prompt_tokens_computed", "requests_begun", "requests_completed",
             "completed_prefill_tokens", "preemptions", "spec_draft_tokens", "spec_accepted_tokens",
             "prefix_queries", "prefix_hits"), 0.0,
        )  # fmt: skip
        self.gaps = self.gap_s = self.prefill_s = 0.0

    def work(self, seconds: float, batch: float, rate: float) -> None:
        """Let time pass with ``batch`` requests decoding and ``rate`` prompts of 300 tokens a second."""
        self.t += seconds
        noise = math.exp(self.random.gauss(0.0, 0.02))
        prompts = rate * seconds * self.random.uniform(0.0, 2.0)
        step_s = (0.010 + 0.0002 * batch) * self.slow * noise
        left = seconds - prompts * 300 * 0.00003 * self.slow_prefill
        steps = left / step_s if batch else prompts
        self.gaps += steps * batch
        self.gap_s += seconds * batch
        self.prefill_s += prompts * (step_s + 300 * 0.00003 * self.slow_prefill * noise)
        for name, value in (
            ("iterations", steps), ("generation_tokens", steps * batch + prompts), ("requests_begun", prompts),
            ("requests_completed", prompts), ("prompt_tokens_computed", 300 * prompts),
            ("completed_prefill_tokens", 300 * prompts), ("prefix_queries", 400 * prompts),
            ("prefix_hits", 100 * prompts),
        ):  # fmt: skip
            self.counters[name] += value

    def view(self, batch: float) -> EngineView:
        """Return its page."""
        view = EngineView(
            kind="vllm", model="m", version="0.32.0", running=batch, waiting=0.0, kv_usage=batch / 100,
            kv_capacity_tokens=100_000.0, process_start=self.born, counters=dict(self.counters), asleep=False,
            histograms={
                "itl": Histogram(bounds=(math.inf,), counts=(self.gaps,), total=self.gap_s),
                "prefill": Histogram(
                    bounds=(math.inf,), counts=(self.counters["requests_completed"],), total=self.prefill_s
                ),
            },
        )  # fmt: skip
        return self.change(replace(view, **self.extra))

    def judge(self, view: EngineView, wall: float | None = None) -> Finding | None:
        """Let the detector see a page."""
        now = Now(wall=WALL + self.t if wall is None else wall, mono=self.t)
        reading = EngineReading(engine="a", outcome=Outcome.OK, view=view)
        self.state, found, canary, _ = DETECTOR.step(
            self.state, Observation(engine="a", now=now, reading=reading, **self.seen)
        )
        self.seen.pop("events", None)
        assert not canary
        return found

    def run(self, seconds: int, batch: float = 8.0, rate: float = 2.0, every: float = 1.0) -> Iterator[Finding | None]:
        """Work and judge."""
        for _ in range(round(seconds / every)):
            self.work(every, batch * self.random.uniform(0.75, 1.25), rate)
            yield self.judge(self.view(batch))

    def live(self, seconds: int, batch: float = 8.0, rate: float = 2.0, every: float = 1.0) -> Finding | None:
        """Return what is claimed at the end of it."""
        return list(self.run(seconds, batch, rate, every))[-1]

    def quiet(self, seconds: int, batch: float = 8.0, rate: float = 2.0, every: float = 1.0) -> bool:
        """Tell whether nothing is claimed in all of it."""
        return all(found is None for found in self.run(seconds, batch, rate, every))

    def worked(self) -> Engine:
        """Return it after five minutes of work."""
        assert self.quiet(300)
        return self


def first(found: Iterator[Finding | None]) -> tuple[int, Finding]:
    """Return the first claim and how many readings it took."""
    return next((at, finding) for at, finding in enumerate(found, 1) if finding is not None)
