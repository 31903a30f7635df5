"""A rolling restart of two real vLLMs that stand in for each other, and a client that asks whom to ask."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.real.client import Traffic
from tests.real.house import ANSWERS_WITHIN_S, NAME, House
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.real.conftest import Measured
    from tests.real.vllm_env import Installation

OTHER = "tiny-b"
CLIENTS = 4
STEPS = ["drain", "end", "clear", "launch", "start", "canary", "serving"]


@pytest.fixture
def house(installation: Installation, full: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    if not full:
        pytest.skip("two vLLMs at once take minutes on two cores: make test-real-all")
    with House(installation, tmp_path_factory.mktemp("rolling"), {OTHER: ()}, route=(NAME, OTHER)) as house:
        house.opsboard("engine", "start", "--wait", "--all")
        yield house


def who_serves(house: House) -> Callable[[], int]:
    """Return what finds a target as a router would: by `GET /v1/status`, before each request."""
    chance = random.Random(1)

    def port() -> int:
        ready = [engine.name for engine in house.client.status().engines if engine.state == "ready"]
        if not ready:
            raise ValueError("nobody serves")
        return house.ports[chance.choice(ready)]

    return port


def test_a_client_that_follows_the_status_loses_nothing(house: House, measured: Measured) -> None:
    before = {name: house.engine(name).engine.pid for name in (NAME, OTHER)}
    with Traffic(who_serves(house)) as traffic:
        traffic.begin_load(CLIENTS, prompt_tokens=(20, 120), max_tokens=(100, 400))
        wait_until(lambda: traffic.tokens > 100 * CLIENTS, ANSWERS_WITHIN_S, what="tokens flow")
        house.opsboard("engine", "restart", "--wait", "--rolling", "--all")
        had = traffic.tokens
        wait_until(lambda: traffic.tokens > had + 100 * CLIENTS, ANSWERS_WITHIN_S, what="tokens flow again")
        traffic.end_load()
        assert traffic.failed() == []
        assert all(request.ok for request in traffic.requests)
    first, second = (house.engine(name) for name in (NAME, OTHER))
    for detail in (first, second):
        assert detail.engine.pid != before[detail.engine.name]
        assert [step.name for step in detail.transaction] == STEPS
        assert {step.outcome for step in detail.transaction} == {"ok"}
        took = ", ".join(f"{step.name} {step.seconds or 0.0:.1f}" for step in detail.transaction)
        measured(f"{detail.engine.name} under {CLIENTS} clients: {took}")
    assert first.transaction[-1].started <= second.transaction[0].started
    measured(f"rolling restart of two: {len(traffic.requests)} requests by those that serve, none failed")
