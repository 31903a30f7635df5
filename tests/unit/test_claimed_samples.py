"""What is recorded of a claim, so that it can be drawn."""

from __future__ import annotations

import msgspec
import pytest

from alerts.detectors.latency import DETECTOR, measured
from opsboard.core.clock import Now
from opsboard.core.model import Finding, Sample
from opsboard.core.series import FIELDS
from opsboard.daemon.engine_track import EngineTrack
from opsboard.daemon.freezing import ENGINE_FIELDS
from opsboard.daemon.judging import Judging
from opsboard.daemon.samples import judged_samples
from tests.support.paced_engine import Engine


def finding(detector: str, **evidence: float | str | bool | None) -> Finding:
    return Finding(detector=detector, engine="a", summary="s", since=0.0, evidence=evidence)


def test_what_is_lost_while_it_is_claimed_and_what_was_measured_are_recorded() -> None:
    claims = [finding("kv_leak", lost_blocks=48.0, used_blocks=9.0), finding("latency", ratio=1.2, of="token")]
    assert judged_samples("a", claims, {"latency_ratio": 1.170544}) == [
        Sample("engine/a/kv_lost_blocks", 48.0),
        Sample("engine/a/latency_ratio", 1.171),
    ]
    assert judged_samples("a", [], {}) == []


def test_what_is_no_number_is_not_recorded() -> None:
    strange = (None, True, "48", float("nan"), float("inf"))
    assert judged_samples("a", [finding("kv_leak", lost_blocks=value) for value in strange], {}) == []
    assert judged_samples("a", [finding("stall", no_progress_s=9.0)], {"latency_ratio": float("nan")}) == []


def test_what_latency_is_judged_by_is_recorded_before_it_is_claimed() -> None:
    engine = Engine().worked()
    engine.live(1)
    known = measured(engine.state, engine.t)
    assert known["latency_ratio"] == pytest.approx(1.0, abs=0.05)
    assert set(known) <= {field.name for field in FIELDS["engine"]}
    assert measured(engine.state, engine.t + 1) == {}, "of a moment that was judged"
    engine.slow = 1.3
    engine.live(12)
    assert measured(engine.state, engine.t)["latency_ratio"] == pytest.approx(1.3, abs=0.08)


def test_a_detector_that_cannot_tell_what_it_measured_stops_nothing() -> None:
    def broken(_: object, __: float) -> dict[str, float]:
        raise ZeroDivisionError

    judging = Judging(known=[msgspec.structs.replace(DETECTOR, measured=broken)])
    judging.judge(EngineTrack("a"), Now(wall=1.0, mono=1.0))
    assert judging.measured("a", 1.0) == {}
    assert judging.measured("b", 1.0) == {}


def test_what_is_kept_with_an_incident_is_recorded() -> None:
    known = {field.name for field in FIELDS["engine"]}
    assert {name for fields in ENGINE_FIELDS.values() for name in fields} <= known
    assert "kv_lost_blocks" in ENGINE_FIELDS["kv_leak"]
    assert "latency_ratio" in ENGINE_FIELDS["latency"]
