"""When a budget burns, and what is no reason to say so."""

from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING, Any

import pytest

from alerts.base import Detector
from alerts.detectors.slo_burn import DETECTOR, RULES, Params
from opsboard.config.detectors import settings
from opsboard.config.load import load
from opsboard.config.schema import Slo
from opsboard.config.units import Seconds
from opsboard.core.errors import ConfigError
from opsboard.core.model import EngineReading, EngineState, EngineView, Finding, Histogram, Outcome
from opsboard.daemon.judging import Judging
from tests.support.watched import NAME, Watched, failed

if TYPE_CHECKING:
    from pathlib import Path

BOUNDS = (0.25, 0.5, 1.0, inf)
HALF_S = Slo(ttft_p95=Seconds(0.5))
THREE_NINES = Slo(availability=99.9)
STEP_S = 10.0
DAY_S = 86400.0


class Served:
    """An engine that counts requests; of each 10 s ``rate`` come, ``bad`` (0..1) of them too late and in error."""

    def __init__(self, slo: Slo, **params: Any) -> None:
        self.watched = Watched(DETECTOR, Params(slo=slo, **params))
        self.good = self.bad = 0.0
        self.bounds = BOUNDS
        self.start = 100.0
        self.found: Finding | None = None
        self.read()

    def read(self, after: float = STEP_S) -> Finding | None:
        self.found = self.watched.read(self.page(), after)
        return self.found

    def page(self) -> EngineReading:
        late, all_of = self.good, self.good + self.bad
        counts = (0.0, *(late if bound < 1.0 else all_of for bound in self.bounds[1:]))
        view = EngineView(
            kind="vllm",
            process_start=self.start,
            counters={"requests_finished": self.good, "requests_failed": self.bad},
            histograms={"ttft": Histogram(bounds=self.bounds, counts=counts)},
        )
        return EngineReading(engine=NAME, outcome=Outcome.OK, view=view)

    def run(self, seconds: float, bad: float, rate: float = 100.0, every: float = STEP_S) -> float | None:
        """Serve; return after how many seconds something was first claimed."""
        first = None
        for n in range(round(seconds / every)):
            self.good += rate * every / STEP_S * (1 - bad)
            self.bad += rate * every / STEP_S * bad
            if self.read(every) is not None and first is None:
                first = (n + 1) * every
        return first

    def restart(self) -> None:
        """Begin anew: it counts from 0."""
        self.start = self.watched.clock.now().wall + 1.0
        self.good = self.bad = 0.0


def test_an_engine_that_a_person_stopped_burns_nothing() -> None:
    served = Served(HALF_S)
    served.run(1800, bad=0.0)
    assert served.run(600, bad=1.0) is not None
    assert served.watched.live(EngineState.STOPPING) is not None
    assert served.watched.live(EngineState.STOPPED) is None
    served.restart()
    assert served.watched.live(EngineState.READY, started=2.0) is None


def test_the_rates_are_those_of_the_workbook() -> None:
    assert [rule.rate(30 * 86400) for rule in RULES] == pytest.approx([14.4, 6.0, 3.0, 1.0])
    assert [rule.rate(7 * 86400) for rule in RULES] == pytest.approx([3.36, 1.4, 1.0, 1.0])


def test_a_total_outage_pages_when_the_hour_has_burnt_two_percent() -> None:
    engine = Served(THREE_NINES)
    assert engine.run(4 * DAY_S, 0.0, every=600.0) is None
    # SRE workbook: (1 - SLO) / error ratio x window x rate = 0.001 x 1 h x 14.4 = 51.8 s
    assert engine.run(60, 1.0) == 60.0
    found = engine.found
    assert found is not None
    assert found.confirmed
    assert found.severity == "page"
    assert found.since == pytest.approx(engine.watched.clock.now().wall - 60.0)
    assert found.evidence["long_bad"] == 600.0
    assert found.evidence["long_events"] == pytest.approx(36000.0)
    assert found.evidence["burn_limit"] == pytest.approx(14.4)
    assert found.summary == (
        "availability burns its budget 16.7 times too fast: 1.67 % of 36000 requests in 1h failed, 0.1 % may; "
        "at this rate the budget of 30d lasts 1.8 d"
    )


