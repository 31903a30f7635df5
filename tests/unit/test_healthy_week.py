"""Hours of healthy life that look like a stall, in virtual time; whole weeks are tests/proving/healthy_week.py."""

from __future__ import annotations

import pytest

from tests.proving.healthy_week import HANGS, kept_alive, run

HOURS_12 = 12 * 3600


@pytest.mark.parametrize("canaries", [True, False], ids=["canaries", "alone"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_healthy_life_has_no_stall(seed: int, *, canaries: bool) -> None:
    result = run(HOURS_12, seed, canaries=canaries, every_s=60.0)
    assert result.claims == []
    assert {"compile", "prefill", "sleep", "restart", "gap"} <= set(result.counts), "all of it happened"
    assert bool(result.canaries) is canaries


@pytest.mark.parametrize("canaries", [True, False], ids=["canaries", "alone"])
def test_each_hang_in_such_a_life_is_found(*, canaries: bool) -> None:
    result = run(HOURS_12, 4, canaries=canaries, hangs=True)
    hangs = [claim for claim in result.claims if claim.doing in HANGS]
    assert len(hangs) == len(result.claims) == sum(result.counts.get(kind, 0) for kind in HANGS) > 2
    limit_s = 13.0 if canaries else 30.0  # alone it gets twice the longest step it was seen to make
    assert max(claim.after_s for claim in hangs) <= limit_s
    assert len(result.confirmed) == (len(hangs) if canaries else 0)


def test_clients_that_stay_connected_and_ask_for_nothing_cost_a_token_a_minute() -> None:
    asked, claims = kept_alive(HOURS_12)
    assert claims == 0
    assert asked <= HOURS_12 / 60
