"""What canaries find out, asked alike of the simulated engine and of a real vLLM. Both serve the development endpoints.

Each promise is a coroutine that gets the engine's address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from collectors.canary import golden, one_token
from collectors.sleeping import asleep, sleep, wake
from opsboard.core.errors import FetchError
from opsboard.core.model import CanaryOutcome, CanaryReading
from opsboard.core.registry import dialects
from opsboard.httpc.connection import Limits
from opsboard.httpc.fetch import Fetcher

DIALECT = dialects().found["vllm"]
DEADLINE_S = 30.0
"""A busy machine may take long; what is to time out gets a shorter one."""

Promise = Callable[[Fetcher, str], Awaitable[None]]


def fetcher() -> Fetcher:
    return Fetcher(Limits(connect_s=1.0, total_s=DEADLINE_S))


async def token(by: Fetcher, url: str, deadline_s: float = DEADLINE_S, model: str | None = None) -> CanaryReading:
    return await one_token(by, url, engine="e", dialect=DIALECT, model=model, deadline_s=deadline_s)


async def sixteen(by: Fetcher, url: str, deadline_s: float = DEADLINE_S) -> CanaryReading:
    return await golden(by, url, engine="e", dialect=DIALECT, deadline_s=deadline_s)


async def a_token_comes(by: Fetcher, url: str) -> None:
    reading = await token(by, url)
    assert (reading.outcome, reading.error) == (CanaryOutcome.OK, None)
    assert reading.output is None
    assert 0 < reading.seconds < DEADLINE_S


async def the_fixed_question_has_one_answer(by: Fetcher, url: str) -> None:
    first, *more = [await sixteen(by, url) for _ in range(5)]
    assert (first.outcome, first.error) == (CanaryOutcome.OK, None)
    assert first.output
    assert {one.output_sha256 for one in more} == {first.output_sha256}


async def an_unknown_model_cannot_be_asked(by: Fetcher, url: str) -> None:
    reading = await token(by, url, model="nobody")
    assert reading.outcome is CanaryOutcome.UNABLE
    assert reading.error is not None
    assert "answered 404" in reading.error


async def paused_is_asleep(by: Fetcher, url: str) -> None:
    await by.post(f"{url}/pause?mode=abort", b"")
    reading = await token(by, url)
    await by.post(f"{url}/resume", b"")
    assert (reading.outcome, (await token(by, url)).outcome) == (CanaryOutcome.ASLEEP, CanaryOutcome.OK)


async def a_paused_engine_takes_requests_and_answers_none(by: Fetcher, url: str) -> None:
    """Why it must be asked whether it is paused: without that question it looks like a stalled one."""
    await by.post(f"{url}/pause?mode=abort", b"")
    blind = msgspec.structs.replace(DIALECT, sleep=None)
    reading = await one_token(by, url, engine="e", dialect=blind, deadline_s=1.0)
    await by.post(f"{url}/resume", b"")
    assert reading.outcome is CanaryOutcome.TIMEOUT


async def what_waits_for_the_end_of_a_pause_is_in_no_gauge(by: Fetcher, url: str) -> None:
    """Gauges move with steps, and a paused engine makes none: running and waiting stay 0 while requests wait."""
    await by.post(f"{url}/pause?mode=abort", b"")
    blind = msgspec.structs.replace(DIALECT, sleep=None)
    waits = asyncio.create_task(one_token(by, url, engine="e", dialect=blind, deadline_s=DEADLINE_S))
    for _ in range(5):
        page = (await by.get(f"{url}/metrics")).body.decode()
        gauges = [line for line in page.splitlines() if line.startswith(("vllm:num_requests_r", "vllm:num_requests_w"))]
        assert {float(line.split()[-1]) for line in gauges} == {0.0}
    assert not waits.done()
    await by.post(f"{url}/resume", b"")
    assert (await waits).outcome is CanaryOutcome.OK


async def development_endpoints_say(by: Fetcher, url: str) -> None:
    for path, body in (
        ("/pause", b'{"status":"paused"}'),
        ("/resume", b'{"status":"resumed"}'),
        ("/sleep?level=0&mode=wait", b'{"status":"sleeping","level":0}'),
        ("/wake_up?tags=scheduling", b'{"status":"awake","tags":["scheduling"]}'),
        ("/sleep?level=1", b'{"status":"sleeping","level":1}'),
        ("/wake_up", b'{"status":"awake","tags":null}'),
    ):
        assert (await by.post(url + path, b"")).body == body
    assert (await by.get(f"{url}/is_paused")).body == b'{"is_paused":false}'
    assert (await by.get(f"{url}/is_sleeping")).body == b'{"is_sleeping":false}'
    for path in ("/sleep?level=3", "/sleep?mode=never", "/pause?mode=never"):
        with pytest.raises(FetchError, match=r"answered 400: .*1 validation error"):
            await by.post(url + path, b"")


async def sleep_and_wake_are_seen_and_change_no_answer(by: Fetcher, url: str) -> None:
    before = await sixteen(by, url)
    assert await sleep(by, url, DIALECT, deadline_s=DEADLINE_S) > 0
    assert await asleep(by, url, DIALECT, deadline_s=DEADLINE_S) == "/is_sleeping"
    assert (await token(by, url)).outcome is CanaryOutcome.ASLEEP
    assert 'sleep_state="awake"} 0.0' in (await by.get(f"{url}/metrics")).body.decode()
    assert await wake(by, url, DIALECT, deadline_s=DEADLINE_S) > 0
    assert await asleep(by, url, DIALECT, deadline_s=DEADLINE_S) is None
    after = await sixteen(by, url)
    assert (after.outcome, after.output_sha256) == (CanaryOutcome.OK, before.output_sha256)


PROMISES: tuple[Promise, ...] = (
    a_token_comes,
    the_fixed_question_has_one_answer,
    an_unknown_model_cannot_be_asked,
    paused_is_asleep,
    a_paused_engine_takes_requests_and_answers_none,
    what_waits_for_the_end_of_a_pause_is_in_no_gauge,
    development_endpoints_say,
    sleep_and_wake_are_seen_and_change_no_answer,
)