@pytest.mark.parametrize(
    ("times", "severity", "limit"), [(0.9, None, None), (2.0, "ticket", 1.0), (4.0, "ticket", 3.0), (7.0, "page", 6.0),
                                     (15.0, "page", 14.4), (100.0, "page", 14.4)]
)  # fmt: skip
def test_the_worst_rule_that_holds_is_told(times: float, severity: str | None, limit: float | None) -> None:
    engine = Served(THREE_NINES)
    engine.run(7200, 0.001 * times)
    found = engine.found
    assert (None if found is None else found.severity) == severity
    if found is not None:
        assert found.evidence["burn_limit"] == pytest.approx(limit)


def test_it_closes_soon_after_it_is_over_and_does_not_flap_at_its_rate() -> None:
    engine = Served(THREE_NINES)
    engine.run(3600, 0.05)
    assert engine.found is not None
    assert engine.found.severity == "page"
    for n in range(60):
        engine.run(STEP_S, 0.0288 if n % 2 else 0.0)  # 14.4x on the whole
        assert engine.found is not None
    engine.run(360, 0.0)
    found: Finding | None = engine.found
    assert found is not None
    assert found.evidence["burn_limit"] == pytest.approx(6.0), "the slower rule holds on"
    engine.run(8 * 3600, 0.0)
    assert engine.found is None


def test_a_few_failures_at_night_burn_nothing() -> None:
    engine = Served(THREE_NINES)
    assert engine.run(1800, 0.5, rate=0.2) is None
    few = Served(THREE_NINES, events=10.0)
    assert few.run(1800, 0.5, rate=0.2) == pytest.approx(500.0, abs=STEP_S), "10 events in half an hour"


def test_the_first_minute_of_what_is_known_claims_nothing() -> None:
    engine = Served(HALF_S)
    assert engine.run(120, 1.0) == 60.0


def test_a_limit_between_two_bounds_is_judged_at_the_next_and_says_so() -> None:
    engine = Served(Slo(ttft_p95=Seconds(0.6)))
    assert engine.run(600, 1.0) is None, "late ones came within 1 s"
    engine = Served(Slo(ttft_p95=Seconds(0.4)))
    engine.run(600, 1.0)
    assert engine.found is not None
    assert engine.found.evidence["limit_s"] == 0.4
    assert engine.found.evidence["counted_beyond_s"] == 0.5
    assert "in the 10 m 00 s that are known came later than 400ms (counted beyond 500ms, its next bucket)" in (
        engine.found.summary
    )


def test_a_limit_beyond_the_last_bound_cannot_be_judged() -> None:
    assert Served(Slo(ttft_p95=Seconds(2))).run(600, 1.0) is None


def test_other_bounds_begin_counting_anew() -> None:
    engine = Served(HALF_S)
    engine.run(3600, 0.0)
    engine.bounds = (0.2, 0.6, 1.0, inf)
    assert engine.run(300, 0.0) is None
    assert engine.run(3600, 1.0) is not None


def test_history_goes_over_a_restart_and_what_the_new_process_has_counted_is_counted() -> None:
    engine, kept = Served(THREE_NINES), Served(THREE_NINES)
    for one in (engine, kept):
        one.run(1800, 0.01)
        if one is engine:
            one.restart()
        one.run(1800, 0.0144)
    assert engine.found is not None
    assert kept.found is not None
    for key in ("long_bad", "long_events", "short_bad", "short_events"):
        assert engine.found.evidence[key] == pytest.approx(kept.found.evidence[key])


