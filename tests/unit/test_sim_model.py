"""The simulated scheduler: batches, chunks, preemption, prefix caching and leaks, in virtual time."""

from __future__ import annotations

import itertools

import pytest

from opsboard.sim.faults import Faults
from opsboard.sim.model import EngineModel, Request, Shape, StepResult

SMALL = Shape(blocks=65, block_size=4, max_num_seqs=8, max_model_len=128, max_batched_tokens=32, jitter=0.0)


def request(id: int, prompt: int, output: int, names: tuple[int, ...] | None = None) -> Request:
    hashes = names if names is not None else tuple(id * 1000 + index for index in range(prompt // 4))
    return Request(id, prompt, hashes, output, "length", id)


def drain(model: EngineModel, now: float = 0.0) -> list[StepResult]:
    results: list[StepResult] = []
    while model.has_work:
        results.append(model.step(now))
        now = results[-1].ends
        assert len(results) < 10_000
    return results


def test_one_request_gets_its_tokens_one_a_step() -> None:
    model = EngineModel(SMALL)
    model.add(request(1, 10, 3), 0.0)
    results = drain(model)
    assert [result.tokens for result in results] == [(1,), (1,), (1,)]
    assert [result.first[0].id for result in results if result.first] == [1]
    assert results[-1].finished[0].reason == "length"
    assert model.stats().kv_usage == 0.0


def test_a_long_prompt_is_computed_in_chunks_that_make_no_token() -> None:
    model = EngineModel(SMALL)
    model.add(request(1, 100, 1), 0.0)
    results = drain(model)
    assert [len(result.tokens) for result in results] == [0, 0, 0, 1]
    assert [result.stats.kv_usage for result in results[:3]] == [8 / 64, 16 / 64, 24 / 64]


def test_decoding_goes_on_beside_a_prefill_and_the_batch_has_a_limit() -> None:
    model = EngineModel(SMALL)
    for number in range(1, 12):
        model.add(request(number, 4, 20), 0.0)
    result = model.step(0.0)
    assert (result.stats.running, result.stats.waiting) == (8, 3)
    assert len(result.tokens) == 8


def test_steps_take_longer_with_more_requests_prompts_and_context() -> None:
    def first_step(*requests: Request) -> float:
        model = EngineModel(SMALL)
        for one in requests:
            model.add(one, 0.0)
        return model.step(0.0).ends

    assert first_step(request(1, 4, 1)) < first_step(request(1, 30, 1))
    model = EngineModel(SMALL)
    for number in range(1, 7):
        model.add(request(number, 4, 30), 0.0)
        model.step(float(number))
    result = model.step(7.0)
    alone = EngineModel(SMALL)
    alone.add(request(1, 4, 30), 0.0)
    alone.step(0.0)
    assert result.ends - result.began > (again := alone.step(1.0)).ends - again.began


def test_a_shared_prompt_is_served_from_the_cache_but_for_its_last_token() -> None:
    model = EngineModel(SMALL)
    model.add(request(1, 16, 2, (1, 2, 3, 4)), 0.0)
    drain(model)
    model.add(request(2, 16, 2, (1, 2, 3, 4)), 10.0)
    results = drain(model, 10.0)
    assert results[0].first[0].cached_tokens == 12
    assert (results[0].stats.prefix_queries, results[0].stats.prefix_hits) == (16, 12)


def test_another_prompt_shares_nothing() -> None:
    model = EngineModel(SMALL)
    model.add(request(1, 16, 2, (1, 2, 3, 4)), 0.0)
    drain(model)
    model.add(request(2, 16, 2, (9, 2, 3, 4)), 10.0)
    assert drain(model, 10.0)[0].first[0].cached_tokens == 0


def test_when_blocks_run_out_the_newest_is_preempted_and_still_gets_all_its_tokens() -> None:
    model = EngineModel(SMALL)
    for number in (1, 2, 3, 4):
        model.add(request(number, 32, 64), 0.0)
    results = drain(model)
    assert sum(result.stats.preemptions for result in results) > 0
    assert max(result.stats.kv_usage for result in results) == 1.0
    tokens = list(itertools.chain.from_iterable(result.tokens for result in results))
    assert {number: tokens.count(number) for number in (1, 2, 3, 4)} == dict.fromkeys((1, 2, 3, 4), 64)
    preempted = {one.id: one.preemptions for result in results for one in result.finished}
    assert preempted[1] == 0
    assert preempted[4] > 0
    assert model.stats().kv_usage == 0.0


def test_an_abort_frees_blocks_whether_running_or_waiting() -> None:
    model = EngineModel(SMALL)
    for number in range(1, 11):
        model.add(request(number, 4, 50), 0.0)
    model.step(0.0)
    assert model.abort(1)
    assert model.abort(10)
    assert not model.abort(10)
    assert model.stats().running == 7
    for number in range(2, 10):
        assert model.abort(number)
    assert not model.has_work
    assert model.stats().kv_usage == 0.0


def test_what_can_never_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="whole cache"):
        EngineModel(SMALL).add(request(1, 250, 10), 0.0)


def test_the_same_seed_gives_the_same_steps() -> None:
    def run(seed: int) -> list[StepResult]:
        model = EngineModel(Shape(), seed=seed)
        for number in range(1, 20):
            model.add(request(number, 50, 20), 0.0)
        return drain(model)

    assert run(5) == run(5)
    assert run(5) != run(6)


@pytest.mark.parametrize(("fault", "value", "kept"), [("leak", 1.0, 20), ("leak", 0.1, 2), ("leak", 3.0, 60)])
def test_a_leak_keeps_so_many_blocks_for_each_finished_request(fault: str, value: float, kept: int) -> None:
    model = EngineModel(SMALL, Faults({fault: value}))
    for number in range(1, 21):
        model.add(request(number, 9, 4), float(number))
        drain(model, float(number))
    assert model.leaked_blocks == kept
    assert model.stats().kv_usage == pytest.approx(kept / 64)


def test_a_leak_on_abort_leaves_finished_requests_alone() -> None:
    model = EngineModel(SMALL, Faults({"leak_on_abort": 2.0}))
    model.add(request(1, 9, 4), 0.0)
    drain(model)
    assert model.leaked_blocks == 0
    model.add(request(2, 9, 40), 1.0)
    model.step(1.0)
    model.abort(2)
    assert model.leaked_blocks == 2
    assert model.stats().kv_usage == pytest.approx(2 / 64)


def test_a_leak_by_the_hour_needs_no_traffic() -> None:
    model = EngineModel(SMALL, Faults({"leak_per_hour": 6.0}))
    for minute in range(121):
        model.tick(60.0 * minute)
    assert model.leaked_blocks == 12


def test_a_cache_lost_to_leaks_leaves_requests_waiting_for_ever() -> None:
    model = EngineModel(SMALL, Faults({"leak_per_hour": 3600.0}))
    for second in range(70):
        model.tick(float(second))
    model.add(request(1, 20, 2), 70.0)
    result = model.step(71.0)
    assert (result.stats.running, result.stats.waiting, result.stats.kv_usage) == (0, 1, 1.0)


def test_slow_faults_stretch_steps() -> None:
    def duration(**faults: float) -> float:
        model = EngineModel(SMALL, Faults(faults))
        model.add(request(1, 30, 1), 0.0)
        return model.step(0.0).ends

    plain = duration()
    assert duration(slow_step=3.0) == pytest.approx(3 * plain)
    assert duration(slow_prefill=11.0) == pytest.approx(plain + 10 * 30 * SMALL.prefill_s)


def test_a_preemption_storm_throws_requests_back_and_they_finish_all_the_same() -> None:
    model = EngineModel(SMALL, Faults({"preemption_storm": 20.0}))
    for number in (1, 2):
        model.add(request(number, 8, 40), 0.0)
    results = drain(model)
    assert sum(result.stats.preemptions for result in results) > 5
    assert sum(len(result.tokens) for result in results) == 80


def test_an_engine_hour_is_simulated_in_seconds() -> None:
    model = EngineModel(Shape())
    now, steps = 0.0, 0
    for number in range(1, 601):
        model.add(request(number, 100, 20), now)
        for result in drain(model, now):
            steps, now = steps + 1, result.ends
        now += 5.0
    assert now > 3000
    assert steps == 12_000


def test_a_block_that_was_handed_out_again_has_lost_what_it_cached() -> None:
    model = EngineModel(SMALL)
    model.add(request(1, 16, 2, (1, 2, 3, 4)), 0.0)
    drain(model)
    for number in (2, 3):
        model.add(request(number, 120, 8), 10.0)
    drain(model, 10.0)
    model.add(request(4, 16, 2, (1, 2, 3, 4)), 50.0)
    assert drain(model, 50.0)[0].first[0].cached_tokens == 0


def test_a_leak_takes_a_block_once_even_where_prompts_share_it() -> None:
    model = EngineModel(SMALL, Faults({"leak": 3.0}))
    for number in range(1, 6):
        model.add(request(number, 16, 5, (1, 2, 3, 4)), float(number))
        drain(model, float(number))
    # The shared prompt has four blocks; the rest must be blocks of answers.
    assert model.leaked_blocks > 4
    assert model.stats().kv_usage == pytest.approx(model.leaked_blocks / 64)
