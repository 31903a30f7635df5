"""Incidents as lines: whose turn it is, what fits, numbers in words, what to do, and curves."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsboard.core.deliveries import ChannelHealth
from opsboard.core.incidents import Curve, IncidentAction
from opsboard.core.registry import detectors
from opsboard.core.series import FIELDS, split_series
from opsboard.core.wire import History, HistoryPoint, Incident, Status
from opsboard.tui.advice import advice
from opsboard.tui.curves import Track, added, against, binned, gathered, rate, span
from opsboard.tui.evidence import facts, grid, listed, ordered
from opsboard.tui.glyphs import ASCII, UNICODE
from opsboard.tui.header import banners
from opsboard.tui.history import Trails
from opsboard.tui.incidents import open_ones, panel, sentence, wanted_lines, whole_sentence
from opsboard.tui.layout import share_out
from opsboard.tui.pictures import pictures
from opsboard.tui.present import board, incident_at
from opsboard.tui.spans import line_text, line_width
from opsboard.tui.view import Size, View
from tests.screens import boards, troubles

LEAK, SLOW, MEMORY = troubles.leak(), troubles.slow(), troubles.memory()


def view(*ones: Incident, status: Status | None = None) -> View:
    base = status or boards.busy()
    whole = msgspec.structs.replace(base, incidents=ones)
    return View(status=whole, trails=Trails(), rows=tuple(one.name for one in whole.engines))


# --- the panel ---------------------------------------------------------------------------------------------------


def test_what_is_loud_and_not_taken_on_comes_first_and_what_is_over_not_at_all() -> None:
    taken = troubles.leak(id=1, acknowledged=boards.T0, opened=boards.T0 - 9000)
    strange = troubles.leak(id=2, severity="flood")
    shown = view(MEMORY, SLOW, taken, LEAK, troubles.hang(), strange)
    assert [one.id for one in open_ones(shown.status)] == [7, 2, 1, 8, 9]
    assert [one.id for one in open_ones(shown.status, "engine/llama-a")] == [8]
    assert open_ones(None) == []


def test_the_panel_is_as_large_as_what_is_open_and_never_larger_than_its_share() -> None:
    assert wanted_lines(view(), Size(80, 24)) == 0
    assert panel(view(), 80, 4) == []
    assert wanted_lines(view(LEAK), Size(80, 24)) == 2
    assert wanted_lines(view(LEAK, SLOW, MEMORY), Size(80, 24)) == 4
    assert wanted_lines(view(*[LEAK] * 50), Size(200, 60)) == 13


def test_a_channel_in_trouble_has_a_banner_unless_it_may_pass_or_an_incident_tells_of_it() -> None:
    oncall, chat, mail = boards.CHANNELS

    def said(*channels: ChannelHealth, incidents: tuple[Incident, ...] = ()) -> list[str]:
        status = msgspec.structs.replace(boards.busy(), channels=channels, incidents=incidents)
        return [line_text(line).strip() for line in banners(view(*incidents, status=status), 100)]

    assert said(mail) == []
    assert said(oncall, mail) == [
        "NOT TOLD: oncall (pagerduty) takes nothing now: HTTP 503: busy; 3 messages wait for 1 min"
    ]
    assert said(msgspec.structs.replace(oncall, oldest=boards.T0 - 5)) == []
    assert said(oncall, chat)[0].startswith("NOT TOLD (2 channels): chat (slack) is broken: invalid_auth")
    assert said(oncall, chat, incidents=(troubles.deaf(),))[0].startswith("NOT TOLD: oncall")
    assert said(msgspec.structs.replace(chat, error="\x1b[2J"))[0].count("\x1b") == 0


def test_those_without_a_line_are_counted() -> None:
    ones = [troubles.leak(id=n) for n in range(1, 8)]
    lines = panel(view(*ones), 80, 3)
    assert [number for number, _ in lines] == [1, 2, 3]
    assert "+4 more" in line_text(lines[-1][1])
    assert "more" not in line_text(lines[0][1])
    assert "+6 more" in line_text(panel(view(*ones), 80, 1)[0][1])


@given(st.integers(40, 250), st.integers(8, 80), st.integers(1, 60), st.integers(0, 16), st.integers(0, 30))
def test_incidents_take_one_line_from_the_engines_at_most(
    width: int, height: int, engines: int, gpus: int, incidents: int
) -> None:
    size = Size(width, height)
    without = share_out(size, banners=0, engines=engines, gpus=gpus, grid_rows=2)
    rooms = share_out(size, banners=0, engines=engines, gpus=gpus, grid_rows=2, incidents=incidents)
    assert rooms.incidents <= incidents
    assert rooms.table >= without.table - 1
    if incidents:
        assert rooms.incidents >= 1
    used = rooms.incidents + rooms.table + rooms.gpus + rooms.focus + rooms.charts + rooms.events
    assert used <= height - 2


def test_a_line_of_the_board_is_known_to_be_of_its_incident() -> None:
    shown, size = view(LEAK, SLOW), Size(80, 24)
    lines = [line_text(line) for line in board(shown, size, [("?", "help")])]
    for y, text in enumerate(lines):
        number = incident_at(shown, size, y)
        assert (number == 8) == ("◆ ticket" in text or "18.3 ms" in text), text
    assert incident_at(shown, size, 1) == 7
    assert incident_at(view(), size, 1) is None


def test_a_sentence_says_whether_it_is_certain_and_of_what_it_is() -> None:
    assert sentence(SLOW).startswith("suspected: tokens take")
    assert whole_sentence(SLOW).startswith("llama-a, suspected: tokens take")
    assert whole_sentence(LEAK).startswith("llama-b has leaked 48")
    assert whole_sentence(troubles.leak(flapping=True)).startswith("llama-b, flapping: has leaked")
    parked = troubles.leak(detector="parked", summary="llama-b is parked: it needs a person")
    assert whole_sentence(parked) == "llama-b is parked: it needs a person"


# --- what to do ---------------------------------------------------------------------------------------------------


def test_there_is_advice_for_everything_that_is_claimed() -> None:
    known = {*detectors().found, "parked", "budget_spent", "scrape_failed", "disk_low"}
    for name in known:
        said = advice(troubles.leak(detector=name, evidence={}))
        assert said, name
        assert len(said) < 140, name
    assert advice(troubles.leak(detector="a stranger's")) is None
    assert advice(troubles.hang()) is None


def test_advice_follows_the_evidence() -> None:
    assert "within 48m20" in (advice(LEAK) or "")
    assert "look first at what moved beside it: the SM clock" in (advice(SLOW) or "")
    gone_back = {"event": "upgrade", "version_before": "0.32.0"}
    assert "version 0.32.0" in (advice(troubles.slow(evidence=gone_back)) or "")
    assert "reset or a reboot" in (advice(troubles.leak(detector="gpu_fault", evidence={"predicate": "lost"})) or "")
    storm = troubles.leak(detector="preemption_storm", evidence={"predicate": "without_need"})
    assert "its cache has room" in (advice(storm) or "")
    restart = IncidentAction(id="a", kind="restart", time=boards.T0)
    assert advice(troubles.leak(actions=(restart,))) == "a restart of it is under way: wait how it goes"
    assert "closes by itself" in (advice(troubles.leak(ended=boards.T0)) or "")


# --- numbers in words ---------------------------------------------------------------------------------------------


def test_numbers_have_words_units_intervals_and_what_they_were() -> None:
    first = {**LEAK.evidence, "lost_blocks": 4.0}
    told = {fact.name: fact for fact in facts(LEAK.evidence, first)}
    assert (told["lost_blocks"].text, told["lost_blocks"].was) == ("48 blocks", "4 blocks")
    assert told["exhausted_in_s"].text == "53m11 (48m20 to 1h00)"
    assert told["blocks_per_hour"].text == "240 blocks (212 to 251)"
    assert told["blocks_per_finished_request"].text == "0.035 blocks"
    assert told["blocks_per_aborted_request"].text is None
    assert "exhausted_in_s_low" not in told
    assert [fact.name for fact in ordered("kv_leak", list(told.values()))][:2] == ["lost_blocks", "pool_blocks"]


def test_numbers_that_nobody_named_are_told_by_their_unit() -> None:
    strange: dict[str, float | str | bool | None] = {
        "heap_bytes": 2.0**30, "wait_s": 90.0, "hit_ratio": 0.5, "sure": True, "who\x1b[2J": "x\x1b[2J", "n": 3.0,
    }  # fmt: skip
    told = {fact.label: fact.text for fact in facts(strange, {})}
    assert told["heap bytes"] == "1.00G"
    assert told["wait s"] == "1m30"
    assert told["hit ratio"] == "50 %"
    assert told["sure"] == "yes"
    assert told["n"] == "3"
    assert not any("\x1b" in label + (text or "") for label, text in told.items())


@given(
    st.dictionaries(st.text(max_size=30), st.none() | st.booleans() | st.floats() | st.text(max_size=60), max_size=9),
    st.integers(20, 220),
)
def test_whatever_the_evidence_every_line_fits(evidence: dict[str, float | str | bool | None], width: int) -> None:
    known = facts(evidence, {})
    lines = [*listed(known, width), *grid(known, width, 5)]
    assert {line_width(line) for line in lines} <= {width}


# --- curves -------------------------------------------------------------------------------------------------------


def test_every_picture_is_of_recorded_series() -> None:
    known = {kind: {field.name for field in fields} for kind, fields in FIELDS.items()}
    for name in (*detectors().found, "parked", "scrape_failed", "a stranger's"):
        evidence = {"role": "worker", "gpu": "GPU-1", "objective": "ttft_p95", "limit_s": 0.5}
        drawn = pictures(troubles.leak(detector=name, evidence=evidence), "gpu-a")
        assert drawn, name
        for series in (series for picture in drawn for series in picture.all_series):
            kind, _, field = split_series(series)
            assert field in known[kind], series  # type: ignore[index]
    assert pictures(troubles.leak(subject="host"), "gpu-a")[0].series == "host/gpu-a/disk_free_bytes"
    assert pictures(troubles.leak(subject="gpu/GPU-1"), "gpu-a")[0].series == "gpu/GPU-1/sm_clock_mhz"


def track(*points: tuple[float, float], step: float = 1.0) -> Track:
    return Track(step=step, points=points)


def test_what_is_remembered_goes_before_what_was_frozen_and_its_end_before_its_beginning() -> None:
    frozen = [
        Curve(moment="resolved", series="a", step=1.0, points=((0.0, 2.0),)),
        Curve(moment="opened", series="a", step=1.0, points=((0.0, 1.0),)),
        Curve(moment="opened", series="b", step=1.0, points=((0.0, 1.0),)),
        Curve(moment="opened", series="c", step=1.0, points=()),
    ]
    live = [
        History(series="b", step=5.0, points=(HistoryPoint(t=9.0, mean=3.0, min=3.0, max=3.0, count=1),)),
        History(series="a", step=5.0),
    ]
    found = gathered(frozen, live)
    assert {name: one.points for name, one in found.items()} == {"a": ((0.0, 2.0),), "b": ((9.0, 3.0),)}
    assert span(found.values()) == (0.0, 14.0)
    assert span([]) is None


def test_points_reach_over_their_step_and_gaps_stay() -> None:
    assert binned(track((0.0, 1.0), (2.0, 3.0)), 0.0, 4.0, 4) == [1.0, None, 3.0, None]
    assert binned(track((0.0, 1.0), (2.0, 3.0), step=2.0), 0.0, 4.0, 4) == [1.0, 1.0, 3.0, 3.0]
    assert binned(track((0.0, 1.0), (1.0, 3.0)), 0.0, 2.0, 1) == [2.0]
    assert binned(track((-9.0, 1.0), (9.0, 3.0)), 0.0, 2.0, 2) == [None, None]
    assert binned(track((0.0, 1.0)), 0.0, 0.0, 2) == [None, None]


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e4), st.floats(-1e6, 1e6)), max_size=30).map(sorted),
    st.floats(0.1, 500.0),
    st.floats(-100.0, 5000.0),
    st.floats(0.0, 1e4),
    st.integers(1, 60),
)
def test_a_binned_curve_stays_within_its_values(
    points: list[tuple[float, float]], step: float, start: float, length: float, columns: int
) -> None:
    values = binned(track(*points, step=step), start, start + length, columns)
    assert len(values) == columns
    low, high = min((v for _, v in points), default=0.0), max((v for _, v in points), default=0.0)
    assert all(v is None or low - 1e-6 <= v <= high + 1e-6 for v in values)


def test_a_counter_is_drawn_by_its_pace_and_says_nothing_where_it_began_anew() -> None:
    counted = track((0.0, 100.0), (2.0, 120.0), (4.0, 3.0), (6.0, 7.0), step=2.0)
    assert rate(counted).points == ((2.0, 10.0), (6.0, 2.0))


def test_what_was_swapped_out_is_memory_too() -> None:
    level, swapped = track((0.0, 9.0), (1.0, 5.0), (2.0, 6.0)), track((1.0, 4.0))
    assert added(level, swapped).points == ((0.0, 9.0), (1.0, 9.0), (2.0, 6.0))


def test_memory_is_drawn_by_work_also_over_a_restart_of_its_counter() -> None:
    work = track((0.0, 0.0), (1.0, 10.0), (2.0, 20.0), (3.0, 20.0), (4.0, 2.0), (5.0, 12.0))
    memory = track(*((float(t), 100.0 + t) for t in range(6)))
    values, done = against(memory, work, 3)
    assert done == 30.0
    assert values == [100.0, 101.0, pytest.approx(103.5)]
    assert against(memory, track((0.0, 5.0), (9.0, 5.0)), 2) == ([None, None], 0.0)


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_loudness_is_told_without_colour(glyphs: object) -> None:
    shown = msgspec.structs.replace(view(LEAK, SLOW, MEMORY), glyphs=glyphs)
    words = [line_text(line).split()[:2] for _, line in panel(shown, 120, 3)]
    assert [word for _, word in words] == ["page", "ticket", "note"]
    assert len({shape for shape, _ in words}) == 3
