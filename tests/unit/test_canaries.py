"""The daemon's own requests to engines: whom they go to when the configuration does not tell the kind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from opsboard.core.clock import SystemClock
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    EngineState,
    EngineView,
    LifeView,
    Outcome,
)
from opsboard.daemon.canaries import Canaries
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from opsboard.supervise import golden
from tests.support.herd import free_port
from tests.support.sim_process import SimProcess, simulated
from tests.support.waiting import wait_until_async


def asked(specs: Sequence[EngineSpec]) -> CanaryReading:
    """Ask the first of ``specs`` the golden question, before anybody has read its page."""

    async def main() -> CanaryReading:
        canaries = Canaries(PipelineState("host", specs), lambda _: {}, lambda _: None)
        try:
            return await canaries.golden(specs[0].name)
        finally:
            await canaries.close()

    return asyncio.run(main())


def test_an_engine_of_unknown_kind_is_recognised_by_its_page_and_asked(tmp_path: Path) -> None:
    with simulated(tmp_path) as sim:
        reading = asked([EngineSpec(name="e", url=f"http://127.0.0.1:{sim.port}", supervised=True)])
    assert (reading.outcome, reading.error) == (CanaryOutcome.OK, None)
    assert reading.output_sha256
    assert reading.version == "0.32.0"


def test_a_life_is_asked_where_it_listens(tmp_path: Path) -> None:
    spec = EngineSpec(name="e", url=f"http://127.0.0.1:{free_port()}", supervised=True)

    async def main(url: str) -> CanaryReading:
        state = PipelineState("host", [spec])
        life = LifeView(engine="e", state=EngineState.READY, since=0.0, started=0.0, supervised=True, url=url)
        feed(state, life, SystemClock().now())
        canaries = Canaries(state, lambda _: {}, lambda _: None)
        try:
            return await canaries.golden("e")
        finally:
            await canaries.close()

    with simulated(tmp_path) as sim:
        assert asyncio.run(main(f"http://127.0.0.1:{sim.port}")).outcome is CanaryOutcome.OK


@pytest.mark.parametrize(("allowed", "running", "usage", "connectors", "reset"), [
    (True, 0.0, 0.1, (), True),
    (False, 0.0, 0.1, (), None),
    (True, 1.0, 0.1, (), None),
    (True, 0.0, 0.0, (), None),
    (True, 0.0, 0.1, ("NixlConnector",), None),
])  # fmt: skip
def test_only_an_idle_engine_that_uses_blocks_empties_its_prefix_cache_and_only_where_allowed(
    dev: SimProcess, *, allowed: bool, running: float, usage: float, connectors: tuple[str, ...], reset: bool | None
) -> None:
    async def main() -> None:
        heard: list[CanaryReading] = []
        spec = EngineSpec(name="e", kind="vllm", url=f"http://127.0.0.1:{dev.port}", canary=True, reset=allowed)
        state = PipelineState("host", [spec])
        view = EngineView(kind="vllm", running=running, waiting=0.0, kv_usage=usage, kv_connectors=connectors)
        feed(state, EngineReading(engine="e", outcome=Outcome.OK, view=view), SystemClock().now())
        canaries = Canaries(state, lambda _: {}, heard.append)
        canaries.ask(["e"])
        await wait_until_async(lambda: bool(heard))
        await canaries.close()
        assert (heard[0].outcome, heard[0].reset) == (CanaryOutcome.OK, reset)

    asyncio.run(main())


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimProcess]:
    with simulated(tmp_path_factory.mktemp("sim"), env={"VLLM_SERVER_DEV_MODE": "1"}) as engine:
        yield engine


def test_what_has_no_page_is_not_asked(tmp_path: Path) -> None:
    reading = asked([EngineSpec(name="e", url=f"http://127.0.0.1:{free_port()}", supervised=True)])
    assert reading.outcome is CanaryOutcome.UNABLE
    assert "unknown kind" in (reading.error or "")


def test_another_version_may_answer_otherwise_and_the_same_one_may_not(tmp_path: Path) -> None:
    def proof(said: str, version: str) -> golden.Proof:
        async def ask() -> CanaryReading:
            return CanaryReading(
                engine="e", outcome=CanaryOutcome.OK, seconds=0.1, output=said, output_sha256=said, version=version
            )

        return asyncio.run(golden.prove(tmp_path, ask, command="c", version=None))

    assert proof("one", "1.0").text == "its answer is kept as the golden one"
    assert proof("one", "1.0").text == "its answer is the golden one (0.1 s)"
    assert proof("two", "1.0").doubt
    assert proof("two", "1.1").text == "its answer is kept as the golden one"
    assert proof("one", "1.1").doubt
