"""What a leak of KV blocks is, and what each kind of evidence says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from alerts.detectors.kv_leak import DETECTOR, Params
from opsboard.core.model import CanaryOutcome
from tests.support.block_engine import COUNTED, Engine, healthy, inflight, numbers
from tests.support.block_flow import Flow, Leak, Load, Shape
from tests.support.watched import Watched

if TYPE_CHECKING:
    from opsboard.core.model import Finding


# --- idle ---


def test_an_idle_engine_that_uses_blocks_has_lost_them() -> None:
    engine = healthy()
    assert engine.rests() is None
    clean = engine.clock.now()
    engine.works(50)
    engine.lost = 3
    assert engine.rests(2) is None
    found = engine.rests()
    assert found is not None
    assert not found.confirmed, "one idle moment, and the pages in it repeat each other"
    assert found.since == pytest.approx(clean.wall)
    assert numbers(found)["lost_blocks"] == 3.0
    assert numbers(found)["lost_tokens"] == 48.0
    assert numbers(found)["by"] == "idle: no request runs or waits"
    assert engine.asked, "a token would show whether that is true now"
    assert found.summary.startswith("has leaked 3 KV blocks in 53 s, 0.03 a finished request; the pool of 999 is exh")


def test_a_second_idle_moment_confirms_it() -> None:
    engine = healthy()
    engine.rests()
    engine.works(2)
    engine.lost = 1
    assert engine.rests() is None
    engine.works(2)
    found = engine.rests()
    assert found is not None
    assert found.confirmed
    assert found.summary.startswith("has leaked 1 KV block in ")


def test_a_canary_makes_an_idle_moment_of_its_own() -> None:
    engine = healthy()
    engine.rests()
    engine.works(2)
    engine.lost = 2
    engine.rests(3)
    engine.hear(CanaryOutcome.OK, 0.1)
    engine.steps += 1
    engine.begin()
    engine.end()
    found = engine.rests()
    assert found is not None
    assert found.confirmed


@pytest.mark.parametrize("running", [0, 1])
def test_an_engine_that_cannot_empty_its_prefix_cache_confirms_it(running: int) -> None:
    engine = healthy(Params(reset_prefix_cache=True))
    engine.rests()
    engine.works(50)
    engine.lost = 3
    found = engine.rests(3)
    assert found is not None
    assert not found.confirmed
    engine.begin(running)
    engine.seen()
    found = engine.hear(CanaryOutcome.OK, 0.1, reset=False)
    assert found is not None
    assert found.confirmed == (running == 0), "a request that runs holds blocks, too"
    assert found.evidence["reset_refused"] == (True if running == 0 else None)


def test_it_holds_while_it_is_true_and_closes_when_the_blocks_are_back() -> None:
    engine = healthy()
    engine.lost = 5
    engine.rests(3)
    assert engine.works(200) is not None
    engine.lost = 0
    assert engine.rests() is None
    assert engine.works(50) is None


def test_more_is_told_as_it_is_lost_and_how_fast() -> None:
    engine = healthy()
    engine.rests()
    found = None
    for _ in range(12):
        engine.works(30)
        engine.lost += 6
        found = engine.rests(3)
    evidence = numbers(found)
    assert evidence["lost_blocks"] == 72.0
    assert evidence["blocks_per_finished_request"] == pytest.approx(0.1)
    assert evidence["blocks_per_hour"] == pytest.approx(6 / 33 * 3600, rel=0.02)
    assert evidence["blocks_per_hour_low"] <= evidence["blocks_per_hour"] <= evidence["blocks_per_hour_high"]
    left_s = (999 - evidence["used_blocks"]) / evidence["blocks_per_hour"] * 3600
    assert evidence["exhausted_in_s"] == pytest.approx(left_s, rel=0.05)
    assert evidence["exhausted_in_s_low"] <= evidence["exhausted_in_s"] <= evidence["exhausted_in_s_high"]


def test_blocks_that_were_taken_before_any_request_are_reserved() -> None:
    engine = Engine()
    engine.lost = 4
    assert engine.rests(5) is None
    assert engine.works() is None
    assert engine.rests(5) is None
    engine.lost = 6
    found = engine.rests(3)
    assert numbers(found)["lost_blocks"] == 2.0


def test_an_engine_that_leaked_before_we_came_is_suspected_until_it_leaks_more() -> None:
    engine = Engine()
    engine.counters = dict.fromkeys(COUNTED, 500.0)
    engine.steps, engine.lost = 9000.0, 40
    found = engine.rests(3)
    assert found is not None
    assert not found.confirmed
    engine.works(5)
    engine.lost = 45
    engine.rests()
    engine.works(5)
    found = engine.rests(3)
    assert found is not None
    assert found.confirmed


# --- tokens ---


def test_on_an_engine_that_works_the_tokens_explain_too_little() -> None:
    engine = healthy()
    engine.lost = 10
    found = engine.works(6)
    assert numbers(found)["by_tokens_blocks"] >= 2.0
    assert found is not None
    assert not found.confirmed
    assert numbers(found)["lost_blocks"] <= 10.0


def test_requests_whose_clients_went_away_hide_it_until_it_is_quiet() -> None:
    engine = healthy()
    for _ in range(10):
        engine.begin(2)
        engine.seen()
        engine.leave(2)
    engine.lost = 30
    assert engine.works(10) is None, "they may hold that"
    found = engine.rests(3)
    assert numbers(found)["lost_blocks"] == 30.0


def test_one_request_alone_shares_with_nobody() -> None:
    engine = healthy()
    engine.begin()
    engine.seen()
    for _ in range(10):
        engine.begin(2)
        engine.seen()
        engine.leave(2)
    engine.seen(2)  # one is left: it holds no more than what is used
    engine.lost, found = 30, None
    for _ in range(20):
        engine.begin(2)
        found = engine.seen()
        engine.end(2)
    assert numbers(found)["by_tokens_blocks"] >= 20.0


def test_a_model_that_holds_more_than_its_tokens_is_not_judged_by_them() -> None:
    engine = Engine()
    engine.rests()
    for _ in range(50):
        engine.begin(2)
        assert engine.seen(kv_usage=engine.running * 20 / 999) is None
        engine.end(2)
    assert engine.rests(5) is None


def test_a_leak_from_the_first_request_shows_where_the_engine_says_how_it_counts() -> None:
    for told in (True, False):
        engine, found = Engine(), None
        for _ in range(30):
            engine.begin(2)
            found = engine.seen(kv_capacity_tokens=16000.0 if told else None)
            engine.end(2)
            engine.lost += 2
        assert (found is not None) == told, "else it may be how its requests hold blocks"


# --- requests ---


def test_with_the_requests_known_one_block_is_enough() -> None:
    engine = Engine()
    engine.rests()
    found = None
    for second in range(40):
        engine.lost = int(second >= 20)
        engine.begin(2)
        engine.inflight = inflight(2)
        found = engine.seen()
        assert found is None or second >= 24
        engine.end(2)
    assert found is not None
    assert found.confirmed
    assert numbers(found)["by_requests_blocks"] == 1.0
    assert found.since == pytest.approx(engine.clock.now().wall - 19.0, abs=1.0)


def test_requests_of_another_moment_say_nothing() -> None:
    engine = Engine()
    engine.rests()
    for _ in range(40):
        engine.begin(2)
        engine.inflight = inflight(1)  # two run
        assert engine.seen() is None
        engine.end(2)


def test_those_that_wait_hold_nothing() -> None:
    engine = Engine()
    engine.rests()
    found = None
    for second in range(60):
        engine.lost = 4 * (second >= 30)
        engine.begin(2)
        engine.inflight = inflight(2 + 30)
        found = engine.seen(waiting=30.0)
        engine.end(2)
    assert numbers(found)["by_requests_blocks"] == 4.0


# --- in traffic ---


def judged(load: Load, leak: Leak | None, seconds: int, seed: int = 1) -> tuple[Flow, float | None, Finding | None]:
    """Return when (s) something was claimed first, and what."""
    flow, engine = Flow(load, seed, leak, Shape(blocks=40_000)), Watched(DETECTOR)
    for now in flow.seconds(seconds):
        found = engine.read(now.reading)
        if found is not None:
            return flow, now.second, found
    return flow, None, None


def test_one_block_a_request_is_suspected_by_drift_on_an_engine_that_is_never_idle() -> None:
    flow, at, found = judged(Load(), Leak(share=1.0, begins=120.0), 600)
    assert at is not None
    assert at - 120.0 <= 300.0
    assert found is not None
    assert not found.confirmed
    assert 8 <= numbers(found)["lost_blocks"] <= flow.leaked
    assert numbers(found)["blocks_per_finished_request"] == pytest.approx(1.0, rel=0.5)
    assert found.evidence["by"] == "drift: between clients that went away more are used from stretch to stretch"


def test_parameters_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="lease"):
        Params(lease_s=0.5)
    engine = healthy(Params(blocks=5))
    engine.lost = 4
    assert engine.rests(5) is None
    engine.works(1)
    engine.lost = 5
    engine.rests()
    engine.works(1)
    assert engine.rests(3) is not None
