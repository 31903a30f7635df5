"""Hours of the simulated days: what only looks like a leak is not claimed, what leaks is."""

from __future__ import annotations

import pytest

from tests.proving.leaking_days import GIB, SHAPES, Case, Day, detector_of, judged

HOURS = 3600.0


@pytest.mark.parametrize("shape", SHAPES)
def test_hours_without_a_leak(shape: str) -> None:
    case = Case(11, shape, gpu=shape in {"plain", "steps"}, seconds=3 * HOURS)
    assert judged(Day(case), detector_of(case)) == []


@pytest.mark.parametrize("gpu", [False, True])
def test_hours_with_one(gpu: bool) -> None:
    case = Case(24, "plain", gpu=gpu, leak=1.0, onset=1.5 * HOURS, seconds=2 * HOURS)
    case = case._replace(leak=4 * GIB / 3600 / Day(case).rate)
    (claim,) = judged(Day(case), detector_of(case))
    assert 0 < claim.after_s - case.onset <= 600
