"""The front end: vLLM's HTTP surface over one EngineCore, and ``/sim/faults`` to break it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from hmac import compare_digest
from http import HTTPStatus

import msgspec

from opsboard import httpd
from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, NotFound
from opsboard.sim import openai
from opsboard.sim.core_link import Answer, CoreLink, EngineDead
from opsboard.sim.dev_api import DevApi
from opsboard.sim.faults import CATALOGUE
from opsboard.sim.http_metrics import HttpMetrics
from opsboard.sim.logs import OUT, Log
from opsboard.sim.metrics import EngineMetrics
from opsboard.sim.options import Setup
from opsboard.sim.page import Page
from opsboard.sim.pipe import ClearFault, SetFault
from opsboard.sim.startup import DEV_ROUTES, ROUTES
from opsboard.sim.text import text_bytes, token_ids

_HUGE_LINE = 'vllm:huge_total{engine="0",model_name="sim",series="%09d"} 1.0\n'
_FAULTS = "/sim/faults"

Reply = httpd.Response | httpd.StreamResponse


class FaultRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /sim/faults``."""

    name: str
    value: float | None = None


class ApiServer:
    """Answers requests; :attr:`must_end` is set when a dead engine makes the process end, as vLLM's watchdog does."""

    def __init__(self, setup: Setup, metrics: EngineMetrics, link: CoreLink, log: Log, clock: Clock) -> None:
        """Everything is ready to answer but :attr:`handle` must be served by somebody."""
        self.must_end = asyncio.Event()
        self.on_faults: Callable[[], Awaitable[None]] | None = None
        """Awaited whenever the faults were changed, before that is answered."""
        self._setup = setup
        self._model = setup.options.model
        self._metrics = metrics
        self._link = link
        self._log = log
        self._clock = clock
        self._faults = setup.faults
        self._http = HttpMetrics()
        started = clock.now().wall
        self._created = int(started)
        self._page = Page(setup.profile, self._model, setup.shape, started)
        self._fingerprint = f"vllm-{setup.profile.release}-sim"
        self._routes: dict[str, Callable[[httpd.Request], Awaitable[Reply]]] = {
            "/health": self._health,
            "/ping": self._health,
            "/version": self._version,
            "/load": self._load,
            "/metrics": self._metrics_page,
            "/v1/models": self._models,
            "/tokenize": self._tokenize,
            "/v1/completions": self._complete,
            "/v1/chat/completions": self._complete,
            _FAULTS: self._set_faults,
        }
        self._methods: dict[str, tuple[str, ...]] = {**ROUTES, _FAULTS: ("GET", "POST", "DELETE")}
        if setup.options.dev_mode:
            self._routes |= DevApi(link, metrics).routes
            self._methods |= DEV_ROUTES

    @property
    def dead(self) -> bool:
        """True once the front end knows that EngineCore is gone."""
        return self._link.dead

    async def handle(self, request: httpd.Request) -> Reply:
        """Answer one request, count it and write the access log."""
        began = self._clock.now().mono
        route = self._routes.get(request.path)
        methods = self._methods.get(request.path, ())
        if not self._has_key(request):
            reply: Reply = httpd.json_response({"error": "Unauthorized"}, 401)
        elif route is None:
            reply = httpd.json_response({"detail": "Not Found"}, 404)
        elif request.method not in methods:
            reply = httpd.json_response({"detail": "Method Not Allowed"}, 405, (("allow", ", ".join(methods)),))
        else:
            try:
                reply = await route(request)
            except openai.Refusal as refusal:
                reply = httpd.Response(refusal.status, refusal.body, httpd.JSON)
            except EngineDead:
                reply = self._dead_reply()
        handler = request.path if route is not None and reply.status != 405 else "none"
        if isinstance(reply, httpd.StreamResponse):
            counted = self._counted(reply.chunks, handler, request, began)
            reply = httpd.StreamResponse(reply.status, reply.content_type, counted, reply.headers)
        else:
            self._count(handler, request, reply.status, began, len(reply.body))
        words = HTTPStatus(reply.status).phrase
        self._log.uvicorn(f'{request.remote} - "{request.method} {request.path} HTTP/1.1" {reply.status} {words}', OUT)
        return reply

    def _has_key(self, request: httpd.Request) -> bool:
        key = self._setup.options.api_key
        if key is None or not request.path.startswith("/v1"):
            return True
        return compare_digest(request.headers.get("authorization", "").encode(), b"Bearer " + key.reveal().encode())

    def _count(self, handler: str, request: httpd.Request, status: int, began: float, sent: int) -> None:
        if handler == _FAULTS:
            return
        now = self._clock.now()
        received = len(request.body)
        self._http.answered(
            handler, request.method, status, now.mono - began, received=received, sent=sent, wall=now.wall
        )

    async def _counted(
        self, chunks: AsyncIterator[bytes], handler: str, request: httpd.Request, began: float
    ) -> AsyncIterator[bytes]:
        try:
            async with contextlib.aclosing(chunks) as closing:  # type: ignore[type-var]  # it is a generator
                async for chunk in closing:
                    yield chunk
        finally:
            self._count(handler, request, 200, began, 0)

    # -- what tells of the engine

    async def _health(self, _request: httpd.Request) -> Reply:
        return httpd.Response(503 if self.dead else 200)

    async def _version(self, _request: httpd.Request) -> Reply:
        return httpd.json_response({"version": self._setup.profile.release})

    async def _load(self, _request: httpd.Request) -> Reply:
        # It counts only with --enable-server-load-tracking.
        return httpd.json_response({"server_load": 0})

    async def _models(self, _request: httpd.Request) -> Reply:
        return httpd.json_response(openai.models(self._model, self._created, self._setup.shape.max_model_len))

    async def _tokenize(self, request: httpd.Request) -> Reply:
        prompt = openai.decode(request.body).prompt
        if not isinstance(prompt, str):
            raise openai.Refusal(400, "BadRequestError", "prompt must be a string", "prompt")
        ids = token_ids(text_bytes(prompt))
        limit = self._setup.shape.max_model_len
        return httpd.json_response({"count": len(ids), "max_model_len": limit, "tokens": ids, "token_strs": None})

    async def _metrics_page(self, _request: httpd.Request) -> Reply:
        faults, kind = self._faults, self._page.content_type
        if "metrics_slow" in faults:
            await asyncio.sleep(faults.value("metrics_slow"))
        if "metrics_500" in faults:
            return httpd.Response(500, b"Internal Server Error")
        self._metrics.stale = "stale_gauges" in faults
        page = self._page.render(self._metrics, self._http)
        if "metrics_huge" in faults:
            return httpd.StreamResponse(200, kind, _huge(page, int(faults.value("metrics_huge") * 2**20)))
        if "metrics_truncated" in faults:
            share = min(faults.value("metrics_truncated"), 1.0)
            return httpd.StreamResponse(200, kind, _broken(page[: int(len(page) * share)]))
        if "metrics_cut" in faults:
            page = page[: int(len(page) * min(faults.value("metrics_cut"), 1.0))]
        return httpd.Response(200, page, kind)

    # -- inference

    async def _complete(self, request: httpd.Request) -> Reply:
        chat = request.path == "/v1/chat/completions"
        call = openai.read(request.body, self._model, self._setup.shape, chat=chat, drift="drift" in self._faults)
        if self.dead:
            raise EngineDead
        given = request.headers.get("x-request-id") or os.urandom(8).hex()
        name = f"{'chatcmpl' if chat else 'cmpl'}-{given}"
        created = int(self._clock.now().wall)
        writer = openai.Writer(call, name, created, self._model, self._fingerprint)
        number, answer = self._link.submit(call.sized, call.max_tokens, every_token=call.stream)
        if call.stream:
            return httpd.StreamResponse(200, "text/event-stream; charset=utf-8", self._stream(writer, number, answer))
        try:
            await answer.more(answer.tokens)
            return httpd.Response(200, writer.whole(answer.tokens, answer.finish or "stop"), httpd.JSON)
        finally:
            self._link.drop(number)

    async def _stream(self, writer: openai.Writer, number: int, answer: Answer) -> AsyncIterator[bytes]:
        sent = 0
        finish: str | None = None
        try:
            yield writer.opening()
            while finish is None:
                await answer.more(sent)
                tokens, finish = answer.tokens, answer.finish
                yield writer.chunk(sent, tokens, finish)
                sent = tokens
            yield writer.closing(sent)
        except EngineDead:
            self._dead_reply()
            yield openai.event(openai.DEAD.body) + openai.event(b"[DONE]")
        finally:
            self._link.drop(number)

    def _dead_reply(self) -> httpd.Response:
        """Refuse as a dead engine does: vLLM ends the server after the first such answer."""
        self.must_end.set()
        return httpd.Response(openai.DEAD.status, openai.DEAD.body, httpd.JSON)

    # -- faults

    async def _set_faults(self, request: httpd.Request) -> Reply:
        if request.method == "POST":
            asked = request.json(FaultRequest)
            fault = CATALOGUE.get(asked.name)
            if fault is not None and fault.at_start_only:
                raise Conflict(f"{asked.name} can only be given at start", hint=f"opsboard sim --fault {asked.name}")
            value = self._faults.set(asked.name, asked.value)
            self._metrics.stale = "stale_gauges" in self._faults
            self._link.send(SetFault(asked.name, value))
        elif request.method == "DELETE":
            name = request.query.get("name")
            if name is not None and name not in CATALOGUE:
                raise NotFound(f"there is no fault {name!r}", hint="one of " + ", ".join(CATALOGUE))
            self._faults.clear(name)
            self._metrics.stale = "stale_gauges" in self._faults
            self._link.send(ClearFault(name))
        if self.on_faults is not None:
            await self.on_faults()
        return httpd.json_response({"faults": self._faults.as_dict()})


async def _huge(page: bytes, size: int) -> AsyncIterator[bytes]:
    yield page
    number = 0
    while size > 0:
        block = "".join(_HUGE_LINE % (number + index) for index in range(1000)).encode()
        number += 1000
        size -= len(block)
        yield block


async def _broken(part: bytes) -> AsyncIterator[bytes]:
    yield part
    raise httpd.Broken
