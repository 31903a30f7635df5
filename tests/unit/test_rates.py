"""Rates and windows over gaps, resets and idle times."""

from __future__ import annotations

import sys
from math import inf, nan

import pytest

from opsboard.core.model import Histogram
from opsboard.core.rates import CounterTrack, HistogramTrack


def feed(track: CounterTrack, readings: list[tuple[float, float]]) -> list[bool]:
    return [track.add(mono, value) for mono, value in readings]


def test_a_rate_needs_two_readings() -> None:
    track = CounterTrack()
    assert track.rate(10, 0) is None
    track.add(0, 100)
    assert track.rate(10, 0) is None
    track.add(1, 107)
    assert track.rate(10, 1) == pytest.approx(7)
    assert not track.restarted


def test_each_window_sees_its_own_seconds() -> None:
    track = CounterTrack()
    feed(track, [(t, t if t <= 290 else 290 + (t - 290) * 11) for t in range(301)])
    assert track.rate(10, 300) == pytest.approx(11)
    assert track.rate(60, 300) == pytest.approx((50 + 110) / 60)
    assert track.rate(300, 300) == pytest.approx((290 + 110) / 300)
    assert track.increase(60, 300) == pytest.approx(160)


def test_a_counter_that_stands_still_has_rate_zero_not_none() -> None:
    track = CounterTrack()
    feed(track, [(t, 5.0) for t in range(1000)])
    assert track.rate(60, 999) == 0.0
    assert track.rate(300, 999) == 0.0


def test_a_reset_is_a_state_and_never_a_negative_rate() -> None:
    track = CounterTrack()
    assert feed(track, [(0, 100), (1, 110), (2, 4)]) == [False, False, True]
    assert track.restarted
    assert track.rate(10, 2) is None
    assert track.add(3, 9) is False
    assert not track.restarted
    assert track.rate(10, 3) == pytest.approx(5)


def test_a_known_restart_forgets_even_when_the_counter_went_up() -> None:
    track = CounterTrack()
    feed(track, [(0, 1), (1, 2)])
    track.reset()
    assert track.restarted
    assert track.add(2, 1000) is False
    assert track.rate(10, 2) is None


def test_a_gap_is_not_averaged_over_by_a_shorter_window() -> None:
    track = CounterTrack()
    feed(track, [(0, 0), (1, 1), (200, 5000), (201, 5003)])
    assert track.rate(10, 201) == pytest.approx(3)


def test_a_gap_inside_a_window_is_covered_by_what_stands_around_it() -> None:
    track = CounterTrack()
    feed(track, [(0, 0), (10, 100), (55, 1000), (60, 1020)])
    assert track.rate(60, 60) == pytest.approx(1020 / 60)


def test_slow_readings_still_have_a_rate() -> None:
    track = CounterTrack()
    feed(track, [(0, 0), (15, 30)])
    assert track.rate(10, 15) == pytest.approx(2)


def test_a_window_hardly_covered_is_unknown() -> None:
    track = CounterTrack()
    feed(track, [(0, 0), (1, 1)])
    assert track.rate(10, 1) == pytest.approx(1)
    assert track.rate(60, 1) is None
    assert track.rate(300, 1) is None


def test_a_last_reading_too_old_makes_the_rate_unknown() -> None:
    track = CounterTrack()
    feed(track, [(t, t) for t in range(61)])
    assert track.rate(10, 64) is not None
    assert track.rate(10, 66) is None
    assert track.rate(60, 89) is not None
    assert track.rate(60, 91) is None


def test_nan_and_clocks_that_stand_still_are_no_readings() -> None:
    track = CounterTrack()
    feed(track, [(0, 1), (1, nan), (1, 2), (1, 3), (0.5, 9)])
    assert track.rate(10, 1) == pytest.approx(1)


def test_memory_is_bounded_in_time_and_in_number() -> None:
    track = CounterTrack(300)
    for t in range(10_000):
        track.add(t / 50, t)
    assert len(track._ring) <= 4096
    track = CounterTrack(300)
    feed(track, [(t, t) for t in range(3000)])
    assert len(track._ring) <= 302
    assert sys.getsizeof(track._ring._began) <= 8 * 1000


BOUNDS = (0.1, 1.0, inf)


def reading(*counts: float, total: float | None = None) -> Histogram:
    return Histogram(bounds=BOUNDS, counts=counts, total=total)


def test_a_window_of_a_histogram_is_the_difference() -> None:
    track = HistogramTrack()
    for t in range(100):
        track.add(t, reading(t, 2 * t, 2 * t, total=float(t)))
    assert track.window(10, 99) == reading(10, 20, 20, total=10.0)
    assert track.window(60, 99) == reading(60, 120, 120, total=60.0)


def test_an_idle_histogram_is_one_run_and_its_window_is_empty() -> None:
    track = HistogramTrack()
    for t in range(500):
        track.add(t, reading(3, 3, 3))
    assert len(track._ring) == 1
    assert track.window(60, 499) == reading(0, 0, 0)


@pytest.mark.parametrize(
    "after",
    [
        reading(1, 1, 1),
        reading(3, 3, 9),
        Histogram(bounds=(1.0, inf), counts=(9, 9)),
        Histogram(bounds=(9.0, 99.0, inf), counts=(2, 5, 5)),
    ],
)
def test_a_reset_of_a_histogram_withholds_the_window(after: Histogram) -> None:
    track = HistogramTrack()
    track.add(0, reading(2, 4, 4))
    track.add(1, reading(2, 5, 5))
    assert track.add(2, after) is True
    assert track.restarted
    assert track.window(10, 2) is None
    track.add(3, after)
    assert not track.restarted
    window = track.window(10, 3)
    assert window is not None
    assert window.count == 0
