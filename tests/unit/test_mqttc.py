"""Our MQTT client against brokers that misbehave: no wait is for ever, no packet too large, every end has a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import mqtt5
import pytest

from opsboard.core.errors import MqttError
from opsboard.core.secret import Secret
from opsboard.mqttc import connection as client
from opsboard.mqttc.connection import Broker, Connection, Message
from tests.support.herd import free_port
from tests.support.in_loop import in_loop
from tests.support.waiting import wait_until_async

WILL = Message("opsboard/v1/a/status", b"offline", 1, retain=True)
WELCOME = mqtt5.ConnAckPacket().write()
IMPATIENT_S = 0.2


class Asked(NamedTuple):
    """One side of a conversation."""

    packet: mqtt5.Packet
    writer: asyncio.StreamWriter


@asynccontextmanager
async def serving(answer: Callable[[Asked], Awaitable[None] | None]) -> AsyncIterator[Broker]:
    """Run a broker that answers each packet as a test says."""

    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        buffer = b""
        try:
            while data := await reader.read(65536):
                buffer += data
                while buffer:
                    try:
                        packet, size = mqtt5.read(memoryview(buffer))
                    except IndexError:
                        break
                    buffer = buffer[size:]
                    if (more := answer(Asked(packet, writer))) is not None:
                        await more
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    try:
        yield Broker(host="127.0.0.1", port=server.sockets[0].getsockname()[1], tls=False, client_id="a")
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        async with asyncio.timeout(5):
            while tasks:
                await asyncio.sleep(0)


def says(welcome: bytes, *others: tuple[type, bytes]) -> Callable[[Asked], None]:
    """Answer a greeting with ``welcome``, others by their type, and all else with nothing."""
    answers = {mqtt5.ConnectPacket: welcome, **dict(others)}

    def answer(asked: Asked) -> None:
        if data := answers.get(type(asked.packet)):
            asked.writer.write(data)

    return answer


async def first_end(one: Connection, *more: Awaitable[object]) -> str:
    """Return why a connection ends."""
    with pytest.raises(MqttError) as ended:
        async with asyncio.timeout(10):
            await asyncio.gather(one.listen(lambda _message: None), *more)
    await one.close()
    return ended.value.message


@in_loop
async def test_it_greets_with_its_name_its_password_and_its_will() -> None:
    greetings: list[mqtt5.Packet] = []

    def answer(asked: Asked) -> None:
        greetings.append(asked.packet)
        asked.writer.write(WELCOME)

    async with serving(answer) as broker:
        known = Broker(
            host=broker.host, port=broker.port, tls=False, client_id="gpu-a", username="u", password=Secret("p")
        )
        one = await Connection.open(known, WILL)
        await one.close(WILL)
        await wait_until_async(lambda: len(greetings) == 3)
    hello = greetings[0]
    assert isinstance(hello, mqtt5.ConnectPacket)
    assert (hello.client_id, hello.username, hello.password, hello.clean_start) == ("gpu-a", "u", b"p", True)
    assert hello.will is not None
    assert (hello.will.topic, hello.will.payload, hello.will.retain) == (WILL.topic, b"offline", True)
    last, bye = greetings[1:]
    assert isinstance(last, mqtt5.PublishPacket), "a clean end sends no will: it is said"
    assert (last.payload, last.retain) == (b"offline", True)
    assert isinstance(bye, mqtt5.DisconnectPacket)


@pytest.mark.parametrize(
    ("welcome", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100, "it does not speak MQTT 5"),
        (b"\x00\x00", "it does not speak MQTT 5: Invalid PacketType value: 0"),
        (mqtt5.PingRespPacket().write(), "it does not speak MQTT 5"),
        (
            mqtt5.ConnAckPacket(
                reason_code=mqtt5.ConnAckReasonCode.BAD_USER_NAME_OR_PASSWORD, reason_str="no\x1b[31m"
            ).write(),
            "it refuses the connection: bad user name or password (no\ufffd[31m)",
        ),
        (b"", f"it was silent for {IMPATIENT_S:g} s"),
    ],
    ids=["http", "garbage", "another packet", "refused", "nothing"],
)
@in_loop
async def test_a_greeting_that_is_none_is_told(welcome: bytes, why: str) -> None:
    async with serving(says(welcome)) as broker:
        with pytest.raises(MqttError) as refused:
            await Connection.open(broker, WILL, IMPATIENT_S)
    assert refused.value.message.startswith(f"{broker}: {why}")
    assert not refused.value.permanent


@in_loop
async def test_nobody_there_is_told() -> None:
    with pytest.raises(MqttError, match=r"127\.0\.0\.1:\d+: .*"):
        await Connection.open(Broker(host="127.0.0.1", port=free_port(), tls=False, client_id="a"), WILL)


@in_loop
async def test_certificates_that_cannot_be_read_are_told() -> None:
    broker = Broker(host="127.0.0.1", port=1, tls=True, client_id="a", ca="/nowhere/ca.pem")
    with pytest.raises(MqttError, match="No such file"):
        await Connection.open(broker, WILL)


@in_loop
async def test_what_is_never_acknowledged_ends_the_connection() -> None:
    async with serving(says(WELCOME)) as broker:
        one = await Connection.open(broker, WILL, IMPATIENT_S)
        why = await first_end(one, one.publish(Message("a", b"x", 1)))
    assert why == f"{broker}: it acknowledged nothing for {IMPATIENT_S:g} s"


@in_loop
async def test_a_broker_that_takes_nothing_ends_the_connection() -> None:
    held = asyncio.Event()

    async def deaf(asked: Asked) -> None:
        asked.writer.write(WELCOME)
        await held.wait()

    async with serving(deaf) as broker:
        one = await Connection.open(broker, WILL, IMPATIENT_S)
        large = Message("a", b"x" * 8_000_000)
        with pytest.raises(MqttError, match="it took nothing for"):
            await asyncio.gather(*(one.publish(large) for _ in range(8)))
        await one.close()
        held.set()


@in_loop
async def test_a_broker_that_falls_silent_is_noticed() -> None:
    hasty = mqtt5.ConnAckPacket(server_keep_alive=1).write()
    async with serving(says(hasty)) as broker:
        one = await Connection.open(broker, WILL, IMPATIENT_S)
        assert await first_end(one, one.ping()) == f"{broker}: it was silent for 1 s"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (
            mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER).write(),
            "it hung up: session taken over",
        ),
        (mqtt5.UnsubAckPacket(1, []).write(), "it sent what it may not: UnsubAckPacket"),
        (b"\x30\xff\xff\xff\x7f" + b"x" * (client.PACKET_BYTES + 1), "it sent more than 262144 bytes at once"),
    ],
    ids=["taken over", "unasked", "too large"],
)
@in_loop
async def test_what_a_broker_says_last_is_told(sent: bytes, why: str) -> None:
    async with serving(says(WELCOME + sent)) as broker:
        one = await Connection.open(broker, WILL)
        assert await first_end(one) == f"{broker}: {why}"


@in_loop
async def test_a_refusal_says_why_and_the_connection_goes_on() -> None:
    def answer(asked: Asked) -> None:
        match asked.packet:
            case mqtt5.ConnectPacket():
                asked.writer.write(mqtt5.ConnAckPacket(max_packet_size=100).write())
            case mqtt5.PublishPacket(topic="not-ours", packet_id=int(number)):
                refused = mqtt5.PubAckReasonCode.NOT_AUTHORIZED
                asked.writer.write(mqtt5.PubAckPacket(number, reason_code=refused).write())
            case mqtt5.PublishPacket(packet_id=int(number)):
                asked.writer.write(mqtt5.PubAckPacket(number).write())

    async with serving(answer) as broker:
        one = await Connection.open(broker, WILL)
        listens = asyncio.ensure_future(one.listen(lambda _message: None))
        assert await one.publish(Message("not-ours", b"x", 1)) == "not authorized"
        assert await one.publish(Message("ours", b"x" * 200, 1)) == "212 bytes are more than the 100 that it takes"
        assert await one.publish(Message("ours", b"x", 1)) is None
        listens.cancel()
        await one.close()


@in_loop
async def test_no_more_wait_for_an_acknowledgement_than_the_broker_allows() -> None:
    waiting: list[int] = []
    most = [0]

    async def answer(asked: Asked) -> None:
        match asked.packet:
            case mqtt5.ConnectPacket():
                asked.writer.write(mqtt5.ConnAckPacket(receive_max=3).write())
            case mqtt5.PublishPacket(packet_id=int(number)):
                waiting.append(number)
                most[0] = max(most[0], len(waiting))
                if len(waiting) == 3:
                    asked.writer.write(b"".join(mqtt5.PubAckPacket(one).write() for one in waiting))
                    waiting.clear()

    async with serving(answer) as broker:
        one = await Connection.open(broker, WILL)
        listens = asyncio.ensure_future(one.listen(lambda _message: None))
        answers = await asyncio.gather(*(one.publish(Message("a", b"%d" % n, 1)) for n in range(30)))
        assert answers == [None] * 30
        assert most == [3]
        listens.cancel()
        await one.close()
