"""Quiet hours: what people write, and when it holds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsboard.core.quiet import DAYS, quiet


def at(text: str, zone: str | None = "UTC") -> bool:
    hours, _, when = text.partition(" @ ")
    return quiet([hours], zone).holds(datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp())


def test_hours_past_midnight_belong_to_the_day_they_begin_on() -> None:
    assert at("fri 22:00-07:00 @ 2026-11-20T22:00")
    assert at("fri 22:00-07:00 @ 2026-11-21T06:59"), "Saturday morning"
    assert not at("fri 22:00-07:00 @ 2026-11-20T06:00")
    assert not at("fri 22:00-07:00 @ 2026-11-21T07:00")
    assert at("sat-sun @ 2026-11-22T12:00")
    assert at("sun-mon @ 2026-11-23T23:59")
    assert not at("sat-sun @ 2026-11-23T00:00")
    assert not quiet([]).holds(0.0)


def test_the_clock_on_the_wall_there_counts() -> None:
    assert at("22:00-07:00 @ 2026-07-01T05:30", "America/New_York"), "01:30"
    assert not at("22:00-07:00 @ 2026-07-01T11:30", "America/New_York"), "07:30 in summer"
    assert at("22:00-07:00 @ 2026-12-01T11:30", "America/New_York"), "06:30 in winter"


@pytest.mark.parametrize(
    "text", ["", "night", "22-07", "25:00-07:00", "08:60-09:00", "08:00-08:00", "sat+sun", "00:00-24:01"]
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected quiet hours such as"):
        quiet([text])
    with pytest.raises(ValueError, match="expected a time zone"):
        quiet([], "Mars/Olympus")


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 6), st.integers(0, 10_000))
def test_of_two_windows_that_share_their_ends_one_holds(start: int, end: int, day: int, minutes: int) -> None:
    if start == end:
        return
    one, other = (f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in ((start, end), (end, start)))
    t = 1_760_000_000.0 + minutes * 60
    assert quiet([one], "UTC").holds(t) is not quiet([other], "UTC").holds(t)
    days = f"{DAYS[day]}-{DAYS[(day + 6) % 7]}"
    assert quiet([f"{days} {one}"], "UTC").holds(t) == quiet([one], "UTC").holds(t), "the whole week"
