"""Whatever a page says, the latency detector breaks at nothing; and where nothing slows down, it claims nothing."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.base import Observation
from alerts.detectors.latency import DETECTOR, Params
from opsboard.core.canonical import COUNTERS
from opsboard.core.clock import Now
from opsboard.core.model import EngineReading, EngineView, Finding, Histogram, Outcome
from tests.support.paced_engine import Engine

numbers = st.floats() | st.floats(min_value=0, max_value=1e6) | st.integers(min_value=0, max_value=2000).map(float)
histograms = st.builds(
    lambda count, total: Histogram(bounds=(math.inf,), counts=(count,), total=total), numbers, st.none() | numbers
)
views = st.builds(
    EngineView,
    kind=st.just("vllm"),
    model=st.sampled_from([None, "a", "b"]),
    version=st.sampled_from([None, "1", "2"]),
    running=st.none() | numbers,
    waiting=st.none() | numbers,
    kv_usage=st.none() | numbers,
    kv_capacity_tokens=st.none() | numbers,
    asleep=st.sampled_from([None, False, True]),
    spec_tokens=st.sampled_from([None, 3]),
    process_start=st.sampled_from([None, 1.0, 100.0]),
    counters=st.dictionaries(st.sampled_from(COUNTERS), numbers),
    histograms=st.dictionaries(st.sampled_from(["itl", "prefill"]), histograms),
)


@given(st.lists(st.tuples(views, st.floats(min_value=-5, max_value=100)), max_size=30))
def test_no_page_breaks_it(pages: list[tuple[EngineView, float]]) -> None:
    state, mono = DETECTOR.begin(Params(learn_s=1.0, settle_s=0.0)), 0.0
    for view, passed in pages:
        mono += passed
        reading = EngineReading(engine="a", outcome=Outcome.OK, view=view)
        step = DETECTOR.step(state, Observation(engine="a", now=Now(wall=mono, mono=mono), reading=reading))
        assert step.finding is None or isinstance(step.finding, Finding)
        state = step.state


@given(st.lists(numbers, min_size=12, max_size=12), st.integers(min_value=30, max_value=60))
@settings(max_examples=30)
def test_no_jump_of_a_counter_breaks_one_that_has_learnt(jumps: list[float], at: int) -> None:
    engine = Engine(Params(learn_s=20.0, settle_s=0.0))
    names = list(engine.counters)
    for second, _ in enumerate(engine.run(100)):
        if second >= at and jumps:
            engine.counters[names[len(jumps) % len(names)]] += jumps.pop()


loads = st.tuples(st.floats(min_value=1, max_value=100), st.floats(min_value=0, max_value=20))


@given(st.lists(st.tuples(loads, st.integers(min_value=5, max_value=60)), max_size=12))
@settings(max_examples=25)
def test_no_load_is_a_regression(phases: list[tuple[tuple[float, float], int]]) -> None:
    engine = Engine().worked()
    for (batch, rate), seconds in phases:
        assert engine.quiet(seconds, batch=batch, rate=rate)
