"""Clients of LLM servers, with their own truth: what was sent, what came back and when.

``python -m opsboard.sim.traffic --url http://127.0.0.1:8000 --rate 2`` sends Poisson arrivals, lognormal lengths and
shared prefixes until it is stopped or its parent is gone, and prints its counters as JSON at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import random
import signal
import sys
from collections import deque
from collections.abc import Sequence
from urllib.parse import urlsplit

import h11
import msgspec

from opsboard.core.clock import Clock, SystemClock
from opsboard.sim.wire import Wire

_PR_SET_PDEATHSIG = 1
_CONNECT_S = 5.0
_RETRY_S = 0.5


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """What requests look like. Lengths in tokens are lognormal: median, and spread (sigma of the logarithm)."""

    prompt_median: float = 160.0
    prompt_spread: float = 0.8
    prompt_most: int = 2000
    output_median: float = 110.0
    output_spread: float = 0.7
    output_most: int = 600
    prefixes: int = 6
    """How many long prefixes there are to share."""
    prefix_tokens: int = 120
    prefix_share: float = 0.6
    stream_share: float = 0.5
    chat_share: float = 0.3
    abort_share: float = 0.0
    """Streams whose client leaves after a few tokens."""
    ignore_eos: bool = False


class RequestTruth(msgspec.Struct):
    """One request as its client saw it. Instants are monotonic seconds; None: it never came to that."""

    url: str
    stream: bool
    sent: float
    first: float | None = None
    """First token; streams only."""
    last: float | None = None
    ended: float | None = None
    status: int | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    gaps: list[float] = []
    """Seconds between the tokens of a stream."""
    aborted: bool = False
    error: str | None = None


class TrafficTruth(msgspec.Struct):
    """What happened so far. Tokens are those of the replies that came to their end."""

    sent: int = 0
    finished: int = 0
    failed: int = 0
    aborted: int = 0
    skipped: int = 0
    """Arrivals not sent because too many requests were under way."""
    running: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    requests: deque[RequestTruth] = msgspec.field(default_factory=deque)

    def counters(self) -> dict[str, int]:
        """Return everything but the single requests."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "requests"}


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Reply(msgspec.Struct):
    usage: _Usage | None = None


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


class Traffic:
    """Arrivals at one engine."""

    def __init__(
        self,
        url: str,
        rate: float,
        *,
        seed: int = 0,
        mix: Mix | None = None,
        clock: Clock | None = None,
        keep: int = 10_000,
        in_flight: int = 64,
        deadline: float = 120.0,
    ) -> None:
        """``rate`` in requests a second; ``keep`` bounds the requests remembered, ``deadline`` is one request's."""
        self.truth = TrafficTruth(requests=deque(maxlen=keep))
        self.url = url
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._rate = rate
        self._random = random.Random(seed)
        self._mix = mix or Mix()
        self._clock = clock or SystemClock()
        self._in_flight = in_flight
        self._deadline = deadline
        self._model = ""
        self._text = "".join(self._random.choices("abcdefgh ijklm nopqr stuvw xyz", k=65_536))
        self._prefixes = [self._some_text(self._mix.prefix_tokens) for _ in range(self._mix.prefixes)]
        self._idle: list[Wire] = []

    async def run(self, seconds: float | None = None) -> TrafficTruth:
        """Wait for the engine, send for ``seconds`` (None: until cancelled), let what is under way end."""
        self._model = await self._wait_for_model()
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        due = loop.time()
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    due += self._random.expovariate(self._rate)
                    if end is not None and due > end:
                        break
                    await asyncio.sleep(max(0.0, due - loop.time()))
                    if self.truth.running >= self._in_flight:
                        self.truth.skipped += 1
                        continue
                    tasks.create_task(self.one())
        finally:
            for wire in self._idle:
                wire.close()
        return self.truth

    async def one(self) -> RequestTruth:
        """Send one request and see it through."""
        mix, pick = self._mix, self._random
        stream = pick.random() < mix.stream_share
        path, body = self._body(stream=stream)
        leave_after = pick.randint(1, 20) if stream and pick.random() < mix.abort_share else None
        truth = RequestTruth(self.url, stream, self._clock.now().mono)
        self.truth.requests.append(truth)
        self.truth.sent += 1
        self.truth.running += 1
        try:
            async with asyncio.timeout(self._deadline):
                await self._exchange(path, body, truth, leave_after)
        except (OSError, TimeoutError, EOFError, h11.ProtocolError, msgspec.DecodeError) as error:
            truth.error = repr(error)
        finally:
            self.truth.running -= 1
            truth.ended = self._clock.now().mono
            self._settle(truth)
        return truth

    # -- what is sent

    def _some_text(self, tokens: int) -> str:
        size = 4 * tokens
        begin = self._random.randrange(0, len(self._text) - min(size, len(self._text) - 1))
        return self._text[begin : begin + size]

    def _length(self, median: float, spread: float, most: int) -> int:
        return max(1, min(most, int(median * self._random.lognormvariate(0.0, spread))))

    def _body(self, *, stream: bool) -> tuple[str, bytes]:
        mix, pick = self._mix, self._random
        prompt = self._some_text(self._length(mix.prompt_median, mix.prompt_spread, mix.prompt_most))
        if self._prefixes and pick.random() < mix.prefix_share:
            prompt = pick.choice(self._prefixes) + prompt
        output = self._length(mix.output_median, mix.output_spread, mix.output_most)
        body: dict[str, object] = {"model": self._model, "max_tokens": output, "temperature": 0}
        if mix.ignore_eos:
            body["ignore_eos"] = True
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if pick.random() < mix.chat_share:
            body["messages"] = [{"role": "user", "content": prompt}]
            return "/v1/chat/completions", msgspec.json.encode(body)
        return "/v1/completions", msgspec.json.encode({**body, "prompt": prompt})

    # -- what comes back

    async def _wait_for_model(self) -> str:
        while True:
            with contextlib.suppress(OSError, TimeoutError, EOFError, h11.ProtocolError, msgspec.DecodeError):
                async with asyncio.timeout(_CONNECT_S):
                    wire = await Wire.open(self._host, self._port)
                    try:
                        status = await wire.send("GET", "/v1/models", b"")
                        body = b"".join([part async for part in wire.parts()])
                    finally:
                        wire.close()
                if status == 200:
                    return _first_model(body)
            await asyncio.sleep(_RETRY_S)

    async def _exchange(self, path: str, body: bytes, truth: RequestTruth, leave_after: int | None) -> None:
        wire = await self._connected()
        keep = False
        try:
            truth.status = await wire.send("POST", path, body)
            if truth.stream and truth.status == 200:
                await self._read_stream(wire, truth, leave_after)
            else:
                data = b"".join([part async for part in wire.parts()])
                if truth.status == 200:
                    _take_usage(data, truth)
            keep = wire.reusable
        finally:
            if keep:
                self._idle.append(wire)
            else:
                wire.close()

    async def _connected(self) -> Wire:
        while self._idle:
            wire = self._idle.pop()
            if wire.reusable:
                return wire
            wire.close()
        async with asyncio.timeout(_CONNECT_S):
            return await Wire.open(self._host, self._port)

    async def _read_stream(self, wire: Wire, truth: RequestTruth, leave_after: int | None) -> None:
        pending = b""
        tokens = 0
        async for part in wire.parts():
            lines = (pending + part).split(b"\n")
            pending = lines.pop()
            for line in lines:
                if _is_token(line):
                    tokens += 1
                    self._note_token(truth)
                elif b'"usage":{' in line:
                    _take_usage(line.removeprefix(b"data: "), truth)
                elif line.startswith(b'data: {"error"'):
                    truth.error = line[:200].decode("utf-8", "replace")
            if leave_after is not None and tokens >= leave_after:
                truth.aborted = True
                truth.tokens = tokens
                return

    def _note_token(self, truth: RequestTruth) -> None:
        now = self._clock.now().mono
        if truth.last is None:
            truth.first = now
        else:
            truth.gaps.append(now - truth.last)
        truth.last = now

    def _settle(self, truth: RequestTruth) -> None:
        total = self.truth
        if truth.aborted:
            total.aborted += 1
        elif truth.error is None and truth.status == 200:
            total.finished += 1
            total.prompt_tokens += truth.prompt_tokens or 0
            total.generation_tokens += truth.tokens or 0
        else:
            total.failed += 1


