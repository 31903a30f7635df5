"""How many restarts are allowed, by whom they are shared, and how long each waits."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsboard.core.clock import Now
from opsboard.core.model import Restart
from opsboard.supervise.budget import CAP, Allowed, Budget, Decision, Spent, decide
from opsboard.supervise.ledger import Ledger

BUDGET = Budget()
MONO = 10_000.0
WALL = 1_700_000_000.0
NOW = Now(wall=WALL, mono=MONO)


def ledger_of(*restarts: Restart, budget: Budget = BUDGET, jitter: float = 1.0) -> Ledger:
    return Ledger(budget, restarts, now=NOW, jitter=lambda: jitter)


def at(
    *ages: float, engine: str = "a", gpus: tuple[str, ...] = ("0",), served_s: float = 0.0, forgiven: bool = False
) -> list[Restart]:
    return [
        Restart(engine=engine, t=WALL - age, cause="test", gpus=gpus, served_s=served_s, forgiven=forgiven)
        for age in ages
    ]


def decided(history: list[Restart], *, engine: str = "a", served_s: float = 0.0) -> Decision:
    return decide(BUDGET, history, engine, ("0",), served_s=served_s, now=WALL, jitter=1.0)


def pause(history: list[Restart], served_s: float = 0.0) -> float:
    decision = decided(history, served_s=served_s)
    assert isinstance(decision, Allowed)
    return decision.wait_s


@pytest.mark.parametrize(
    ("served_s", "seconds"),
    [
        ((), 1.0),
        ((0.0,), 2.0),
        ((0.0, 0.0), 4.0),
        ((0.0, 599.0, 3.0), 8.0),
        ((0.0, 0.0, 0.0, 601.0), 2.0),
        ((0.0, 700.0, 0.0), 4.0),
    ],
)
def test_pauses_double_until_a_life_was_healthy(served_s: tuple[float, ...], seconds: float) -> None:
    """A start that takes longer than a healthy life is not one."""
    history = [*at(*(3500.0 - 700.0 * n for n in range(len(served_s))))]
    history = [msgspec.structs.replace(one, served_s=served) for one, served in zip(history, served_s, strict=True)]
    assert pause(history) == seconds
    assert pause(history, served_s=601.0) == 1.0, "it has been healthy just now"


def test_what_fails_together_does_not_load_together() -> None:
    others = [one for n in range(7) for one in at(10.0, engine=f"e{n}", gpus=())]
    assert [pause(others[:count]) for count in (2, 3, 5, 6)] == [1.0, 2.0, 2.0, 4.0]
    assert pause(at(61.0, 62, 63, engine="b")) == 1.0, "that was long ago"
    assert pause(at(1, 2, 3, 4, 5, engine="b")) == 1.0, "it is parked, and loads nothing any more"


def test_pauses_are_capped_and_spread() -> None:
    many = Budget(per_engine=100, per_gpu=100, per_host=100)
    long = [decide(many, at(*range(20)), "a", (), served_s=0.0, now=WALL, jitter=jitter) for jitter in (0.0, 1.0)]
    assert [one.wait_s for one in long if isinstance(one, Allowed)] == [150.0, 300.0]


def test_a_life_that_lasts_a_little_longer_than_healthy_does_not_open_the_window() -> None:
    decision = decided(at(*(601.0 * n for n in range(1, 6)), served_s=601.0), served_s=601.0)
    assert isinstance(decision, Spent)
    assert decision.which == "engine"
    assert decision.text == "restarted 5 times within 60 min, and 5 are allowed"


def test_a_window_slides() -> None:
    assert isinstance(decided(at(3599.0, 10, 9, 8, 7)), Spent)
    assert isinstance(decided(at(3601.0, 10, 9, 8, 7, served_s=1.0)), Allowed)


def test_an_engine_that_is_never_ready_in_time_is_left_alone_in_the_end() -> None:
    slow = at(*(960.0 * n for n in range(5)))
    assert decided(slow) == Spent(which="engine", text="restarted 5 times within 64 min and never served")
    assert isinstance(decided(slow[:-1]), Allowed)
    assert isinstance(decided(slow, served_s=1.0), Allowed), "it has served since"
    once = [*slow[:2], msgspec.structs.replace(slow[2], served_s=30.0), *slow[3:]]
    assert isinstance(decided(once), Allowed), "it served in between"
    kept = ledger_of(budget=BUDGET)
    for one in reversed(slow):
        kept.add(one, MONO - (WALL - one.t))
    assert isinstance(kept.decide("a", ("0",), MONO), Spent)
    kept.forgive("a")
    assert isinstance(kept.decide("a", ("0",), MONO), Allowed)


def test_engines_that_never_serve_share_the_budget_of_their_gpu_and_of_the_host() -> None:
    once = at(9.0, gpus=("0",))
    neighbours = [*once, *at(1, 2, 3, 4, engine="b"), *at(5, 6, 7, engine="c")]
    decision = decided(neighbours)
    assert isinstance(decision, Spent)
    assert (decision.which, "GPU 0" in decision.text) == ("gpu", True)
    assert decision.text.endswith("8 times within 60 min (b 4, c 3, a 1)"), "who spent it is looked at first"
    assert isinstance(decided(neighbours[:-1]), Allowed)
    elsewhere = [one for n in range(5) for one in at(1, 2, 3, engine=f"e{n}", gpus=(f"{n + 1}",))]
    decision = decided([*once, *elsewhere[1:]])
    assert isinstance(decision, Spent)
    assert decision.which == "host"
    assert decision.text.endswith("15 times within 60 min (e1 3, e2 3, e3 3, others)")
    assert isinstance(decided([*once, *elsewhere[2:]]), Allowed)


def test_engines_that_never_work_do_not_take_the_restart_of_one_that_did() -> None:
    trying = [one for n in range(4) for one in at(*range(4), engine=f"trying{n}", gpus=())]
    once = at(1.0)
    assert isinstance(decided([*trying, *once]), Spent), "it has not served at all"
    assert isinstance(decided(trying), Allowed), "the first time is one's own"
    assert isinstance(decided([*trying, *once], served_s=5.0), Allowed), "it has served"
    came_back = [*trying, *at(1.0, served_s=5.0)]
    assert isinstance(decided(came_back), Allowed), "nor is that forgotten when its next start fails"
    broken = [one for n in range(3) for one in at(*range(5), engine=f"broken{n}", gpus=())]
    assert isinstance(decided([*broken, *once]), Allowed), "parked by their own budgets, they ask for nothing any more"


def test_nobody_goes_beyond_twice_a_shared_budget() -> None:
    broken = [one for n in range(6) for one in at(*range(5), engine=f"broken{n}", gpus=(f"{n + 1}",))]
    decision = decided(broken, served_s=86_400.0)
    assert isinstance(decision, Spent)
    assert (decision.which, "30 times" in decision.text) == ("host", True)
    assert isinstance(decided(broken[1:], served_s=86_400.0), Allowed)
    same_gpu = [one for n in range(4) for one in at(*range(4), engine=f"broken{n}")]
    decision = decided(same_gpu, served_s=86_400.0)
    assert isinstance(decision, Spent)
    assert (decision.which, "16 times" in decision.text) == ("gpu", True)


def test_what_a_person_has_looked_at_counts_for_nobody_any_more() -> None:
    ledger = ledger_of(*at(1, 2, 3, 4, 5))
    assert isinstance(ledger.decide("a", ("0",), MONO), Spent)
    ledger.forgive("a")
    decision = ledger.decide("a", ("0",), MONO)
    assert isinstance(decision, Allowed)
    assert (decision.wait_s, decision.text) == (1.0, "restart 1 of 5 within 60 min")
    neighbours = [*at(1, 2, 3, 4, engine="b"), *at(5, 6, 7, 8, engine="c")]
    ledger = ledger_of(*neighbours, *at(9.0))
    assert isinstance(ledger.decide("a", ("0",), MONO), Spent)
    ledger.forgive("b")
    assert isinstance(ledger.decide("a", ("0",), MONO), Allowed)


def test_a_clock_that_was_set_back_opens_nothing() -> None:
    """Neither while a daemon runs, which goes by its other clock, nor before it began."""
    ledger = ledger_of(*at(-60.0, -50, -40, -30))
    assert isinstance(ledger.decide("a", (), MONO), Allowed)
    ledger.add(Restart(engine="a", t=WALL - 86_400.0, cause="test", served_s=1.0), MONO)
    assert isinstance(ledger.decide("a", (), MONO), Spent)
    assert isinstance(ledger.decide("a", (), MONO + 3500.0), Spent), "four were counted by the other daemon"
    assert isinstance(ledger.decide("a", (), MONO + 3600.0), Allowed)
    distant = ledger_of(*at(-7200.0, -7201, -7202, -7203, -7204, served_s=1.0))
    assert isinstance(distant.decide("a", (), MONO), Allowed), "nor does a year 2099 park for ever"


def test_one_that_could_not_be_written_down_is_taken_back() -> None:
    ledger = ledger_of(*at(1, 2, 3, 4))
    (restart,) = at(0)
    ledger.add(restart, MONO)
    assert isinstance(ledger.decide("a", (), MONO), Spent)
    ledger.take_back(restart)
    assert isinstance(ledger.decide("a", (), MONO), Allowed)


ASKED = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.floats(0.0, 300.0),
        st.sampled_from([0.0, 0.0, 300.0, 600.0, 86_400.0]),
        st.integers(0, 19).map(lambda number: number == 0),
    ),
    max_size=100,
)
SMALL = Budget(per_engine=3, per_gpu=4, per_host=6)
GPUS = {"a": ("0",), "b": ("0",), "c": ("0", "1"), "d": ("1",)}


@given(asked=ASKED, jitter=st.floats(0, 1))
def test_no_window_ever_holds_more_than_twice_what_is_allowed(
    asked: list[tuple[str, float, float, bool]], jitter: float
) -> None:
    """Whoever asks, whatever the lives before have served: restarts only when allowed, and no window is overfull.

    What a person forgives is taken out: each of them bought no more than what it took out.
    """
    ledger, now = ledger_of(budget=SMALL, jitter=jitter), MONO
    done: list[Restart] = []
    for engine, gap, served_s, person in asked:
        now += gap
        if person:
            ledger.forgive(engine)
            done = [one for one in done if one.engine != engine]
        decision = ledger.decide(engine, GPUS.get(engine, ()), now, served_s)
        if isinstance(decision, Allowed):
            assert 0.5 * SMALL.first_s <= decision.wait_s <= SMALL.cap_s
            done.append(Restart(engine=engine, t=now, cause="test", gpus=GPUS.get(engine, ()), served_s=served_s))
            ledger.add(done[-1], now)
        within = [one for one in done if now - one.t < SMALL.window_s]
        assert len(within) <= CAP * SMALL.per_host
        assert all(sum(gpu in one.gpus for one in within) <= CAP * SMALL.per_gpu for gpu in "01")
        assert all(sum(one.engine == name for one in within) <= SMALL.per_engine for name in "abcdef")
