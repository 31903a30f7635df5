"""What an engine's own past says of a load: fitted, bent, and silent about what was never seen."""

from __future__ import annotations

import random

import pytest

from alerts.load_model import LoadModel, Loads


def fitted(observe: dict[Loads, float] | None = None, count: int = 300, noise: float = 0.0) -> LoadModel:
    """Learn 10 ms, 0.2 ms a request and 30 us a token of two loads, from what was seen of them."""
    pick, model = random.Random(1), LoadModel(grain=(1.0, 8.0), knots=((32.0,), ()))
    for _ in range(count):
        loads: Loads = (pick.uniform(2, 30), pick.uniform(0, 60))
        model = model.learn(loads, true(loads) * pick.lognormvariate(0.0, noise), 1.0, like=True)
    for loads, seconds in (observe or {}).items():
        for _ in range(100):
            model = model.learn(loads, seconds, 1.0, like=False)
    return model


def true(loads: Loads) -> float:
    return 0.010 + 0.0002 * loads[0] + 0.00003 * loads[1]


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("loads", [(4.0, 10.0), (20.0, 50.0), (25.0, 0.0)])
def test_what_was_seen_is_expected(loads: Loads, noise: float) -> None:
    assert fitted(noise=noise).expected(loads) == pytest.approx(true(loads), rel=0.03)


@pytest.mark.parametrize("loads", [(60.0, 30.0), (10.0, 400.0)])
def test_what_was_never_seen_is_not_expected(loads: Loads) -> None:
    assert fitted().expected(loads) is None


def test_nothing_is_expected_of_few() -> None:
    assert fitted(count=5).expected((10.0, 30.0)) is None


def test_a_bend_is_learnt_where_it_is() -> None:
    far: dict[Loads, float] = {(60.0, 30.0): 3 * true((60.0, 30.0))}
    model = fitted(far)
    assert model.expected((60.0, 30.0)) == pytest.approx(far[60.0, 30.0], rel=0.04)
    assert model.expected((4.0, 30.0)) == pytest.approx(true((4.0, 30.0)), rel=0.05)


def test_a_new_load_is_silent_until_the_fit_has_settled() -> None:
    model = fitted()
    for _ in range(8):
        model = model.learn((60.0, 30.0), 3 * true((60.0, 30.0)), 1.0, like=False)
    expected = model.expected((60.0, 30.0))
    assert expected is None or expected == pytest.approx(3 * true((60.0, 30.0)), rel=0.05)


def test_one_that_is_far_off_hardly_moves_it() -> None:
    model = fitted(noise=0.02)
    before = model.expected((10.0, 30.0))
    for _ in range(10):
        model = model.learn((10.0, 30.0), 1.0, 1.0, like=True)
    assert model.expected((10.0, 30.0)) == pytest.approx(before, rel=0.02)


def test_more_load_never_makes_it_faster() -> None:
    pick, model = random.Random(2), LoadModel(grain=(1.0, 8.0), knots=((), ()))
    for _ in range(200):
        loads = (pick.uniform(2, 30), pick.uniform(0, 60))
        model = model.learn(loads, 0.02 - 0.0001 * loads[0], 1.0, like=True)
    assert min(model.line[1:]) >= 0.0


def test_what_was_forgotten_gives_way_to_what_comes() -> None:
    model, pick = fitted().forget(0.05), random.Random(3)
    for _ in range(60):
        loads = (pick.uniform(2, 30), pick.uniform(0, 60))
        model = model.learn(loads, 0.7 * true(loads), 1.0, like=False)
    assert model.expected((10.0, 30.0)) == pytest.approx(0.7 * true((10.0, 30.0)), rel=0.1)