def test_counts_that_go_down_by_themselves_and_processes_that_take_turns_are_left_out() -> None:
    engine = Served(HALF_S)
    engine.run(3600, 0.0)
    engine.good, engine.bad = 10.0, 0.0
    engine.read()
    for n in range(60):  # two processes behind one address, one of which had a bad life
        engine.start, engine.good, engine.bad = (100.0, 50.0, 0.0) if n % 2 else (200.0, 10.0, 1e6)
        assert engine.read() is None


def test_what_came_while_nobody_read_belongs_into_the_whole_gap() -> None:
    engine = Served(THREE_NINES)
    engine.run(1800, 0.0)
    engine.good, engine.bad = engine.good + 90.0, engine.bad + 10.0
    assert engine.read(after=7200) is None, "of 2 h, 4 of 100 events lie in the last 5 min"
    engine.run(300, 0.0)
    assert engine.found is None


@pytest.mark.parametrize("wrong", [nan, inf, -5.0])
def test_numbers_that_are_none_count_nothing(wrong: float) -> None:
    engine = Served(Slo(ttft_p95=Seconds(0.5), availability=99.9))
    engine.run(600, 0.0)
    good, bad = engine.good, engine.bad
    engine.bad = wrong
    assert engine.read() is None
    engine.good, engine.bad = good, bad
    assert engine.run(600, 0.0) is None
    assert engine.run(600, 0.5) is not None


def test_a_page_without_the_counts_is_no_claim_and_an_engine_that_cannot_be_read_burns_no_more() -> None:
    engine = Served(Slo(ttft_p95=Seconds(0.5), e2e_p95=Seconds(1), itl_p95=Seconds(0.05)))
    bare = EngineReading(engine=NAME, outcome=Outcome.OK, view=EngineView(kind="vllm"))
    assert engine.watched.read_for(100, bare) is None
    engine.run(600, 1.0)
    assert engine.found is not None
    assert engine.watched.read(failed(), after=120) is not None
    assert engine.watched.read(failed(), after=3600) is not None, "of 6 h and 30 min nothing is known since"
    found = [engine.watched.read(failed(), after=3600) for _ in range(60)]
    assert found[-1] is None


def test_without_objectives_nothing_is_judged() -> None:
    assert Served(Slo()).run(600, 1.0) is None


def test_a_quieter_rule_is_a_quieter_finding_and_a_louder_one_is_told_again() -> None:
    judging = Judging([DETECTOR])
    quiet = Finding(detector="slo_burn", engine="a", summary="", since=0.0, severity="ticket")
    loud = Finding(detector="slo_burn", engine="a", summary="", since=0.0, severity="page")
    assert (judging.severity(quiet), judging.severity(loud)) == ("ticket", "page")
    detector: Detector = Detector(
        name="x", severity="note", summary="", params=Params, begin=lambda params: params, step=DETECTOR.step
    )
    assert Judging([detector]).severity(Finding(detector="x", engine="a", summary="", since=0.0, severity="page")) == (
        "note"
    )


def test_slo_is_read_from_the_file_and_handed_to_the_detector(tmp_path: Path) -> None:
    path = tmp_path / "opsboard.toml"
    path.write_text('[slo]\nttft_p95 = "500ms"\navailability = 99.9\nperiod = "7d"\n[detector.slo_burn]\nevents = 10\n')
    known = {"slo_burn": DETECTOR}
    setting = settings(load(path, detectors=known).config, known)["slo_burn"]
    assert setting.params == Params(
        events=10.0, slo=Slo(ttft_p95=Seconds(0.5), availability=99.9, period=Seconds(7 * 86400))
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('ttft_p95 = "0s"', "`slo.ttft_p95`: expected more than 0"),
        ("availability = 100", "`slo.availability`: expected more than 0 and less than 100, found 100.0"),
        ('period = "1h"', "`slo.period`: expected 1d to 90d"),
        ('ttft_p99 = "1s"', "unknown key `slo.ttft_p99`"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "opsboard.toml"
    path.write_text(f"[slo]\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert what in caught.value.message
