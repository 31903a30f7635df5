"""The synchronous client, for verbs: one connection a call."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import msgspec

from opsboard.client.replies import HEADERS, MAX_REPLY_BYTES, check, decode, target, unreachable
from opsboard.core.deliveries import ChannelHealth
from opsboard.core.errors import ControlError, NotReachable
from opsboard.core.incidents import Urgency
from opsboard.core.letters import Letter, LetterRequest, Trial, TrialRequest
from opsboard.core.model import Rolling
from opsboard.core.silences import Silence
from opsboard.core.wire import (
    PROTOCOL_HEADER,
    ActionAccepted,
    ActionRequest,
    Adopted,
    AdoptRequest,
    Engine,
    EngineDetail,
    Forgotten,
    History,
    Incident,
    IncidentDetail,
    IncidentRequest,
    LastRolling,
    SilenceRequest,
    Status,
)

_LINE_BYTES = 64 * 1024 * 1024


class Client:
    """Speaks with the first daemon that answers on ``sockets``.

    Every call raises NotReachable (no daemon, or it went away), BadRequest, Denied, NotFound, Conflict; else
    ControlError.
    """

    def __init__(self, sockets: Path | Sequence[Path], timeout: float = 10.0) -> None:
        """``timeout`` in seconds is for connecting and for each wait for a reply; streams may be silent for longer."""
        self._sockets = [sockets] if isinstance(sockets, Path) else list(sockets)
        self._timeout = timeout

    def status(self) -> Status:
        """Return the board."""
        return decode(self._call("GET", "/v1/status"), Status)

    def engines(self) -> list[Engine]:
        """Return every engine's line."""
        return decode(self._call("GET", "/v1/engines"), list[Engine])

    def engine(self, name: str) -> EngineDetail:
        """Return all that is known of one engine."""
        return decode(self._call("GET", target("/v1/engines", name)), EngineDetail)

    def action(
        self,
        name: str,
        kind: str,
        reason: str | None = None,
        idempotency_key: str | None = None,
        *,
        now: bool = False,
        then: Sequence[str] = (),
    ) -> ActionAccepted:
        """Ask for an action; returns when it has begun. Raises Conflict with what refuses it.

        ``kind``, ``now`` and ``then`` as in :class:`ActionRequest`.
        """
        body = ActionRequest(kind=kind, reason=reason, idempotency_key=idempotency_key, now=now, then=tuple(then))
        return decode(
            self._call("POST", target("/v1/engines", name, "actions"), msgspec.json.encode(body)), ActionAccepted
        )

    def rolling(self) -> Rolling | None:
        """Return the rolling restart under way, or the last one; None when there was none."""
        return decode(self._call("GET", "/v1/rolling"), LastRolling).rolling

    def cancel_rolling(self) -> Rolling:
        """Call off the rolling restart under way; raises Conflict when there is none."""
        return decode(self._call("POST", "/v1/rolling/cancel"), Rolling)

    def adopt(self, wanted: str, name: str | None = None, reason: str | None = None) -> Adopted:
        """Take over an engine that somebody started, by its address or a pid of it; returns when it is supervised."""
        body = AdoptRequest(target=wanted, name=name, reason=reason)
        return decode(self._call("POST", "/v1/engines/adopt", msgspec.json.encode(body)), Adopted)

    def forget(self, name: str) -> Forgotten:
        """Let go of an engine that was taken over."""
        return decode(self._call("POST", target("/v1/engines", name, "forget")), Forgotten)

    def incidents(self, *, every: bool = False, subject: str | None = None, limit: int = 100) -> list[Incident]:
        """Return what is open, or with ``every`` the newest ones, newest first; of one ``subject``, or of all."""
        query: dict[str, str | int | float | None] = {"all": int(every), "subject": subject, "limit": limit}
        return decode(self._call("GET", target("/v1/incidents", query=query)), list[Incident])

    def incident(self, name: str) -> IncidentDetail:
        """Return one incident with its timeline and evidence, by its number or its uid."""
        return decode(self._call("GET", target("/v1/incidents", name)), IncidentDetail)

    def tell_incident(self, name: str, verb: str, text: str | None = None, by: str | None = None) -> Incident:
        """``ack``, ``note`` or ``resolve`` an incident; returns when it is written down. Raises Conflict."""
        body = msgspec.json.encode(IncidentRequest(text=text, by=by))
        return decode(self._call("POST", target("/v1/incidents", name, verb), body), Incident)

    def silences(self, *, every: bool = False) -> list[Silence]:
        """Return the silences that stand or will, or with ``every`` the newest ever, the oldest first."""
        return decode(self._call("GET", target("/v1/silences", query={"all": int(every)})), list[Silence])

    def silence(self, said: SilenceRequest) -> Silence:
        """Silence incidents; returns when it holds. Raises BadRequest, Conflict."""
        return decode(self._call("POST", "/v1/silences", msgspec.json.encode(said)), Silence)

    def expire_silence(self, number: int) -> Silence:
        """End a silence now."""
        return decode(self._call("DELETE", target("/v1/silences", str(number))), Silence)

    def channels(self) -> list[ChannelHealth]:
        """Return how each channel that people are told by is doing."""
        return decode(self._call("GET", "/v1/channels"), list[ChannelHealth])

    def test_channel(self, name: str, severity: Urgency = "note", by: str | None = None) -> Trial:
        """Begin a test of a channel; :meth:`outbox` of its uid tells how it goes."""
        body = msgspec.json.encode(TrialRequest(severity=severity, by=by))
        return decode(self._call("POST", target("/v1/channels", name, "test"), body), Trial)

    def outbox(
        self, states: str | None = None, channel: str | None = None, uid: str | None = None, limit: int = 100
    ) -> list[Letter]:
        """Return the newest messages, newest first: what waits or is dead, or ``states`` (commas between, or all)."""
        query: dict[str, str | int | float | None] = {"state": states, "channel": channel, "incident": uid}
        return decode(self._call("GET", target("/v1/outbox", query={**query, "limit": limit})), list[Letter])

    def letter(self, number: int, verb: str, reason: str | None = None) -> Letter:
        """``retry`` or ``drop`` a message of the outbox. Raises NotFound, Conflict."""
        body = msgspec.json.encode(LetterRequest(reason=reason))
        return decode(self._call("POST", target("/v1/outbox", str(number), verb), body), Letter)

    def history(
        self, series: str, start: float | None = None, end: float | None = None, step: float | None = None
    ) -> History:
        """Return one series between two Unix times; the daemon chooses what is left out (last hour, ~300 points)."""
        query: dict[str, str | int | float | None] = {"series": series, "from": start, "to": end, "step": step}
        return decode(self._call("GET", target("/v1/history", query=query)), History)

    def series(self) -> list[str]:
        """Return the names of all recorded series."""
        return decode(self._call("GET", "/v1/series"), list[str])

    def logs(self, name: str, lines: int = 100, *, follow: bool = False) -> Iterator[str]:
        """Yield an engine's last log lines, and with ``follow`` new ones until the daemon goes away."""
        query: dict[str, str | int | float | None] = {"lines": lines, "follow": 1 if follow else None}
        for line in self._lines(target("/v1/engines", name, "logs", query=query)):
            yield line.decode("utf-8", "replace")

    def record(self, seconds: float | None = None) -> Iterator[bytes]:
        """Yield recording lines (without line ends) as the daemon collects them, for ``seconds`` or for ever."""
        yield from self._lines("/v1/record", seconds)

    def reload(self) -> None:
        """Let the daemon read its file again."""
        self._call("POST", "/v1/reload")

    # --- the wire ---------------------------------------------------------------------------------------------------

    def _call(self, method: str, where: str, body: bytes | None = None) -> bytes:
        with self._reply(method, where, body) as (reply, _):
            data = reply.read(MAX_REPLY_BYTES)
            check(reply.status, reply.getheader(PROTOCOL_HEADER), data)
            return data

    def _lines(self, where: str, seconds: float | None = None) -> Iterator[bytes]:
        end = None if seconds is None else time.monotonic() + seconds
        with self._reply("GET", where, None) as (reply, sock):
            if reply.status != 200:
                check(reply.status, reply.getheader(PROTOCOL_HEADER), reply.read(MAX_REPLY_BYTES))
            while line := _line(reply, sock, end):
                yield line.rstrip(b"\n")

    @contextmanager
    def _reply(self, method: str, where: str, body: bytes | None) -> Iterator[tuple[HTTPResponse, socket.socket]]:
        sock = self._connect()
        connection = _UnixConnection(sock)
        try:
            headers = {**HEADERS, "Content-Type": "application/json"} if body else HEADERS
            connection.request(method, where, body, headers)
            yield connection.getresponse(), sock
        except TimeoutError as error:
            raise NotReachable(f"the daemon did not answer within {self._timeout:.0f} s") from error
        except ConnectionError as error:
            raise NotReachable("the daemon closed the connection", hint="it may be restarting: try again") from error
        except HTTPException as error:
            raise ControlError(f"what answers on the socket is no daemon of ours: {error!r}") from error
        finally:
            connection.close()

    def _connect(self) -> socket.socket:
        failures: list[tuple[Path, OSError]] = []
        for path in self._sockets:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(self._timeout)
                sock.connect(str(path))
            except OSError as error:
                sock.close()
                failures.append((path, error))
            else:
                return sock
        raise unreachable(failures)


def _line(reply: HTTPResponse, sock: socket.socket, end: float | None) -> bytes:
    """Return the next line of a stream that may be silent for long; nothing at its end or at ``end`` (monotonic)."""
    left = None if end is None else end - time.monotonic()
    if left is not None and left <= 0:
        return b""
    sock.settimeout(left)
    try:
        return reply.readline(_LINE_BYTES)
    except TimeoutError:
        return b""


class _UnixConnection(HTTPConnection):
    """An HTTP connection over a socket that is already connected."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__("opsboard")
        self.sock = sock

    def connect(self) -> None:
        """Do nothing: it is connected."""
