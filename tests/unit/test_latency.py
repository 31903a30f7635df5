"""The latency detector on made-up pages and recordings: what it finds, dates, names and compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alerts.base import Observation
from alerts.detectors.latency import DETECTOR, Params
from opsboard.core.model import EngineState, Event, Finding, GpuProcess, GpuView, HostView, LifeView
from tests.proving.builds import Load
from tests.proving.fluid_engine import FluidEngine
from tests.proving.latency_days import BUILDS, run
from tests.support.paced_engine import WALL, Engine, first
from tests.support.replay import replay

RECORDINGS = Path(__file__).parents[1] / "fixtures/recordings"


@pytest.fixture
def engine() -> Engine:
    """Return one that has worked for five minutes."""
    return Engine().worked()


# --- found ---


@pytest.mark.parametrize(("slow", "within"), [(1.15, 120), (1.30, 30)])
def test_slow_steps_are_found_dated_and_over_when_they_are(engine: Engine, slow: float, within: int) -> None:
    began = WALL + engine.t
    engine.slow = slow
    after, finding = first(engine.run(200))
    assert after <= within
    assert finding.since == pytest.approx(began, abs=3)
    assert finding.evidence["of"] == "token"
    assert finding.evidence["ratio"] == pytest.approx(slow, abs=0.04)
    assert not finding.confirmed
    later = [found for found in engine.run(120) if found]
    assert len(later) == 120, "it holds"
    assert later[-1].confirmed
    assert {found.since for found in later} == {finding.since}
    engine.slow = 1.0
    assert engine.live(60) is None


def test_slow_prompts_are_found(engine: Engine) -> None:
    engine.slow_prefill = 3.0
    _, finding = first(engine.run(400))
    assert finding.evidence["of"] in {"prefill", "token"}
    assert engine.live(200)
    engine.slow_prefill = 1.0
    assert engine.live(200) is None


def test_slow_prompts_of_an_engine_that_decodes_little_are_found() -> None:
    engine = Engine()
    assert engine.quiet(600, batch=1.0, rate=1.5)
    engine.slow_prefill = 2.5
    _, finding = first(engine.run(400, batch=1.0, rate=1.5))
    assert "take" in finding.summary
    assert "longer than this load explains" in finding.summary


def test_readings_every_five_seconds_do_as_well(engine: Engine) -> None:
    engine.slow = 1.3
    after, _ = first(engine.run(200, every=5.0))
    assert after * 5 <= 60


def test_only_one_of_ten_steps_is_slow_and_that_is_found(engine: Engine) -> None:
    engine.slow = 0.9 + 0.1 * 4.0
    first(engine.run(60))


def test_what_fades_in_over_an_hour_is_found() -> None:
    engine = Engine()
    assert engine.quiet(1800)
    found = None
    for minute in range(60):
        engine.slow = 1.0 + 0.2 * minute / 60
        found = engine.live(60)
    assert found is not None


# --- compared over lives ---


def test_a_restart_keeps_what_is_normal(engine: Engine) -> None:
    engine.restart()
    assert engine.quiet(120)
    engine.slow = 1.3
    after, _ = first(engine.run(60))
    assert after <= 30


def test_a_slower_version_is_said_to_be_slower_since_the_change(engine: Engine) -> None:
    engine.restart()
    engine.slow = 1.18
    engine.extra = {"version": None}
    assert engine.quiet(5), "the version is asked for a little later"
    engine.extra = {"version": "0.33.0"}
    _, finding = first(engine.run(200))
    assert "since the change from version 0.32.0 to 0.33.0" in finding.summary
    assert finding.since == pytest.approx(engine.born, abs=1.5)
    assert finding.confirmed
    assert finding.evidence["event"] == "upgrade"
    assert (finding.evidence["version_before"], finding.evidence["version"]) == ("0.32.0", "0.33.0")


def test_a_slower_configuration_is_named() -> None:
    engine = Engine()
    engine.extra = {"config": {"cache_dtype": "auto", "block_size": "16"}}
    assert engine.quiet(300)
    engine.restart()
    engine.slow = 1.3
    engine.extra = {"config": {"cache_dtype": "fp8", "block_size": "16"}}
    _, finding = first(engine.run(200))
    assert "cache_dtype auto → fp8" in finding.summary
    assert finding.evidence["event"] == "configuration"


def test_another_model_is_another_matter(engine: Engine) -> None:
    engine.restart()
    engine.slow, engine.extra = 2.0, {"model": "larger"}
    assert engine.quiet(300)


def test_a_model_swapped_in_place_is_another_matter_and_ends_a_claim(engine: Engine) -> None:
    engine.slow = 1.5
    assert engine.live(60)
    engine.extra = {"model": "other"}
    assert engine.quiet(120)


def test_a_claim_stands_over_a_restart_until_it_is_judged_again(engine: Engine) -> None:
    engine.slow = 1.3
    before = engine.live(60)
    assert before
    engine.restart()
    stands = engine.live(15)
    assert stands
    assert stands.since == before.since
    engine.slow = 1.0
    assert engine.live(120) is None


def test_a_claim_ends_when_a_person_stops_the_engine(engine: Engine) -> None:
    engine.slow = 1.3
    assert engine.live(60)
    engine.seen["life"] = LifeView(engine="a", state=EngineState.STOPPED, since=0.0, supervised=True)
    assert engine.live(1) is None
    engine.seen["life"] = LifeView(engine="a", state=EngineState.READY, since=0.0, supervised=True)
    assert engine.live(60), "what is normal is still known"


def test_what_is_new_normal_for_a_week_is_normal() -> None:
    engine = Engine(Params(adopt_s=300.0))
    assert engine.quiet(300)
    engine.slow = 1.3
    assert engine.live(100)
    assert engine.live(400) is None
    assert engine.quiet(300)


def test_an_engine_that_got_faster_is_compared_with_that(engine: Engine) -> None:
    engine.slow = 0.7
    assert engine.quiet(600)
    engine.slow = 0.7 * 1.3
    first(engine.run(120))


# --- what moved beside it ---


def card(**fields: Any) -> GpuView:
    """Return the engine's GPU."""
    return GpuView(**{"index": 0, "uuid": "GPU-1", "processes": (GpuProcess(pid=10, engine="a"),), **fields})


