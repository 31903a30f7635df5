"""MQTT against a real mosquitto: what is true is retained there, whatever becomes of the broker or the daemon."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from alerts.incidents import Claim
from opsboard.config.schema import Mqtt
from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineReading, EngineView, Event, GpuReading, GpuView, Outcome, Severity
from opsboard.core.secret import Secret
from opsboard.core.wire import ActionAccepted, ActionRequest
from opsboard.daemon import mqtt_publisher
from opsboard.daemon.mqtt_publisher import SETTLE_S, Publisher
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from opsboard.mqttc.connection import Message
from tests.support.broker import BINARY, REASON, Mosquitto, listening, talking
from tests.support.herd import free_port
from tests.support.in_loop import in_loop
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from tests.support.house import House

pytestmark = pytest.mark.skipif(BINARY is None, reason=REASON)

BASE = "opsboard/v1/gpu-a"
FAILS = [sys.executable, "-c", "raise SystemExit(3)"]
EVENTS = 100
AUDIT = "select action, reason from audit where subject = 'engine/a'"
KEY = "0123456789abcdef0123456789abcdef"
DEVICE = "homeassistant/device/opsboard_gpu-a_engine_a/config"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    one = Mosquitto(tmp_path / "broker")
    one.start()
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_publisher, "EVERY_S", 0.05)
    monkeypatch.setattr(mqtt_publisher, "EVENTS", EVENTS)
    monkeypatch.setattr(mqtt_publisher, "FIRST_S", 0.05)
    monkeypatch.setattr(mqtt_publisher, "MOST_S", 0.2)


class World:
    """What a daemon knows, and its publisher."""

    def __init__(self, url: str, **config: Any) -> None:
        self.clock = ManualClock()
        self.state = PipelineState("gpu-a", [EngineSpec(name=name, url="http://127.0.0.1:1") for name in ("a", "b")])
        self.read("a")
        self.read("b")
        feed(self.state, GpuReading(outcome=Outcome.OK, gpus=(GpuView(index=0, uuid="GPU-1"),)), self.clock.now())
        self.wrong: str | None = None
        self.told: list[str] = []
        config = {"url": url, "home_assistant": True, **config}
        self.asked: list[tuple[str, ActionRequest]] = []
        self.publisher = Publisher(
            self.clock, self.state, None, Mqtt(**config), wrong=lambda _now: self.wrong, tell=self.tell, act=self.act
        )

    async def act(self, name: str, request: ActionRequest, _peer: None) -> ActionAccepted:
        self.asked.append((name, request))
        return ActionAccepted(id="one", kind=request.kind, engine=name)

    def tell(self, _kind: str, text: str, _severity: Severity) -> None:
        self.told.append(text)

    def read(self, engine: str, running: float = 1.0) -> None:
        view = EngineView(kind="vllm", model="llama", running=running, waiting=0.0)
        feed(self.state, EngineReading(engine=engine, outcome=Outcome.OK, view=view), self.clock.advance(1.0))

    def page(self, engine: str, text: str = "it stands still") -> int:
        claim = Claim(
            detector="stall", subject=f"engine/{engine}", severity="page", summary=text, since=1.0, confirmed=True
        )
        self.state.incidents.see(f"engine/{engine}", [claim], self.clock.now())
        return next(one.id for one in self.state.incidents.open if one.subject == f"engine/{engine}")

    def close(self, number: int) -> None:
        one = self.state.incidents.find(number)
        assert one is not None
        self.state.incidents.resolve(one, self.clock.now(), "ann", "known")

    def happen(self, text: str) -> None:
        self.publisher.hear(Event(t=self.clock.now().wall, subject="engine/a", kind="ready", text=text))


@asynccontextmanager
async def publishing(world: World) -> AsyncIterator[None]:
    task = asyncio.create_task(world.publisher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@in_loop
async def test_what_is_true_is_retained_and_what_changes_is_published_once(broker: Mosquitto) -> None:
    world = World(broker.url)
    async with listening(broker.port) as ear:
        async with publishing(world):
            await wait_until_async(lambda: ear.json(f"{BASE}/engine/b/state"), what="the state is published")
            await wait_until_async(lambda: ear.on(f"{BASE}/heartbeat"), what="a sign of life")
            assert ear.retained[f"{BASE}/status"] == b"online"
            assert ear.json(f"{BASE}/engine/a/state")["running"] == 1.0
            assert ear.json(DEVICE)["availability_topic"] == f"{BASE}/status"
            number = world.page("a")
            world.happen("a is ready")
            await wait_until_async(lambda: ear.json(f"{BASE}/incident/{number}"), what="the incident")
            assert ear.json(f"{BASE}/incident/{number}")["summary"] == "it stands still"
            await wait_until_async(lambda: ear.on(f"{BASE}/event"), what="the event")
            world.read("a", running=5.0)
            await wait_until_async(lambda: ear.json(f"{BASE}/engine/a/state")["running"] == 5.0, what="the change")
            world.close(number)
            await wait_until_async(lambda: f"{BASE}/incident/{number}" not in ear.retained, what="it is cleared")
        await wait_until_async(lambda: ear.retained[f"{BASE}/status"] == b"offline", what="a clean end is said")
        assert len(ear.on(f"{BASE}/engine/a/state")) == 2, "only what changed is published"
        assert len(ear.on(f"{BASE}/engine/b/state")) == 1
        assert [one["text"] for one in ear.on(f"{BASE}/event")] == ["a is ready"]
    async with listening(broker.port) as late:
        await wait_until_async(lambda: f"{BASE}/engine/b/state" in late.retained, what="who comes late hears it")
        assert late.retained[f"{BASE}/status"] == b"offline"
        assert not late.on(f"{BASE}/event")


@in_loop
async def test_a_broker_that_was_away_hears_what_is_true_now(broker: Mosquitto) -> None:
    world = World(broker.url)
    async with publishing(world):
        async with listening(broker.port) as ear:
            old = world.page("a")
            await wait_until_async(lambda: ear.json(f"{BASE}/incident/{old}"), what="the incident")
            await wait_until_async(lambda: f"{BASE}/engine/b/state" in ear.retained, what="the state")
        broker.stop()
        world.clock.advance(3600.0)
        world.close(old)
        new = world.page("b", "it does, too")
        world.state.configure([world.state.specs["a"]])
        world.read("a", running=9.0)
        for number in range(EVENTS + 500):
            world.happen(f"{number}")
        assert len(world.publisher._events) == EVENTS, "what waits has a bound"
        await wait_until_async(lambda: world.publisher._lost is not None, what="it is noticed")
        broker.start()
        async with listening(broker.port) as ear:
            await wait_until_async(lambda: len(ear.on(f"{BASE}/event")) > EVENTS, what="events come after")
            told = [one["text"] for one in ear.on(f"{BASE}/event")]
            assert told[0] == "500 older events were given up while the broker was away"
            assert told[1:] == [str(number) for number in range(500, EVENTS + 500)]
            assert ear.json(f"{BASE}/incident/{new}")["summary"] == "it does, too"
            assert ear.json(f"{BASE}/engine/a/state")["running"] == 9.0
            await wait_until_async(lambda: f"{BASE}/incident/{old}" not in ear.retained, what="what is over is cleared")
            await wait_until_async(lambda: f"{BASE}/engine/b/state" not in ear.retained, what="what is gone, too")
            gone = "homeassistant/device/opsboard_gpu-a_engine_b/config"
            await wait_until_async(lambda: gone not in ear.retained, what="and its device")
            assert ear.retained[f"{BASE}/status"] == b"online"


@in_loop
async def test_what_an_earlier_daemon_left_is_cleared_and_nothing_of_others(broker: Mosquitto) -> None:
    theirs = {"opsboard/v1/gpu-b/incident/1": b"{}", "homeassistant/device/lamp/config": b'{"origin": {}}'}
    ours = {
        f"{BASE}/incident/77": b"{}",
        f"{BASE}/engine/gone/state": b"{}",
        "homeassistant/device/opsboard_gone/config": json.dumps({"availability_topic": f"{BASE}/status"}).encode(),
    }
    async with talking(broker.port) as other:
        for topic, payload in (theirs | ours).items():
            assert await other.publish(Message(topic, payload, 1, retain=True)) is None
    world = World(broker.url)
    async with publishing(world), listening(broker.port) as ear:
        await wait_until_async(lambda: world.publisher._strays == set(ours), what="it sees what was left")
        await wait_until_async(lambda: set(theirs | ours) <= set(ear.retained), what="so does everybody")
        world.clock.advance(SETTLE_S)
        await wait_until_async(lambda: not set(ours) & set(ear.retained), what="it clears that")
        assert set(theirs) <= set(ear.retained)


@in_loop
async def test_home_assistant_hears_again_when_it_begins_anew(broker: Mosquitto) -> None:
    world = World(broker.url)
    async with publishing(world), listening(broker.port) as ear, talking(broker.port, name="ha") as ha:
        await wait_until_async(lambda: ear.on(DEVICE), what="the device is published")
        assert await ha.publish(Message("homeassistant/status", b"online", 1)) is None
        await wait_until_async(lambda: len(ear.on(DEVICE)) == 2, what="and again")
        assert len(ear.on(f"{BASE}/engine/a/state")) == 1


@in_loop
async def test_no_heartbeat_while_people_cannot_be_told(broker: Mosquitto) -> None:
    world = World(broker.url)
    world.wrong = "the disk is full"
    async with publishing(world), listening(broker.port) as ear:
        await wait_until_async(lambda: ear.json(f"{BASE}/state"), what="the state is published")
        assert ear.json(f"{BASE}/state")["wrong"] == "the disk is full"
        assert not ear.on(f"{BASE}/heartbeat")
        world.wrong = None
        await wait_until_async(lambda: ear.on(f"{BASE}/heartbeat"), what="a sign of life")


@in_loop
async def test_what_the_broker_does_not_allow_is_logged_once_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "strict"
    place.mkdir()
    (place / "words").write_text("gpu-a:right\near:ear\n")
    subprocess.run(["mosquitto_passwd", "-U", str(place / "words")], check=True, timeout=10)
    acl = f"pattern readwrite opsboard/v1/%c/#\nuser ear\ntopic read #\nuser gpu-a\ntopic deny {BASE}/event\n"
    (place / "acl").write_text(acl)
    strict = Mosquitto(place, "allow_anonymous false", f"password_file {place}/words", f"acl_file {place}/acl")
    strict.start()
    try:
        refused = World(strict.url, username="gpu-a", password=Secret("wrong"))
        async with publishing(refused):
            await wait_until_async(lambda: refused.told, what="a wrong password is told")
        assert "it refuses the connection" in refused.told[0]
        assert "wrong" not in refused.told[0]
        world = World(strict.url, username="gpu-a", password=Secret("right"))
        async with publishing(world), listening(strict.port, user="ear", word="ear") as ear:
            for _ in range(3):
                world.happen("nobody hears it")
            await wait_until_async(lambda: not world.publisher._events, what="the event is given up")
            await wait_until_async(lambda: ear.json(f"{BASE}/engine/a/state"), what="the state is published")
            assert not ear.on(f"{BASE}/event")
    finally:
        strict.stop()
    assert sum("does not take opsboard/v1/gpu-a/event" in line for line in caplog.messages) == 1


def signed(topic: str, key: str, **command: Any) -> bytes:
    body = json.dumps(command).encode()
    mac = hmac.new(key.encode(), topic.encode() + b"\n" + body, "sha256").digest()
    return b"v1," + base64.b64encode(mac) + b"\n" + body


@in_loop
async def test_who_has_the_key_may_drain_an_engine_and_nobody_else(broker: Mosquitto) -> None:
    topic = f"{BASE}/command"
    world = World(broker.url, command_key=Secret(KEY))
    async with publishing(world), listening(broker.port) as ear, talking(broker.port, name="ann") as ann:
        await wait_until_async(lambda: ear.json(f"{BASE}/state"), what="it is there")
        asks: dict[str, Any] = {
            "command": "drain",
            "engine": "a",
            "nonce": "0123456789abcdef",
            "t": world.clock.now().wall,
            "by": "ann",
        }
        for bad in (b"{}", signed(topic, "x" * 32, **asks), signed("opsboard/v1/gpu-b/command", KEY, **asks)):
            assert await ann.publish(Message(topic, bad, 1)) is None
        good = signed(topic, KEY, **asks)
        assert await ann.publish(Message(topic, good, 1)) is None
        assert await ann.publish(Message(topic, good, 1)) is None
        await wait_until_async(lambda: len(ear.on(f"{topic}/result")) == 2, what="both are answered")
        first, second = ear.on(f"{topic}/result")
        assert (first["nonce"], first["ok"], first["id"]) == (asks["nonce"], True, "one")
        assert (second["ok"], second["message"]) == (False, "its nonce was used before")
        ((name, request),) = world.asked
        assert (name, request.kind, request.reason) == ("a", "drain", "by MQTT, ann")
        assert asks["nonce"] in (request.idempotency_key or "")


@in_loop
async def test_a_command_that_is_retained_or_without_a_key_is_nothing(broker: Mosquitto) -> None:
    topic = f"{BASE}/command"
    async with talking(broker.port, name="ann") as ann:
        now = World(broker.url).clock.now().wall
        asks = {"command": "restart", "engine": "a", "nonce": "0123456789abcdef", "t": now}
        assert await ann.publish(Message(topic, signed(topic, KEY, **asks), 1, retain=True)) is None
        for config in ({"command_key": Secret(KEY)}, {}):
            world = World(broker.url, **config)
            async with publishing(world), listening(broker.port) as ear:
                await wait_until_async(partial(ear.on, f"{BASE}/engine/b/state"), what="it is there")
                assert await ann.publish(Message(topic, b"v1,x", 1)) is None
                world.happen("after it")
                await wait_until_async(partial(ear.on, f"{BASE}/event"), what="it goes on")
            assert not world.asked


def certificate(place: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = [
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(place / "key.pem"),
        "-out",
        str(place / "ca.pem"),
    ]
    subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=20)


@pytest.mark.timeout(90)
@in_loop
async def test_a_killed_daemon_is_offline_and_the_next_one_puts_it_right(house: House, tmp_path: Path) -> None:
    """A real daemon, over TLS and with a password."""
    place = tmp_path / "tls"
    place.mkdir()
    try:
        certificate(place)
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    (place / "words").write_text("house:right\n")
    subprocess.run(["mosquitto_passwd", "-U", str(place / "words")], check=True, timeout=10)
    plain, base = free_port(), "opsboard/v1/house"
    files = f"cafile {place}/ca.pem\ncertfile {place}/ca.pem\nkeyfile {place}/key.pem"
    settings = f"allow_anonymous true\npassword_file {place}/words\n{files}\nlistener {plain} 127.0.0.1"
    one = Mosquitto(place, settings)
    one.start()
    (house.root / "word").write_text("right\n")
    house.write(
        f'name = "a"\nkind = "vllm"\ncommand = {json.dumps(FAILS)}\nurl = "http://127.0.0.1:{free_port()}"\n'
        'autostart = true\nrestart = "never"',
        rest=f'[mqtt]\nurl = "mqtts://localhost:{one.port}"\nca = "{place}/ca.pem"\nusername = "house"\n'
        f'password_file = "word"\ncommand_key = "{KEY}"\n',
    )
    try:
        first = house.start()
        async with listening(plain, f"{base}/#") as ear:
            await wait_until_async(lambda: ear.json(f"{base}/incident/1"), 40.0, "an engine that fails is an incident")
            assert ear.retained[f"{base}/status"] == b"online"
            assert ear.json(f"{base}/engine/a/state")["state"] == "failed"
            await wait_until_async(lambda: ear.on(f"{base}/event"), what="events come")
            await asyncio.to_thread(house.end, first, signal.SIGKILL)
            await wait_until_async(lambda: ear.retained[f"{base}/status"] == b"offline", what="the will is read")
            second = await asyncio.to_thread(house.start)
            await wait_until_async(lambda: ear.retained[f"{base}/status"] == b"online", what="the next one is here")
            topic = f"{base}/command"
            asks = {"command": "restart", "engine": "a", "nonce": "0123456789abcdef", "t": time.time(), "by": "ann"}
            async with talking(plain, name="ann") as ann:
                assert await ann.publish(Message(topic, signed(topic, KEY, **asks), 1)) is None
                await wait_until_async(lambda: ear.on(f"{topic}/result"), what="who asks is answered")
            assert ear.on(f"{topic}/result")[0]["ok"] is True
            with closing(sqlite3.connect(f"file:{house.state}/state.db?mode=ro", uri=True)) as kept:
                await wait_until_async(lambda: list(kept.execute(AUDIT)) == [("restart", "by MQTT, ann")], what="audit")
            house.client.tell_incident("1", "resolve", "known")
            await wait_until_async(lambda: f"{base}/incident/1" not in ear.retained, what="its end is said")
            house.write(f'name = "c"\nurl = "http://127.0.0.1:{free_port()}"')  # no [mqtt] any more
            await asyncio.to_thread(house.client.reload)
            await wait_until_async(lambda: ear.retained[f"{base}/status"] == b"offline", what="a reload ends it")
            assert await asyncio.to_thread(house.end, second) == 0
    finally:
        one.stop()
