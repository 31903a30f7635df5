"""Rates, windows and quantiles against a plain reading of the same numbers."""

from __future__ import annotations

from itertools import accumulate
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from opsboard.core import histogram
from opsboard.core.model import Histogram
from opsboard.core.rates import CounterTrack, HistogramTrack

BOUNDS = (0.01, 0.1, 1.0, 10.0, inf)

increments = st.integers(0, 3)
steps = st.lists(st.tuples(st.integers(1, 20), increments), min_size=2, max_size=80)
buckets = st.lists(increments, min_size=len(BOUNDS), max_size=len(BOUNDS))


def cumulative(own: list[int]) -> Histogram:
    return Histogram(bounds=BOUNDS, counts=tuple(float(count) for count in accumulate(own)))


@given(steps, st.sampled_from([10.0, 60.0, 300.0]))
def test_a_rate_is_the_increase_over_what_was_covered(path: list[tuple[int, int]], window: float) -> None:
    readings: list[tuple[float, float]] = []
    mono = value = 0.0
    track = CounterTrack(300.0)
    for gap, increment in path:
        mono, value = mono + gap, value + increment
        readings.append((mono, value))
        assert track.add(mono, value) is False
    rate = track.rate(window, mono)
    if rate is None:
        inside = [at for at, _ in readings if at >= mono - 1.5 * window]
        assert len(inside) < 2 or mono - inside[0] < 0.05 * window
        return
    slopes = [(value - before) / (mono - at) for at, before in readings[:-1] if mono - at <= 1.5 * window + 1e-9] + [
        (value - before) / window for at, before in readings if at <= mono - window
    ]
    assert any(abs(rate - slope) < 1e-9 for slope in slopes)
    assert 0 <= rate <= 3


@given(st.lists(st.tuples(st.integers(1, 3), buckets), min_size=2, max_size=60))
def test_a_window_of_a_histogram_is_what_the_readings_say(path: list[tuple[int, list[int]]]) -> None:
    track = HistogramTrack(300.0)
    mono = 0.0
    held = [0] * len(BOUNDS)
    readings: list[tuple[float, Histogram]] = []
    for gap, own in path:
        mono += gap
        held = [a + b for a, b in zip(held, own, strict=True)]
        readings.append((mono, cumulative(held)))
        assert track.add(mono, readings[-1][1]) is False
    window = track.window(10.0, mono)
    base = next((reading for at, reading in reversed(readings) if at <= mono - 10.0), readings[0][1])
    assert window == histogram.subtract(readings[-1][1], base)


@given(buckets, st.floats(0, 1))
def test_a_quantile_lies_in_its_bucket_and_its_bucket_holds_the_rank(own: list[int], q: float) -> None:
    held = cumulative(own)
    quantile = histogram.quantile(held, q)
    if quantile is None:
        assert held.count == 0
        return
    assert quantile.lower <= quantile.value
    assert quantile.upper is None or quantile.value <= quantile.upper
    below = sum(count for bound, count in zip(BOUNDS, own, strict=True) if bound <= quantile.lower)
    upto = sum(count for bound, count in zip(BOUNDS, own, strict=True) if bound <= (quantile.upper or inf))
    assert below <= q * held.count <= upto
    assert upto > below


@given(buckets, buckets)
def test_subtract_undoes_merge(first: list[int], second: list[int]) -> None:
    both = histogram.merge([cumulative(first), cumulative(second)])
    assert both is not None
    assert histogram.subtract(both, cumulative(first)) == cumulative(second)
