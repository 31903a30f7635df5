"""When an answer has drifted, by supervision's word or by the answers themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from alerts.base import Observation
from alerts.detectors.output_drift import DETECTOR
from opsboard.core.clock import ManualClock
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    EngineState,
    EngineView,
    Event,
    Finding,
    LifeView,
    Outcome,
    Severity,
    Step,
    Transaction,
)
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed

if TYPE_CHECKING:
    from collections.abc import Sequence

GOLD, LEAD = "a" * 64, "b" * 64
DIFFERS = "its output differs from the golden one: “x” instead of “y”"


class Asked:
    """An engine and its answers."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.state = DETECTOR.begin(DETECTOR.params())
        self.view = EngineView(kind="vllm", model="m", version="0.33.0", running=0.0, config={"dtype": "fp8"})
        self.life: LifeView | None = None

    def see(self, **fields: Any) -> Finding | None:
        self.clock.advance(1.0)
        reading = EngineReading(engine="a", outcome=Outcome.OK, view=self.view)
        seen = Observation(engine="a", now=self.clock.now(), reading=reading, life=self.life, **fields)
        self.state, found, *_ = DETECTOR.step(self.state, seen)
        return found

    def answer(self, sha: str | None, times: int = 1, outcome: CanaryOutcome = CanaryOutcome.OK) -> Finding | None:
        found = None
        for _ in range(times):
            canary = CanaryReading(engine="a", outcome=outcome, seconds=0.1, output_sha256=sha)
            found = self.see(canary=canary, fresh=False)
        return found

    def tell(self, kind: str, severity: Severity = Severity.INFO, subject: str = "engine/a") -> Finding | None:
        event = Event(t=self.clock.now().wall, subject=subject, kind=kind, text=DIFFERS, severity=severity)
        return self.see(events=(event,))

    def live(self, state: EngineState = EngineState.READY, steps: Sequence[Step] = ()) -> Finding | None:
        now = self.clock.now().wall
        transaction = Transaction(id="1", engine="a", kind="start", began=now, steps=tuple(steps))
        self.life = LifeView(engine="a", state=state, since=now, supervised=True, started=now, transaction=transaction)
        return self.see()


def test_supervision_says_it_and_what_ends_it() -> None:
    for end in ("proven", "accepted", "stopped"):
        engine = Asked()
        found = engine.tell("output_drift", Severity.ERROR)
        assert found is not None
        assert found.confirmed
        assert found.summary == DIFFERS
        told = engine.clock.now().wall
        differs = Step(name="canary", started=told, outcome="differs")
        assert engine.live(steps=[differs]) is found
        assert engine.live(EngineState.STARTING) is found, "it stands until it is proven"
        if end == "proven":
            assert engine.live(steps=[Step(name="canary", started=told + 5.0, outcome="ok")]) is None
        elif end == "accepted":
            assert engine.tell("golden_accepted") is None
        else:
            assert engine.live(EngineState.STOPPED) is None


def test_said_of_a_busy_engine_it_is_suspected_only_and_said_of_another_it_is_nothing() -> None:
    engine = Asked()
    assert engine.tell("output_drift", Severity.ERROR, "engine/b") is None
    found = engine.tell("output_drift", Severity.WARNING)
    assert found is not None
    assert not found.confirmed


def test_two_other_answers_of_an_idle_engine_are_drift_until_the_golden_one_comes_back() -> None:
    engine = Asked()
    assert engine.answer(GOLD, 3) is None
    assert engine.answer(LEAD) is None
    began = engine.clock.now().wall
    found = engine.answer(LEAD)
    assert found is not None
    assert found.confirmed
    assert found.since == began
    assert found.evidence["golden_sha256"] == GOLD
    assert found.evidence["answers_that_differ"] == 2.0
    assert "(bbbbbbbbbbbb instead of aaaaaaaaaaaa)" in found.summary
    assert engine.see() is found
    assert engine.answer(GOLD) is None


def test_under_load_answers_may_be_rounded_apart_and_need_more() -> None:
    engine = Asked()
    engine.answer(GOLD, 3)
    engine.view = EngineView(kind="vllm", model="m", version="0.33.0", running=8.0, config={"dtype": "fp8"})
    for _ in range(5):
        assert engine.answer(LEAD, 3) is None
        assert engine.answer(GOLD) is None
    assert engine.answer(LEAD, 4) is not None


@pytest.mark.parametrize("change", [{"version": "0.34.0"}, {"model": "n"}, {"config": {"dtype": "bf16"}}])
def test_another_build_may_answer_otherwise(change: dict[str, Any]) -> None:
    engine = Asked()
    engine.answer(GOLD, 3)
    assert engine.answer(LEAD, 2) is not None
    fields = {"model": "m", "version": "0.33.0", "config": {"dtype": "fp8"}, **change}
    engine.view = EngineView(kind="vllm", running=0.0, **fields)
    assert engine.answer(LEAD, 5) is None
    engine.view = EngineView(kind="vllm", model="m", version="0.33.0", running=0.0, config={"dtype": "fp8"})
    assert engine.answer(GOLD, 3) is None, "the first build's golden answer is not forgotten"
    assert engine.answer(LEAD, 2) is not None


def test_what_cannot_be_compared_says_nothing() -> None:
    engine = Asked()
    for n in range(20):
        assert engine.answer(f"{n:064d}") is None, "it never says the same: there is no golden answer"
    engine = Asked()
    engine.answer(GOLD, 2)
    assert engine.answer(None, 5) is None
    assert engine.answer(LEAD, 5, CanaryOutcome.TIMEOUT) is None


def test_the_pipeline_makes_one_finding_and_one_line_of_what_supervision_says() -> None:
    state = PipelineState("gpu-a", [EngineSpec(name="a", url="http://127.0.0.1:8000")])
    clock = ManualClock()
    told = Event(t=clock.now().wall, subject="engine/a", kind="output_drift", text=DIFFERS, severity=Severity.ERROR)
    lines = list(feed(state, told, clock.now()).events)
    clock.advance(1.0)
    view = EngineView(kind="vllm", running=0.0)
    effects = feed(state, EngineReading(engine="a", outcome=Outcome.OK, view=view), clock.now())
    assert [change.finding.detector for change in effects.findings] == ["output_drift"]
    said = [event for event in (*lines, *effects.events) if event.kind == "output_drift"]
    assert said == [told]
