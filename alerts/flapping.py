"""When a trouble that comes and goes is one trouble: the rule of Nagios (its source, base/flapping.c). Pure.

The last 21 states are kept; a change between two neighbours weighs 0.75 when it is the oldest, 1.25 when the newest,
and their sum over 20 is the part of change. Flapping begins at 50 % and is over below 25 %; Nagios begins at 30 % and
ends at 20 %, for states that it takes far less often than opsboard reads.
"""

from __future__ import annotations

from collections.abc import Iterable

STATES = 21
BEGINS, ENDS = 0.50, 0.25
_OLDEST, _NEWEST = 0.75, 1.25


def part_of_change(states: Iterable[bool]) -> float:
    """Return the weighted part of change, 0..1, of the last ``STATES`` states, oldest first; before them was none."""
    kept = ([False] * STATES + list(states))[-STATES:]
    changes = STATES - 1
    weights = (
        _OLDEST + at * (_NEWEST - _OLDEST) / (changes - 1) for at in range(changes) if kept[at] is not kept[at + 1]
    )
    return sum(weights) / changes


def flaps(part: float, *, before: bool) -> bool:
    """Tell whether what changes by ``part`` flaps; ``before``: it did so far."""
    return part >= (ENDS if before else BEGINS)
