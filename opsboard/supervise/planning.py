"""When to restart an engine that shall not grow older than it may: in the quietest ten minutes before it does.

Pure. The future is taken to be as the same time of day was on the days before; without a past all slots are alike and
the last one before the deadline is taken, for age is the only thing that is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from opsboard.core.model import Record

SLOT_S = 600.0
"""Length of a slot in seconds; slots begin at whole multiples of it in Unix time."""
DAY_S = 86_400.0
EARLIEST = 0.5
"""Part of its age that an engine may live before a quiet slot is taken: no restarts just because it is night."""


class Plan(Record, frozen=True, kw_only=True):
    """``at`` is when to restart (Unix seconds); ``expected`` the traffic then in the unit given, None when unknown."""

    at: float
    deadline: float
    expected: float | None


def plan(*, started: float, max_age_s: float, traffic: Mapping[int, float], now: float) -> Plan:
    """Return the quietest slot that is left before the deadline, the latest of equals.

    ``traffic`` is the mean of any rate by slot (Unix time // SLOT_S) as far back as is known; slots without a reading
    are absent. A plan whose ``at`` is not after ``now`` is due.
    """
    deadline = started + max_age_s
    first = max(ceil((started + EARLIEST * max_age_s) / SLOT_S), int(now // SLOT_S))
    last = int(deadline // SLOT_S) - 1
    if last < first:  # nothing to choose any more
        return Plan(at=deadline, deadline=deadline, expected=None)
    known = [(expected, -slot) for slot in range(first, last + 1) if (expected := _expected(traffic, slot)) is not None]
    if not known:
        return Plan(at=last * SLOT_S, deadline=deadline, expected=None)
    expected, slot = min(known)
    return Plan(at=-slot * SLOT_S, deadline=deadline, expected=expected)


def _expected(traffic: Mapping[int, float], slot: int) -> float | None:
    """Return the mean of the same slot on the days before; None when no day knows it."""
    day = int(DAY_S / SLOT_S)
    past = [traffic[slot - n * day] for n in range(1, 8) if slot - n * day in traffic]
    return sum(past) / len(past) if past else None
