"""Difference, sum and quantiles of cumulative histograms."""

from __future__ import annotations

from math import inf, nan

import pytest

from opsboard.core import histogram
from opsboard.core.model import Histogram
from opsboard.core.wire import Quantile


def make(counts: tuple[float, ...], total: float | None = None) -> Histogram:
    return Histogram(bounds=(0.1, 0.5, 1.0, inf), counts=counts, total=total)


def test_a_quantile_is_interpolated_inside_its_bucket_and_says_the_bounds() -> None:
    assert histogram.quantile(make((0, 10, 10, 10)), 0.5) == Quantile(value=0.1 + 0.4 * 0.5, lower=0.1, upper=0.5)
    assert histogram.quantile(make((4, 4, 4, 4)), 0.5) == Quantile(value=0.1 * 0.5, lower=0.0, upper=0.1)


def test_above_the_last_finite_bound_only_that_bound_is_known() -> None:
    assert histogram.quantile(make((0, 0, 1, 10)), 0.95) == Quantile(value=1.0, lower=1.0, upper=None)


def test_the_edges_are_the_first_bucket_above_zero_and_beyond_the_last() -> None:
    edges = {
        (0.0, 0.3): True,
        (0.3, 0.5): False,
        (0.0, 0.0): False,
        (10.0, None): True,
    }
    assert {
        pair: histogram.at_an_edge(Quantile(value=pair[0], lower=pair[0], upper=pair[1])) for pair in edges
    } == edges


def test_without_observations_or_finite_bounds_there_is_no_quantile() -> None:
    assert histogram.quantile(make((0, 0, 0, 0)), 0.5) is None
    assert histogram.quantile(Histogram(bounds=(), counts=()), 0.5) is None
    assert histogram.quantile(Histogram(bounds=(inf,), counts=(3,)), 0.5) is None


def test_the_extreme_quantiles_lie_in_buckets_that_hold_something() -> None:
    held = make((0, 5, 5, 5))
    assert histogram.quantile(held, 0.0) == Quantile(value=0.1, lower=0.1, upper=0.5)
    assert histogram.quantile(held, 1.0) == Quantile(value=0.5, lower=0.1, upper=0.5)


def test_a_first_bucket_at_or_below_zero_is_its_bound() -> None:
    below = Histogram(bounds=(-1.0, 1.0, inf), counts=(4, 4, 4))
    assert histogram.quantile(below, 0.5) == Quantile(value=-1.0, lower=-1.0, upper=-1.0)


def test_subtract_gives_what_happened_between() -> None:
    assert histogram.subtract(make((1, 3, 4, 6), 9.0), make((1, 2, 2, 2), 1.5)) == make((0, 1, 2, 4), 7.5)


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (make((0, 1, 1, 1)), "fewer"),
        (make((5, 5, 5, 9)), "the middle would have to lose some"),
        (Histogram(bounds=(1.0, inf), counts=(9, 9)), "other bounds"),
        (make((nan, 9, 9, 9)), "not a number"),
    ],
)
def test_subtract_is_none_after_a_reset(new: Histogram, why: str) -> None:
    assert histogram.subtract(new, make((1, 2, 8, 8))) is None, why


def test_a_total_that_is_missing_or_went_down_is_unknown() -> None:
    for new, old in ((5.0, None), (None, 5.0), (1.0, 5.0)):
        difference = histogram.subtract(make((2, 2, 2, 2), new), make((1, 1, 1, 1), old))
        assert difference is not None
        assert difference.total is None


def test_merge_adds_ranks_and_refuses_unequal_bounds() -> None:
    assert histogram.merge([make((1, 2, 3, 4), 1.0), make((0, 0, 1, 1), 0.5)]) == make((1, 2, 4, 5), 1.5)
    assert histogram.merge([make((1, 2, 3, 4), 1.0), make((0, 0, 1, 1))]) == make((1, 2, 4, 5))
    assert histogram.merge([make((1, 2, 3, 4)), Histogram(bounds=(inf,), counts=(1,))]) is None
    assert histogram.merge([]) is None


def test_latency_has_mean_and_quantiles_or_none() -> None:
    shown = histogram.latency(make((0, 10, 10, 10), 3.0))
    assert shown.count == 10
    assert shown.mean == pytest.approx(0.3)
    assert shown.p95 is not None
    empty = histogram.latency(make((0, 0, 0, 0), 0.0))
    assert (empty.count, empty.mean, empty.p50) == (0, None, None)
