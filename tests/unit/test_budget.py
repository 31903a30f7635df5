"""How many restarts are allowed, by whom they are shared, and how long each waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsboard.core.model import Restart
from opsboard.supervise.budget import Allowed, Budget, Decision, Spent, decide
from opsboard.supervise.ledger import Ledger

BUDGET = Budget()
NOW = 1_700_000_000.0


def at(*ages: float, engine: str = "a", gpus: tuple[str, ...] = ("0",), forgiven: bool = False) -> list[Restart]:
    return [Restart(engine=engine, t=NOW - age, cause="test", gpus=gpus, forgiven=forgiven) for age in ages]


def decided(history: list[Restart], *, engine: str = "a", jitter: float = 1.0) -> Decision:
    return decide(BUDGET, history, engine, ("0",), now=NOW, jitter=jitter)


@pytest.mark.parametrize(
    ("ages", "pause"),
    [
        ((), 1.0),
        ((5.0,), 2.0),
        ((9.0, 5.0), 4.0),
        ((20.0, 9.0, 5.0), 8.0),
        ((599.0,), 2.0),
        ((601.0,), 1.0),
        ((3000.0, 2000.0, 700.0, 5.0), 2.0),
    ],
)
def test_pauses_double_until_a_life_was_healthy(ages: tuple[float, ...], pause: float) -> None:
    decision = decided(at(*ages))
    assert isinstance(decision, Allowed)
    assert decision.wait_s == pause


def test_pauses_are_capped_and_spread() -> None:
    many = Budget(per_engine=100, per_gpu=100, per_host=100)
    long = [decide(many, at(*range(20)), "a", (), now=NOW, jitter=jitter) for jitter in (0.0, 1.0)]
    assert [one.wait_s for one in long if isinstance(one, Allowed)] == [150.0, 300.0]


def test_a_life_that_lasts_a_little_longer_than_healthy_does_not_open_the_window() -> None:
    decision = decided(at(*(601.0 * n for n in range(1, 6))))
    assert isinstance(decision, Spent)
    assert (decision.which, decision.until) == ("engine", NOW - 5 * 601.0 + 3600.0)
    assert decision.text == "restarted 5 times within 60 min, and 5 are allowed"


def test_a_window_slides() -> None:
    assert isinstance(decided(at(3599.0, 10, 9, 8, 7)), Spent)
    assert isinstance(decided(at(3601.0, 10, 9, 8, 7)), Allowed)


def test_engines_share_the_budget_of_their_gpu_and_of_the_host() -> None:
    neighbours = [*at(1, 2, 3, 4, engine="b"), *at(5, 6, 7, 8, engine="c")]
    decision = decided(neighbours)
    assert isinstance(decision, Spent)
    assert (decision.which, "GPU 0" in decision.text) == ("gpu", True)
    assert decision.text.endswith("(b 4, c 4)"), "who spent it is looked at first"
    elsewhere = [one for n in range(5) for one in at(1, 2, 3, engine=f"e{n}", gpus=(f"{n + 1}",))]
    decision = decided(elsewhere)
    assert isinstance(decision, Spent)
    assert decision.which == "host"
    assert decision.text.endswith("15 times within 60 min (e0 3, e1 3, e2 3, others)")
    assert isinstance(decided(elsewhere[:-1]), Allowed)


def test_what_a_person_has_looked_at_counts_no_more_for_that_engine() -> None:
    ledger = Ledger(BUDGET, at(1, 2, 3, 4, 5), jitter=lambda: 1.0)
    assert isinstance(ledger.decide("a", ("0",), NOW), Spent)
    ledger.forgive("a")
    decision = ledger.decide("a", ("0",), NOW)
    assert isinstance(decision, Allowed)
    assert (decision.wait_s, decision.text) == (1.0, "restart 1 of 5 within 60 min")
    assert isinstance(Ledger(BUDGET, [*at(*range(8), forgiven=True)]).decide("b", ("0",), NOW), Spent)


def test_a_clock_that_was_set_back_opens_nothing() -> None:
    assert isinstance(decided(at(-60.0, -50, -40, -30, -20)), Spent)
    assert isinstance(decided(at(-7200.0, -7201, -7202, -7203, -7204)), Allowed), "nor does a year 2099 park for ever"


def test_one_that_could_not_be_written_down_is_taken_back() -> None:
    ledger = Ledger(BUDGET, at(1, 2, 3, 4))
    (restart,) = at(0)
    ledger.add(restart)
    assert isinstance(ledger.decide("a", (), NOW), Spent)
    ledger.take_back(restart)
    assert isinstance(ledger.decide("a", (), NOW), Allowed)


@given(gaps=st.lists(st.floats(0.0, 4000.0), max_size=60), jitter=st.floats(0, 1))
def test_no_window_ever_holds_more_than_allowed(gaps: list[float], jitter: float) -> None:
    """Whatever the lives last, whoever asks: restarts only when allowed, and no window is overfull."""
    ledger, now, done = Ledger(BUDGET, jitter=lambda: jitter), NOW, []
    for gap in gaps:
        now += gap
        decision = ledger.decide("a", ("0",), now)
        if isinstance(decision, Allowed):
            assert 0.5 * BUDGET.first_s <= decision.wait_s <= BUDGET.cap_s
            now += decision.wait_s
            if isinstance(ledger.decide("a", ("0",), now), Allowed):
                ledger.add(Restart(engine="a", t=now, cause="test", gpus=("0",)))
                done.append(now)
    for end in done:
        assert sum(end - BUDGET.window_s < t <= end for t in done) <= BUDGET.per_engine
