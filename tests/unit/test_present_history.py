"""Trails: the recent past of each number, from the store first and then from the stream."""

from __future__ import annotations

import msgspec

from opsboard.core.wire import Engine, History, HistoryPoint, ReadingInfo, Status
from opsboard.tui.charts import CHARTS, chart
from opsboard.tui.glyphs import UNICODE
from opsboard.tui.history import BUCKETS, CHARTED, RANGES, RECENT, Trail, Trails, series_of
from opsboard.tui.spans import line_text
from opsboard.tui.view import Size, View
from tests.screens import boards


def past(*points: tuple[float, float]) -> History:
    return History(
        series="x", step=5.0, points=tuple(HistoryPoint(t=t, mean=v, min=v, max=v, count=1) for t, v in points)
    )


def test_values_fall_into_steps_of_absolute_time_and_gaps_stay_gaps() -> None:
    trail = Trail(5.0)
    for t, value in ((0.0, 1.0), (4.9, 3.0), (5.0, 10.0), (16.0, 7.0)):
        trail.add(t, value)
    assert trail.values(20.0) == [2.0, 10.0, None, 7.0]
    assert trail.grouped(2, 2) == [14.0 / 3, 7.0]


def test_old_steps_are_forgotten_and_what_is_too_old_leaves_no_mark() -> None:
    trail = Trail(1.0)
    trail.add(0.0, 1.0)
    trail.add(BUCKETS + 10.0, 2.0)
    trail.add(5.0, 99.0)
    assert trail.values(BUCKETS) == [None] * (BUCKETS - 1) + [2.0]


def test_none_and_nonsense_leave_a_gap() -> None:
    trail = Trail(1.0)
    for t, value in ((0.0, 1.0), (1.0, None), (2.0, float("nan"))):
        trail.add(t, value)
    assert trail.values(3.0) == [1.0, None, None]


def test_the_store_fills_what_the_stream_has_not_brought() -> None:
    trail = Trail(5.0)
    trail.add(20.0, 8.0)
    trail.fill(past((10.0, 1.0), (12.0, 3.0), (20.0, 100.0)))
    assert trail.values(15.0) == [2.0, None, 8.0]
    later = Trail(5.0)
    later.fill(past((10.0, 1.0), (15.0, 2.0)))
    later.add(20.0, 3.0)
    assert later.values(15.0) == [1.0, 2.0, 3.0]


def status(t: float, *engines: Engine) -> Status:
    return boards.status(engines, t=t - boards.T0)


def test_a_stale_reading_is_a_gap_and_gone_engines_are_let_go() -> None:
    trails = Trails()
    fresh = boards.engine(0, kv_usage=0.5)
    trails.take(status(1000.0, fresh))
    trails.take(status(1005.0, msgspec.structs.replace(fresh, reading=ReadingInfo(outcome="FAILED", age_s=9.0))))
    assert trails.get("llama-a", "kv_usage").values(10.0) == [0.5, None]
    trails.take(status(1010.0, boards.engine(1)))
    assert trails.get("llama-a", "kv_usage").values(10.0) == [None, None]


def test_charts_of_a_young_engine_show_the_smallest_stretch_that_holds_its_past() -> None:
    trails = Trails()
    assert trails.filled("llama-a", RECENT).label == "2m"
    shown = {}
    for t in (1000.0, 1115.0, 1120.0, 1295.0, 1300.0, 2500.0):
        trails.take(status(t, boards.engine(0, kv_usage=0.5)))
        shown[t] = trails.filled("llama-a", RECENT).label
    assert shown == {1000.0: "2m", 1115.0: "2m", 1120.0: "5m", 1295.0: "5m", 1300.0: "15m", 2500.0: "2m"}
    assert trails.filled("llama-a", RANGES[1]) is RANGES[1], "what was asked for stays"


def test_all_charts_of_an_engine_show_the_same_stretch_and_say_which() -> None:
    trails = Trails()
    trails.get("llama-a", "kv_usage").fill(past((1000.0, 0.2)))
    for t in range(1195, 1205):
        trails.take(status(t, boards.engine(0, kv_usage=0.5, running=40.0)))
    view = View(status=status(1204.0, boards.engine(0)), trails=trails)
    for what in CHARTS:
        lines = [line_text(line) for line in chart(what, boards.engine(0), view, RECENT, Size(66, 4))]
        assert lines[0].rstrip().endswith("last 5m")
        assert lines[3][-1] != UNICODE.gap, what.title


def test_longer_ranges_are_kept_only_where_they_were_asked_for() -> None:
    trails = Trails()
    trails.get("llama-a", "kv_usage", RANGES[1])
    trails.take(status(100_000.0, boards.engine(0, kv_usage=0.5), boards.engine(1)))
    assert trails.get("llama-a", "kv_usage", RANGES[1]).values(20.0) == [0.5]
    assert trails.get("llama-b", "kv_usage", RANGES[1]).values(20.0) == [None]


def test_series_have_the_names_of_the_store() -> None:
    from opsboard.core.series import FIELDS

    assert set(CHARTED) <= {field.name for field in FIELDS["engine"]}
    assert series_of(["a"], ["kv_usage"]) == ["engine/a/kv_usage"]
    assert RECENT.step * BUCKETS == RECENT.seconds
