"""Commands by MQTT: signed for this host, this minute and once, or nothing happens."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsboard.core.clock import ManualClock
from opsboard.core.errors import Conflict, Denied, UsageError
from opsboard.core.secret import Secret
from opsboard.core.wire import ActionAccepted, ActionRequest
from opsboard.daemon.mqtt_commands import BYTES, NONCES, WAITING, WINDOW_S, Checker, Command, Commands
from opsboard.mqttc.connection import Message
from tests.support.in_loop import in_loop

BASE = "opsboard/v1/gpu-a"
TOPIC = f"{BASE}/command"
KEY = "0123456789abcdef0123456789abcdef"
T = 1_700_000_000.0
ASKS: dict[str, Any] = {"command": "restart", "engine": "a", "nonce": "n" * 16, "t": T, "reason": "slow", "by": "ann"}


def signed(body: bytes, key: str = KEY, topic: str = TOPIC) -> bytes:
    mac = hmac.new(key.encode(), f"{topic}\n".encode() + body, "sha256").digest()
    return b"v1," + base64.b64encode(mac) + b"\n" + body


def asking(**changes: Any) -> bytes:
    return signed(json.dumps(ASKS | changes).encode())


def checker() -> Checker:
    return Checker(Secret(KEY), TOPIC)


def test_what_is_signed_with_the_key_is_read() -> None:
    assert checker().read(asking()) == Command(**ASKS)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"v1,",
        json.dumps(ASKS).encode(),
        signed(json.dumps(ASKS).encode(), key="f" * 32),
        signed(json.dumps(ASKS).encode(), topic="opsboard/v1/gpu-b/command"),
        asking().replace(b"restart", b"undrain"),
        asking().replace(b"v1,", b"v2,"),
        signed(b" " * BYTES + json.dumps(ASKS).encode()),
    ],
    ids=["empty", "no signature", "unsigned", "another key", "another host", "changed", "another version", "too large"],
)
def test_what_is_not_is_denied(payload: bytes) -> None:
    with pytest.raises(Denied):
        checker().read(payload)


@pytest.mark.parametrize(
    "changes",
    [{"command": "stop"}, {"nonce": "short"}, {"t": "now"}, {"now": True}, {"engine": "a\x1b[2J"}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_signed_and_no_command_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        checker().read(asking(**changes))


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_no_bytes_break_it(payload: bytes) -> None:
    for one in (payload, signed(payload)):
        with pytest.raises((Denied, UsageError)):
            checker().read(one)


@pytest.mark.parametrize("away_s", [-WINDOW_S - 1, WINDOW_S + 1, 1e12])
def test_a_command_has_its_minute(away_s: float) -> None:
    one = checker()
    one.admit(Command(**ASKS), T + WINDOW_S)
    with pytest.raises(Denied, match="it was signed"):
        checker().admit(Command(**ASKS), T + away_s)


def test_a_nonce_counts_once_for_as_long_as_its_command_could_come_again() -> None:
    one = checker()
    one.admit(Command(**ASKS), T - WINDOW_S)  # of a clock that is ahead
    for wall in (T, T + WINDOW_S):
        with pytest.raises(Denied, match="used before"):
            one.admit(Command(**ASKS), wall)
    with pytest.raises(Denied, match="ago"):
        one.admit(Command(**ASKS), T + 2 * WINDOW_S)


def test_nonces_have_a_bound_and_none_is_forgotten_for_it() -> None:
    one = checker()
    for number in range(NONCES):
        one.admit(Command(**ASKS | {"nonce": f"{number:016}"}), T)
    with pytest.raises(Denied, match="too many"):
        one.admit(Command(**ASKS), T)
    with pytest.raises(Denied, match="used before"):
        one.admit(Command(**ASKS | {"nonce": f"{0:016}"}), T)
    later = T + 2 * WINDOW_S + 1
    one.admit(Command(**ASKS | {"t": later}), later)


@in_loop
async def test_who_may_hears_why_not_and_nobody_else_hears_anything() -> None:
    async def act(name: str, request: ActionRequest, _peer: None) -> ActionAccepted:
        assert request.reason == "by MQTT, ann: slow"
        if name == "a":
            raise Conflict("a is the last one that serves")
        return ActionAccepted(id="7", kind=request.kind, engine=name)

    said: list[dict[str, Any]] = []

    async def publish(message: Message) -> None:
        assert (message.topic, message.qos, message.retain) == (f"{TOPIC}/result", 1, False)
        said.append(json.loads(message.payload))

    one = Commands(Secret(KEY), BASE, ManualClock(wall=T), act)
    payloads = [b"?", asking(), asking(engine="b", nonce="m" * 16), asking(command="stop", nonce="o" * 16)]
    for payload in payloads:
        one.hear(Message(TOPIC, payload, 1))
    one.hear(Message(TOPIC, asking(engine="b", nonce="p" * 16), 1, retain=True))
    task = asyncio.ensure_future(one.obey(publish))
    while len(said) < 3:
        await asyncio.sleep(0)
    task.cancel()
    assert [(answer["ok"], answer["id"]) for answer in said] == [(False, None), (True, "7"), (False, None)]
    assert said[0]["message"] == "a is the last one that serves"
    assert "stop" in said[2]["message"]


@in_loop
async def test_a_flood_has_a_bound_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def act(_name: str, _request: ActionRequest, _peer: None) -> ActionAccepted:
        raise AssertionError("nobody is asked")

    one = Commands(Secret(KEY), BASE, ManualClock(wall=T), act)
    for _ in range(1000):
        one.hear(Message(TOPIC, b"x" * 1000, 1))
    assert one._waiting.qsize() == WAITING
    assert [line for line in caplog.messages if "was not taken" in line] == [
        "a command by MQTT was not taken: too many wait"
    ]
