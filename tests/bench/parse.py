"""From the wire to canonical fields: what one scrape of a real page costs, beside libraries that could have done it."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.queues import Queue
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from collectors.base import Page
from collectors.engine_scrape import EngineScraper
from collectors.exposition import Parser
from opsboard.core.model import Outcome
from opsboard.httpc.fetch import Fetcher
from tests.bench import Row

PAGE = Path(__file__).parents[1] / "fixtures/metrics/vllm/0.32.txt"
RUNS = 400
FETCH_BUDGET_MS = 0.6
RATIO = 15

Sample = tuple[str, frozenset[tuple[str, str]], str]


def run() -> list[Row]:
    """Measure parsing, then fetching and the whole scrape against a server in another process."""
    return [*parse_rows(), *asyncio.run(fetch_rows())]


def pages(count: int) -> list[str]:
    """Return the recorded page with other numbers each time, so that nothing but names and labels can be remembered."""
    rng = random.Random(32)
    lines = PAGE.read_text().split("\n")
    return [
        "\n".join(
            line if line.startswith("#") or not line else f"{line.rpartition(' ')[0]} {rng.randrange(10**7) / 8!r}"
            for line in lines
        )
        for _ in range(count)
    ]


def cpu_ms(call: Callable[[], object]) -> float:
    """Return the processor time of one call in milliseconds."""
    began = time.process_time()
    call()
    return (time.process_time() - began) * 1e3


def parse_rows() -> list[Row]:
    """Parse the same pages by both parsers, in turn."""
    texts = pages(40)
    parser = Parser()
    cold = statistics.median(cpu_ms(lambda: Parser().parse(texts[0].encode())) for _ in range(10))
    parser.parse(texts[0].encode())
    datas = [text.encode() for text in texts]
    equal = all(ours_set(parser.parse(data)) == theirs_set(text) for data, text in zip(datas, texts, strict=True))
    # By turns, for a page like the one before it would cost next to nothing.
    ours = [cpu_ms(lambda data=data: parser.parse(data)) for _ in range(3) for data in datas]  # type: ignore[misc]
    theirs = [cpu_ms(lambda text=text: list(text_string_to_metric_families(text))) for text in texts]  # type: ignore[misc]
    mine, peer = statistics.median(ours), statistics.median(theirs)
    same = "equal sets" if equal else "SETS DIFFER"
    return [
        Row(
            f"parse a recorded page ({len(texts[0]) / 1000:.0f} kB, vLLM 0.32), names known",
            f">= {RATIO}x prometheus_client, equal sets",
            f"{peer / mine:.0f}x ({mine:.2f} ms against {peer:.1f} ms), {same}",
            equal and peer >= RATIO * mine,
        ),
        Row("the same page for the first time", "faster than prometheus_client", f"{cold:.1f} ms", cold < peer),
    ]


def ours_set(page: Page) -> set[Sample]:
    """Return what our parser read."""
    return {
        (name, frozenset(labels.items()), repr(value)) for name, own in page.samples.items() for labels, value in own
    }


def theirs_set(text: str) -> set[Sample]:
    """Return what the reference parser read."""
    return {
        (sample.name, frozenset(sample.labels.items()), repr(float(sample.value)))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def serve(texts: list[str], port: Queue[int]) -> None:
    """Answer every request on a kept connection with the next page."""
    bodies = [text.encode() for text in texts]
    answers = [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: %d\r\n\r\n%b"
        % (len(body), body)
        for body in bodies
    ]

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turn = 0
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answers[turn % len(answers)])
                turn += 1
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def cpu_of(call: Callable[[], Awaitable[object]]) -> float:
    """Return the median over five rounds of the processor time of one call in milliseconds."""
    for _ in range(20):
        await call()
    rounds = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(RUNS // 5):
            await call()
        rounds.append((time.process_time() - began) / (RUNS // 5) * 1e3)
    return statistics.median(rounds)


async def fetch_rows() -> list[Row]:
    """Fetch from a server in another process, so that the time is ours alone."""
    context = multiprocessing.get_context("spawn")
    port: Queue[int] = context.Queue()
    server = context.Process(target=serve, args=(pages(20), port), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{await asyncio.to_thread(port.get, timeout=30)}"
        fetcher = Fetcher()
        scraper = EngineScraper("bench", url, "vllm", fetcher)

        async def scrape() -> None:
            reading = await scraper.scrape()
            if reading.outcome is not Outcome.OK:
                raise RuntimeError(reading.error)

        ours = await cpu_of(lambda: fetcher.get(f"{url}/metrics"))
        whole = await cpu_of(scrape)
        await fetcher.close()
        async with httpx.AsyncClient() as client:
            theirs = await cpu_of(lambda: client.get(f"{url}/metrics", headers={"Accept-Encoding": "identity"}))
    finally:
        server.terminate()
        server.join(10)
    return [
        Row(
            "fetch that page over loopback, connection kept",
            f"<= {FETCH_BUDGET_MS} ms of CPU",
            f"{ours:.2f} ms (httpx: {theirs:.2f} ms)",
            ours <= FETCH_BUDGET_MS,
        ),
        Row(
            "scrape it: fetch, parse, read",
            "8 engines at 1 Hz: <= 1 % of one core",
            f"{whole:.2f} ms of CPU, so {whole * 8 / 10:.2f} %",
            whole * 8 / 10 <= 1.0,
        ),
    ]
