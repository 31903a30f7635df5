"""What is a storm of preemptions, and what a full KV cache does anyway."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from alerts.detectors.preemption_storm import DETECTOR, Params
from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineReading, EngineState, EngineView, Finding, Outcome
from opsboard.sim.model import Shape
from tests.support.modelled import Modelled
from tests.support.watched import NAME, Watched, failed

if TYPE_CHECKING:
    from collections.abc import Callable


class Told:
    """An engine as its page tells it second by second, from rates."""

    def __init__(self, params: Params | None = None) -> None:
        self.watched = Watched(DETECTOR, params)
        self.counters = dict.fromkeys(("generation_tokens", "prompt_tokens", "preemptions", "requests_finished"), 1e4)
        self.start: float | None = 100.0

    def run(self, seconds: int, *, preempted: float = 0.0, tokens: float = 600.0, finished: float = 5.0,
            after: float = 1.0, **gauges: Any) -> Finding | None:  # fmt: skip
        found = None
        for _ in range(seconds):
            more = {"generation_tokens": tokens, "prompt_tokens": 800.0, "preemptions": preempted,
                    "requests_finished": finished}  # fmt: skip
            for name, count in more.items():
                self.counters[name] += count * after
            found = self.watched.read(self.page(**gauges), after)
        return found

    def page(self, **gauges: Any) -> EngineReading:
        fields = {"running": 12.0, "waiting": 3.0, "kv_usage": 0.4, **gauges}
        view = EngineView(kind="vllm", process_start=self.start, counters=dict(self.counters), **fields)
        return EngineReading(engine=NAME, outcome=Outcome.OK, view=view)


def test_preemption_with_room_is_a_storm_and_ends() -> None:
    engine = Told()
    assert engine.run(60) is None
    assert engine.run(14, preempted=3.0) is None
    found = engine.run(16, preempted=3.0)
    assert found is not None
    assert found.confirmed
    assert found.since == pytest.approx(engine.watched.clock.now().wall - 30.0, abs=6.0)
    assert found.evidence["predicate"] == "without_need"
    assert found.evidence["preemptions_per_finished"] == pytest.approx(0.6, abs=0.1)
    assert found.summary.endswith("although its KV cache was never more than 40 % full")
    assert engine.run(30, preempted=1.5) is not None, "a little less is no end"
    assert engine.run(30) is None


def test_a_full_cache_that_preempts_and_gives_its_tokens_is_none() -> None:
    engine = Told()
    engine.run(60)
    assert engine.run(120, preempted=15.0, kv_usage=0.98) is None


def test_a_full_cache_that_gives_half_the_tokens_is_a_storm() -> None:
    engine = Told()
    engine.run(60)
    found = engine.run(45, preempted=8.0, kv_usage=0.98, tokens=300.0, running=30.0)
    assert found is not None
    assert found.evidence["predicate"] == "costly"
    assert found.evidence["part_of_own_level"] == pytest.approx(0.5, abs=0.02)
    assert "it gives 50 % of the tokens" in found.summary


def test_longer_contexts_are_another_load() -> None:
    engine = Told()
    engine.run(60)
    assert engine.run(60, preempted=8.0, kv_usage=0.98, tokens=300.0, running=12.0) is None


def test_many_are_a_storm_whatever_it_gives() -> None:
    engine = Told()
    found = engine.run(45, preempted=50.0, kv_usage=0.98)
    assert found is not None
    assert found.evidence["predicate"] == "many"
    assert found.evidence["part_of_own_level"] is None


def test_one_mass_preemption_and_a_few_are_none() -> None:
    engine = Told()
    engine.run(30)
    engine.counters["preemptions"] += 500.0
    assert engine.run(60) is None
    assert engine.run(60, preempted=0.2) is None


@pytest.mark.parametrize("scene", ["restart", "reset", "asleep", "gone", "nan", "stopped"])
def test_what_ends_it_and_what_is_not_counted(scene: str) -> None:
    engine = Told()
    assert engine.run(60, preempted=5.0) is not None
    if scene == "restart":
        engine.start = 500.0
        assert engine.run(1) is None
    elif scene == "reset":
        engine.counters = dict.fromkeys(engine.counters, 0.0)
        assert engine.run(1) is None
    elif scene == "asleep":
        assert engine.run(1, asleep=True) is None
    elif scene == "gone":
        del engine.counters["preemptions"]
        assert engine.watched.read(engine.page()) is None
        assert engine.watched.read_for(60, engine.page()) is None
    elif scene == "nan":
        assert engine.run(1, preempted=nan) is None
    else:
        assert engine.watched.live(EngineState.STOPPED) is None
        assert engine.watched.live(EngineState.READY, started=2.0) is None


def test_gaps_duplicates_and_pages_that_cannot_be_read() -> None:
    engine = Told()
    assert engine.run(5, preempted=5.0, after=120.0) is None, "nothing is known of what lies between"
    assert engine.run(12, preempted=5.0, after=10.0) is not None
    engine.watched.read_for(20, failed())
    assert engine.watched.read(failed()) is not None, "that says nothing of storms"
    claim = engine.run(12, preempted=5.0, after=10.0)
    assert claim is not None
    gone = engine.run(1, preempted=5.0, after=120.0)
    assert gone is not None, "nobody saw it end"
    again = engine.run(40, preempted=5.0)
    assert again is not None
    assert again.since == claim.since
    assert engine.run(1, after=120.0) is not None
    assert engine.run(40) is None
    quiet = Told()
    page = quiet.page()
    assert quiet.watched.read_for(300, page) is None
    bare = EngineReading(engine=NAME, outcome=Outcome.OK, view=EngineView(kind="vllm"))
    assert quiet.watched.read_for(60, bare) is None
    assert page.view is not None
    older = replace(page, view=replace(page.view, process_start=None))
    assert quiet.watched.read_for(60, older) is None


@pytest.mark.parametrize("step", [-7200.0, 7200.0])
def test_a_wall_clock_that_steps_changes_no_window(step: float) -> None:
    engine = Told()
    engine.run(60)
    now = engine.watched.clock.now()
    engine.watched.clock = ManualClock(now.wall + step, now.mono)
    assert engine.run(40, preempted=5.0) is not None
    assert len(engine.watched.state.spans) <= 7
    assert engine.run(40) is None


@pytest.mark.parametrize(
    ("shape", "calm", "rate", "output"),
    [(Shape(), 3.0, 8.0, 400.0), (Shape(blocks=200), 1.0, 4.0, 400.0), (Shape(), 4.0, 20.0, 110.0)],
)
def test_an_overloaded_scheduler_preempts_and_is_healthy(shape: Shape, calm: float, rate: float, output: float) -> None:
    engine, watched = Modelled(shape), Watched(DETECTOR)
    for second in range(100):
        if second == 40:
            engine.output = output
        assert watched.read(engine.second(rate if second >= 40 else calm)) is None
    if output > 200:
        assert engine.counters["preemptions"] > 0


def test_a_storm_in_the_scheduler_is_found_within_30_seconds() -> None:
    def opened(of: Callable[[Modelled], None]) -> float | None:
        engine, watched = Modelled(), Watched(DETECTOR)
        for second in range(60):
            if second == 30:
                of(engine)
            if watched.read(engine.second(5.0)) is not None:
                return second - 29.0
        return None

    for storm in (3.0, 10.0, 30.0):
        found = opened(lambda engine, much=storm: engine.faults.set("preemption_storm", much))  # type: ignore[misc]
        assert found is not None
        assert found <= 25.0


def test_a_window_of_less_than_three_spans_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 15s"):
        Params(window_s=10.0)
