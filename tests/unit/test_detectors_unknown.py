"""What detectors say of themselves where they do not judge: why, how far they have learnt, or that nothing is to be."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerts.detectors import slo_burn
from opsboard.config.detectors import Setting
from opsboard.config.schema import Slo
from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineReading, EngineState, EngineView, LifeView, Outcome, RankView
from opsboard.core.registry import detectors
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from tests.support.replay import replay
from tests.support.watched import failed, page

RECORDINGS = Path(__file__).parents[1] / "fixtures/recordings"
BY_PAGE = ("kv_leak", "latency", "preemption_storm", "stall", "throughput_collapse")


class Seen:
    """An engine under the shipped detectors."""

    def __init__(self, name: str = "a", slo: Slo | None = None) -> None:
        self.name = name
        self.clock = ManualClock()
        self.state = PipelineState("h", [EngineSpec(name=name, url="http://127.0.0.1:8001")])
        if slo is not None:
            promised = Setting(enabled=True, severity="page", params=slo_burn.Params(slo=slo))
            self.state.judging.configure({"slo_burn": promised})

    def read(self, reading: EngineReading | LifeView, after: float = 1.0) -> Mapping[str, tuple[str, str | None]]:
        feed(self.state, reading, self.clock.advance(after))
        return self.said()

    def said(self) -> Mapping[str, tuple[str, str | None]]:
        return {one.name: (one.state, one.reason) for one in self.state.judging.standing(self.name)}


def test_before_anything_is_read_no_detector_that_needs_a_page_judges() -> None:
    said = Seen().said()
    assert set(said) == set(detectors().found)
    assert {state for state, _ in said.values()} == {"unknown"}


def test_a_page_without_the_numbers_names_what_it_lacks() -> None:
    view = EngineView(kind="ollama", running=1.0)
    said = Seen().read(EngineReading(engine="a", outcome=Outcome.OK, view=view))
    lacks = "waiting, kv_usage, generation_tokens, prompt_tokens, preemptions, requests_finished"
    assert said["preemption_storm"] == ("unknown", f"its page does not tell {lacks}")
    assert said["throughput_collapse"] == said["preemption_storm"]
    assert said["latency"] == ("unknown", "its page does not tell how long tokens take, iterations, generation_tokens")
    kv_lacks = "kv_usage, kv_blocks, kv_block_tokens, running, waiting"
    assert said["kv_leak"] == ("unknown", f"its page does not tell {kv_lacks}")
    assert said["stall"] == ("unknown", "its page counts neither steps nor generated tokens")
    assert said["engine_down"] == ("judging", None)
    assert said["gpu_fault"] == ("off", "no GPU is seen here")
    assert said["slo_burn"] == ("off", "no objective is set in [slo]")


def ranked(used: float, *, running: float = 0.0, **more: Any) -> EngineReading:
    """Return a page of an engine with 100 blocks for requests."""
    rank = RankView(
        rank="0", running=running, waiting=0.0, kv_usage=used / 100, kv_blocks=101, kv_block_tokens=16,
        counters={"iterations": used},
    )  # fmt: skip
    view = EngineView(kind="vllm", running=running, waiting=0.0, kv_usage=used / 100, ranks=(rank,), **more)
    return EngineReading(engine="a", outcome=Outcome.OK, view=view)


def test_blocks_that_others_may_hold_or_tokens_do_not_tell_are_not_judged() -> None:
    lends = "a KV connector may hold blocks for others: it has to rest for the time of their lease"
    assert Seen().read(ranked(3.0, kv_connectors=("NixlConnector",)))["kv_leak"] == ("unknown", lends)
    busy = Seen()
    assert busy.read(ranked(30.0, running=2.0))["kv_leak"][0] == "unknown"
    assert "only without a request" in (busy.said()["kv_leak"][1] or "")
    assert busy.read(ranked(30.5, running=2.0))["kv_leak"] == ("unknown", "its KV usage is no whole number of blocks")
    assert busy.read(ranked(0.0))["kv_leak"] == ("judging", None)
    assert busy.read(ranked(30.0, running=2.0))["kv_leak"] == ("judging", None), "all was accounted for lately"


def test_numbers_that_are_none_are_no_numbers() -> None:
    engine = Seen()
    said = engine.read(page(10, kv_usage=float("nan")))
    assert said["preemption_storm"][0] == "unknown"
    assert "kv_usage" in (said["preemption_storm"][1] or "")


@pytest.mark.parametrize(
    ("reading", "why"),
    [
        (failed(), "its page cannot be read"),
        (EngineReading(engine="a", outcome=Outcome.NO_DATA), "its page has no numbers of an engine"),
        (page(100, asleep=True), "it sleeps"),
        (LifeView(engine="a", state=EngineState.STOPPED, since=0.0, supervised=True), "it does not serve now"),
    ],
)
def test_an_engine_that_cannot_be_read_is_not_judged_by_its_page(reading: EngineReading | LifeView, why: str) -> None:
    engine = Seen()
    for steps in range(5):
        engine.read(page(1000 + steps))
    said = [engine.read(reading) for _ in range(30)][-1]
    assert {name: said[name] for name in BY_PAGE} == dict.fromkeys(BY_PAGE, ("unknown", why))
    assert said["engine_down"] == ("judging", None)


def test_one_page_that_fails_says_nothing_against_what_needs_none() -> None:
    slo = Slo(availability=99.0)
    engine = Seen(slo=slo)
    for count in range(90):
        view = EngineView(kind="vllm", counters={"requests_finished": float(count), "requests_failed": 0.0})
        engine.read(EngineReading(engine="a", outcome=Outcome.OK, view=view))
    assert engine.said()["slo_burn"] == ("judging", None)
    assert engine.read(failed())["slo_burn"] == ("judging", None)


def test_an_objective_that_the_page_does_not_count_is_named() -> None:
    engine = Seen(slo=Slo(availability=99.0))
    said = engine.read(page(1))
    asks = "its page does not count what availability asks for, or its buckets end below the limit"
    assert said["slo_burn"] == ("unknown", asks)


def test_a_real_engine_is_judged_by_all_that_can_once_they_have_learnt() -> None:
    """And the words change rarely: no line a second."""
    engine, told = Seen("vllm-a"), []
    for now, reading, processes in replay(RECORDINGS / "healthy_mix-2.jsonl.xz"):
        feed(engine.state, processes, now)
        feed(engine.state, reading, now)
        told.append({name: state for name, (state, _) in engine.said().items()})
    learning = [sum(said[name] == "learning" for said in told) for name in ("latency", "throughput_collapse")]
    assert 40 < learning[1] < learning[0] < 90
    assert told[-1]["latency"] == told[-1]["stall"] == told[-1]["preemption_storm"] == "judging"
    changes = sum(before != after for before, after in pairwise(told))
    assert changes < 12


def test_what_is_said_is_made_once() -> None:
    engine = Seen()
    engine.read(page(1))
    first = engine.state.judging.standing("a")
    engine.read(page(2))
    again = engine.state.judging.standing("a")
    same = [one is two for one, two in zip(first, again, strict=True) if one.state != "learning"]
    assert all(same)
    assert msgspec.json.decode(msgspec.json.encode(first))[0].keys() == {"name", "state", "reason"}
