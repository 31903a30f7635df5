"""The front end's view of EngineCore: requests go down, steps come up, and its death is noticed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable

from opsboard.core.clock import Clock
from opsboard.sim.metrics import EngineMetrics
from opsboard.sim.model import Request
from opsboard.sim.pipe import (
    Abort,
    Add,
    Emptied,
    Frames,
    Ready,
    Returned,
    Stepped,
    ToCore,
    Utility,
    decode_from_core,
    frame,
)

_STOP_S = 5.0
"""How long EngineCore gets to end by itself before it is killed (vLLM's process manager waits as long)."""


class EngineDead(Exception):
    """EngineCore is gone, and with it every request it had."""


class Answer:
    """The tokens of one request as they come."""

    __slots__ = ("_changed", "dead", "finish", "tokens", "wanted")

    def __init__(self, *, every_token: bool) -> None:
        """``every_token`` wakes the reader for each token, else only for the last one."""
        self.tokens = 0
        self.finish: str | None = None
        self.dead = False
        self.wanted = every_token
        self._changed: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let the reader look again."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def more(self, seen: int) -> None:
        """Wait until there are more than ``seen`` tokens or the answer is finished. Raises EngineDead."""
        while self.finish is None and not (self.wanted and self.tokens > seen):
            if self.dead:
                raise EngineDead
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed


class CoreLink(asyncio.Protocol):
    """The pipe to one EngineCore process."""

    def __init__(
        self, pid: int, metrics: EngineMetrics, clock: Clock, on_death: Callable[[], None], *, watch: bool
    ) -> None:
        """``on_death`` is called once when the process is gone without having been stopped.

        Without ``watch`` its death goes unnoticed once it is ready, and whoever waits for it waits for ever.
        """
        self.pid = pid
        self.dead = False
        self.ready = asyncio.Event()
        """Set when the engine can serve, or is dead."""
        self.exit_code: int | None = None
        self._metrics = metrics
        self._clock = clock
        self._on_death = on_death
        self._frames = Frames()
        self._answers: dict[int, Answer] = {}
        self._calls: dict[int, asyncio.Future[bool]] = {}
        self._watch = watch
        self._stopping = False
        self._next = 0
        self._transport: asyncio.WriteTransport | None = None

    async def open(self, sock: socket.socket) -> None:
        """Take over the front end's end of the pipe."""
        await asyncio.get_running_loop().create_connection(lambda: self, sock=sock)

    # -- down

    def submit(self, sized: Request, max_tokens: int, *, every_token: bool) -> tuple[int, Answer]:
        """Hand a request (its ``id`` is chosen here) to EngineCore."""
        self._next += 1
        answer = self._answers[self._next] = Answer(every_token=every_token)
        answer.dead = self.dead
        now = self._clock.now().mono
        self._metrics.arrived(self._next, now, sized.prompt_tokens, max_tokens)
        self.send(Add(Request(self._next, *_rest(sized)), now))
        return self._next, answer

    def drop(self, id: int) -> None:
        """Forget a request: it is finished, or its client went away."""
        answer = self._answers.pop(id, None)
        if answer is not None and answer.finish is None:
            self._metrics.forget(id)
            self.send(Abort(id))

    def abort_all(self) -> None:
        """End every request with the reason ``abort``, as an orderly shutdown does."""
        for id, answer in list(self._answers.items()):  # noqa: A001  the request's
            if answer.finish is None:
                self._metrics.aborted(id)
                self.send(Abort(id))
                answer.finish = "abort"
                answer.wake()

    async def call(self, name: str, mode: str = "", level: int = 0) -> bool:
        """Let EngineCore's busy loop do something and return what it says. Raises EngineDead."""
        if self.dead:
            raise EngineDead
        self._next += 1
        number = self._next
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        self.send(Utility(number, name, mode, level))
        try:
            return await future
        finally:
            del self._calls[number]

    def send(self, message: ToCore) -> None:
        """Say something to EngineCore; nothing happens when it is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(message))

    # -- up

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101  a stream socket's is one
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take in what EngineCore says."""
        for body in self._frames.feed(data):
            message = decode_from_core(body)
            if isinstance(message, Stepped):
                self._metrics.stepped(message.result, self._clock.now().mono)
                self._hand_out(message)
            elif isinstance(message, Emptied):
                self._metrics.scheduler(message.stats)
            elif isinstance(message, Returned):
                self._returned(message)
            elif isinstance(message, Ready):
                self.ready.set()

    def connection_lost(self, _error: Exception | None) -> None:
        """Notice the death of EngineCore: only that closes the pipe."""
        if self.ready.is_set() and not self._watch:
            return
        starting = not self.ready.is_set()
        self.dead = True
        self.ready.set()
        for answer in self._answers.values():
            answer.dead = True
            answer.wake()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(EngineDead())
        if not self._stopping and not starting:
            self._on_death()

    def _returned(self, message: Returned) -> None:
        future = self._calls.get(message.id)
        if future is not None and not future.done():
            future.set_result(message.value)

    def _hand_out(self, message: Stepped) -> None:
        for finished in message.result.finished:
            answer = self._answers.get(finished.id)
            if answer is not None:
                answer.finish = finished.reason
        for id in message.result.tokens:  # noqa: A001  the request's
            answer = self._answers.get(id)
            if answer is not None:
                answer.tokens += 1
                if answer.wanted or answer.finish is not None:
                    answer.wake()

    # -- its end

    async def reap(self, patience: float = _STOP_S) -> int | None:
        """Wait until the process is gone and return its exit code (negative: signal), None when it outlives us."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while self.exit_code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222  WNOHANG does not block
            except ChildProcessError:
                return self.exit_code
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
            elif loop.time() > deadline:
                return None
            else:
                await asyncio.sleep(0.01)
        return self.exit_code

    async def stop(self) -> None:
        """End EngineCore: SIGTERM, then SIGKILL."""
        self._stopping = True
        for number, patience in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
            if self.exit_code is None:
                os.kill(self.pid, number)
                await self.reap(patience)
        if self._transport is not None:
            self._transport.close()


def _rest(sized: Request) -> tuple[int, tuple[int, ...], int, str, int]:
    return sized.prompt_tokens, sized.hashes, sized.output_tokens, sized.finish, sized.seed
