"""What an engine did between readings: nothing is lost, nothing is counted before it is whole."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from alerts.engine_work import Account, Taken, Work, take
from opsboard.core.model import EngineView, Histogram


def page(second: int, *, running: float = 4.0, waiting: float = 0.0, **counters: float) -> EngineView:
    """Return a page of an engine that makes 50 steps of 20 ms a second for four requests, one done each second."""
    usual = {
        "iterations": 50.0 * second, "generation_tokens": 201.0 * second, "requests_begun": 4.0 + second,
        "requests_completed": float(second), "prompt_tokens_computed": 300.0 * second,
        "completed_prefill_tokens": 300.0 * second, "preemptions": 0.0,
    }  # fmt: skip
    gaps = 200.0 * second
    return EngineView(
        kind="vllm", running=running, waiting=waiting, process_start=1.0, counters={**usual, **counters},
        histograms={
            "itl": Histogram(bounds=(math.inf,), counts=(gaps,), total=0.02 * gaps),
            "prefill": Histogram(bounds=(math.inf,), counts=(float(second),), total=0.05 * second),
        },
    )  # fmt: skip


def read(*pages: EngineView, gap_s: float = 20.0) -> list[Taken]:
    """Take one page a second."""
    account, taken = Account(), []
    for second, view in enumerate(pages):
        taken.append(take(account, view, float(second), gap_s))
        account = taken[-1].account
    return taken


def tokens(*pages: EngineView) -> list[Work]:
    """Return what was closed."""
    return [one.tokens for one in read(*pages) if one.tokens is not None]


def test_each_second_of_work_is_an_account() -> None:
    closed = tokens(*map(page, range(10)))
    assert len(closed) == 9
    assert {(round(work.token_s, 9), work.batch, work.prefill, round(work.busy_s, 9)) for work in closed} == {
        (0.02, 4.0, 6.0, 1.0)
    }


def test_what_is_not_closed_is_in_the_next() -> None:
    half = [page(second, running=5.0 if 3 <= second < 8 else 4.0) for second in range(12)]
    closed = tokens(*half)
    assert sum(work.gaps for work in closed) == 200.0 * 11
    assert max(work.seconds for work in closed) == pytest.approx(4.0), "four prompts done outweigh one half done"


def test_who_went_away_is_not_taken_for_a_prompt_half_done() -> None:
    """Four of eight leave at second 5; nothing counts them."""
    before = [page(second, running=8.0, requests_begun=8.0 + second) for second in range(5)]
    after = [page(second, running=4.0, requests_begun=8.0 + second) for second in range(5, 12)]
    assert len(tokens(*before, *after)) == 11


@pytest.mark.parametrize("tells", [True, False])
def test_a_prompt_half_done_is_seen_by_the_cache_although_one_went_away_uncounted(tells: bool) -> None:
    """By the counts of requests all is done; a prompt of 10,000 tokens is computed from second 3 to second 8."""

    def at(second: int) -> EngineView:
        grown = 2000.0 * min(5, max(0, second - 3))
        counted = {"prompt_tokens": 300.0 * second + (10_000.0 if second >= 8 else 0.0)} if tells else {}
        view = page(second, running=4.0, requests_begun=5.0 + second, requests_completed=float(second), **counted)
        usage = (1000.0 + grown) / 1e5
        return replace(view, kv_usage=usage, kv_capacity_tokens=1e5)

    begun = [work.begun for work in tokens(*map(at, range(14)))]
    assert begun == ([1.0, 1.0, 1.0, 5.0, *[1.0] * 5] if tells else [1.0] * 13)


def test_where_requests_are_preempted_nothing_is_closed_until_they_are_back() -> None:
    pages = [page(second, waiting=float(3 <= second < 6), preemptions=float(second >= 3)) for second in range(10)]
    assert len(tokens(*pages)) == 5


def test_another_life_begins_anew() -> None:
    taken = read(page(10), page(11), page(1), page(2))
    assert [one.born for one in taken] == [True, False, True, False]
    assert taken[2].tokens is None


def test_prompts_are_counted_by_eight_and_not_after_a_queue() -> None:
    ended = [one.prompts for one in read(*map(page, range(90))) if one.prompts is not None]
    assert len(ended) == 11
    assert {round(work.prefill_s / work.finished, 9) for work in ended} == {0.05}
    queued = [page(second, waiting=float(second == 5)) for second in range(60)]
    assert not [one.prompts for one in read(*queued) if one.prompts is not None]


def test_a_page_without_what_counts_is_passed_over() -> None:
    bare = EngineView(kind="vllm")
    taken = read(page(0), bare, page(2))
    assert taken[1].account is taken[0].account
    assert taken[2].tokens is not None
    assert taken[2].tokens.seconds == 2.0
