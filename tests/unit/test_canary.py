"""Canaries: every outcome from servers that answer in every way, and the promises against a simulated engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from collectors.base import base_url
from collectors.canary import PROMPT, WORD, golden, one_token
from collectors.completions import body, models, text
from collectors.sleeping import CannotSleep, asleep, check, sleep, wake
from opsboard.core.errors import CollectError, FetchError
from opsboard.core.model import CanaryOutcome, CanaryReading
from opsboard.core.secret import Secret
from opsboard.httpc.fetch import Body, Fetcher, Limits, bearer
from tests.support.canary_promises import DIALECT, PROMISES, Promise, fetcher, sixteen, token
from tests.support.loopback import Script, answer, full_queue, serving
from tests.support.sim_process import SimProcess, simulated
from tests.support.virtual_time import run as run_virtual
from tests.support.waiting import wait_until, wait_until_async

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMITS = Limits(connect_s=5.0, total_s=20.0)
IMPATIENT = Limits(connect_s=0.3)
NOT_THERE = answer(b'{"detail":"Not Found"}', status="404 Not Found")
NO, YES = (answer(b'{"is_sleeping":%s,"is_paused":%s}' % (said, said)) for said in (b"false", b"true"))
REPLY = answer(json.dumps({"choices": [{"index": 0, "text": " sugar\x1b[31m"}]}).encode())
MODELS = answer(b'{"object":"list","data":[{"id":"first"},{"id":"second"}]}')
ANSWERS = {"/v1/completions": REPLY, "/v1/models": MODELS}


def routed(answers: Mapping[str, bytes], seen: list[str] | None = None) -> Script:
    """Answer by path, 404 for the others; an empty answer is none at all."""

    async def script(head: bytes, writer: asyncio.StreamWriter) -> None:
        path = head.split()[1].decode().partition("?")[0]
        if seen is not None:
            seen.append(path)
        data = answers.get(path, NOT_THERE)
        if not data:
            await asyncio.sleep(60)
        writer.write(data)

    return script


def ask(
    script: Script, *, deadline_s: float = 20.0, model: str | None = "m", headers: Mapping[str, str] | None = None
) -> tuple[CanaryReading, list[bytes]]:
    async def main() -> tuple[CanaryReading, list[bytes]]:
        async with serving(script) as server:
            by = Fetcher(LIMITS)
            try:
                reading = await golden(
                    by,
                    f"{server.url}/metrics",
                    engine="e",
                    dialect=DIALECT,
                    model=model,
                    headers=headers,
                    deadline_s=deadline_s,
                )
            finally:
                await by.close()
            return reading, server.requests

    return asyncio.run(main())


# -- what is asked and read


def test_the_request_is_greedy_and_always_as_long() -> None:
    assert json.loads(body("m", "p", 16)) == {
        "model": "m",
        "prompt": "p",
        "max_tokens": 16,
        "temperature": 0,
        "seed": 0,
        "n": 1,
        "ignore_eos": True,
        "stream": False,
    }


def test_prompts_fill_no_block_of_a_cache() -> None:
    assert len(WORD.split()) == 1
    assert len(PROMPT.split()) < 8  # some ten tokens; blocks have sixteen or more


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[{"text":1}]}', b"null"])
def test_what_is_no_answer_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an answer"):
        text(data)


def test_models_are_read() -> None:
    assert models(b'{"data":[{"id":"a","x":1},{"id":"b"}]}') == ["a", "b"]
    with pytest.raises(ValueError, match="not a list"):
        models(b"<html>")


def test_a_golden_answer_is_kept_with_its_hash_and_made_harmless() -> None:
    reading, requests = ask(routed(ANSWERS), headers=bearer(Secret("k")))
    assert (reading.engine, reading.outcome, reading.error) == ("e", CanaryOutcome.OK, None)
    assert reading.output == " sugar\ufffd[31m"
    assert reading.output_sha256 == sha256(b" sugar\x1b[31m").hexdigest()
    assert [request.split()[1] for request in requests] == [b"/is_sleeping", b"/v1/completions"]
    assert all(b"Authorization: Bearer k\r\n" in request for request in requests)


def test_without_a_model_the_engine_is_asked_for_its_name() -> None:
    reading, requests = ask(routed(ANSWERS), model=None)
    assert reading.outcome is CanaryOutcome.OK
    assert [request.split()[1] for request in requests] == [b"/is_sleeping", b"/v1/models", b"/v1/completions"]


@pytest.mark.parametrize(
    ("answers", "outcome", "why"),
    [
        ({"/is_sleeping": YES}, CanaryOutcome.ASLEEP, "/is_sleeping says so"),
        ({"/is_sleeping": NO, "/is_paused": YES}, CanaryOutcome.ASLEEP, "/is_paused says so"),
        ({"/is_sleeping": NO, "/is_paused": NO, **ANSWERS}, CanaryOutcome.OK, None),
        ({"/is_sleeping": NO, **ANSWERS}, CanaryOutcome.OK, None),
        ({"/is_sleeping": answer(b"", status="500 Oops"), "/is_paused": YES}, CanaryOutcome.ASLEEP, "/is_paused"),
        ({"/is_sleeping": answer(b"<p>"), **ANSWERS}, CanaryOutcome.OK, None),
        ({"/is_sleeping": b""}, CanaryOutcome.TIMEOUT, "nothing came within"),
        ({"/v1/completions": b""}, CanaryOutcome.TIMEOUT, "nothing came within"),
        ({"/v1/completions": answer(b"dead", status="503 No")}, CanaryOutcome.REFUSED, "answered 503: dead"),
        ({"/v1/completions": answer(b"dead", status="500 No")}, CanaryOutcome.REFUSED, "answered 500"),
        ({"/v1/completions": answer(b"", status="429 No")}, CanaryOutcome.SATURATED, "answered 429"),
        ({"/v1/completions": answer(b"", status="401 No")}, CanaryOutcome.UNABLE, "answered 401"),
        ({"/v1/completions": NOT_THERE}, CanaryOutcome.UNABLE, "answered 404"),
        ({"/v1/completions": answer(b"{}")}, CanaryOutcome.UNABLE, "not an answer of the completions API"),
        ({"/v1/completions": b"SSH-2.0-x\r\n\r\n"}, CanaryOutcome.UNABLE, "does not speak HTTP"),
    ],
)
def test_outcomes(answers: Mapping[str, bytes], outcome: CanaryOutcome, why: str | None) -> None:
    reading, _ = ask(routed(answers), deadline_s=0.5 if outcome is CanaryOutcome.TIMEOUT else 20.0)
    assert reading.outcome is outcome
    assert (why is None) == (reading.error is None)
    assert (why or "") in (reading.error or "")
    assert (reading.output is None) == (outcome is not CanaryOutcome.OK)


def test_a_sleeping_engine_is_sent_nothing() -> None:
    """Releases that do not pause while they sleep may die of a request."""
    seen: list[str] = []
    ask(routed({"/is_sleeping": YES, **ANSWERS}, seen))
    assert seen == ["/is_sleeping"]


class Slow(Fetcher):
    """Answers in 2 s of virtual time what it may, and notes the deadlines it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: list[float | None] = []

    async def get(self, url: str, *, headers: object = None, deadline_s: float | None = None) -> Body:
        self.deadlines.append(deadline_s)
        await asyncio.sleep(2)
        raise FetchError("no", reason="status", status=500)

    async def post(self, url: str, data: bytes, *, headers: object = None, deadline_s: float | None = None) -> Body:
        self.deadlines.append(deadline_s)
        raise FetchError("slow", reason="timeout")


