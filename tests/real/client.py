"""Client traffic with its own truth: who streamed how many tokens, and when each one arrived.

Instants are seconds of the monotonic clock. The event loop runs in a thread of its own, so that a test may wait in the
foreground.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import msgspec

from tests.real.vllm_env import REQUEST_TIMEOUT_S, SERVED_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PROBE_EVERY_S = 0.1
ARRIVAL_EVERY_S = 0.5
_TOKEN_IDS = range(10, 250)
"""The tiny model's byte tokens: every id is valid, none is special."""


@dataclass
class Truth:
    """One request as its client saw it. ``arrivals`` are ``(instant, tokens generated so far)``."""

    prompt_tokens: int
    max_tokens: int
    sent: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    ended: float | None = None
    error: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens generated so far."""
        return self.arrivals[-1][1] if self.arrivals else 0

    @property
    def ok(self) -> bool:
        """The whole answer came, and only that."""
        return self.ended is not None and self.error is None and self.tokens == self.max_tokens

    def tokens_by(self, instant: float) -> int:
        """Return the tokens that had arrived at ``instant``."""
        return max((count for at, count in self.arrivals if at <= instant), default=0)


def generated(requests: Iterable[Truth], start: float, end: float) -> int:
    """Return the tokens that arrived in ``(start, end]``."""
    return sum(request.tokens_by(end) - request.tokens_by(start) for request in requests)


def first_token_s(requests: Iterable[Truth], start: float, end: float) -> list[float]:
    """Return the times to first token of those that arrived in ``(start, end]``."""
    firsts = [(request.sent, request.arrivals[0][0]) for request in requests if request.arrivals]
    return [first - sent for sent, first in firsts if start < first <= end]


def between_tokens_s(requests: Iterable[Truth], start: float, end: float) -> list[float]:
    """Return the gaps between tokens that arrived in ``(start, end]``; what came together shares the gap evenly."""
    gaps: list[float] = []
    for request in requests:
        for (before, had), (at, has) in pairwise(request.arrivals):
            if start < at <= end:
                gaps += [(at - before) / (has - had)] * (has - had)
    return gaps


def percentile(values: list[float], q: float) -> float:
    """Return the smallest value that at least the share ``q`` (0..1) of ``values`` does not exceed."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


class Traffic:
    """Streams completions from one server; a context manager whose exit abandons what is still in flight."""

    def __init__(self, port: int | Callable[[], int], seed: int = 1) -> None:
        """``port``: where to send; a function is asked before each request, in a thread of its own."""
        self._port = port
        self.requests: list[Truth] = []
        self.probes: list[tuple[float, float]] = []
        """When a probe of /health came back, and how long it took: the price of HTTP without the engine."""
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="traffic", daemon=True)
        self._sending = False
        self._workers: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sending = False
        asyncio.run_coroutine_threadsafe(self._abandon(), self._loop).result(REQUEST_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(REQUEST_TIMEOUT_S)
        self._loop.close()

    # --- what tests ask for -----------------------------------------------------------------------------------------

    def send(self, prompt_tokens: int, max_tokens: int) -> Truth:
        """Begin one request and return its truth, which fills while it streams."""
        truth = Truth(prompt_tokens, max_tokens)
        self.requests.append(truth)
        asyncio.run_coroutine_threadsafe(self._stream(truth), self._loop)
        return truth

    def begin_load(self, clients: int, prompt_tokens: tuple[int, int], max_tokens: tuple[int, int]) -> None:
        """Let ``clients`` each send one request after the other, their lengths drawn from the two ranges."""
        self._sending = True
        work = [self._client(prompt_tokens, max_tokens) for _ in range(clients)]
        self._workers = [asyncio.run_coroutine_threadsafe(one, self._loop) for one in (*work, self._probe())]

    def begin_arrivals(self, prompt_tokens: int, max_tokens: int) -> None:
        """Send a request every ``ARRIVAL_EVERY_S``, whatever becomes of those before it."""
        self._sending = True
        self._workers = [asyncio.run_coroutine_threadsafe(self._arrivals(prompt_tokens, max_tokens), self._loop)]

    def end_load(self) -> None:
        """Send nothing more and return when every answer is there."""
        self._sending = False
        for worker in self._workers:
            worker.result(REQUEST_TIMEOUT_S)
        self._workers = []

    @property
    def tokens(self) -> int:
        """All tokens that were generated for us until now."""
        return sum(request.tokens for request in self.requests)

    def in_flight(self) -> list[Truth]:
        """Return the requests whose answer is not complete."""
        return [request for request in self.requests if request.ended is None and request.sent]

    def failed(self) -> list[Truth]:
        """Return the requests that ended without their whole answer."""
        return [request for request in self.requests if request.ended is not None and not request.ok]

    # --- in the loop ------------------------------------------------------------------------------------------------

    async def _client(self, prompt_tokens: tuple[int, int], max_tokens: tuple[int, int]) -> None:
        while self._sending:
            truth = Truth(self._random.randint(*prompt_tokens), self._random.randint(*max_tokens))
            self.requests.append(truth)
            await self._stream(truth)

    async def _arrivals(self, prompt_tokens: int, max_tokens: int) -> None:
        while self._sending:
            self.send(prompt_tokens, max_tokens)
            await asyncio.sleep(ARRIVAL_EVERY_S)

    async def _stream(self, truth: Truth, prompt: list[int] | None = None) -> None:
        body = {
            "model": SERVED_NAME,
            "prompt": prompt or self._prompt(truth.prompt_tokens),
            "max_tokens": truth.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        payload = msgspec.json.encode(body)
        truth.sent = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._exchange("POST", "/v1/completions", payload, truth)
            if truth.tokens != truth.max_tokens:
                truth.error = f"the stream ended after {truth.tokens} of {truth.max_tokens} tokens"
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            truth.error = repr(error)
        except asyncio.CancelledError:
            truth.error = "the client went away"
            raise
        finally:
            truth.ended = time.monotonic()

    def _prompt(self, tokens: int) -> list[int]:
        """Return a random prompt, so that none finds another's blocks in the prefix cache."""
        return self._random.choices(_TOKEN_IDS, k=tokens)

    async def _probe(self) -> None:
        while self._sending:
            began = time.monotonic()
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._exchange("GET", "/health", b"", None)
            now = time.monotonic()
            self.probes.append((now, now - began))
            await asyncio.sleep(PROBE_EVERY_S)

    async def _exchange(self, method: str, path: str, payload: bytes, truth: Truth | None) -> None:
        """Send one request on a connection of its own and read its answer. Raises ValueError unless it is a 200."""
        port = self._port if isinstance(self._port, int) else await asyncio.to_thread(self._port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
            writer.write(head.encode() + payload)
            status = await reader.readline()
            if status.split()[1:2] != [b"200"]:
                raise ValueError(f"{status!r}: {(await reader.read(500))!r}")
            done = truth is None
            while line := await reader.readline():
                if truth is None or not line.startswith(b"data: "):
                    continue
                if line.startswith(b"data: [DONE]"):
                    done = True
                else:
                    _arrived(truth, msgspec.json.decode(line[6:]))
            if not done:
                raise EOFError("the stream broke off")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _abandon(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _arrived(truth: Truth, chunk: dict[str, Any]) -> None:
    if "error" in chunk:
        raise ValueError(f"the stream says: {chunk['error']}")
    count = (chunk.get("usage") or {}).get("completion_tokens", 0)
    if count > truth.tokens:
        truth.arrivals.append((time.monotonic(), count))