def _is_token(line: bytes) -> bool:
    """True for a chunk with generated text; not for a chat's opening, the usage or the end."""
    return line.startswith(b"data: {") and b'"choices":[{' in line and b'"role":"assistant"' not in line


def _take_usage(data: bytes, truth: RequestTruth) -> None:
    usage = msgspec.json.decode(data, type=_Reply).usage
    if usage is not None:
        truth.prompt_tokens, truth.tokens = usage.prompt_tokens, usage.completion_tokens


def _first_model(data: bytes) -> str:
    models = msgspec.json.decode(data, type=_Models).data
    return models[0].id if models else ""


def end_with_parent() -> None:
    """Have the kernel end this process when its parent goes (prctl PR_SET_PDEATHSIG)."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(0)


async def _send_all(traffics: Sequence[Traffic], seconds: float | None) -> None:
    work = asyncio.gather(*(traffic.run(seconds) for traffic in traffics))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work


def main(argv: Sequence[str] | None = None) -> int:
    """Send traffic as the command line says and print what came of it."""
    parser = argparse.ArgumentParser(prog="opsboard.sim.traffic", description="Send traffic to LLM servers.")
    parser.add_argument("--url", action="append", required=True, help="an engine; repeatable")
    parser.add_argument("--rate", action="append", type=float, help="requests a second, for each --url or for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="default: until stopped")
    parser.add_argument("--stream-share", type=float, default=Mix().stream_share)
    parser.add_argument("--abort-share", type=float, default=Mix().abort_share)
    options = parser.parse_args(argv)
    rates = options.rate or [1.0]
    if len(rates) not in {1, len(options.url)} or min(rates) <= 0:
        parser.error("give one positive --rate for all, or one for each --url")
    rates = rates * len(options.url) if len(rates) == 1 else rates
    mix = Mix(stream_share=options.stream_share, abort_share=options.abort_share)
    traffics = [
        Traffic(url, rate, seed=options.seed + index, mix=mix, keep=0)
        for index, (url, rate) in enumerate(zip(options.url, rates, strict=True))
    ]
    end_with_parent()
    asyncio.run(_send_all(traffics, options.seconds))
    for traffic in traffics:
        sys.stdout.write(msgspec.json.encode({"url": traffic.url, **traffic.truth.counters()}).decode() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
