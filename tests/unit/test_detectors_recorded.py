"""The detectors over recordings of a real vLLM, canaries answered: what is wrong is found in time, nothing else is.

Without canaries it is what `opsboard backtest` finds (test_backtest.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opsboard.core.clock import Now
from opsboard.core.incidents import Incident
from opsboard.core.model import CanaryOutcome, CanaryReading, FindingChange
from opsboard.daemon.pipeline import Effects, EngineSpec, PipelineState, Reading, feed
from tests.support.replay import replay

RECORDINGS = Path(__file__).parents[1] / "fixtures/recordings"
NAME = "vllm-a"
DEADLINE_S = 5.0


def changes(name: str, incidents: dict[int, Incident] | None = None) -> list[FindingChange]:
    """Replay a recording; ``incidents`` gets those that were told, as they are at its end.

    A canary gets an answer at once, or none within its deadline while the engine hangs.
    """
    state = PipelineState("gpu-a", [EngineSpec(name=NAME, url="http://127.0.0.1:8000")])
    hang = labels(name)
    found: list[FindingChange] = []
    under_way: tuple[float, CanaryReading] | None = None

    def take(reading: Reading, now: Now) -> Effects:
        effects = feed(state, reading, now)
        found.extend(effects.findings)
        if incidents is not None:
            incidents.update({one.id: one for one in effects.incidents})
        return effects

    for now, page, processes in replay(RECORDINGS / f"{name}.jsonl.xz"):
        if under_way is not None and now.mono >= under_way[0]:
            take(under_way[1], now)
            under_way = None
        take(processes, now)
        if take(page, now).canaries and under_way is None:
            hangs = hang.get("fault", 1e12) <= now.wall < hang.get("end", 0.0)
            outcome = CanaryOutcome.TIMEOUT if hangs else CanaryOutcome.OK
            seconds = DEADLINE_S if hangs else 0.1
            under_way = now.mono + seconds, CanaryReading(engine=NAME, outcome=outcome, seconds=seconds)
    return found


def labels(name: str) -> dict[str, float]:
    """Return when the hang of a recording began and ended (Unix s), nothing when it has none."""
    rows = json.loads((RECORDINGS / f"{name}.labels.json").read_text())["labels"]
    return {row["kind"]: row["t"] for row in rows if row.get("detector") == "stall"}


def test_a_hang_is_confirmed_by_a_canary_within_15_seconds() -> None:
    hang = labels("hang-4")
    incidents: dict[int, Incident] = {}
    opened, closed = changes("hang-4", incidents)
    assert opened.open
    assert opened.finding.detector == "stall"
    assert opened.finding.confirmed
    assert opened.finding.evidence["predicate"] == "H1"
    assert opened.finding.since == pytest.approx(hang["fault"], abs=1.5)
    assert opened.t - hang["fault"] <= 15.0
    assert not closed.open
    assert closed.t - hang["end"] <= 1.5
    (one,) = incidents.values()
    assert (one.detector, one.severity, one.since) == ("stall", "page", opened.finding.since)
    assert one.opened == opened.t
    assert [entry.kind for entry in one.timeline] == ["opened", "gone"], "the recording ends before it is surely over"
    assert one.ended == pytest.approx(closed.t, abs=1.5)


def test_nothing_is_claimed_of_a_healthy_engine() -> None:
    incidents: dict[int, Incident] = {}
    assert changes("healthy_mix-2", incidents) == []
    assert incidents == {}


def test_two_slow_minutes_are_one_incident() -> None:
    rows = json.loads((RECORDINGS / "slow_20pct-3.labels.json").read_text())["labels"]
    at = {row["kind"]: row["t"] for row in rows}
    incidents: dict[int, Incident] = {}
    opened, confirmed, closed = changes("slow_20pct-3", incidents)
    assert {change.finding.detector for change in (opened, confirmed, closed)} == {"latency"}
    assert at["fault"] < opened.t <= at["fault"] + 60
    assert confirmed.finding.confirmed
    assert at["end"] < closed.t <= at["end"] + 60
    (one,) = incidents.values()
    assert one.since == pytest.approx(at["fault"], abs=3)


@pytest.mark.parametrize(("name", "within_s", "lost", "since_s"), [
    ("leak_tiny_idle-1", 30.0, 3.0, 68.0),  # 10 in all; the second idle moment after the first loss
    ("leak_slow_busy-5", 190.0, 48.0, 0.0),  # never idle before
])  # fmt: skip
def test_a_leak_of_real_blocks_is_found_in_quiet_moments(
    name: str, within_s: float, lost: float, since_s: float
) -> None:
    rows = json.loads((RECORDINGS / f"{name}.labels.json").read_text())["labels"]
    at = {row["kind"]: row["t"] for row in rows}
    found = [change for change in changes(name) if change.finding.detector == "kv_leak"]
    assert all(change.open for change in found)
    opened = found[0]
    assert opened.t - at["first_loss"] <= within_s
    assert opened.finding.evidence["lost_blocks"] == lost
    assert opened.finding.since - at["start"] == pytest.approx(since_s, abs=1.0)