def test_questions_and_request_share_one_deadline() -> None:
    by = Slow()
    reading = run_virtual(one_token(by, "http://h", engine="e", dialect=DIALECT, model="m", deadline_s=5.0))
    assert by.deadlines == [5.0, 3.0, 1.0]
    assert (reading.outcome, reading.seconds) == (CanaryOutcome.TIMEOUT, 4.0)


def test_an_engine_without_a_model_or_a_way_cannot_be_asked() -> None:
    reading, _ = ask(routed({**ANSWERS, "/v1/models": answer(b'{"data":[]}')}), model=None)
    assert (reading.outcome, reading.error) == (CanaryOutcome.UNABLE, "/v1/models names no model")

    async def main() -> None:
        mute = msgspec.structs.replace(DIALECT, tokens=None)
        for dialect, words in ((None, "unknown kind"), (mute, "kind 'vllm'")):
            reading = await one_token(Fetcher(), "http://127.0.0.1:1", engine="e", dialect=dialect, deadline_s=1.0)
            assert reading.outcome is CanaryOutcome.UNABLE
            assert words in (reading.error or "")

    asyncio.run(main())


def test_nobody_there_is_refused_and_a_full_queue_is_saturated() -> None:
    async def main() -> None:
        async with serving(routed(ANSWERS)) as server:
            url = server.url
        assert (await token(Fetcher(LIMITS), url)).outcome is CanaryOutcome.REFUSED
        with full_queue() as port:
            reading = await token(Fetcher(IMPATIENT), f"http://127.0.0.1:{port}")
        assert reading.outcome is CanaryOutcome.SATURATED
        assert "no connection within 0.3 s" in (reading.error or "")

    asyncio.run(main())


