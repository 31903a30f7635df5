"""Detectors at work in the pipeline: what becomes of claims, and of detectors that break."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec
import pytest

from alerts.base import Detector, Learning, Observation, Off, Step
from opsboard.config.detectors import Setting
from opsboard.core.clock import ManualClock
from opsboard.core.incidents import Incident, Urgency
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    EngineState,
    Finding,
    LifeView,
    Outcome,
    ProcessReading,
    Record,
    Severity,
)
from opsboard.core.registry import Plugins, detectors
from opsboard.core.wire import DetectorInfo
from opsboard.daemon import judging
from opsboard.daemon.engine_track import EngineTrack
from opsboard.daemon.judging import Judging
from opsboard.daemon.pipeline import Effects, EngineSpec, PipelineState, feed
from tests.support.watched import WHOLE, failed, page

if TYPE_CHECKING:
    from collections.abc import Callable

    from opsboard.daemon.pipeline import Reading

SPEC = EngineSpec(name="a", url="http://127.0.0.1:8001")


class Params(Record, frozen=True):
    """None."""


def detector(step: Callable[[int, Observation], Step], name: str = "odd") -> Detector:
    return Detector(name=name, severity="ticket", summary="", params=Params, begin=lambda params: 0, step=step)


def finding(*, confirmed: bool = False) -> Finding:
    return Finding(detector="odd", engine="a", summary="it is odd", since=0.0, confirmed=confirmed)


class Line:
    """A pipeline with these detectors, and a clock."""

    def __init__(self, *known: Detector) -> None:
        self.clock = ManualClock(wall=0.0)
        self.state = PipelineState("h", [SPEC])
        if known:
            self.state.judging = Judging(known)

    def feed(self, reading: Reading, after: float = 1.0) -> Effects:
        return feed(self.state, reading, self.clock.advance(after))


def told(effects: Effects) -> list[tuple[str, Severity, str]]:
    return [(event.kind, event.severity, event.text) for event in effects.events if event.kind != "incident"]


def test_the_registry_finds_the_detectors() -> None:
    assert {"stall", "engine_down"} <= set(detectors().found)
    assert detectors().broken == {}
    for name, known in detectors().found.items():
        assert known.name == name
        assert known.severity in {"page", "ticket", "note"}
        assert known.begin(known.params()) is not None


def test_a_claim_opens_is_confirmed_and_closes_once_each() -> None:
    claims = iter([finding(), finding(), finding(confirmed=True), finding(confirmed=True), None, None])
    line = Line(detector(lambda state, seen: Step(state, next(claims))))
    seen = [line.feed(page(n)) for n in range(6)]
    assert [[(change.open, change.finding.confirmed) for change in effects.findings] for effects in seen] == [
        [(True, False)], [], [(True, True)], [], [(False, True)], [],
    ]  # fmt: skip
    assert [one for effects in seen for one in told(effects)] == [
        ("odd", Severity.WARNING, "suspected: it is odd"),
        ("odd", Severity.WARNING, "it is odd"),
        ("odd", Severity.INFO, "odd is over after 5 s: it is odd"),
    ]
    assert all(event.subject == "engine/a" for effects in seen for event in effects.events)


def test_a_canary_is_asked_for_and_its_result_is_judged() -> None:
    seen: list[Observation] = []

    def step(state: int, observation: Observation) -> Step:
        seen.append(observation)
        return Step(state, canary=observation.canary is None)

    line = Line(detector(step))
    reading = page(5)
    assert line.feed(reading).canaries == ("a",)
    canary = CanaryReading(engine="a", outcome=CanaryOutcome.OK, seconds=0.1)
    assert line.feed(canary).canaries == ()
    assert (seen[-1].canary, seen[-1].reading, seen[-1].fresh) == (canary, reading, False)
    assert line.feed(CanaryReading(engine="stranger", outcome=CanaryOutcome.OK, seconds=0.1)) == Effects()


def test_failed_pages_and_news_of_its_life_are_judged_too() -> None:
    seen: list[Observation] = []

    def step(state: int, observation: Observation) -> Step:
        seen.append(observation)
        return Step(state)

    line = Line(detector(step))
    line.feed(failed())
    line.feed(EngineReading(engine="a", outcome=Outcome.NO_DATA))
    life = LifeView(engine="a", state=EngineState.STOPPED, since=0.0, supervised=True)
    line.feed(life)
    assert [observation.fresh for observation in seen] == [True, True, False]
    assert (seen[-1].life, seen[-1].reading) == (life, None)
    assert [event.kind for event in seen[0].events] == ["unreachable"]


def test_looks_at_processes_carry_their_time() -> None:
    seen: list[Observation] = []

    def step(state: int, observation: Observation) -> Step:
        seen.append(observation)
        return Step(state)

    line = Line(detector(step))
    line.feed(page(1))
    line.feed(ProcessReading(engine="a", outcome=Outcome.OK, processes=WHOLE, zombies=(9,)))
    looked = line.clock.now().mono
    line.feed(page(2))
    assert (seen[-1].looked, seen[-1].processes, seen[-1].zombies) == (looked, WHOLE, (9,))
    line.feed(ProcessReading(engine="a", outcome=Outcome.FAILED, error="no /proc"))
    line.feed(page(3))
    assert (seen[0].looked, seen[-1].looked, seen[-1].processes) == (None, None, ())


def test_a_broken_detector_is_told_once_and_others_go_on() -> None:
    def breaks(state: int, seen: Observation) -> Step:
        if state == 1:
            raise ZeroDivisionError("never\x1b[31m mind")
        return Step(state + 1, finding())

    line = Line(detector(breaks), detector(lambda state, seen: Step(state + 1, canary=True), "well"))
    first, second, third, fourth = (line.feed(page(n)) for n in range(4))
    assert [change.open for change in first.findings] == [True]
    assert [change.open for change in second.findings] == [False], "what it claimed is not known any more"
    (broken,) = [event for event in second.events if event.kind == "detector_broken"]
    assert (broken.subject, broken.severity) == ("host", Severity.ERROR)
    assert "odd failed on engine a" in broken.text
    assert "\x1b" not in broken.text
    assert [change.open for change in third.findings] == [True], "it begins anew"
    assert [event.kind for event in fourth.events] == ["odd"], "told once"
    assert all(effects.canaries == ("a",) for effects in (first, second, third, fourth))
    assert [sample.series for sample in second.samples]


def test_detectors_that_cannot_be_loaded_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = Plugins("alerts.detectors", "DETECTOR", "opsboard.detectors", lambda plugin: str(plugin.name))
    plugins.broken["foreign"] = "ImportError('x')"
    monkeypatch.setattr(judging, "detectors", lambda: plugins)
    line = Line()
    assert [event.text for event in line.feed(page(1)).events] == [
        "the detector in foreign cannot be used: ImportError('x')"
    ]
    assert line.feed(page(2)).events == []


def test_what_the_timeline_says_already_is_not_said_twice() -> None:
    line = Line()
    line.state.configure([EngineSpec(name="a", url=SPEC.url, supervised=True)])
    ended = LifeView(
        engine="a", state=EngineState.FAILED, since=0.0, supervised=True, exit_code=1, message="exited with code 1"
    )
    effects = line.feed(ended)
    assert [change.finding.detector for change in effects.findings] == ["engine_down"]
    assert told(effects) == [("failed", Severity.ERROR, "found failed: exited with code 1")]


def test_a_claim_is_told_when_the_timeline_says_it_less_loudly() -> None:
    line = Line()
    line.state.configure([EngineSpec(name="a", url=SPEC.url, supervised=True)])
    text = "exited by itself with code 1"
    ended = LifeView(
        engine="a",
        state=EngineState.BACKING_OFF,
        since=0.0,
        supervised=True,
        message=f"{text}; again in 1 s",
        cause=text,
    )
    assert told(line.feed(ended)) == [
        ("backing_off", Severity.WARNING, f"found backing off: {text}; again in 1 s"),
        ("engine_down", Severity.ERROR, text),
    ]


def test_a_restart_because_of_a_claim_opens_no_other_claim() -> None:
    """An engine that is to be restarted because it hangs still runs: it did not end by itself."""
    line = Line()
    line.state.configure([EngineSpec(name="a", url=SPEC.url, supervised=True)])
    ready = LifeView(engine="a", state=EngineState.READY, since=0.0, supervised=True, pid=7, started=1.0)
    line.feed(ready)
    hung = msgspec.structs.replace(ready, state=EngineState.BACKING_OFF, cause="stall: no progress")
    assert line.feed(hung).findings == []
    ended = line.feed(msgspec.structs.replace(hung, pid=None, cause="exited by itself with code 1"))
    assert [change.finding.detector for change in ended.findings] == ["engine_down"], "unless it does so meanwhile"


class Knobs(Record, frozen=True):
    """One."""

    limit: float = 1.0


def limited(state: float, seen: Observation) -> Step:
    return Step(state, finding(confirmed=True) if state < 2 else None)


def configured(line: Line, *, enabled: bool = True, severity: Urgency = "ticket", limit: float = 1.0) -> None:
    line.state.judging.configure({"odd": Setting(enabled, severity, Knobs(limit))})


def test_a_detector_judges_as_it_is_configured() -> None:
    knobs = Detector(
        name="odd", severity="ticket", summary="", params=Knobs, begin=lambda params: params.limit, step=limited
    )
    line = Line(knobs)
    configured(line)
    assert told(line.feed(page(1))) == [("odd", Severity.WARNING, "it is odd")]
    configured(line, severity="page")
    assert told(line.feed(page(2))) == [], "it goes on with what it remembers"
    configured(line, limit=3.0)
    assert [change.open for change in line.feed(page(3)).findings] == [False]
    configured(line, severity="page")
    assert told(line.feed(page(4))) == [("odd", Severity.ERROR, "it is odd")]
    configured(line, enabled=False)
    assert [change.open for change in line.feed(page(5)).findings] == [False]
    assert line.feed(page(6)).findings == []
    configured(line)
    assert told(line.feed(page(7))) == [("odd", Severity.WARNING, "it is odd")]


def test_another_address_is_another_engine() -> None:
    line = Line(detector(lambda state, seen: Step(state + 1, finding() if state == 0 else None)))
    line.feed(page(1))
    assert line.state.judging.claims("a") == [finding()]
    line.state.configure([EngineSpec(name="a", url="http://127.0.0.1:9")])
    line.feed(page(1))
    assert line.state.judging.claims("a") == [finding()], "it began anew"
    line.state.configure([])
    assert line.state.judging.claims("a") == []


def test_a_track_is_judged_with_what_it_remembers() -> None:
    seen: list[Observation] = []

    def step(state: int, observation: Observation) -> Step:
        seen.append(observation)
        return Step(state + 1)

    track, clock = EngineTrack("a"), ManualClock()
    both = Judging([detector(step)])
    both.judge(track, clock.now())
    assert (seen[0].reading, seen[0].fresh, seen[0].looked) == (None, False, None)


def test_evidence_of_any_detector_can_be_written_down() -> None:
    odd = {"n": Decimal("1.5"), "nan": float("nan"), "list": [1, 2], "yes": True, "none": None, "text": "x\x1b"}
    claim = msgspec.structs.replace(finding(confirmed=True), evidence=odd, since=float("nan"))
    line = Line(detector(lambda state, seen: Step(state, claim)))
    (one,) = line.feed(page(1)).incidents
    expected = {"n": 1.5, "nan": None, "list": "[1, 2]", "yes": True, "none": None, "text": "x\x1b"}
    assert one.evidence == expected
    assert one.since == one.opened
    assert msgspec.json.decode(msgspec.json.encode(one), type=Incident) == one


def test_whether_a_detector_judges_is_said_for_each() -> None:
    reasons = iter([Learning(1.2, 60.0), "its page tells no blocks", Off("nothing is promised"), None])
    line = Line(detector(lambda state, _seen: Step(state, unknown=next(reasons))))

    def said() -> list[tuple[str, str | None]]:
        return [(one.state, one.reason) for one in line.state.judging.standing("a")]

    assert said() == [("unknown", "nothing was seen of it yet")]
    stands = []
    for _ in range(4):
        line.feed(page())
        stands += said()
    assert stands == [
        ("learning", "1 of 60 s of work seen"),
        ("unknown", "its page tells no blocks"),
        ("off", "nothing is promised"),
        ("judging", None),
    ]
    line.state.judging.configure({"odd": Setting(enabled=False, severity="ticket", params=Params())})
    assert line.state.judging.standing("a") == (
        DetectorInfo(name="odd", state="off", reason="switched off in the configuration"),
    )


def test_a_detector_that_breaks_does_not_judge() -> None:
    def broken(_state: int, _seen: Observation) -> Step:
        raise ValueError

    line = Line(detector(broken))
    line.feed(page())
    (one,) = line.state.judging.standing("a")
    assert (one.state, one.reason) == ("unknown", "the detector failed here and begins anew")