def with_gpu(**sick: Any) -> Finding:
    """Return what is claimed when steps slow down and a GPU changes with them."""
    engine = Engine()
    engine.seen["gpus"] = (card(sm_clock_mhz=1980.0, throttle=()),)
    assert engine.quiet(300)
    engine.slow = 1.3
    engine.seen["gpus"] = (card(**{"sm_clock_mhz": 1980.0, "throttle": (), **sick}),)
    found = engine.live(60)
    assert found
    assert found.confirmed
    return found


def test_a_slow_clock_is_named() -> None:
    found = with_gpu(sm_clock_mhz=1410.0)
    assert found.evidence["cause"] == "sm_clock_mhz"
    assert "SM clock fell from 19" in found.summary


def test_throttling_is_named() -> None:
    found = with_gpu(throttle=("hw_thermal",))
    assert found.evidence["cause"] == "throttle"
    assert "GPU 0 throttles (hw_thermal)" in found.summary


def test_somebody_who_came_to_the_gpu_is_named() -> None:
    guest = GpuProcess(pid=77, name="train.py")
    found = with_gpu(processes=(GpuProcess(pid=10, engine="a"), guest))
    assert found.evidence["cause"] == "co_tenant"
    assert "train.py (pid 77) came to GPU 0" in found.summary


def test_somebody_who_was_always_there_is_not_named() -> None:
    both = (GpuProcess(pid=10, engine="a"), GpuProcess(pid=77, name="train.py"))
    engine = Engine()
    engine.seen["gpus"] = (card(processes=both),)
    assert engine.quiet(300)
    engine.slow = 1.3
    found = engine.live(60)
    assert found
    assert found.evidence["cause"] is None