def test_the_address_is_taken_with_the_page_s_path_or_without() -> None:
    assert base_url("http://h:1/metrics", DIALECT) == base_url("http://h:1/", None) == "http://h:1"


# -- sleeping


def test_an_engine_that_cannot_sleep_says_what_it_needs() -> None:
    async def main() -> None:
        async with serving(routed({})) as server:
            by = Fetcher(LIMITS)
            assert await asleep(by, server.url, DIALECT, deadline_s=20) is None
            for call in (sleep, wake):
                with pytest.raises(FetchError) as caught:
                    await call(by, server.url, DIALECT, deadline_s=20)
                assert "VLLM_SERVER_DEV_MODE=1" in (caught.value.hint or "")
            other = msgspec.structs.replace(DIALECT, sleep=None)
            assert await asleep(by, server.url, other, deadline_s=20) is None
            for call in (sleep, wake):
                with pytest.raises(CollectError, match="knows no way"):
                    await call(by, server.url, other, deadline_s=20)
            await by.close()

    asyncio.run(main())


def test_what_an_engine_lacks_to_sleep_is_known_before_it_is_asked_to() -> None:
    async def main() -> None:
        by = Fetcher(LIMITS)
        async with serving(routed({"/is_sleeping": NO})) as server:
            await check(by, server.url, DIALECT, deadline_s=20)
            with pytest.raises(CannotSleep, match="--enable-sleep-mode"):
                await check(by, server.url, DIALECT, command=("vllm", "serve", "m"), deadline_s=20)
            with pytest.raises(CannotSleep, match="not known yet what kind"):
                await check(by, server.url, None, deadline_s=20)
            with pytest.raises(CannotSleep, match="knows no way"):
                await check(by, server.url, msgspec.structs.replace(DIALECT, sleep=None), deadline_s=20)
        async with serving(routed({})) as server:
            with pytest.raises(CannotSleep, match="it has no /is_sleeping") as caught:
                await check(by, server.url, DIALECT, deadline_s=20)
            assert "VLLM_SERVER_DEV_MODE=1" in (caught.value.hint or "")
        async with serving(routed({"/is_sleeping": answer(b"", status="500 Oops")})) as server:
            with pytest.raises(FetchError, match="500"):
                await check(by, server.url, DIALECT, deadline_s=20)
        await by.close()

    asyncio.run(main())


@pytest.mark.parametrize(("said", "call"), [(NO, sleep), (YES, wake)])
def test_a_call_that_changes_nothing_is_no_success(said: bytes, call: object) -> None:
    async def main() -> None:
        answers = {"/sleep": answer(b"{}"), "/wake_up": answer(b"{}"), "/is_sleeping": said, "/is_paused": said}
        async with serving(routed(answers)) as server:
            by = Fetcher(LIMITS)
            with pytest.raises(CollectError, match="the engine took /"):
                await call(by, server.url, DIALECT, deadline_s=20)  # type: ignore[operator]  # either of the two
            await by.close()

    asyncio.run(main())


# -- against a simulated engine


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimProcess]:
    options = ("--step-ms", "2", "--block-size", "32")
    with simulated(tmp_path_factory.mktemp("sim"), *options, env={"VLLM_SERVER_DEV_MODE": "1"}) as engine:
        yield engine


@pytest.fixture
def healed(sim: SimProcess) -> Iterator[SimProcess]:
    yield sim
    sim.clear_faults()


def on(engine: SimProcess, promise: Promise) -> None:
    async def main() -> None:
        by = fetcher()
        try:
            await promise(by, f"http://127.0.0.1:{engine.port}")
        finally:
            await by.close()

    asyncio.run(main())


@pytest.mark.parametrize("promise", PROMISES, ids=lambda one: one.__name__)
def test_promises_are_kept_by_a_simulated_engine(sim: SimProcess, promise: Promise) -> None:
    on(sim, promise)


def test_drift_is_another_answer_of_the_same_length(healed: SimProcess) -> None:
    async def drifts(by: Fetcher, url: str) -> None:
        before = await sixteen(by, url)
        healed.set_fault("drift")
        after = await sixteen(by, url)
        healed.clear_faults()
        assert before.output is not None
        assert after.output is not None
        assert after.output_sha256 != before.output_sha256
        assert len(after.output) == len(before.output)
        assert (await sixteen(by, url)).output_sha256 == before.output_sha256

    on(healed, drifts)


def test_a_prefix_cache_is_emptied_unless_a_block_is_held(healed: SimProcess) -> None:
    async def resets(by: Fetcher, url: str) -> None:
        async def said(*, reset: bool = True) -> bool | None:
            reading = await one_token(by, url, engine="e", dialect=DIALECT, deadline_s=20, reset=reset)
            assert reading.outcome is CanaryOutcome.OK
            return reading.reset

        assert await said(reset=False) is None
        assert await said() is True
        healed.set_fault("leak", 1)
        await said(reset=False)
        assert await said() is False

    on(healed, resets)


