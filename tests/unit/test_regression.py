"""Loads never seen before: what they teach, and when; and what becomes of a claim that can be compared no more."""

from __future__ import annotations

import random
from itertools import count

import pytest

from alerts.load_model import LoadModel, Loads
from alerts.regression import WAITING, Rules, Took, Watch
from tests.proving.latency_minutes import episode

RULES = Rules(tolerance=0.08, patience_s=30.0, learn_s=45.0, memory_s=86_400.0)


class Engine:
    """What an engine takes: 10 ms, 0.2 ms a request, next to nothing for context."""

    def __init__(self) -> None:
        self.watch = Watch(rules=RULES, model=LoadModel(grain=(1.0, 500.0), knots=((16.0,), ())))
        self.at = count()
        self.pick = random.Random(3)
        self.see(120)

    def see(self, seconds: int, *, batch: float = 6.0, context: float = 2000.0, slow: float = 1.0) -> bool:
        """Live a while under about such a load; tell whether it is too slow."""
        for _ in range(seconds):
            loads: Loads = (batch * self.pick.uniform(0.6, 1.5), context * self.pick.uniform(0.6, 1.5))
            noise = self.pick.lognormvariate(0.0, 0.02)
            self.watch = self.watch.take(Took(loads, true(loads) * slow * noise, 1.0, float(next(self.at))))
        return self.watch.opened is not None

    def expects(self, batch: float, context: float) -> float | None:
        return self.watch.model.expected((batch, context))


def true(loads: Loads) -> float:
    return 0.010 + 0.0002 * loads[0] + 1e-9 * loads[1]


def test_a_fault_that_comes_with_a_new_load_teaches_nothing_wrong() -> None:
    engine = Engine()
    assert not engine.see(30, batch=40.0, slow=1.3), "nothing like it was seen"
    assert engine.see(25, slow=1.3), "what is known is too slow now"
    assert engine.watch.waiting == ()
    assert engine.expects(6.0, 2000.0) == pytest.approx(true((6.0, 2000.0)), rel=0.03)
    assert not engine.see(60)


def test_a_new_load_is_learnt_when_all_is_well_after_it() -> None:
    engine = Engine()
    engine.see(30, batch=40.0)
    assert engine.expects(40.0, 2000.0) is None
    engine.see(20)
    assert engine.watch.waiting == ()
    engine.see(30, batch=40.0)
    engine.see(20)
    assert engine.expects(40.0, 2000.0) == pytest.approx(true((40.0, 2000.0)), rel=0.05)


def test_a_new_load_that_stays_is_learnt() -> None:
    engine = Engine()
    engine.see(4 * WAITING, batch=40.0)
    assert len(engine.watch.waiting) <= WAITING
    assert engine.expects(40.0, 2000.0) == pytest.approx(true((40.0, 2000.0)), rel=0.05)


def test_a_claim_that_can_be_compared_no_more_is_dropped_in_the_end() -> None:
    engine = Engine()
    assert engine.see(40, slow=1.3)
    assert engine.see(3500, batch=60.0, slow=1.3), "it may still be true"
    assert not engine.see(400, batch=60.0, slow=1.3), "nobody will know"


def test_a_little_beyond_what_was_seen_is_compared_where_it_hardly_matters() -> None:
    engine = Engine()
    farther = engine.expects(6.0, 6000.0)
    assert farther == pytest.approx(true((6.0, 6000.0)), rel=0.04)
    assert engine.expects(6.0, 60_000.0) is None
    assert engine.expects(18.0, 2000.0) is None, "a batch matters"


@pytest.mark.parametrize("size", [1.0, 1.15, 1.3])
def test_short_cold_episodes(size: float) -> None:
    for seed in (8001, 8002, 8003):
        result = episode(seed, size)
        assert result.false == []
        assert (result.found is not None) == (size > 1.0)
        assert result.found is None or result.found <= (60.0 if size > 1.2 else 120.0)
