"""Planned restarts: always in time, never early, never in a busier slot than need be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opsboard.supervise.planning import EARLIEST, SLOT_S, plan

T0 = 1_700_000_000.0
HOUR = 3600.0
slots = st.integers(int((T0 - 8 * 86_400) // SLOT_S), int(T0 // SLOT_S))
traffic = st.dictionaries(slots, st.floats(0, 1e6), max_size=400)


@given(traffic, st.floats(0, 90_000), st.sampled_from([HOUR, 6 * HOUR, 24 * HOUR, 168 * HOUR]))
def test_it_is_due_in_the_second_half_and_not_after_the_deadline(
    traffic: dict[int, float], age_s: float, max_age_s: float
) -> None:
    found = plan(started=T0 - age_s, max_age_s=max_age_s, traffic=traffic, now=T0)
    assert found.deadline == T0 - age_s + max_age_s
    assert found.at <= found.deadline
    assert found.at >= T0 - age_s + EARLIEST * max_age_s
    assert found.at > T0 - SLOT_S or found.at == found.deadline


@given(traffic, st.floats(0, 80_000))
def test_a_plan_stays_until_it_is_due(traffic: dict[int, float], age_s: float) -> None:
    """As time goes on and nothing else is learnt, the chosen slot comes."""
    started = T0 - age_s
    first = plan(started=started, max_age_s=24 * HOUR, traffic=traffic, now=T0)
    for share in (0.0, 0.5, 0.99, 1.0):
        now = T0 + share * max(0.0, first.at - T0)
        assert plan(started=started, max_age_s=24 * HOUR, traffic=traffic, now=now).at == first.at


def test_the_quiet_hour_of_the_days_before_is_taken() -> None:
    day = int(86_400 / SLOT_S)
    now_slot = int(T0 // SLOT_S)
    busy = dict.fromkeys(range(now_slot - 3 * day, now_slot), 100.0)
    quiet = now_slot + 30
    busy |= {quiet - n * day: 1.0 for n in (1, 2, 3)}
    found = plan(started=T0 - 18 * HOUR, max_age_s=24 * HOUR, traffic=busy, now=T0)
    assert (found.at, found.expected) == (quiet * SLOT_S, 1.0)


def test_without_a_past_it_is_the_last_slot_before_the_deadline() -> None:
    found = plan(started=T0, max_age_s=24 * HOUR, traffic={}, now=T0)
    assert found.deadline - 2 * SLOT_S < found.at <= found.deadline - SLOT_S
    assert found.expected is None


def test_what_is_overdue_is_due_now() -> None:
    assert plan(started=T0 - 30 * HOUR, max_age_s=24 * HOUR, traffic={}, now=T0).at <= T0
