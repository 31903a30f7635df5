"""Numbers as people read them: exact words, and a width that columns can rely on."""

from __future__ import annotations

import datetime as dt
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsboard.tui import format as fmt

ANY = st.one_of(st.none(), st.floats(), st.integers(min_value=-(10**15), max_value=10**18))


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "--"), (0, "0"), (0.04, "<0.1"), (0.4, "0.4"), (3, "3"), (9.94, "9.9"), (12.4, "12"), (999, "999"),
     (1240, "1.24k"), (12_400, "12.4k"), (999_600, "1.00M"), (412_000, "412k"), (math.nan, "--"), (-3, "--")],
)  # fmt: skip
def test_count(value: float | None, said: str) -> None:
    assert fmt.count(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "--"), (0, "0ms"), (0.0004, "<1ms"),
     (0.0041, "4.1ms"), (0.041, "41ms"), (0.9994, "999ms"), (0.9996, "1.00s"),
     (1.236, "1.24s"), (12.4, "12.4s"), (124, "124s"), (2520, "42m"), (math.inf, "--")],
)  # fmt: skip
def test_seconds(value: float | None, said: str) -> None:
    assert fmt.seconds(value) == said


@pytest.mark.parametrize(
    ("lower", "upper", "said", "short"),
    [(0.2, 0.4, "250ms", "250ms"),
     (0, 0.3, "<300ms", "<0.3s"), (0, 0.25, "<250ms", "<0.3s"), (0, 0.001, "<1ms", "<1ms"),
     (0, 0.0025, "<2.5ms", "<3ms"), (0, 1.0, "<1s", "<1s"), (0, 0.0005, "<0.5ms", "<1ms"), (0, 0, "250ms", "250ms"),
     (10, None, ">10s", ">10s"), (2560, None, ">42.6m", ">42m"), (0.99, None, ">990ms", ">0.9s")],
)  # fmt: skip
def test_a_latency_at_an_edge_of_its_histogram_is_told_by_the_bound(
    lower: float, upper: float | None, said: str, short: str
) -> None:
    assert fmt.within(0.25, lower, upper, 6) == said
    assert fmt.within(0.25, lower, upper, 5) == short
    assert fmt.within(None, lower, upper, 5) == "--"


@given(st.floats(min_value=1e-6, max_value=59_000), st.sampled_from((5, 6, 7)))
def test_a_bound_stays_true_however_short(bound: float, cells: int) -> None:
    units = {"ms": 1e-3, "s": 1.0, "m": 60.0}
    for text in (fmt.within(1.0, 0, bound, cells), fmt.within(1.0, bound, None, cells)):
        assert len(text) <= cells
        parts = re.fullmatch(r"[<>]([\d.]+)(ms|s|m)", text)
        assert parts is not None
        said = float(parts[1]) * units[parts[2]]
        assert said >= bound * (1 - 1e-5) if text[0] == "<" else said <= bound * (1 + 1e-5)


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "--"), (0, "0B"), (512, "512B"), (512 * 2**20, "512M"), (71.2 * 2**30, "71.2G"), (1023 * 2**20, "1.00G")],
)
def test_size(value: float | None, said: str) -> None:
    assert fmt.size(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "--"),
        (0, "0s"),
        (19.9, "19s"),
        (44, "40s"),
        (60, "1m"),
        (3_900, "1h05"),
        (180_000, "2d2h"),
        (10**7, "115d"),
    ],
)
def test_age(value: float | None, said: str) -> None:
    assert fmt.age(value) == said


def test_a_trace_is_never_shown_as_zero_nor_zero_as_unknown() -> None:
    assert [fmt.rate(v) for v in (None, 0, 0.001, 0.02, 1.3, 42)] == ["--", "0", "<.01", "0.02", "1.3", "42"]
    assert [fmt.percent(v) for v in (None, 0, 0.004, 0.62, 1)] == ["--", "0%", "<1%", "62%", "100%"]


@given(ANY)
def test_no_number_is_wider_than_its_column(value: float | None) -> None:
    for show in (fmt.seconds, fmt.size, fmt.age, fmt.rate, fmt.percent, fmt.count):
        assert 1 <= len(show(value)) <= 5


def test_the_clock_survives_any_number() -> None:
    assert fmt.clock(1_700_000_000.0, dt.UTC) == "22:13:20"
    assert fmt.clock(None, dt.UTC) == fmt.clock(1e300, dt.UTC) == fmt.clock(math.nan, dt.UTC) == "--:--:--"