def test_an_engine_without_that_endpoint_says_nothing_of_it() -> None:
    async def main() -> None:
        answers = {
            "/v1/models": answer(b'{"data": [{"id": "m"}]}'),
            "/v1/completions": answer(b'{"choices": [{"text": "a"}]}'),
        }
        for more in ({}, {"/reset_prefix_cache": answer(b"")}):
            async with serving(routed({**answers, **more})) as server:
                by = Fetcher(LIMITS)
                reading = await one_token(by, server.url, engine="e", dialect=DIALECT, deadline_s=20, reset=True)
                await by.close()
            assert (reading.outcome, reading.reset) == (CanaryOutcome.OK, None)

    asyncio.run(main())


def test_a_hang_times_out_with_and_without_the_questions(healed: SimProcess) -> None:
    async def hangs(by: Fetcher, url: str) -> None:
        healed.set_fault("hang")
        reading = await token(by, url, deadline_s=0.5)
        blind = msgspec.structs.replace(DIALECT, sleep=None)
        other = await one_token(by, url, engine="e", dialect=blind, deadline_s=0.5)
        assert (reading.outcome, other.outcome) == (CanaryOutcome.TIMEOUT, CanaryOutcome.TIMEOUT)
        healed.clear_faults()
        assert (await token(by, url)).outcome is CanaryOutcome.OK

    on(healed, hangs)


def test_an_engine_that_takes_no_connection_is_saturated_while_open_ones_go_on(healed: SimProcess) -> None:
    async def saturates(by: Fetcher, url: str) -> None:
        page = await by.get(f"{url}/metrics")
        healed.set_fault("saturated", 2.0)
        assert (await sixteen(Fetcher(IMPATIENT), url)).outcome is CanaryOutcome.SATURATED
        kept = await by.get(f"{url}/metrics")
        assert (kept.connect_s, page.status) == (None, 200)

    on(healed, saturates)
    healed.wait_ready()  # it ends by itself
    assert healed.request("GET", "/sim/faults") == (200, b'{"faults":{}}')


def test_a_dead_engine_refuses(tmp_path: Path) -> None:
    async def refuses(by: Fetcher, url: str) -> None:
        assert (await token(by, url)).outcome is CanaryOutcome.REFUSED

    with simulated(tmp_path) as engine:
        engine.core.kill()
        wait_until(lambda: engine.request("GET", "/health")[0] == 503, what="503")
        on(engine, refuses)  # 500: EngineDead
        engine.process.wait(10)


def test_a_pause_waits_for_what_is_under_way_or_keeps_it(sim: SimProcess) -> None:
    async def pauses(by: Fetcher, url: str) -> None:
        request = msgspec.json.encode({"prompt": "x", "max_tokens": 200, "ignore_eos": True})
        for mode in ("wait", "keep"):
            began = sim.value("vllm:generation_tokens_total")
            under_way = asyncio.create_task(by.post(f"{url}/v1/completions", request))
            await wait_until_async(lambda at=began: sim.value("vllm:generation_tokens_total") > at, what="tokens")  # type: ignore[misc]
            await by.post(f"{url}/pause?mode={mode}", b"")
            if mode == "wait":
                assert json.loads((await under_way).body)["usage"]["completion_tokens"] == 200
            else:
                frozen = sim.value("vllm:generation_tokens_total")
                assert sim.value("vllm:generation_tokens_total") == frozen < began + 200
                assert not under_way.done()
            await by.post(f"{url}/resume", b"")
            assert json.loads((await under_way).body)["usage"]["completion_tokens"] == 200

    on(sim, pauses)


def test_the_key_is_asked_for_and_carried(tmp_path: Path) -> None:
    with simulated(tmp_path, env={"VLLM_API_KEY": "key-1"}) as engine:

        async def both(by: Fetcher, url: str) -> None:
            assert (await token(by, url)).outcome is CanaryOutcome.UNABLE
            for model in (None, "sim-7b"):
                headers = bearer(Secret("key-1"))
                reading = await one_token(
                    by, url, engine="e", dialect=DIALECT, model=model, headers=headers, deadline_s=20.0
                )
                assert (reading.outcome, reading.error) == (CanaryOutcome.OK, None)

        on(engine, both)


def test_without_the_development_mode_nothing_of_it_is_served(tmp_path: Path) -> None:
    with simulated(tmp_path) as engine:
        assert engine.request("GET", "/is_sleeping")[0] == 404
        assert engine.request("POST", "/sleep")[0] == 404
        assert "SECURITY WARNING" not in engine.text()