def test_a_busy_host_is_named(engine: Engine) -> None:
    engine.seen["host"] = HostView(cpu_ratio=0.3)
    assert engine.quiet(100)
    engine.slow, engine.seen["host"] = 1.3, HostView(cpu_ratio=0.98)
    found = engine.live(60)
    assert found
    assert found.evidence["cause"] == "host_cpu_ratio"


def test_rejected_drafts_cost_tokens_and_are_named() -> None:
    engine = Engine()

    def speculate(accepted: float) -> None:
        """Each gap of 10 ms brings one token and what is accepted of three drafts."""
        before = dict(engine.counters)
        engine.work(1.0, 8.0 * engine.random.uniform(0.75, 1.25), 2.0)
        gaps = engine.counters["generation_tokens"] - before["generation_tokens"]
        engine.counters["spec_draft_tokens"] += 3 * gaps
        engine.counters["spec_accepted_tokens"] += 3 * gaps * accepted
        engine.counters["generation_tokens"] += 3 * gaps * accepted

    engine.extra = {"spec_tokens": 3}
    found = []
    for second in range(400):
        speculate(0.7 if second < 300 else 0.4)
        found.append(engine.judge(engine.view(8.0)))
    assert found[:300] == [None] * 300
    last = found[-1]
    assert last
    assert last.evidence["cause"] == "draft_acceptance"
    assert "accepted drafts fell from 70% to 4" in last.summary


def test_an_event_beside_it_is_told(engine: Engine) -> None:
    engine.slow = 1.3
    told = Event(t=WALL + engine.t - 5, subject="gpu/GPU-1", kind="xid", text="GPU 0: Xid 63")
    ours = Event(t=WALL + engine.t, subject="engine/a", kind="stall", text="no progress")
    engine.seen["events"] = (told, ours)
    found = engine.live(60)
    assert found
    assert "GPU 0: Xid 63" in found.summary
    assert found.evidence["event"] == "xid"


# --- recorded, and simulated ---


def recorded(name: str) -> list[tuple[float, Finding | None]]:
    """Return what is claimed at each reading of a recording, by Unix seconds."""
    state, found = DETECTOR.begin(Params()), []
    for now, page, _ in replay(RECORDINGS / f"{name}.jsonl.xz"):
        state, claim, *_ = DETECTOR.step(state, Observation(engine="a", now=now, reading=page))
        found.append((now.wall, claim))
    return found


def test_a_real_engine_that_slows_down_for_two_minutes_is_found_in_one() -> None:
    labels = json.loads((RECORDINGS / "slow_20pct-3.labels.json").read_text())["labels"]
    times = {row["kind"]: row["t"] for row in labels}
    claims = [(t, claim) for t, claim in recorded("slow_20pct-3") if claim]
    opened, finding = claims[0]
    assert times["fault"] < opened <= times["fault"] + 60
    assert finding.since == pytest.approx(times["fault"], abs=3)
    assert finding.evidence["ratio"] == pytest.approx(1.18, abs=0.04)
    assert claims[-1][0] <= times["end"] + 60
    assert len(claims) == pytest.approx(claims[-1][0] - opened, abs=3), "one claim, without a break"


@pytest.mark.parametrize("name", ["healthy_mix-2", "hang-4", "leak_slow_busy-5", "leak_tiny_idle-1"])
def test_other_recordings_of_a_real_engine_have_nothing(name: str) -> None:
    assert not [claim for _, claim in recorded(name) if claim]


def test_hours_of_a_simulated_engine() -> None:
    score = run(BUILDS[0], 13, 3600, faults_from=1200.0)
    assert score.false == []
    assert score.missed == score.unjudged == {}
    assert max(score.found["slow_step 1.3"]) <= 60
    assert max(score.found["slow_step 1.15"]) <= 180


def test_the_simulated_engine_does_what_the_load_says() -> None:
    engine, load = FluidEngine(BUILDS[0], 1), Load(rate=3.0, prompt=300.0, output=150.0)
    view = [engine.second(load) for _ in range(600)][-1]
    assert view.counters["requests_completed"] == pytest.approx(1800, rel=0.1)
    assert view.counters["generation_tokens"] / view.counters["requests_begun"] == pytest.approx(190, rel=0.1)
