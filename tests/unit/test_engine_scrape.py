"""A scrape always ends in a reading: every kind of bad page, and what is known of a life."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collectors import engine_page, engine_scrape
from collectors.base import Dialect
from collectors.engine_scrape import EngineScraper
from opsboard.core.model import EngineReading, Outcome
from opsboard.httpc.fetch import Fetcher, Limits
from tests.support.loopback import answer, says, serving

if TYPE_CHECKING:
    from tests.support.loopback import Script

RECORDED = (Path(__file__).parents[1] / "fixtures/metrics/vllm/0.32.txt").read_bytes()
TEXT = "Content-Type: text/plain; version=0.0.4; charset=utf-8"
SMALL = b'vllm:num_requests_running{model_name="m"} 3\nvllm:generation_tokens_total{model_name="m"} %d\n'
LIMITS = Limits(total_s=10.0)


class Engine:
    """A server with a page and a version that a test changes."""

    def __init__(self, page: bytes, version: bytes = answer(b'{"version":"0.33.0"}')) -> None:
        self.page = answer(page, TEXT)
        self.version = version
        self.asked = 0

    async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"GET /version "):
            self.asked += 1
            writer.write(self.version)
        else:
            assert head.startswith(b"GET /metrics ")
            writer.write(self.page)


def scrape(script: Script, kind: str | None = "vllm", keep_page: bool = False) -> EngineReading:
    async def main() -> EngineReading:
        async with serving(script) as server:
            fetcher = Fetcher(LIMITS)
            reading = await EngineScraper("llama-a", server.url, kind, fetcher).scrape(keep_page=keep_page)
            await fetcher.close()
            return reading

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["vllm", None])
def test_a_real_page_is_a_reading(kind: str | None) -> None:
    reading = scrape(Engine(RECORDED), kind)
    assert (reading.engine, reading.outcome, reading.error, reading.page) == ("llama-a", Outcome.OK, None, None)
    assert reading.size_bytes == len(RECORDED)
    assert reading.duration_s > 0
    assert reading.view is not None
    assert (reading.view.kind, reading.view.model, reading.view.version) == ("vllm", "tiny", "0.33.0")


def test_the_page_is_kept_for_those_who_ask() -> None:
    assert scrape(Engine(RECORDED), keep_page=True).page == RECORDED


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (says(answer(b"", TEXT)), "empty"),
        (says(answer(b"<html>login</html>", "Content-Type: text/html")), "HTML"),
        (says(answer(RECORDED[:-7], TEXT)), "cut"),
        (says(answer(RECORDED[:30_000], TEXT, length=len(RECORDED)), then_close=True), "cut"),
        (says(b"HTTP/1.0 200 OK\r\n\r\n" + RECORDED, then_close=True), "where its page ends"),
        (says(answer(b"x 1\n", TEXT, length=100_000_000)), "100000000 bytes"),
        (says(answer(gzip.compress(b"x 1\n" * 2_000_000), "Content-Encoding: gzip")), "grows beyond"),
        (says(answer(b"".join(b'x{n="%d"} 1\n' % n for n in range(200_000)), TEXT)), "200000 samples"),
        (says(answer(SMALL % 1 + SMALL % 2, TEXT)), "twice"),
        (says(answer(b'vllm:x{a="\xff"} 1\n', TEXT)), "not UTF-8"),
        (says(answer(b"boom", status="500 Internal Server Error")), "answered 500: boom"),
        (says(answer(b"", "Location: /login", status="307 Go")), "redirects are not followed"),
    ],
    ids=[
        "empty",
        "html",
        "cut-line",
        "cut-body",
        "no-length",
        "100MB",
        "bomb",
        "200k-series",
        "twice",
        "utf8",
        "500",
        "redirect",
    ],
)
def test_a_bad_page_is_failed_with_one_line_of_why(script: Script, reason: str) -> None:
    reading = scrape(script)
    assert (reading.outcome, reading.view) == (Outcome.FAILED, None)
    assert reading.error is not None
    assert reason in reading.error
    assert "\n" not in reading.error
    assert reading.reason in {"page", "truncated", "too_large", "status"}, "somebody answers"


def test_a_page_without_the_series_says_which_flag_takes_them_away() -> None:
    for kind in ("vllm", None):
        reading = scrape(says(answer(b"process_start_time_seconds 1\n", TEXT)), kind)
        assert reading.outcome is Outcome.NO_DATA
        assert reading.error is not None
        assert "--disable-log-stats" in reading.error


def test_a_kind_that_opsboard_cannot_read_is_no_data() -> None:
    reading = scrape(says(b""), "carrier-pigeon")
    assert (reading.outcome, reading.error) == (
        Outcome.NO_DATA,
        "opsboard reads no metrics of kind 'carrier-pigeon'",
    )


def test_nan_is_unknown_and_terminal_escapes_are_harmless() -> None:
    page = (
        b'vllm:kv_cache_usage_perc{model_name="\x1b[31mm"} NaN\nvllm:num_requests_running{model_name="\x1b[31mm"} 1\n'
    )
    reading = scrape(Engine(page))
    assert reading.view is not None
    assert (reading.view.kv_usage, reading.view.running, reading.view.model) == (None, 1.0, "\ufffd[31mm")


def test_a_big_page_is_parsed_in_a_thread() -> None:
    many = b"".join(b'other{n="%d"} 1\n' % n for n in range(18_000))
    assert len(many) > engine_scrape.OFF_LOOP_BYTES
    assert scrape(Engine(SMALL % 1 + many)).outcome is Outcome.OK


def test_the_version_is_asked_once_a_life() -> None:
    async def main() -> None:
        engine = Engine(SMALL % 100)
        async with serving(engine) as server:
            fetcher = Fetcher(LIMITS)
            scraper = EngineScraper("a", f"{server.url}/metrics/", None, fetcher)

            async def version() -> str | None:
                reading = await scraper.scrape()
                return reading.view.version if reading.view else reading.error

            assert [await version() for _ in range(3)] == ["0.33.0"] * 3
            assert scraper.kind == "vllm"
            assert engine.asked == 1

            engine.version = answer(b'{"version":"0.34.0"}')
            engine.page = answer(SMALL % 5, TEXT)  # a counter went down: another process answers
            assert [await version() for _ in range(3)] == ["0.34.0"] * 3
            assert engine.asked == 2

            engine.version = answer(b'{"version":"0.35.0"}')
            engine.page = answer(b"process_start_time_seconds 77\n" + SMALL % 6, TEXT)
            assert await version() == "0.35.0"

            engine.version = answer(b'{"version":"0.36.0\\u001b[31m"}')
            engine.page = answer(b"", status="503 Gone")
            assert await version() is not None
            engine.page = answer(b"process_start_time_seconds 77\n" + SMALL % 6, TEXT)
            assert await version() == "0.36.0\ufffd[31m"
            assert engine.asked == 4
            await fetcher.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("version", "asked"),
    [
        (answer(b"", status="404 Not Found"), 1),
        (answer(b"<html>"), 1),
        (answer(b'{"version": 3}'), 1),
        (b"nonsense\r\n\r\n", 3),
    ],
)
def test_a_server_that_tells_no_version_is_not_pestered(version: bytes, asked: int) -> None:
    async def main() -> None:
        engine = Engine(SMALL % 1, version)
        async with serving(engine) as server:
            fetcher = Fetcher(LIMITS)
            scraper = EngineScraper("a", server.url, "vllm", fetcher)
            for _ in range(5):
                reading = await scraper.scrape()
                assert reading.outcome is Outcome.OK
                assert reading.view is not None
                assert reading.view.version is None
            assert engine.asked == asked
            await fetcher.close()

    asyncio.run(main())


def test_a_dialect_that_fails_is_a_failed_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(page: object) -> None:
        raise KeyError("\x1b[31mx")

    class Found:
        found = {
            "own": Dialect(
                kind="own",
                recognise=lambda page: True,
                read=broken,  # type: ignore[arg-type]
                process_role=lambda name, argv: None,
            )
        }

    monkeypatch.setattr(engine_page, "dialects", Found)
    reading = scrape(says(answer(b"a 1\n", TEXT)), None)
    assert reading.outcome is Outcome.FAILED
    assert reading.error == "the dialect 'own' cannot read this page: KeyError('\\x1b[31mx')"


def test_headers_go_with_every_request() -> None:
    async def main() -> None:
        async with serving(Engine(SMALL % 1)) as server:
            fetcher = Fetcher(LIMITS)
            await EngineScraper("a", server.url, None, fetcher, headers={"Authorization": "Bearer k"}).scrape()
            await fetcher.close()
            assert len(server.requests) == 2
            assert all(b"Authorization: Bearer k" in head for head in server.requests)

    asyncio.run(main())
