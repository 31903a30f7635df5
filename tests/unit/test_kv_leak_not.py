"""What looks like a leak of KV blocks and is none, and bad pages."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from alerts.detectors.kv_leak import DETECTOR
from opsboard.core.model import CanaryOutcome, EngineReading, EngineState, EngineView, Outcome, RankView
from tests.support.block_engine import COUNTED, SIZE, Engine, healthy, inflight, numbers
from tests.support.block_flow import Flow, Load, Shape
from tests.support.watched import Watched, failed


def test_requests_that_wait_for_more_input_hold_what_they_have() -> None:
    engine = Engine()
    engine.rests()
    for _ in range(60):
        engine.begin(2)
        engine.inflight = inflight(3)
        used = (3 * 8) / 999
        assert engine.seen(waiting=1.0, kv_usage=used, gauges={"waiting_deferred": 1.0}) is None
        engine.end(2)


def test_a_hang_with_blocks_in_use_is_none() -> None:
    engine = healthy()
    engine.begin(2)
    hung = engine.page()
    assert engine.read_for(120, hung) is None


def test_requests_that_are_sent_anew_to_an_engine_that_hangs_are_no_measure() -> None:
    engine = Engine()
    engine.rests()
    for _ in range(20):
        engine.begin(2)
        engine.inflight = inflight(2)
        engine.seen()
        engine.end(2)
    engine.begin(2)
    engine.inflight = None
    engine.seen()
    engine.inflight = tuple(replace(one, prompt_tokens=5, generated_tokens=0) for one in inflight(2))
    assert engine.seen(60) is None


@pytest.mark.parametrize("lag", [0.0, 0.02, 0.1])
def test_who_sent_the_requests_may_be_a_little_behind(lag: float) -> None:
    engine = Watched(DETECTOR)
    for now in Flow(Load(), 1, None, Shape(blocks=40_000)).seconds(600, lag=lag):
        engine.inflight = now.inflight
        assert engine.read(now.reading) is None


def test_gauges_that_froze_when_all_clients_went_away_are_none() -> None:
    engine = healthy()
    engine.begin(50)
    stale = engine.page()
    engine.leave(50)
    assert engine.read_for(600, stale) is None
    engine.running = 0
    assert engine.rests(5) is None


@pytest.mark.parametrize("rested_s", [0, 300])
def test_a_connector_may_hold_blocks_for_others(rested_s: int) -> None:
    engine = healthy(kv_connectors=("nixl",))
    engine.lost = 20
    assert engine.works(50) is None
    assert engine.rests(5 + rested_s) is None
    engine.lost = 0
    assert engine.rests(5) is None
    assert engine.asked == []


def test_what_a_connector_holds_for_ever_is_lost() -> None:
    engine = healthy(kv_connectors=("nixl",))
    engine.lost = 20
    assert engine.rests(640) is None, "the gauge may be old"
    assert engine.asked
    engine.hear(CanaryOutcome.OK, 0.1)
    engine.begin()
    engine.end()
    found = engine.rests()
    assert found is not None
    assert found.confirmed
    assert numbers(found)["lost_blocks"] == 20.0


def test_another_life_begins_with_nothing_lost() -> None:
    for change in ({"process_start": 500.0}, {"model": "other"}):
        engine = healthy()
        engine.lost = 9
        assert engine.rests(3) is not None
        engine.fields |= change
        engine.counters, engine.steps, engine.lost = dict.fromkeys(COUNTED, 0.0), 0.0, 0
        assert engine.rests(3) is None
        assert engine.works() is None


def test_counters_that_fall_are_another_life_where_the_page_tells_no_start() -> None:
    engine = healthy(process_start=None)
    engine.lost = 9
    assert engine.rests(3) is not None
    engine.counters, engine.steps, engine.lost = dict.fromkeys(COUNTED, 1.0), 0.0, 0
    assert engine.rests(5) is None


def test_a_page_that_comes_late_changes_nothing() -> None:
    engine = healthy()
    engine.rests()
    late = engine.page()
    engine.works(5)
    engine.lost = 9
    found = engine.rests(3)
    assert found is not None
    assert engine.read(late, after=0.5) is not None
    assert engine.rests() is not None


def test_one_that_is_stopped_or_asleep() -> None:
    engine = healthy()
    engine.live(EngineState.READY)
    engine.lost = 9
    assert engine.rests(3) is not None
    engine.fields["asleep"] = True
    assert engine.rests(3) is not None, "nothing is known of it while it sleeps"
    engine.fields["asleep"] = False
    assert engine.rests(3) is not None
    assert engine.live(EngineState.STOPPING) is None
    assert engine.live(EngineState.READY, started=2.0) is None


@pytest.mark.parametrize("gap_s", [5, 30, 120])
def test_pages_far_apart(gap_s: int) -> None:
    engine = healthy()
    for _ in range(20):
        engine.clock.advance(gap_s)
        assert engine.works(1) is None
        engine.clock.advance(gap_s)
        assert engine.rests() is None
    engine.lost, found = 4, None
    for _ in range(2):
        engine.clock.advance(gap_s)
        engine.works(1)
        engine.clock.advance(gap_s)
        found = engine.rests()
    assert numbers(found)["lost_blocks"] == 4.0


@pytest.mark.parametrize("step_s", [-3600.0, -5.0, 5.0, 3600.0])
def test_a_step_of_the_clock(step_s: float) -> None:
    engine = healthy()
    engine.step_clock(step_s)
    assert engine.works() is None
    assert engine.rests(3) is None
    engine.lost = 3
    before = engine.rests(3)
    assert before is not None
    engine.step_clock(step_s)
    found = engine.rests()
    assert found is not None
    assert found.since == before.since
    assert found.summary == "has leaked 3 KV blocks in 4 s"


def test_a_page_that_lacks_something_is_unknown() -> None:
    absent: tuple[dict[str, Any], ...] = (
        {"kv_usage": None}, {"kv_blocks": None}, {"kv_block_tokens": None}, {"running": None}, {"waiting": None},
        {"kv_usage": 0.12345},
    )  # fmt: skip
    for changes in absent:
        engine = Engine()
        engine.lost = 50
        assert engine.seen(20, **changes) is None
    engine = healthy()
    engine.lost = 50
    engine.rests(3)
    assert engine.read(failed()) is not None, "a page that cannot be read changes nothing"
    for name in COUNTED:
        del engine.counters[name]
        assert engine.rests() is not None


def test_a_page_without_counters_shows_idle_leaks_only() -> None:
    engine = Engine()
    engine.counters = {}
    engine.running = 2
    assert engine.seen(50) is None
    engine.lost = 5
    assert engine.seen(50) is None
    engine.running = 0
    assert numbers(engine.rests(3))["lost_blocks"] == 5.0


def test_ranks_are_counted_each_for_itself() -> None:
    engine = Engine()

    def page(lost: int) -> EngineReading:
        (first,) = engine.ranks()
        usage = (engine.running * 8 + lost) / 999
        second = RankView(
            rank="1", running=first.running, waiting=0.0, kv_usage=usage, kv_blocks=1000, kv_block_tokens=SIZE,
            counters=first.counters,
        )  # fmt: skip
        view = EngineView(kind="vllm", ranks=(first, second), process_start=100.0)
        return EngineReading(engine="a", outcome=Outcome.OK, view=view)

    for _ in range(20):
        engine.begin(2)
        assert engine.read(page(0)) is None
        engine.end(2)
        assert engine.read(page(0)) is None
    found = None
    for _ in range(3):
        found = engine.read(page(7))
    assert numbers(found)["lost_blocks"] == 7.0
    assert numbers(found)["rank"] == "1"
    assert numbers(found)["pool_blocks"] == 1998.0


@pytest.mark.parametrize("load", [
    Load(gone_every_s=200.0, burst_every_s=900.0),
    Load(prefix_share=0.9, prefixes=2, prefix_tokens=1024),
])  # fmt: skip
def test_no_load_is_a_leak(load: Load) -> None:
    engine = Watched(DETECTOR)
    for now in Flow(load, 1, None, Shape(blocks=40_000)).seconds(1200):
        assert engine.read(now.reading) is None


def test_hybrid_models_drift_by_nature_and_are_left_alone() -> None:
    flow, engine = Flow(Load(), 1, None, Shape(blocks=40_000, stretch=1.7)), Watched(DETECTOR)
    for now in flow.seconds(900):
        engine.inflight = now.inflight
        assert engine.read(now.reading) is None
