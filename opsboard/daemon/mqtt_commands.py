"""Commands over MQTT: whoever has the key may restart, drain and undrain engines. None are taken without a key.

A broker is not trusted: what it hands on is signed by whoever sent it, for this host, this minute and once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from opsboard.core.clock import Clock
from opsboard.core.errors import Denied, OpsboardError, UsageError
from opsboard.core.model import Record
from opsboard.core.secret import Secret
from opsboard.core.text import sanitise
from opsboard.core.wire import ActionAccepted, ActionRequest
from opsboard.mqttc.connection import Message

log = logging.getLogger("opsboard.mqtt")

Act = Callable[[str, ActionRequest, None], Awaitable[ActionAccepted]]
"""Takes an action on (``opsboard.daemon.actions.Actions.ask``)."""

VERSION = b"v1,"
WINDOW_S = 60.0
"""A command is as old, or as far ahead, as clocks differ and messages take."""
BYTES = 4096
WAITING = 16
"""More commands than that at once are not taken."""
NONCES = 1000
LOG_S = 60.0
"""What is signed by nobody who may is logged so often: whoever can reach the broker can send it."""


class Command(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked. ``nonce`` is never used again; ``t`` is when it was signed (Unix s); ``by`` is for people."""

    command: Literal["restart", "drain", "undrain"]
    engine: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
    nonce: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{16,64}\Z")]
    t: float
    reason: str | None = None
    by: str | None = None


class Answer(Record, frozen=True, kw_only=True):
    """What became of a command: ``ok`` when it was taken on; its outcome shows in states and events."""

    nonce: str
    ok: bool
    id: str | None = None
    message: str | None = None


class Checker:
    """Tells commands of those who have the key from all else."""

    def __init__(self, key: Secret, topic: str) -> None:
        """``topic`` is signed, too: what was signed for another host is not for this one."""
        self._key = key.reveal().encode()
        self._topic = topic.encode()
        self._used: deque[tuple[float, str]] = deque()
        """Nonces with when they may be forgotten (Unix s), in the order in which they came."""

    def read(self, payload: bytes) -> Command:
        """Return what was asked. Raises Denied: nobody who may has signed it; UsageError: it is no command."""
        signature, _, body = payload.partition(b"\n")
        mac = hmac.digest(self._key, self._topic + b"\n" + body, hashlib.sha256)
        if len(payload) > BYTES or not hmac.compare_digest(signature, VERSION + base64.b64encode(mac)):
            raise Denied("it is not signed with the key of this host")
        try:
            return msgspec.json.decode(body, type=Command)
        except msgspec.MsgspecError as error:
            raise UsageError(sanitise(str(error), 200)) from None

    def admit(self, one: Command, wall: float) -> None:
        """Take a command that was read once, in its time. Raises Denied."""
        if abs(wall - one.t) > WINDOW_S:
            raise Denied(f"it was signed {abs(wall - one.t):.0f} s {'ago' if wall > one.t else 'from now'}")
        while self._used and self._used[0][0] < wall:
            self._used.popleft()
        if any(nonce == one.nonce for _, nonce in self._used):
            raise Denied("its nonce was used before")
        if len(self._used) >= NONCES:
            raise Denied("too many commands")
        self._used.append((wall + 2 * WINDOW_S, one.nonce))


class Commands:
    """Takes them, one after the other."""

    def __init__(self, key: Secret, base: str, clock: Clock, act: Act) -> None:
        """``base`` is where this host's topics begin."""
        self.topic = f"{base}/command"
        self._result = f"{base}/command/result"
        self._checker = Checker(key, self.topic)
        self._clock = clock
        self._act = act
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        self._logged = -LOG_S

    def hear(self, message: Message) -> None:
        """Take what came on the topic; what a broker has retained was not sent now and is nothing."""
        if message.retain or self._waiting.full():
            self._refuse("it was retained" if message.retain else "too many wait")
        else:
            self._waiting.put_nowait(message.payload)

    async def obey(self, publish: Callable[[Message], Awaitable[object]]) -> None:
        """Carry out what comes, for ever, and answer those who have the key."""
        while True:
            payload = await self._waiting.get()
            try:
                one = self._checker.read(payload)
            except Denied as error:
                self._refuse(error.message)
                continue
            except UsageError as error:
                answer = Answer(nonce="", ok=False, message=error.message)
            else:
                answer = await self._carry_out(one)
            await publish(Message(self._result, msgspec.json.encode(answer), 1))

    async def _carry_out(self, one: Command) -> Answer:
        who, why = sanitise(one.by or "nobody named", 64), f": {one.reason}" if one.reason else ""
        # The key outlives this daemon: what it took on is not done again by the next one.
        request = ActionRequest(
            kind=one.command, reason=f"by MQTT, {who}{why}", idempotency_key=f"mqtt {self.topic[-100:]} {one.nonce}"
        )
        try:
            self._checker.admit(one, self._clock.now().wall)
            accepted = await self._act(one.engine, request, None)
        except OpsboardError as error:
            log.warning("%s of %s by MQTT was refused: %s", one.command, one.engine, error.message)
            return Answer(nonce=one.nonce, ok=False, message=error.message)
        return Answer(nonce=one.nonce, ok=True, id=accepted.id)

    def _refuse(self, why: str) -> None:
        now = self._clock.now().mono
        if now - self._logged >= LOG_S:
            self._logged = now
            log.warning("a command by MQTT was not taken: %s", why)
