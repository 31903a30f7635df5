"""One MQTT 5 connection: the codec mqtt5 on asyncio streams, bounded in bytes, in messages under way and in time.

Whoever opens one runs :meth:`Connection.listen` and :meth:`Connection.ping` in tasks of its own; an error there means
that it is gone. Nothing is kept over connections: the session is clean, what is true is published anew.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Literal, NamedTuple, SupportsInt

import mqtt5

from opsboard.core.errors import MqttError
from opsboard.core.model import Record
from opsboard.core.secret import Secret
from opsboard.core.text import sanitise

CONNECT_S = 10.0
DEADLINE_S = 10.0
"""For bytes to leave, and for the broker to acknowledge."""
CLOSE_S = 2.0
KEEP_ALIVE_S = 30
PACKET_BYTES = 256 * 1024
"""The largest packet that is taken."""
WINDOW = 16
"""Acknowledgements that are waited for at once; fewer where the broker allows fewer."""
_READ = 64 * 1024
_NUMBERS = 65535
_REFUSED = 128
"""Reason codes from here on are refusals (MQTT 5, 2.4)."""


class Broker(Record, frozen=True, kw_only=True):
    """Whom to connect to, and as whom. ``ca``, ``cert`` and ``key`` are paths of PEM files; they count with ``tls``."""

    host: str
    port: int
    tls: bool
    client_id: str
    username: str | None = None
    password: Secret | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Message(NamedTuple):
    """What is published, or came."""

    topic: str
    payload: bytes
    qos: Literal[0, 1] = 0
    retain: bool = False


class Connection:
    """Publishes and hears."""

    def __init__(
        self, broker: Broker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deadline_s: float = DEADLINE_S
    ) -> None:
        """Take over an open stream; :meth:`open` does what has to be done first."""
        self._broker = broker
        self._reader, self._writer = reader, writer
        self._deadline_s = deadline_s
        self._buffer = b""
        self._keep_alive_s: float = KEEP_ALIVE_S
        self._packet_bytes: int | None = None
        self._qos: int = 1
        self._retains = True
        self._window = asyncio.Semaphore(WINDOW)
        self._last_number = 0
        self._waited: dict[int, asyncio.Future[str | None]] = {}

    @classmethod
    async def open(cls, broker: Broker, will: Message, deadline_s: float = DEADLINE_S) -> Connection:
        """Connect. ``will`` is what the broker publishes when the connection breaks off. Raises MqttError."""
        try:
            async with asyncio.timeout(CONNECT_S):
                tls = await asyncio.to_thread(_context, broker) if broker.tls else None
                name = broker.host if tls is not None else None
                reader, writer = await asyncio.open_connection(broker.host, broker.port, ssl=tls, server_hostname=name)
        except TimeoutError:
            raise MqttError(f"{broker}: no connection within {CONNECT_S:g} s") from None
        except ssl.SSLError as error:
            raise MqttError(f"{broker}: TLS: {sanitise(str(error), 200)}") from None
        except (OSError, UnicodeError) as error:
            raise MqttError(f"{broker}: {sanitise(str(error), 200)}") from None
        one = cls(broker, reader, writer, deadline_s)
        try:
            await one._greet(will)
        except BaseException:
            writer.transport.abort()
            raise
        return one

    async def _greet(self, will: Message) -> None:
        password = self._broker.password
        await self._write(
            mqtt5.ConnectPacket(
                self._broker.client_id,
                username=self._broker.username,
                password=None if password is None else password.reveal().encode(),
                clean_start=True,
                will=mqtt5.Will(will.topic, payload=will.payload, qos=mqtt5.QoS(will.qos), retain=will.retain),
                keep_alive=KEEP_ALIVE_S,
                max_packet_size=PACKET_BYTES,
            ).write()
        )
        answer = await self._next(self._deadline_s)
        if not isinstance(answer, mqtt5.ConnAckPacket):
            raise self._broken("it does not speak MQTT 5")
        if int(answer.reason_code) >= _REFUSED:  # mqtt5's words are numbers for mypy only
            raise self._broken(f"it refuses the connection: {_why(answer.reason_code, answer.reason_str)}")
        self._keep_alive_s = answer.server_keep_alive or KEEP_ALIVE_S
        self._packet_bytes = answer.max_packet_size
        self._qos, self._retains = min(1, int(answer.max_qos)), answer.retain_available
        self._window = asyncio.Semaphore(min(WINDOW, answer.receive_max))

    async def listen(self, hear: Callable[[Message], None]) -> None:
        """Hand on what comes until the connection is gone. Raises MqttError then."""
        while True:
            packet = await self._next(self._keep_alive_s)
            match packet:
                case mqtt5.PublishPacket():
                    if packet.packet_id is not None:
                        await self._write(mqtt5.PubAckPacket(packet.packet_id).write())
                    hear(Message(packet.topic, packet.payload, 1 if int(packet.qos) else 0, packet.retain))
                case mqtt5.PubAckPacket():
                    self._done(packet.packet_id, (packet.reason_code,), packet.reason_str)
                case mqtt5.SubAckPacket():
                    self._done(packet.packet_id, packet.reason_codes, packet.reason_str)
                case mqtt5.PingRespPacket():
                    pass
                case mqtt5.DisconnectPacket():
                    raise self._broken(f"it hung up: {_why(packet.reason_code, packet.reason_str)}")
                case _:
                    raise self._broken(f"it sent what it may not: {type(packet).__name__}")

    async def ping(self) -> None:
        """Ask for a sign of life twice in each time that the broker may be silent. Raises MqttError."""
        while True:
            await asyncio.sleep(self._keep_alive_s / 2)
            await self._write(mqtt5.PingReqPacket().write())

    async def publish(self, message: Message) -> str | None:
        """Publish; with QoS 1 return when the broker has it. Returns why it does not take it; None: it does.

        Raises MqttError: the connection is of no use any more.
        """
        qos = min(message.qos, self._qos)
        if qos == 0:
            return await self._publish(message, qos, None)
        async with self._window:
            return await self._asked(lambda number: self._publish(message, qos, number))

    async def subscribe(self, patterns: Iterable[str]) -> str | None:
        """Ask for what others publish, and for what is retained. Returns and raises as :meth:`publish`."""
        wanted = [
            mqtt5.TopicFilter(pattern, max_qos=mqtt5.QoS.AT_LEAST_ONCE, no_local=True, retain_as_published=False)
            for pattern in patterns
        ]

        async def ask(number: int) -> None:
            await self._write(mqtt5.SubscribePacket(number, wanted).write())

        return await self._asked(ask)

    async def close(self, last: Message | None = None) -> None:
        """Say ``last`` and good-bye, so that there is no will; never raises for what the network does."""
        with suppress(OSError, TimeoutError, MqttError):
            async with asyncio.timeout(CLOSE_S):
                if last is not None:
                    await self._publish(last, 0, None)
                await self._write(mqtt5.DisconnectPacket().write())
                self._writer.close()
                await self._writer.wait_closed()
        self._writer.transport.abort()

    async def _publish(self, message: Message, qos: int, number: int | None) -> str | None:
        data = mqtt5.PublishPacket(
            message.topic,
            message.payload,
            qos=mqtt5.QoS(qos),
            retain=message.retain and self._retains,
            packet_id=number,
        ).write()
        if self._packet_bytes is not None and len(data) > self._packet_bytes:
            return f"{len(data)} bytes are more than the {self._packet_bytes} that it takes"
        await self._write(data)
        return None

    async def _asked(self, ask: Callable[[int], Awaitable[str | None]]) -> str | None:
        """Send something under a number and wait for its acknowledgement."""
        number = self._last_number % _NUMBERS + 1
        while number in self._waited:
            number = number % _NUMBERS + 1
        self._last_number = number
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waited[number] = answer
        try:
            if (refused := await ask(number)) is not None:
                return refused
            async with asyncio.timeout(self._deadline_s):
                return await answer
        except TimeoutError:
            raise self._broken(f"it acknowledged nothing for {self._deadline_s:g} s") from None
        finally:
            del self._waited[number]

    def _done(self, number: int, codes: Iterable[SupportsInt], text: str | None) -> None:
        answer = self._waited.get(number)
        if answer is not None and not answer.done():
            answer.set_result(next((_why(code, text) for code in codes if int(code) >= _REFUSED), None))

    async def _write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                self._writer.write(data)
                await self._writer.drain()
        except TimeoutError:
            raise self._broken(f"it took nothing for {self._deadline_s:g} s") from None
        except OSError as error:
            raise self._broken(sanitise(str(error), 200)) from None

    async def _next(self, deadline_s: float) -> mqtt5.Packet:
        """Return the next packet. Raises MqttError, also when there is none within the deadline."""
        while True:
            try:
                packet, size = mqtt5.read(memoryview(self._buffer))
            except IndexError:  # it is not whole yet
                if len(self._buffer) > PACKET_BYTES:
                    raise self._broken(f"it sent more than {PACKET_BYTES} bytes at once") from None
            except ValueError as error:
                raise self._broken(f"it does not speak MQTT 5: {sanitise(str(error), 100)}") from None
            else:
                self._buffer = self._buffer[size:]
                return packet
            try:
                async with asyncio.timeout(deadline_s):
                    data = await self._reader.read(_READ)
            except TimeoutError:
                raise self._broken(f"it was silent for {deadline_s:g} s") from None
            except OSError as error:
                raise self._broken(sanitise(str(error), 200)) from None
            if not data:
                raise self._broken("it closed the connection")
            self._buffer += data

    def _broken(self, why: str) -> MqttError:
        return MqttError(f"{self._broker}: {why}")


def _context(broker: Broker) -> ssl.SSLContext:
    """Read the certificates; blocks."""
    context = ssl.create_default_context(cafile=broker.ca)
    if broker.cert is not None:
        context.load_cert_chain(broker.cert, broker.key, password="")  # else a locked one would ask the terminal
    return context


def _why(code: SupportsInt, text: str | None) -> str:
    name = getattr(code, "name", str(int(code))).lower().replace("_", " ")
    return f"{name} ({sanitise(text, 200)})" if text else name
