"""What is wrong with a GPU, for whom, since when, and when it is over."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from alerts.base import Observation
from alerts.detectors.gpu_fault import DETECTOR, Params
from opsboard.core.clock import Now
from opsboard.core.model import (
    EngineReading,
    EngineState,
    EngineView,
    Finding,
    GpuProcess,
    GpuView,
    LifeView,
    Outcome,
)

MINE = (GpuProcess(pid=1, memory_bytes=1 << 30, engine="a"),)


class Engine:
    """An engine on card 1 of two, and what the driver says of that."""

    def __init__(self) -> None:
        self.state = DETECTOR.begin(Params())
        self.t = 0.0
        self.life: LifeView | None = None
        self.card = GpuView(index=1, uuid="GPU-1", ecc_uncorrected=2, xid=31, xid_time=5.0, throttle=(), processes=MINE)
        self.other = GpuView(index=0, uuid="GPU-0", throttle=())
        assert self.see() is None

    def see(self, after: float = 1.0, *, gpus: tuple[GpuView, ...] | None = None, **card: Any) -> Finding | None:
        self.card = replace(self.card, **card)
        self.t += after
        seen = Observation(
            engine="a",
            now=Now(1e9 + self.t, self.t),
            reading=None,
            life=self.life,
            gpus=(self.other, self.card) if gpus is None else gpus,
        )
        self.state, finding, *_ = DETECTOR.step(self.state, seen)
        return finding

    def see_for(self, seconds: int, **card: Any) -> Finding | None:
        finding = None
        for _ in range(seconds):
            finding = self.see(**card)
        return finding

    def page(self, process_start: float) -> Finding | None:
        view = EngineView(kind="vllm", process_start=process_start)
        self.t += 1.0
        seen = Observation(
            engine="a",
            now=Now(1e9 + self.t, self.t),
            reading=EngineReading(engine="a", outcome=Outcome.OK, view=view),
            gpus=(self.other, self.card),
        )
        self.state, finding, *_ = DETECTOR.step(self.state, seen)
        return finding

    def live(self, state: EngineState, started: float) -> Finding | None:
        self.life = LifeView(engine="a", state=state, since=0.0, supervised=True, started=started)
        return self.see()


def kind(found: Finding | None) -> tuple[object, bool, object] | None:
    return None if found is None else (found.evidence["predicate"], found.confirmed, found.evidence["urgency"])


def test_a_lost_card_and_its_return() -> None:
    engine = Engine()
    lost = GpuView(index=1, uuid="GPU-1", lost=True)
    found = engine.see(gpus=(engine.other, lost))
    assert kind(found) == ("lost", True, "page")
    assert found is not None
    assert found.summary == "GPU 1 does not answer the driver any more"
    again = engine.see(60.0, gpus=(engine.other,))
    assert kind(again) == ("lost", True, "page")
    assert again is not None
    assert again.since == found.since
    assert engine.see() is None


@pytest.mark.parametrize(
    ("xid", "expected"),
    [
        (79, ("xid_reset", True, "page")),
        (119, ("xid_reset", True, "page")),
        (31, ("xid_restart", False, "ticket")),
        (94, ("xid_restart", False, "ticket")),
        (63, ("xid_wears", False, "ticket")),
        (45, None),
    ],
)
def test_an_xid_means_what_it_asks_for(xid: int, expected: object) -> None:
    engine = Engine()
    assert kind(engine.see(xid=xid, xid_time=1e9)) == expected
    assert kind(engine.see_for(600)) == expected, "nobody takes it back"


def test_the_xid_and_errors_from_before_are_not_of_this_life() -> None:
    assert Engine().see_for(60) is None


def test_uncorrected_errors() -> None:
    engine = Engine()
    found = engine.see(ecc_uncorrected=3)
    assert kind(found) == ("ecc", False, "page")
    assert found is not None
    assert found.summary == "GPU 1 had 1 uncorrected memory error"
    assert kind(engine.see(ecc_uncorrected=None)) == ("ecc", False, "page"), "not asked now"
    found = engine.see(ecc_uncorrected=4, xid=94, xid_time=1e9)
    assert found is not None
    assert found.confirmed, "two kinds of evidence"
    assert found.summary == "GPU 1 had 2 uncorrected memory errors, and 1 more"
    assert found.evidence["predicates"] == "ecc xid_restart"


def test_errors_that_become_known_later_are_no_new_ones() -> None:
    engine = Engine()
    engine.state = DETECTOR.begin(Params())
    assert engine.see(ecc_uncorrected=None) is None
    assert engine.see(ecc_uncorrected=7) is None
    assert engine.see(ecc_uncorrected=0) is None, "the driver was loaded anew"
    assert engine.see(ecc_uncorrected=1) is not None


def test_a_card_that_its_hardware_slows() -> None:
    engine = Engine()
    began = 1e9 + engine.t + 1
    assert engine.see_for(60, throttle=("hw_slowdown", "hw_thermal")) is None
    found = engine.see()
    assert kind(found) == ("slowed", False, "ticket")
    assert found is not None
    assert found.since == began
    assert found.summary == "GPU 1 is slowed by its hardware for 1 m 00 s: hw_slowdown and hw_thermal"
    assert engine.see_for(50, throttle=()) is not None, "it may come back"
    assert engine.see_for(10, throttle=("hw_slowdown",)) is not None
    assert engine.see_for(61, throttle=()) is None


def test_what_slows_a_card_by_design_is_no_fault() -> None:
    engine = Engine()
    assert engine.see_for(900, throttle=("sw_power_cap", "applications_clocks", "sync_boost")) is None


def test_heat_is_told_later() -> None:
    engine = Engine()
    assert engine.see_for(300, throttle=("sw_thermal",)) is None
    assert kind(engine.see()) == ("hot", False, "ticket")


def test_a_card_of_others_is_none_of_ours() -> None:
    engine = Engine()
    engine.other = replace(engine.other, xid=79, xid_time=1e9, ecc_uncorrected=5, lost=True)
    assert engine.see_for(5) is None


def test_a_part_of_a_card_is_as_well_as_the_card() -> None:
    engine = Engine()
    engine.state = DETECTOR.begin(Params())
    whole = GpuView(index=3, uuid="GPU-3")
    part = GpuView(index=3, uuid="MIG-1", mig="1g.10gb", parent="GPU-3", processes=MINE)
    assert engine.see(gpus=(whole, part)) is None
    found = engine.see(gpus=(replace(whole, xid=95, xid_time=1e9), part))
    assert kind(found) == ("xid_reset", True, "page")
    assert found is not None
    assert found.evidence["gpu"] == "GPU-3"


def test_it_stands_until_another_life_serves() -> None:
    engine = Engine()
    engine.life = LifeView(engine="a", state=EngineState.READY, since=0.0, supervised=True, started=1.0)
    engine.see()
    assert engine.see(xid=79, xid_time=1e9) is not None
    assert engine.live(EngineState.BACKING_OFF, 1.0) is not None
    assert engine.live(EngineState.READY, 2.0) is None


def test_it_stands_until_the_owner_of_an_observed_engine_restarts_it() -> None:
    engine = Engine()
    engine.page(process_start=1e9)
    assert engine.see(xid=94, xid_time=1e9) is not None
    assert engine.page(process_start=1e9 + 1) is not None
    assert engine.page(process_start=1e9 + 60) is None


def test_an_error_is_not_forgotten_for_what_the_driver_says_after_it() -> None:
    engine = Engine()
    found = engine.see(xid=48, xid_time=1e9)
    assert kind(found) == ("xid_reset", True, "page")
    after = found
    for xid in (45, 154, 63):
        after = engine.see(xid=xid, xid_time=1e9 + xid)
        assert kind(after) == ("xid_reset", True, "page")
    assert after is not None
    assert found is not None
    assert (after.since, after.evidence["predicates"]) == (found.since, "xid_reset xid_wears")
    assert engine.see(gpus=(engine.other,)) is not None
    again = engine.see()
    assert again is not None
    assert again.since == found.since, "a card that was lost in between has it as long"


def test_a_driver_that_is_silent_changes_nothing_of_what_it_said_last() -> None:
    engine = Engine()
    assert engine.see_for(90, throttle=("hw_thermal",)) is not None
    assert engine.see_for(600, throttle=None) is not None
    assert engine.see_for(90, throttle=()) is None


def test_a_driver_that_is_silent_changes_nothing() -> None:
    engine = Engine()
    assert engine.see(xid=79, xid_time=1e9) is not None
    assert engine.see(gpus=()) is not None
    silent = (GpuView(index=0, uuid="GPU-0"), GpuView(index=1, uuid="GPU-1", xid=79, xid_time=1e9))
    assert engine.see(gpus=silent) is not None


def test_parameters_that_make_no_sense_together() -> None:
    with pytest.raises(ValueError, match=r"`hot` \(5 s\) must not be shorter than `slowed`"):
        Params(hot_s=5.0)
