"""What is a collapse of throughput, and what is only load."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest

from alerts.detectors.throughput_collapse import DETECTOR, Params
from opsboard.core.model import EngineReading, EngineState, EngineView, Finding, Outcome
from opsboard.sim.model import Shape
from tests.support.modelled import Modelled
from tests.support.watched import NAME, Watched, failed


class Told:
    """An engine as its page tells it second by second."""

    def __init__(self, params: Params | None = None) -> None:
        self.watched = Watched(DETECTOR, params)
        self.counters = dict.fromkeys(("generation_tokens", "prompt_tokens", "preemptions", "requests_finished"), 1e4)
        self.start = 100.0

    def run(self, seconds: int, tokens: float, *, prompts: float = 800.0, after: float = 1.0,
            **gauges: Any) -> Finding | None:  # fmt: skip
        found = None
        for _ in range(seconds):
            more = {"generation_tokens": tokens, "prompt_tokens": prompts, "requests_finished": 5.0}
            for name, count in more.items():
                self.counters[name] += count * after
            found = self.watched.read(self.page(**gauges), after)
        return found

    def page(self, **gauges: Any) -> EngineReading:
        fields = {"running": 16.0, "waiting": 4.0, "kv_usage": 0.4, **gauges}
        view = EngineView(kind="vllm", process_start=self.start, counters=dict(self.counters), **fields)
        return EngineReading(engine=NAME, outcome=Outcome.OK, view=view)


def collapsed() -> Told:
    engine = Told()
    assert engine.run(60, 800.0) is None
    assert engine.run(25, 300.0) is not None
    return engine


def test_less_than_half_for_15_seconds_is_a_collapse_until_it_recovers() -> None:
    engine = Told()
    assert engine.run(61, 800.0) is None
    assert engine.run(14, 300.0) is None
    found = engine.run(6, 300.0)
    assert found is not None
    assert found.confirmed
    assert found.since == pytest.approx(engine.watched.clock.now().wall - 20.0, abs=5.0)
    assert found.evidence["part_of_own_level"] == pytest.approx(0.375)
    assert found.summary == (
        "it gives 300 tokens a second with 16 requests running and 4 waiting, 38 % of the 800 that its past lets expect"
    )
    assert engine.run(60, 500.0) is not None, "a little more is no end"
    assert engine.run(20, 700.0) is None


@pytest.mark.parametrize(
    "load",
    [
        {"tokens": 500.0},
        {"tokens": 300.0, "waiting": 0.0},
        {"tokens": 300.0, "running": 5.0},
        {"tokens": 300.0, "kv_usage": 0.9},
        {"tokens": 300.0, "prompts": 2000.0},
        {"tokens": 0.0},
    ],
    ids=["slower", "nobody waits", "fewer run", "long contexts", "prefill", "a hang"],
)
def test_what_is_load_or_somebody_elses_matter(load: dict[str, float]) -> None:
    engine = Told()
    engine.run(60, 800.0)
    assert engine.run(60, **load) is None


def test_a_larger_batch_than_ever_is_measured_by_what_a_smaller_one_gave() -> None:
    engine = Told()
    engine.run(60, 800.0)
    assert engine.run(60, 700.0, running=64.0, kv_usage=0.9) is None
    assert engine.run(60, 350.0, running=64.0, kv_usage=0.9) is not None


@pytest.mark.parametrize(
    "scene", ["restart", "reset", "asleep", "gone", "nan", "stopped", "gap", "another load", "calm"]
)
def test_what_ends_it(scene: str) -> None:
    engine = collapsed()
    if scene == "restart":
        engine.start = 500.0
        assert engine.run(60, 300.0) is None, "of this life nothing better is known"
    elif scene == "reset":
        engine.counters = dict.fromkeys(engine.counters, 0.0)
        assert engine.run(1, 300.0) is None
    elif scene == "asleep":
        assert engine.run(1, 0.0, asleep=True) is None
    elif scene == "gone":
        del engine.counters["preemptions"]
        assert engine.watched.read_for(30, engine.page()) is None
    elif scene == "nan":
        assert engine.run(1, nan) is None
    elif scene == "stopped":
        assert engine.watched.live(EngineState.STOPPED) is None
    elif scene == "gap":
        assert engine.run(1, 300.0, after=120.0) is not None, "nobody saw it end"
        assert engine.run(25, 300.0) is not None
        assert engine.run(1, 800.0, after=120.0) is not None
        assert engine.run(25, 800.0) is None
    elif scene == "another load":
        assert engine.run(500, 300.0, prompts=5000.0) is not None, "it may still be true"
        assert engine.run(200, 300.0, prompts=5000.0) is None, "nobody will ever know"
    else:
        assert engine.run(25, 300.0, waiting=0.0) is None


def test_pages_that_say_nothing_change_nothing() -> None:
    engine = collapsed()
    engine.watched.read_for(20, failed())
    assert engine.watched.read(failed()) is not None
    bare = EngineReading(engine=NAME, outcome=Outcome.OK, view=EngineView(kind="vllm"))
    assert Watched(DETECTOR).read_for(60, bare) is None
    quiet = Told()
    assert quiet.watched.read_for(300, quiet.page()) is None
    trickle = Told()
    for _ in range(10):
        assert trickle.run(59, 0.0, prompts=0.0, running=0.0, waiting=0.0, kv_usage=0.0) is None
        assert trickle.run(1, 100.0, running=1.0, waiting=0.0) is None


def test_a_scheduler_under_any_load_does_not_collapse() -> None:
    engine, watched = Modelled(Shape(blocks=1500)), Watched(DETECTOR)
    for rate, prompt in ((3.0, 160.0), (9.0, 160.0), (25.0, 160.0), (4.0, 2000.0)):
        engine.prompt = prompt
        for _ in range(25):
            assert watched.read(engine.second(rate)) is None


@pytest.mark.parametrize("fault", ["slow_step", "slow_prefill"])
def test_a_scheduler_whose_steps_take_longer_does(fault: str) -> None:
    engine, watched = Modelled(), Watched(DETECTOR)
    for second in range(90):
        watched.read(engine.second(5.0 if second < 40 else 11.0))
    engine.faults.set(fault, {"slow_step": 4.0, "slow_prefill": 40.0}[fault])
    found = [watched.read(engine.second(11.0)) is not None for _ in range(30)]
    assert any(found)


def test_parameters_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be less"):
        Params(collapsed=0.5, recovered=0.4)
