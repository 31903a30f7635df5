"""The control socket: HTTP/1.1 and JSON over a unix socket. What each route says is in docs/control-api.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from collectors.logs import LogFollower, tail
from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, Denied, NotFound, OpsboardError, StoreError, UsageError
from opsboard.core.letters import LetterRequest, TrialRequest
from opsboard.core.model import Event, Rolling, Transaction, Transition
from opsboard.core.text import sanitise
from opsboard.core.wire import (
    PROTOCOL,
    PROTOCOL_HEADER,
    ActionAccepted,
    ActionRequest,
    AdoptRequest,
    EngineDetail,
    EventInfo,
    History,
    IncidentRequest,
    LastRolling,
    SilenceRequest,
    Status,
)
from opsboard.daemon import board
from opsboard.daemon.adopting import Adopting
from opsboard.daemon.incident_desk import VERBS, Desk
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.recording import Recorders
from opsboard.daemon.rights import Right
from opsboard.daemon.subscribers import Newest
from opsboard.daemon.telling_desk import VERBS as LETTER_VERBS
from opsboard.daemon.telling_desk import TellingDesk
from opsboard.httpd import Peer, Request, Response, StreamResponse, error_response, json_response

NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"
LOG_LINES, MAX_LOG_LINES = 100, 100_000
LOG_LOOK_S = 0.25
HISTORY_S, HISTORY_POINTS, MAX_HISTORY_POINTS = 3600.0, 300, 20_000
DETAIL_EVENTS, DETAIL_TRANSITIONS, DETAIL_S = 50, 50, 1.0


class Past(Protocol):
    """What is asked of the store."""

    async def history(self, series: str, start: float, end: float, step: float) -> History:
        """Return one series."""

    async def series(self) -> list[str]:
        """Return the names of all series."""

    async def events(self, subject: str | None = None, limit: int = 100) -> list[Event]:
        """Return the newest events, oldest first."""

    async def transitions(self, engine: str, limit: int = 100) -> list[Transition]:
        """Return the newest changes of an engine's state, oldest first."""

    async def transactions(self, engine: str, limit: int = 20) -> list[Transaction]:
        """Return the newest starts and restarts of an engine that are over, oldest first."""


