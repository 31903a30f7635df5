"""Whatever a healthy engine is asked, no block of it is claimed as lost; what leaks is found in a quiet moment."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.detectors.kv_leak import DETECTOR
from opsboard.core.model import EngineReading, EngineView, Finding, Outcome, RankView
from opsboard.sim.model import Shape
from tests.support.block_engine import inflight
from tests.support.kv_model import Modelled
from tests.support.watched import Watched

PAGES = 120
shapes = st.builds(
    Shape,
    blocks=st.sampled_from([33, 120, 700]),
    block_size=st.sampled_from([4, 16]),
    max_num_seqs=st.sampled_from([2, 8, 24]),
    max_model_len=st.just(120),
    max_batched_tokens=st.sampled_from([16, 64, 512]),
)


def second(engine: Modelled, rate: float, leaves: float, alike: float) -> None:
    """Let some requests come and some clients go, and the engine work."""
    draw = engine.random
    for _ in range(int(rate) + (draw.random() < rate % 1)):
        family = draw.randrange(3) if draw.random() < alike else None
        engine.send(draw.randint(1, 70), draw.randint(1, 50), family)
    if draw.random() < leaves:
        engine.leave_one()
    if draw.random() < 0.01:
        for number in list(engine.sent):
            engine.leave(number)
    engine.steps(draw.randint(4, 20))


def read(watched: Watched, engine: Modelled, *, known: bool) -> Finding | None:
    watched.inflight = engine.inflight() if known else None
    return watched.read(engine.page())


@settings(max_examples=25, deadline=None)
@given(
    shape=shapes,
    seed=st.integers(0, 1 << 20),
    rate=st.sampled_from([0.05, 0.5, 1.0, 3.0]),
    leaves=st.sampled_from([0.0, 0.1, 0.6]),
    alike=st.sampled_from([0.0, 0.5, 1.0]),
    storm=st.sampled_from([0.0, 5.0]),
    known=st.booleans(),
    told=st.booleans(),
)
def test_a_healthy_engine_loses_nothing(
    *, shape: Shape, seed: int, rate: float, leaves: float, alike: float, storm: float, known: bool, told: bool
) -> None:
    engine, watched = Modelled(shape, seed, told=told, preemption_storm=storm), Watched(DETECTOR)
    for _ in range(PAGES):
        second(engine, rate, leaves, alike)
        assert read(watched, engine, known=known) is None


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 20),
    rate=st.sampled_from([0.5, 1.0, 2.0]),
    leaves=st.sampled_from([0.0, 0.2]),
    fault=st.sampled_from(["leak", "leak_on_abort"]),
    each=st.sampled_from([0.1, 1.0, 2.0]),
    known=st.booleans(),
)
def test_what_leaks_is_found_when_it_is_quiet(
    *, seed: int, rate: float, leaves: float, fault: str, each: float, known: bool
) -> None:
    shape = Shape(blocks=1200, block_size=4, max_num_seqs=24, max_model_len=120, max_batched_tokens=512)
    engine, watched = Modelled(shape, seed), Watched(DETECTOR)
    for _ in range(20):
        second(engine, rate, leaves, 0.3)
        assert read(watched, engine, known=known) is None
    engine.model.faults.set(fault, each)
    found = None
    for _ in range(60):
        second(engine, rate, leaves, 0.3)
        found = read(watched, engine, known=known)
        assert found is None or found.evidence["lost_blocks"] <= engine.model.leaked_blocks  # type: ignore[operator]
    engine.drain()
    for _ in range(3):
        found = read(watched, engine, known=known)
    lost = engine.model.leaked_blocks
    assert (found is not None) == (lost > 0)
    if found is not None:
        assert found.evidence["lost_blocks"] == lost


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1 << 20), each=st.sampled_from([0.2, 1.0]))
def test_with_the_requests_known_it_is_found_while_it_is_busy(seed: int, each: float) -> None:
    shape = Shape(blocks=4000, block_size=16, max_num_seqs=48, max_model_len=400, max_batched_tokens=512)
    engine, watched = Modelled(shape, seed), Watched(DETECTOR)
    for _ in range(40):
        second(engine, 1.0, 0.05, 0.0)
        assert read(watched, engine, known=True) is None
    engine.model.faults.set("leak", each)
    for _ in range(300):
        second(engine, 1.0, 0.05, 0.0)
        found = read(watched, engine, known=True)
        if found is not None and found.confirmed:
            assert found.evidence["lost_blocks"] <= engine.model.leaked_blocks  # type: ignore[operator]
            return
    raise AssertionError(f"{engine.model.leaked_blocks} blocks are lost and nobody noticed")


odd = st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.0, 1e9, math.nan, math.inf, -math.inf])
maybe = st.one_of(st.none(), odd)
ranks = st.builds(
    RankView,
    rank=st.sampled_from(["0", "1"]),
    running=maybe,
    waiting=maybe,
    kv_usage=maybe,
    kv_capacity_tokens=maybe,
    kv_blocks=st.sampled_from([None, 0, 1, 2, 33]),
    kv_block_tokens=st.sampled_from([None, 0, -1, 16]),
    gauges=st.dictionaries(st.just("waiting_deferred"), odd),
    counters=st.dictionaries(
        st.sampled_from([
            *("prompt_tokens", "generation_tokens", "completed_prompt_tokens", "completed_generation_tokens"),
            *("requests_begun", "requests_completed", "iterations", "preemptions", "prompt_tokens_cached"),
        ]),
        odd,
    ),
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    pages=st.lists(st.tuples(st.lists(ranks, max_size=2), st.sampled_from([0.0, 0.5, 1.0, 120.0, -5.0])), max_size=20),
    requests=st.one_of(st.none(), st.integers(0, 3)),
)
def test_no_page_breaks_it(pages: list[tuple[list[RankView], float]], requests: int | None) -> None:
    watched = Watched(DETECTOR)
    if requests is not None:
        watched.inflight = inflight(requests)
    for found, after in pages:
        running = found[0].running if found else None
        view = EngineView(kind="vllm", ranks=tuple(found), running=running, waiting=0.0)
        claim = watched.read(EngineReading(engine="a", outcome=Outcome.OK, view=view), after=after)
        if claim is not None:
            assert claim.evidence["lost_blocks"] >= 1.0  # type: ignore[operator]
            assert all(math.isfinite(value) for value in claim.evidence.values() if isinstance(value, float))
