"""The daemon's own requests to engines: whom they go to when the configuration does not tell the kind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from opsboard.core.clock import SystemClock
from opsboard.core.model import CanaryOutcome, CanaryReading, EngineState, LifeView
from opsboard.daemon.canaries import Canaries
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from opsboard.supervise import golden
from tests.support.herd import free_port
from tests.support.sim_process import simulated


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
