"""The latency detector on made-up pages: load is no regression, and bad input no claim."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from alerts.base import Observation
from alerts.detectors.latency import DETECTOR, Params
from opsboard.core.clock import Now
from opsboard.core.model import EngineReading, EngineView, Histogram, Outcome, RankView
from tests.support.paced_engine import WALL, Engine, first


@pytest.fixture
def engine() -> Engine:
    """Return one that has worked for five minutes."""
    return Engine().worked()


# --- not claimed: load ---


def test_more_load_is_no_regression(engine: Engine) -> None:
    for batch in (16.0, 30.0, 60.0, 90.0, 8.0):
        assert engine.quiet(120, batch=batch, rate=batch / 4)


def test_longer_prompts_are_no_regression(engine: Engine) -> None:
    assert engine.quiet(200, rate=30.0)
    assert engine.quiet(100)


def test_a_ramp_is_no_regression(engine: Engine) -> None:
    for second in range(300):
        assert engine.quiet(1, batch=8 + second / 4, rate=2 + second / 20)


def test_a_long_prompt_in_chunks_is_not_judged_before_it_is_counted(engine: Engine) -> None:
    """It takes 6 s, in which steps take 200 ms and no prompt token is counted: again and again."""
    for _ in range(10):
        for _ in range(6):
            engine.t += 1.0
            engine.gaps, engine.gap_s = engine.gaps + 5 * 8, engine.gap_s + 8.0
            engine.counters["iterations"] += 5
            engine.counters["generation_tokens"] += 40
            assert engine.judge(replace(engine.view(8.0), running=9.0)) is None
        engine.counters["prompt_tokens_computed"] += 150_000
        engine.counters["requests_begun"] += 1
        engine.counters["requests_completed"] += 1
        assert engine.quiet(4)


def test_preempted_requests_are_load(engine: Engine) -> None:
    for _ in range(120):
        engine.work(1.0, 8.0, 2.0)
        engine.gap_s += 5.0
        engine.counters["preemptions"] += 1
        assert engine.judge(replace(engine.view(8.0), waiting=3.0)) is None
    assert engine.quiet(120)


def test_a_stall_is_not_a_slow_token(engine: Engine) -> None:
    for _ in range(30):
        engine.t += 1.0
        assert engine.judge(engine.view(8.0)) is None
    engine.gap_s += 8 * 30.0
    assert engine.quiet(120)


def test_a_cold_start_is_not_judged(engine: Engine) -> None:
    engine.restart()
    engine.slow = 3.0
    assert engine.quiet(15)
    engine.slow = 1.0
    assert engine.quiet(120)


def test_a_first_life_that_warms_up_teaches_nothing_wrong() -> None:
    engine = Engine()
    engine.slow = 4.0
    assert engine.quiet(15)
    engine.slow = 1.0
    assert engine.quiet(200)
    engine.slow = 1.3
    after, _ = first(engine.run(60))
    assert after <= 30


# --- bad input ---


def test_a_counter_that_falls_is_another_life(engine: Engine) -> None:
    engine.counters["generation_tokens"] = 0.0
    assert engine.quiet(60)


def test_gaps_say_nothing(engine: Engine) -> None:
    for gap in (5, 30, 120, 60):
        engine.slow = 3.0
        engine.work(float(gap), 8.0, 2.0)
        engine.slow = 1.0
        assert engine.quiet(30)


def test_doubled_and_late_pages_change_nothing(engine: Engine) -> None:
    for _ in range(60):
        old = engine.view(8.0)
        engine.work(1.0, 8.0, 2.0)
        new = engine.view(8.0)
        for view in (new, new, old, new):
            assert engine.judge(view) is None


def test_a_late_page_that_comes_later_is_no_reason_either(engine: Engine) -> None:
    for _ in range(10):
        old = engine.view(8.0)
        assert engine.quiet(5)
        engine.t += 0.1
        assert engine.judge(old) is None
    assert engine.quiet(60)


def test_a_stepping_wall_clock_moves_only_the_date(engine: Engine) -> None:
    engine.slow = 1.3
    found = [engine.judge(engine.view(8.0), wall=WALL + engine.t + 5) for _ in engine.run(60)]
    assert engine.state.claim
    assert found


@pytest.mark.parametrize(
    "name", ["itl", "iterations", "generation_tokens", "requests_begun", "prefill", "kv", "waiting"]
)
def test_what_is_absent_makes_it_unknown_never_wrong(name: str) -> None:
    def without(view: EngineView) -> EngineView:
        return replace(
            view,
            counters={key: value for key, value in view.counters.items() if key != name},
            histograms={key: value for key, value in view.histograms.items() if key != name},
            kv_usage=None if name == "kv" else view.kv_usage,
            waiting=None if name == "waiting" else view.waiting,
        )

    engine = Engine()
    engine.change = without
    assert engine.quiet(300)
    engine.slow = 1.5
    found = engine.live(60)
    assert (found is None) == (name in {"itl", "iterations", "generation_tokens"})


def test_nan_is_no_number(engine: Engine) -> None:
    nan = Histogram(bounds=(math.inf,), counts=(math.nan,), total=math.nan)
    for _ in range(30):
        engine.work(1.0, 8.0, 2.0)
        view = engine.view(8.0)
        assert engine.judge(replace(view, histograms={"itl": nan})) is None
        assert engine.judge(replace(view, running=math.nan, kv_usage=math.nan)) is None
    assert engine.quiet(60)


def test_other_buckets_change_nothing(engine: Engine) -> None:
    def other(view: EngineView) -> EngineView:
        gap = view.histograms["itl"]
        return replace(
            view,
            histograms={
                **view.histograms,
                "itl": Histogram(bounds=(0.01, math.inf), counts=(0.0, *gap.counts), total=gap.total),
            },
        )

    engine.change = other
    assert engine.quiet(60)


def test_no_traffic_and_a_request_a_minute() -> None:
    engine = Engine()
    assert engine.quiet(300, batch=0.0, rate=0.0)
    for _ in range(120):
        assert engine.quiet(2, batch=1.0, rate=0.5)
        for _ in range(58):
            engine.t += 1.0
            assert engine.judge(engine.view(0.0)) is None


def test_ranks_on_one_page(engine: Engine) -> None:
    engine.extra = {"ranks": (RankView(rank="0"), RankView(rank="1"))}
    engine.restart()
    assert engine.quiet(300)
    engine.slow = 1.3
    first(engine.run(60))


def test_sleep_and_waking(engine: Engine) -> None:
    for _ in range(5):
        engine.t += 600.0
        assert engine.judge(replace(engine.view(0.0), asleep=True)) is None
        engine.slow = 2.0
        assert engine.quiet(15)
        engine.slow = 1.0
        assert engine.quiet(60)


def test_stale_gauges_do_not_matter_much(engine: Engine) -> None:
    engine.extra = {"running": 50.0, "kv_usage": 0.9}
    assert engine.quiet(120)


def test_pages_that_cannot_be_read_are_passed_over(engine: Engine) -> None:
    failed = EngineReading(engine="a", outcome=Outcome.FAILED)
    engine.slow = 1.3
    assert engine.live(60)
    step = DETECTOR.step(engine.state, Observation(engine="a", now=Now(wall=WALL, mono=engine.t + 1), reading=failed))
    assert step.finding is not None


@pytest.mark.parametrize("wrong", [{"patience_s": 0.0}, {"learn_s": 0.5}, {"memory_s": 0.0}])
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1s"):
        Params(**wrong)
