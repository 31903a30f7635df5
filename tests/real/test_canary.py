"""Canaries against a real vLLM: the same promises as the simulated engine keeps, and how steady greedy output is."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from opsboard.core.model import CanaryOutcome, CanaryReading
from tests.real.client import Traffic
from tests.real.vllm_env import Installation, RealVllm
from tests.support.canary_promises import PROMISES, Promise, fetcher, sixteen, token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.conftest import Measured

ROUNDS = 100


@pytest.fixture(scope="module")
def server(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    with RealVllm(installation, tmp_path_factory.mktemp("vllm"), env={"VLLM_SERVER_DEV_MODE": "1"}) as running:
        yield running


async def kept(promise: Promise, url: str) -> None:
    by = fetcher()
    try:
        await promise(by, url)
    finally:
        await by.close()


@pytest.mark.parametrize("promise", PROMISES, ids=lambda one: one.__name__)
def test_promises_are_kept_by_a_real_vllm(server: RealVllm, promise: Promise) -> None:
    asyncio.run(kept(promise, server.url))


async def ask_often(url: str, rounds: int) -> list[CanaryReading]:
    by = fetcher()
    try:
        return [await sixteen(by, url) for _ in range(rounds)]
    finally:
        await by.close()


def test_the_golden_answer_under_load(server: RealVllm, measured: Measured) -> None:
    idle = asyncio.run(ask_often(server.url, 10))
    with Traffic(server.port, seed=7) as traffic:
        traffic.begin_load(16, (20, 400), (20, 200))
        loaded = asyncio.run(ask_often(server.url, ROUNDS))
        traffic.end_load()
        assert not traffic.failed()
    assert {one.outcome for one in idle} == {CanaryOutcome.OK}
    # On a busy machine some wait too long behind the clients: then nothing is known of the engine.
    assert {one.outcome for one in loaded} <= {CanaryOutcome.OK, CanaryOutcome.SATURATED}
    answers = Counter(one.output for one in loaded if one.outcome is CanaryOutcome.OK)
    assert answers
    same = answers[idle[0].output]
    seconds = sorted(one.seconds for one in loaded)
    measured(f"golden under 16 clients: {same} of {ROUNDS} as on the idle engine, {len(answers)} different ones")
    measured(
        f"golden: idle {max(one.seconds for one in idle):.3f} s at most, loaded median {seconds[ROUNDS // 2]:.3f} s"
    )
    assert {one.output for one in idle} == {idle[0].output}


def test_a_canary_is_one_request_of_the_engine_s_own_count(server: RealVllm) -> None:
    def counted() -> tuple[float, float]:
        page = server.metrics().splitlines()
        finished = sum(float(line.split()[-1]) for line in page if line.startswith("vllm:request_success_total{"))
        return finished, next(
            float(line.split()[-1]) for line in page if line.startswith("vllm:generation_tokens_total{")
        )

    async def both() -> None:
        by = fetcher()
        await token(by, server.url)
        await sixteen(by, server.url)
        await by.close()

    before = counted()
    asyncio.run(both())
    assert counted() == (before[0] + 2, before[1] + 17)
