"""An engine whose KV blocks are counted by hand, told request by request, as kv_leak sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alerts.detectors.kv_leak import DETECTOR
from opsboard.core.clock import ManualClock
from opsboard.core.inflight import InflightRequest
from opsboard.core.model import EngineReading, EngineView, Finding, Outcome, RankView
from tests.support.watched import Watched

if TYPE_CHECKING:
    from alerts.detectors.kv_leak import Params

SIZE = 16
COUNTED = (
    "prompt_tokens",
    "generation_tokens",
    "completed_prompt_tokens",
    "completed_generation_tokens",
    "requests_begun",
    "requests_completed",
)


class Engine(Watched):
    """An engine that is asked by hand. Each request has 100 tokens of prompt and generates 20: 8 blocks of 16."""

    def __init__(self, params: Params | None = None, **fields: Any) -> None:
        super().__init__(DETECTOR, params)
        self.blocks, self.lost, self.running, self.steps = 1000, 0, 0, 0.0
        self.counters = dict.fromkeys(COUNTED, 0.0)
        self.fields: dict[str, Any] = {"process_start": 100.0, "model": "m", **fields}

    def begin(self, count: int = 1) -> None:
        """Requests come and have their first token."""
        self.running += count
        self.steps += count
        self.counters["requests_begun"] += count
        self.counters["prompt_tokens"] += 100.0 * count
        self.counters["generation_tokens"] += 20.0 * count

    def end(self, count: int = 1) -> None:
        """They finish."""
        self.running -= count
        self.steps += count
        self.counters["requests_completed"] += count
        self.counters["completed_prompt_tokens"] += 100.0 * count
        self.counters["completed_generation_tokens"] += 20.0 * count

    def leave(self, count: int = 1) -> None:
        """Their clients go away."""
        self.running -= count
        self.steps += count

    def ranks(self, **changes: Any) -> tuple[RankView, ...]:
        used = self.running * 8 + self.lost
        fields = {
            "running": float(self.running), "waiting": 0.0, "kv_usage": used / (self.blocks - 1),
            "kv_blocks": self.blocks, "kv_block_tokens": SIZE, **changes,
        }  # fmt: skip
        return (RankView(rank="0", counters={**self.counters, "iterations": self.steps}, **fields),)

    def page(self, **changes: Any) -> EngineReading:
        ranks = self.ranks(**changes)
        view = EngineView(kind="vllm", ranks=ranks, running=ranks[0].running, waiting=ranks[0].waiting, **self.fields)
        return EngineReading(engine="a", outcome=Outcome.OK, view=view)

    def seen(self, seconds: int = 1, **changes: Any) -> Finding | None:
        """A page a second."""
        found = None
        for _ in range(seconds):
            found = self.read(self.page(**changes))
        return found

    def step_clock(self, seconds: float) -> None:
        """Somebody sets the clock of the machine."""
        now = self.clock.now()
        self.clock = ManualClock(wall=now.wall + seconds, mono=now.mono)

    def works(self, seconds: int = 20) -> Finding | None:
        """Two requests at a time, one second each."""
        found = None
        for _ in range(seconds):
            self.begin(2)
            found = self.seen()
            self.end(2)
        return found

    def rests(self, seconds: int = 1) -> Finding | None:
        assert self.running == 0
        return self.seen(seconds)


def healthy(params: Params | None = None, **fields: Any) -> Engine:
    """Return an engine after a rest and some healthy work."""
    engine = Engine(params, **fields)
    assert engine.rests() is None
    assert engine.works() is None
    return engine


def numbers(found: Finding | None) -> dict[str, Any]:
    assert found is not None
    return dict(found.evidence)


def inflight(count: int) -> tuple[InflightRequest, ...]:
    """Return requests as the engine's are."""
    return tuple(InflightRequest(id=str(n), prompt_tokens=100, generated_tokens=20) for n in range(count))