class Control:
    """The handler of the control socket."""

    def __init__(
        self,
        *,
        clock: Clock,
        state: PipelineState,
        status: Callable[[], Status],
        past: Past,
        newest: Newest,
        recorders: Recorders,
        desk: Desk,
        telling: TellingDesk,
        act: Callable[[str, ActionRequest, Peer | None], Awaitable[ActionAccepted]],
        rolling: Callable[[], Rolling | None],
        cancel_rolling: Callable[[Peer | None], Rolling],
        adopting: Adopting | None,
        log_path: Callable[[str], Path | None],
        reload: Callable[[Peer | None], Awaitable[None]],
        healthy: Callable[[], bool],
        rights: Callable[[Peer | None], Right],
    ) -> None:
        """Everything it says comes from what is handed in here. ``adopting`` None: a daemon that only looks.

        ``rolling()`` is the last rolling restart, which may be under way.
        """
        self._clock = clock
        self._state = state
        self._status = status
        self._past = past
        self._newest = newest
        self._recorders = recorders
        self._desk = desk
        self._telling = telling
        self._act = act
        self._rolling = rolling
        self._cancel_rolling = cancel_rolling
        self._adopting = adopting
        self._log_path = log_path
        self._reload = reload
        self._healthy = healthy
        self._rights = rights

    async def handle(self, request: Request) -> Response | StreamResponse:
        """Answer one request; every answer carries the protocol's version."""
        try:
            self._check_version(request)
            self._check_right(request)
            reply = await self._route(request)
        except OpsboardError as error:
            reply = error_response(error)
        return msgspec.structs.replace(reply, headers=(*reply.headers, (PROTOCOL_HEADER, PROTOCOL)))

    def _check_version(self, request: Request) -> None:
        said = request.headers.get(PROTOCOL_HEADER, PROTOCOL)
        if said != PROTOCOL:
            raise UsageError(
                f"the client speaks protocol {sanitise(said, 16)}, this daemon speaks {PROTOCOL}",
                hint="use the same version of opsboard on both sides",
            )

    def _check_right(self, request: Request) -> None:
        needed = Right.READ if request.method in {"GET", "HEAD"} else Right.OPERATE
        if needed not in self._rights(request.peer):
            what = "look" if needed is Right.READ else "operate"
            group = "read_group or operate_group" if needed is Right.READ else "operate_group"
            who = "a stranger" if request.peer is None else f"uid {request.peer.uid}"
            raise Denied(f"{who} may not {what} here", hint=f"members of [control] {group} may")

    async def _route(self, request: Request) -> Response | StreamResponse:
        parts = request.path.removeprefix("/").split("/")
        reply = await (self._get(parts, request) if request.method in {"GET", "HEAD"} else self._post(parts, request))
        if reply is None:
            hint = "docs/control-api.md lists the routes"
            raise NotFound(f"there is no {request.method} {sanitise(request.path, 200)}", hint=hint)
        return reply

    async def _get(self, parts: list[str], request: Request) -> Response | StreamResponse | None:
        match parts:
            case ["healthz"]:
                ok = self._healthy()
                return json_response({"status": "ok" if ok else "nothing is collected"}, 200 if ok else 503)
            case ["v1", "status"]:
                return json_response(self._status())
            case ["v1", "events"]:
                return StreamResponse(200, NDJSON, self._newest.stream())
            case ["v1", "engines", *rest]:
                return await self._engines(rest, request)
            case ["v1", "incidents", *rest] if len(rest) <= 1:
                return json_response(await (self._desk.detail(rest[0]) if rest else self._desk.listed(request.query)))
            case ["v1", "silences"]:
                return json_response(await self._desk.silences.listed(request.query))
            case ["v1", "record"]:
                return StreamResponse(200, NDJSON, self._recorders.stream())
            case ["v1", what]:
                return await self._told(what, request)
        return None

    async def _told(self, what: str, request: Request) -> Response | None:
        match what:
            case "rolling":
                return json_response(LastRolling(rolling=self._rolling()))
            case "history":
                return json_response(await self._history(request))
            case "series":
                return json_response(await self._past.series())
            case "channels":
                return json_response(self._telling.channels())
            case "outbox":
                return json_response(await self._telling.listed(request.query))
        return None

    async def _engines(self, rest: list[str], request: Request) -> Response | StreamResponse | None:
        match rest:
            case []:
                return json_response(self._status().engines)
            case [name]:
                return json_response(await self._detail(name))
            case [name, "logs"]:
                return await self._logs(name, request)
        return None

    async def _post(self, parts: list[str], request: Request) -> Response | None:
        match (request.method, parts):
            case ("POST", ["v1", "engines", name, "actions"]):
                return json_response(await self._act(name, request.json(ActionRequest), request.peer), 202)
            case ("POST", ["v1", "rolling", "cancel"]):
                return json_response(self._cancel_rolling(request.peer))
            case ("POST", ["v1", "engines", "adopt"]):
                wanted = request.json(AdoptRequest)
                return json_response(await self._adopter().adopt(wanted, request.peer))
            case ("POST", ["v1", "engines", name, "forget"]):
                return json_response(await self._adopter().forget(name, request.peer))
            case ("POST", ["v1", "incidents", name, verb]) if verb in VERBS:
                return json_response(await self._desk.act(name, verb, request.json(IncidentRequest), request.peer))
            case ("POST", ["v1", "reload"]):
                await self._reload(request.peer)
                return json_response({"reloaded": True})
        return await self._about_telling(parts, request)

    async def _about_telling(self, parts: list[str], request: Request) -> Response | None:
        match (request.method, parts):
            case ("POST", ["v1", "silences"]):
                return json_response(await self._desk.silences.add(request.json(SilenceRequest), request.peer))
            case ("DELETE", ["v1", "silences", name]):
                return json_response(await self._desk.silences.expire(name, request.peer))
            case ("POST", ["v1", "channels", name, "test"]):
                return json_response(await self._telling.test(name, request.json(TrialRequest), request.peer), 202)
            case ("POST", ["v1", "outbox", name, verb]) if verb in LETTER_VERBS:
                return json_response(await self._telling.act(name, verb, request.json(LetterRequest), request.peer))
        return None

    def _adopter(self) -> Adopting:
        if self._adopting is None:
            raise Denied("this daemon only looks", hint="run `opsboard daemon` to supervise engines")
        return self._adopting

    async def _detail(self, name: str) -> EngineDetail:
        detail = board.detail(self._state, name, self._clock.now())
        events: list[Event] = []
        timeline: list[Transition] = []
        last: list[Transaction] = []
        with suppress(StoreError, TimeoutError):  # the board is shown whatever the disk does: then from memory
            async with asyncio.timeout(DETAIL_S):
                events = await self._past.events(subject=f"engine/{name}", limit=DETAIL_EVENTS)
                timeline = await self._past.transitions(name, limit=DETAIL_TRANSITIONS)
                last = [] if detail.transaction else await self._past.transactions(name, limit=1)
        if last:
            steps, kind = last[-1].steps, last[-1].kind
            detail = msgspec.structs.replace(detail, transaction=steps, transaction_kind=kind)
        path = self._log_path(name)
        return msgspec.structs.replace(
            detail,
            events=_merged(map(board.event_info, events), detail.events),
            log_path=None if path is None else str(path),
            timeline=tuple(timeline),
        )

    async def _history(self, request: Request) -> History:
        series = request.query.get("series")
        if not series:
            raise UsageError("history needs `series`", hint="GET /v1/series lists them")
        end = _number(request, "to", self._clock.now().wall)
        start = _number(request, "from", end - HISTORY_S)
        step = _number(request, "step", max(1.0, (end - start) / HISTORY_POINTS))
        if end <= start or step <= 0 or (end - start) / step > MAX_HISTORY_POINTS:
            raise UsageError(
                f"expected `from` < `to` and at most {MAX_HISTORY_POINTS} steps between them",
                hint="Unix seconds, and seconds for `step`",
            )
        return await self._past.history(series, start, end, step)

    async def _logs(self, name: str, request: Request) -> StreamResponse:
        board.find(self._state, name)
        path = self._log_path(name)
        if path is None:
            raise Conflict(
                f"opsboard has no log of {name}: it did not start it, or has no `logs_command`",
                hint="look where it was started",
            )
        lines = int(_number(request, "lines", LOG_LINES))
        if not 0 <= lines <= MAX_LOG_LINES:
            raise UsageError(f"expected `lines` between 0 and {MAX_LOG_LINES}, found {lines}")
        follow = request.query.get("follow", "0") not in {"0", "", "false"}
        return StreamResponse(200, TEXT, log_stream(path, lines, follow=follow))


async def log_stream(path: Path, lines: int, *, follow: bool) -> AsyncGenerator[bytes, None]:
    """Yield the last lines of a log and with ``follow`` what is added, looking every ``LOG_LOOK_S``; safe to show."""
    follower = LogFollower(path, from_end=True) if follow else None
    try:
        with suppress(FileNotFoundError):  # an engine that never started has no log yet
            end = None if follower is None else follower.position  # what comes after that is followed
            yield _text(await asyncio.to_thread(lambda: tail(path, lines, end=end)))
        while follower is not None:
            yield _text(await asyncio.to_thread(follower.read_new))
            await asyncio.sleep(LOG_LOOK_S)
    finally:
        if follower is not None:
            follower.close()


def _merged(stored: Iterable[EventInfo], lately: Sequence[EventInfo]) -> tuple[EventInfo, ...]:
    """Return what the store remembers and what it could not take yet, each once, in order of time."""
    events = dict.fromkeys([*stored, *lately])
    return tuple(sorted(events, key=lambda event: event.t))[-DETAIL_EVENTS:]


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _number(request: Request, name: str, default: float) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise UsageError(f"expected a number for `{name}`, found {sanitise(text, 40)!r}")
    return value
