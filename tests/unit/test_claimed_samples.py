"""What is recorded of a claim, so that it can be drawn."""

from __future__ import annotations

from opsboard.core.model import Finding, Sample
from opsboard.core.series import FIELDS
from opsboard.daemon.freezing import ENGINE_FIELDS
from opsboard.daemon.samples import claimed_samples


def finding(detector: str, **evidence: float | str | bool | None) -> Finding:
    return Finding(detector=detector, engine="a", summary="s", since=0.0, evidence=evidence)


def test_what_is_lost_and_how_much_slower_it_is_are_recorded_while_they_are_claimed() -> None:
    claims = [finding("kv_leak", lost_blocks=48.0, used_blocks=9.0), finding("latency", ratio=1.170544, of="token")]
    assert claimed_samples("a", claims) == [
        Sample("engine/a/kv_lost_blocks", 48.0),
        Sample("engine/a/latency_ratio", 1.171),
    ]
    assert claimed_samples("a", []) == []


def test_what_is_no_number_is_not_recorded() -> None:
    strange = (None, True, "48", float("nan"), float("inf"))
    assert claimed_samples("a", [finding("kv_leak", lost_blocks=value) for value in strange]) == []
    assert claimed_samples("a", [finding("stall", no_progress_s=9.0), finding("a stranger's", ratio=2.0)]) == []


def test_what_is_kept_with_an_incident_is_recorded() -> None:
    known = {field.name for field in FIELDS["engine"]}
    assert {name for fields in ENGINE_FIELDS.values() for name in fields} <= known
    assert "kv_lost_blocks" in ENGINE_FIELDS["kv_leak"]
    assert "latency_ratio" in ENGINE_FIELDS["latency"]
