"""Scoring of whole events, and the intervals it states: against figures that others published, and by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proving.intervals import most, share
from tests.proving.labelled import claims, faults, judged
from tests.proving.score import Claimed, Episode, Fault, Verdict, by_detector, by_scenario, judge, table, total

RECORDINGS = Path(__file__).parents[1] / "fixtures/recordings"
LEAK = Fault(detector="kv_leak", onset=100.0, losses=(100.0, 110.0, 130.0))
SLOW = Fault(detector="latency", onset=100.0, end=200.0)


def verdict(*claims: tuple[str, float], faults: tuple[Fault, ...] = (SLOW,), known: bool = False) -> Verdict:
    claimed = tuple(Claimed(detector=name, opened=at) for name, at in claims)
    return judge(Episode(scenario="s", seconds=600.0, faults=faults, claims=claimed, known=known))


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        # Exact for all or none of n: 1 - (alpha / 2) ** (1 / n).
        (0, 10, 0.0, 0.30850),
        (10, 10, 0.69150, 1.0),
        (0, 60, 0.0, 0.05963),
        # Agresti, Coull 1998 and any table: 5 of 10, 8 of 10.
        (5, 10, 0.18709, 0.81291),
        (8, 10, 0.44390, 0.97479),
        (0, 0, 0.0, 1.0),
    ],
)
def test_shares_have_the_interval_of_clopper_and_pearson(hits: int, trials: int, low: float, high: float) -> None:
    found = share(hits, trials)
    assert found.low == pytest.approx(low, abs=1e-5)
    assert found.high == pytest.approx(high, abs=1e-5)


@pytest.mark.parametrize(("events", "mean"), [(0, 2.9957), (1, 4.7439), (2, 6.2958), (10, 16.9622), (100, 118.0787)])
def test_rates_have_the_upper_bound_of_poisson(events: int, mean: float) -> None:
    """Half of the chi-square quantile 0.95 with 2 (events + 1) degrees of freedom."""
    assert most(events) == pytest.approx(mean, abs=1e-3)


def test_the_first_claim_in_time_is_true_and_each_further_one_false() -> None:
    one = verdict(("latency", 130.0), ("latency", 180.0))
    assert [hit.after_s for hit in one.found] == [30.0]
    assert [claim.opened for claim in one.false] == [180.0]


@pytest.mark.parametrize("at", [99.9, 230.1])
def test_a_claim_before_the_onset_or_long_after_the_end_is_false_and_finds_nothing(at: float) -> None:
    one = verdict(("latency", at))
    assert (len(one.found), len(one.missed), len(one.false)) == (0, 1, 1)


def test_a_claim_within_the_grace_after_the_end_is_true() -> None:
    assert len(verdict(("latency", 230.0)).found) == 1


def test_another_class_is_false_and_leaves_the_fault_missed() -> None:
    one = verdict(("stall", 120.0))
    assert (len(one.found), len(one.missed), len(one.false)) == (0, 1, 1)


def test_a_true_consequence_is_neither() -> None:
    hang = Fault(detector="stall", onset=100.0, end=200.0, also=("throughput_collapse",))
    one = verdict(("stall", 112.0), ("throughput_collapse", 120.0), ("throughput_collapse", 300.0), faults=(hang,))
    assert (len(one.found), len(one.aside), [claim.opened for claim in one.false]) == (1, 1, [300.0])


def test_two_faults_of_a_kind_want_two_claims() -> None:
    again = Fault(detector="latency", onset=300.0, end=400.0)
    assert len(verdict(("latency", 120.0), faults=(SLOW, again)).missed) == 1
    assert verdict(("latency", 120.0), ("latency", 320.0), faults=(SLOW, again)).missed == ()


def test_blocks_are_counted_up_to_the_claim() -> None:
    (hit,) = verdict(("kv_leak", 115.0), faults=(LEAK,)).found
    assert hit.blocks == 2
    (hit,) = verdict(("latency", 115.0)).found
    assert hit.blocks is None


def test_sums_and_their_table() -> None:
    verdicts = [
        verdict(("latency", 110.0)),
        verdict(("latency", 150.0), ("stall", 300.0)),
        verdict(faults=()),
        verdict(faults=(LEAK,)),
        verdict(("kv_leak", 120.0), faults=(LEAK,), known=True),
    ]
    rows = by_detector(verdicts, ["engine_down"])
    assert list(rows) == ["engine_down", "kv_leak, requests known", "kv_leak, page alone", "latency", "stall"]
    latency, stall = rows["latency"], rows["stall"]
    assert (latency.recall, latency.precision, latency.after_s) == (1.0, 1.0, (10.0, 50.0))
    assert (stall.recall, stall.precision, stall.seconds) == (None, 0.0, 3000.0)
    assert stall.false_a_day == pytest.approx(28.8)
    assert (rows["kv_leak, page alone"].recall, rows["kv_leak, page alone"].seconds) == (0.0, 2400.0)
    assert rows["kv_leak, requests known"].blocks == (2,)
    assert by_scenario(verdicts)["s"] == total(verdicts)
    drawn = table(rows).splitlines()
    assert drawn[2] == "| engine_down | 0 of 0 | – | 0 | – | 0 (below 86.3) | – | – |"
    assert drawn[5].startswith("| latency | 2 of 2 | 1.000 (0.158 to 1.000) | 0 | 1.000 (0.158 to 1.000) | 0 (below ")
    assert drawn[5].endswith(" | 30, p95 50 | – |")


# --- labelled recordings ---


def test_labels_say_since_when_what_is_wrong() -> None:
    rows = [
        {"t": 10.0, "kind": "start"},
        {"t": 50.0, "kind": "fault", "detector": "latency"},
        {"t": 90.0, "kind": "end", "detector": "latency"},
        {"t": 100.0, "kind": "fault", "detector": "kv_leak", "losses": [103.0, 104.0], "also": ["stall"]},
        {"t": 103.0, "kind": "first_loss", "blocks": 2},
    ]
    assert faults(rows) == (
        Fault(detector="latency", onset=50.0, end=90.0),
        Fault(detector="kv_leak", onset=103.0, losses=(103.0, 104.0), also=("stall",)),
    )


def test_a_claim_lasts_from_its_first_line_to_its_second() -> None:
    def line(detector: str, state: str, t: float) -> dict[str, object]:
        return {"detector": detector, "state": state, "t": t, "summary": "s"}

    rows = [line("stall", "open", 1.0), line("latency", "open", 2.0), line("stall", "closed", 3.0)]
    assert claims([*rows, line("stall", "open", 4.0)]) == (
        Claimed(detector="stall", opened=1.0, closed=3.0, summary="s"),
        Claimed(detector="latency", opened=2.0, summary="s"),
        Claimed(detector="stall", opened=4.0, summary="s"),
    )


def test_a_recording_of_a_real_vllm_is_scored_by_what_the_verb_says() -> None:
    one = judge(judged(RECORDINGS / "hang-4.jsonl.xz"))
    (hit,) = one.found
    assert (hit.fault.detector, one.missed, one.false) == ("stall", (), ())
    assert hit.after_s == pytest.approx(13.8, abs=0.1)
    assert one.episode.seconds == pytest.approx(158.6, abs=1.0)
