"""KV accounting: no block is lost or made, whatever arrives, is aborted or preempted; only leaks keep blocks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from opsboard.sim.blocks import BlockPool
from opsboard.sim.faults import Faults
from opsboard.sim.model import EngineModel, Request, Shape

SHAPE = Shape(blocks=33, block_size=4, max_num_seqs=6, max_model_len=100, max_batched_tokens=24)

arrivals = st.tuples(st.just("add"), st.integers(1, 60), st.integers(1, 60), st.integers(0, 3))
aborts = st.tuples(st.just("abort"), st.integers(0, 30), st.just(0), st.just(0))
steps = st.tuples(st.just("step"), st.integers(1, 12), st.just(0), st.just(0))
stories = st.lists(st.one_of(arrivals, aborts, steps), max_size=60)


def play(model: EngineModel, story: list[tuple[str, int, int, int]]) -> None:
    """Live through a story, checking after each event that every block is either free or referenced."""
    now, number = 0.0, 0
    for what, first, second, family in story:
        if what == "add":
            number += 1
            # Prompts of one family begin alike, so their blocks are shared.
            hashes = tuple(hash((family, index)) for index in range(first // SHAPE.block_size))
            model.add(Request(number, first, hashes, second, "stop", family), now)
        elif what == "abort":
            model.abort(first)
        else:
            for _ in range(first):
                if model.has_work:
                    now = model.step(now).ends
        check(model.pool)


def check(pool: BlockPool) -> None:
    held = [block for block in range(1, pool.size + 1) if pool._refs[block] > 0]
    assert len(held) + pool.free == pool.size
    assert not set(held) & set(pool._free)
    assert all(count >= 0 for count in pool._refs)
    assert all(pool._hash_of[block] == content for content, block in pool._block_of.items())
    assert pool.usage == 1.0 - pool.free / pool.size


def drain(model: EngineModel, limit: int = 5000) -> None:
    now = 1e6
    for _ in range(limit):
        if not model.has_work:
            return
        now = model.step(now).ends
    raise AssertionError("requests never end")


@settings(max_examples=150, deadline=None)
@given(stories)
def test_blocks_are_conserved_and_an_idle_engine_reads_exactly_zero(story: list[tuple[str, int, int, int]]) -> None:
    model = EngineModel(SHAPE)
    play(model, story)
    drain(model)
    check(model.pool)
    assert model.stats().kv_usage == 0.0
    assert (model.stats().running, model.stats().waiting) == (0, 0)


@settings(max_examples=100, deadline=None)
@given(stories, st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_with_a_leak_exactly_the_leaked_blocks_remain(
    story: list[tuple[str, int, int, int]], finished: float, aborted: float
) -> None:
    model = EngineModel(SHAPE, Faults({"leak": finished, "leak_on_abort": aborted}))
    play(model, story)
    for number in range(1, 61):  # a leak may have taken what a request needs: those left are ended by their clients
        model.abort(number)
    check(model.pool)
    assert not model.has_work
    assert model.pool.size - model.pool.free == model.leaked_blocks


@settings(max_examples=60, deadline=None)
@given(stories, st.sampled_from([5.0, 50.0]))
def test_a_preemption_storm_loses_no_block_and_no_token(story: list[tuple[str, int, int, int]], storm: float) -> None:
    model = EngineModel(SHAPE, Faults({"preemption_storm": storm}))
    play(model, story)
    model.faults.clear()
    drain(model)
    assert model.stats().kv_usage == 0.0
