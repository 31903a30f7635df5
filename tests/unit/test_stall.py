"""What a stall is, and all that looks like one."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from alerts.detectors.stall import DETECTOR, Params
from opsboard.core.inflight import InflightRequest
from opsboard.core.model import CanaryOutcome, EngineState, GpuProcess, GpuView
from tests.support.watched import Watched, failed, page, process

WORKS = {"running": 6.0, "kv_usage": 0.15}


def busy(seconds: int = 20, params: Params | None = None) -> Watched:
    """Return an engine after some seconds of healthy work, 60 steps each."""
    engine = Watched(DETECTOR, params)
    for n in range(seconds):
        assert engine.read(page(1000 + 60 * n, **WORKS)) is None
    assert engine.asked == []
    return engine


def last(engine: Watched, **gauges: float) -> Any:
    """Return the page of an engine that hangs from now on."""
    assert engine.last is not None
    assert engine.last.view is not None
    return page(engine.last.view.counters["iterations"], **{**WORKS, **gauges})


def test_requests_run_and_nothing_moves() -> None:
    engine = busy()
    hung = last(engine)
    began = engine.clock.now()
    assert engine.read_for(4, hung) is None
    assert engine.asked == []
    assert engine.read_for(6, hung) is None
    assert engine.asked == [pytest.approx(25.0)], "once, at 5 s"
    found = engine.hear(CanaryOutcome.TIMEOUT)
    assert found is not None
    assert found.confirmed
    assert engine.clock.now().mono - began.mono <= 15.0
    assert found.since == began.wall
    assert found.evidence["predicate"] == "H1"
    assert found.evidence["running"] == 6.0
    assert found.evidence["no_progress_s"] == 10.0
    assert found.summary == (
        "requests run and no step ends: no progress for 10 s with 6 running and 0 waiting; "
        "a one-token request got no answer within 5.0 s"
    )


def test_requests_wait_and_none_is_admitted() -> None:
    engine = busy()
    wedged = last(engine, running=0.0, waiting=4.0, kv_usage=0.0)
    engine.read_for(11, wedged)
    found = engine.hear(CanaryOutcome.TIMEOUT)
    assert found is not None
    assert found.confirmed
    assert found.evidence["predicate"] == "H2"


def test_requests_are_known_elsewhere_while_the_page_says_idle() -> None:
    engine = busy()
    idle = last(engine, running=0.0, kv_usage=0.0)
    assert engine.read_for(600, idle) is None
    assert engine.asked == []
    engine.inflight = tuple(InflightRequest(id=str(n), prompt_tokens=8) for n in range(2))
    assert engine.read_for(12, idle) is None, "time without work does not count"
    assert len(engine.asked) == 1
    found = engine.hear(CanaryOutcome.TIMEOUT)
    assert found is not None
    assert found.evidence["predicate"] == "H3"


def test_an_idle_engine_that_gives_no_token_has_to_fail_twice() -> None:
    engine = busy(params=Params(idle_canary_s=60.0))
    idle = last(engine, running=0.0, kv_usage=0.0)
    assert engine.read_for(62, idle) is None
    assert len(engine.asked) == 1
    engine.hear(CanaryOutcome.TIMEOUT)
    found = engine.read_for(16, idle)
    assert found is not None
    assert not found.confirmed
    assert len(engine.asked) == 2
    found = engine.hear(CanaryOutcome.TIMEOUT)
    assert found is not None
    assert found.confirmed
    assert found.evidence["predicate"] == "H4"
    assert engine.hear(CanaryOutcome.OK) is None


def idle(engine: Watched) -> Any:
    """Return the page of an engine without work, and let it be idle for a while."""
    at_rest = last(engine, running=0.0, kv_usage=0.0)
    assert engine.read_for(600, at_rest) is None
    return at_rest


def test_a_hang_that_began_while_it_was_idle_is_found_by_who_waits() -> None:
    engine = busy()
    at_rest = idle(engine)
    engine.connected = [engine.elapsed]
    began = engine.elapsed
    assert engine.read_for(6, at_rest) is None
    assert engine.asked == [began + 6.0]
    engine.read_for(4, at_rest)
    found = engine.hear(CanaryOutcome.TIMEOUT, after=1.0)
    assert found is not None
    assert found.confirmed
    assert engine.elapsed - began <= 13.0
    assert found.evidence["predicate"] == "H3c"
    assert found.evidence["connections"] == 1.0
    assert found.since == engine.clock.now().wall - 11.0, "not since the last token, hours ago"
    assert found.summary.startswith("somebody is connected and no step begins: no progress for 10 s with 0 running and")
    engine.connected = []
    found = engine.read_for(5, at_rest)
    assert found is not None
    assert found.confirmed, "that who waited gave up does not mend it"
    assert engine.read(page(9000)) is None


def test_who_is_connected_to_a_healthy_engine_costs_a_token_a_minute() -> None:
    engine = busy()
    at_rest = idle(engine)
    engine.connected = [engine.elapsed, engine.elapsed]
    for _ in range(3600):
        before = len(engine.asked)
        assert engine.read(at_rest) is None
        if len(engine.asked) > before:
            assert engine.hear(CanaryOutcome.OK, 0.1) is None
    assert 55 <= len(engine.asked) <= 61


def test_a_connection_that_comes_after_an_answer_is_asked_about_soon() -> None:
    engine = busy()
    at_rest = idle(engine)
    engine.connected = [engine.elapsed]
    engine.read_for(6, at_rest)
    engine.hear(CanaryOutcome.OK, 0.1)
    engine.read_for(10, at_rest)
    engine.connected.append(engine.elapsed)
    began = engine.elapsed
    engine.read_for(6, at_rest)
    assert engine.asked[-1] == began + 6.0
    engine.read_for(5, at_rest)
    found = engine.hear(CanaryOutcome.TIMEOUT)
    assert found is not None
    assert found.confirmed


def test_an_answer_on_an_idle_engine_delays_no_later_doubt() -> None:
    engine = busy()
    at_rest = idle(engine)
    engine.connected = [engine.elapsed]
    engine.read_for(6, at_rest)
    engine.hear(CanaryOutcome.OK, 0.1)
    engine.read_for(5, last(engine, running=1.0))
    assert engine.read_for(5, last(engine, running=1.0)) is None
    assert len(engine.asked) == 2


@pytest.mark.parametrize("kept", [None, ()], ids=["nobody looks", "nobody is connected"])
def test_an_idle_engine_to_which_nobody_is_connected_is_not_asked(kept: tuple[float, ...] | None) -> None:
    engine = busy()
    engine.connected = None if kept is None else list(kept)
    idle(engine)
    assert engine.asked == []


def test_connections_that_the_server_closes_when_they_are_idle_cost_nothing() -> None:
    engine = busy()
    at_rest = idle(engine)
    for _ in range(60):
        engine.connected = [engine.elapsed]
        engine.read_for(5, at_rest)
        engine.connected = []
        engine.read_for(1, at_rest)
    assert engine.asked == []


def test_who_waits_while_kernels_are_compiled_waits_for_that() -> None:
    engine = Watched(DETECTOR)
    engine.read(page(0))
    engine.connected = [engine.elapsed]
    assert engine.read_for(299, page(0)) is None
    assert engine.asked == []
    engine.read_for(6, page(0))
    assert len(engine.asked) == 1


def test_connections_alone_are_no_claim() -> None:
    engine = busy()
    at_rest = idle(engine)
    engine.connected = [engine.elapsed]
    assert engine.read_for(600, at_rest) is None, "nobody can ask it"
    assert engine.asked


def test_a_page_that_stirs_is_a_sign_of_life() -> None:
    engine = busy()
    at_rest = idle(engine)
    engine.connected = [engine.elapsed]
    engine.read_for(4, at_rest)
    engine.read(last(engine, running=1.0, kv_usage=0.1))
    engine.read_for(5, at_rest)
    assert engine.asked == [], "it was admitted, and left"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"suspect_s": 20.0}, "`confirm` (10 s) must not be shorter than `suspect` (20 s)"),
        ({"again_s": 0.0}, "`again`: expected at least 1s"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        Params(**wrong)


def test_without_any_canary_time_alone_speaks() -> None:
    engine = busy()
    hung = last(engine)
    assert engine.read_for(11, hung) is None
    found = engine.read(hung)
    assert found is not None
    assert not found.confirmed
    found = engine.read_for(107, hung)
    assert found is not None
    assert not found.confirmed
    found = engine.read(hung)
    assert found is not None
    assert found.confirmed
    assert len(engine.asked) == 12, "every 10 s: somebody may begin to listen"


def test_a_canary_that_cannot_be_sent_says_nothing() -> None:
    engine = busy()
    engine.read_for(6, last(engine))
    engine.hear(CanaryOutcome.UNABLE, 0.0)
    assert engine.read_for(6, last(engine)) is not None


def test_progress_closes_it() -> None:
    engine = busy()
    assert engine.read_for(15, last(engine)) is not None
    assert engine.read(page(9000, **WORKS)) is None


@pytest.mark.parametrize(
    "outcome", [CanaryOutcome.OK, CanaryOutcome.SATURATED, CanaryOutcome.ASLEEP, CanaryOutcome.REFUSED]
)
def test_an_answer_refutes_and_canaries_become_rarer(outcome: CanaryOutcome) -> None:
    engine = busy()
    stuck = last(engine, running=1.0)
    for _ in range(300):
        before = len(engine.asked)
        assert engine.read(stuck) is None
        if len(engine.asked) > before:
            assert engine.hear(outcome, 0.1) is None
    assert [later - earlier for earlier, later in pairwise(engine.asked)] == [14.0, 24.0, 44.0, 64.0, 64.0, 64.0]


def test_a_canary_that_was_sent_before_the_last_step_says_nothing() -> None:
    engine = busy()
    hung = last(engine)
    engine.read_for(6, hung)
    engine.read(page(9000, **WORKS))
    engine.read_for(4, page(9000, **WORKS))
    assert engine.hear(CanaryOutcome.TIMEOUT, 5.0) is None
    assert engine.read_for(2, page(9000, **WORKS)) is None


def test_a_long_prefill_moves_kv_use_and_is_none() -> None:
    engine = busy()
    assert engine.last is not None
    for n in range(290):
        assert engine.read(last(engine, running=1.0, kv_usage=0.001 * n)) is None
    assert engine.asked == []


def test_a_prefill_without_end_is_asked_about() -> None:
    engine = busy()
    for n in range(310):
        engine.read(last(engine, running=1.0, kv_usage=0.3 + 0.01 * (n % 2)))
    assert engine.asked


def test_a_first_compile_may_take_minutes_and_not_for_ever() -> None:
    engine = Watched(DETECTOR)
    engine.read(page(0))
    engine.read(page(3, **WORKS))
    compiling = page(3, **WORKS)
    assert engine.read_for(299, compiling) is None
    assert engine.asked == []
    engine.read_for(6, compiling)
    assert len(engine.asked) == 1
    found = engine.hear(CanaryOutcome.TIMEOUT)
    assert found is not None
    assert found.confirmed


def test_an_engine_with_long_pauses_gets_twice_its_longest() -> None:
    engine = busy()
    engine.read_for(9, last(engine))
    engine.read(page(9000, **WORKS))
    assert engine.read_for(15, page(9000, **WORKS)) is None
    assert engine.hear(CanaryOutcome.TIMEOUT) is None
    assert engine.read_for(2, page(9000, **WORKS)) is None
    found = engine.read_for(2, page(9000, **WORKS))
    assert found is not None
    assert found.confirmed
    assert found.evidence["patience_s"] == 18.0


def test_a_pause_that_was_claimed_is_not_taken_for_normal() -> None:
    engine = busy()
    engine.read_for(40, last(engine))
    engine.read(page(9000, **WORKS))
    engine.read_for(11, page(9000, **WORKS))
    found = engine.hear(CanaryOutcome.TIMEOUT)
    assert found is not None
    assert found.confirmed


def test_sleeping_is_none() -> None:
    engine = busy()
    assert engine.read_for(300, last(engine, asleep=True)) is None
    assert engine.asked == []


RESTARTS = (EngineState.BACKING_OFF, EngineState.PARKED, EngineState.STOPPING, EngineState.STARTING)
AT_REST = (EngineState.STOPPED, EngineState.FAILED, EngineState.ASLEEP)


@pytest.mark.parametrize("state", [*RESTARTS, *AT_REST])
def test_only_a_serving_engine_stalls(state: EngineState) -> None:
    engine = busy()
    hung = last(engine)
    assert engine.live(state) is None
    assert engine.read_for(300, hung) is None


@pytest.mark.parametrize("state", AT_REST)
def test_a_stall_is_over_when_the_engine_shall_not_serve(state: EngineState) -> None:
    engine = busy()
    engine.live(EngineState.READY)
    assert engine.read_for(15, last(engine)) is not None
    hung = last(engine)
    assert engine.live(state) is None
    assert engine.read_for(300, hung) is None


@pytest.mark.parametrize("state", RESTARTS)
def test_a_stall_is_not_over_before_the_engine_serves_again(state: EngineState) -> None:
    engine = busy()
    engine.live(EngineState.READY)
    claim = engine.read_for(15, last(engine))
    assert claim is not None
    hung = last(engine)
    assert engine.live(state) == claim
    assert engine.read_for(300, hung) == claim
    assert engine.live(EngineState.READY) is None
    assert engine.read(page(7, start=500.0, **WORKS)) is None


def test_a_draining_engine_may_stall() -> None:
    engine = busy()
    hung = last(engine)
    engine.live(EngineState.DRAINING)
    engine.last = hung
    assert engine.read_for(15, hung) is not None


def test_failed_pages_say_nothing_of_progress() -> None:
    engine = busy()
    assert engine.read_for(600, failed()) is None
    assert engine.asked == []
    hung = page(1000 + 60 * 19, **WORKS)
    assert engine.read_for(3, hung) is None, "the gap is not counted"


def test_a_claim_stands_while_pages_cannot_be_read() -> None:
    engine = busy()
    claim = engine.read_for(15, last(engine))
    assert claim is not None
    found = engine.read_for(5, failed())
    assert found is not None
    assert found.since == claim.since


def test_pages_far_apart_say_nothing_of_the_time_between() -> None:
    engine = busy()
    hung = last(engine)
    assert engine.read(hung, after=3600.0) is None
    assert engine.read_for(4, hung) is None
    assert engine.asked == []


def test_one_pair_of_equal_pages_is_no_claim() -> None:
    engine = busy()
    hung = last(engine)
    assert engine.read(hung, after=15.0) is None
    assert engine.read(hung, after=15.0) is not None


def test_a_slow_interval_finds_it_too() -> None:
    engine = busy()
    hung = last(engine)
    engine.read(hung, after=15.0)
    assert len(engine.asked) == 1
    found = engine.hear(CanaryOutcome.TIMEOUT, after=5.0)
    assert found is not None
    assert found.confirmed


def test_a_restart_is_another_life() -> None:
    engine = busy()
    engine.read_for(15, last(engine))
    assert engine.read(page(1000 + 60 * 19, start=500.0, **WORKS)) is None
    assert engine.read_for(4, page(1000 + 60 * 19, start=500.0, **WORKS)) is None


def test_a_reset_counter_is_another_life() -> None:
    engine = busy()
    engine.read_for(15, last(engine))
    assert engine.read(page(2000, start=None, **WORKS)) is None
    assert engine.read(page(7, start=None, **WORKS)) is None


@pytest.mark.parametrize(
    "hung",
    [page(None, **WORKS), page(5000, running=None, waiting=None), page(5000, running=None, waiting=0.0)],
    ids=["no counters", "no demand told", "no running told"],
)
def test_what_is_missing_is_no_stall(hung: Any) -> None:
    engine = Watched(DETECTOR)
    assert engine.read_for(600, hung) is None
    assert engine.asked == []


def test_one_rank_of_a_page_without_steps_is_told_by_its_tokens() -> None:
    engine = Watched(DETECTOR)
    from opsboard.core.model import EngineReading, EngineView, Outcome

    view = EngineView(kind="sglang", running=2.0, counters={"generation_tokens": 5000.0})
    hung = EngineReading(engine="a", outcome=Outcome.OK, view=view)
    found = engine.read_for(15, hung)
    assert found is not None
    assert "an unknown number waiting" in found.summary


def test_the_evidence_says_what_its_gpu_and_its_core_do() -> None:
    from alerts.base import Observation

    engine = busy()
    engine.look(process(2, "engine_core"))
    engine.read_for(15, last(engine))
    assert engine.last is not None
    ours = GpuView(index=0, uuid="G0", utilization=1.0, processes=(GpuProcess(pid=2, engine="a"),))
    other = GpuView(index=1, uuid="G1", utilization=0.3, processes=(GpuProcess(pid=9, engine="b"),))
    now = engine.clock.advance(1.0)
    seen = Observation(
        engine="a", now=now, reading=engine.last, processes=(process(2, "engine_core"),), gpus=(ours, other)
    )
    found = DETECTOR.step(engine.state, seen).finding
    assert found is not None
    assert found.evidence["gpu_utilization"] == 1.0
    assert found.evidence["engine_core_cpu_ratio"] == 1.0
