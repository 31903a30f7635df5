"""What is retained at a broker, and what Home Assistant is told of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from alerts.incidents import Claim
from opsboard.config.check_mqtt import check_mqtt
from opsboard.config.schema import Mqtt
from opsboard.core.clock import ManualClock
from opsboard.core.errors import ConfigError
from opsboard.core.model import EngineReading, EngineView, Event, GpuReading, GpuView, Outcome
from opsboard.core.secret import Secret
from opsboard.core.version import __version__
from opsboard.core.words import EngineState
from opsboard.daemon import mqtt_topics as topics
from opsboard.daemon.home_assistant import discovery, ident, left_over
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed

BASE = "opsboard/v1/gpu-a"
CARD = GpuView(index=0, uuid="GPU-1", name="H200", power_w=312.345, memory_used_bytes=79_123_456_789)
SHOWN = re.compile(r"\{\{ (.*) \}\}")


def some_state(*engines: str) -> tuple[PipelineState, ManualClock]:
    clock = ManualClock()
    state = PipelineState("gpu-a", [EngineSpec(name=name, url="http://127.0.0.1:1") for name in engines or ("a",)])
    view = EngineView(kind="vllm", model="llama", running=4.0, waiting=0.0, kv_usage=0.251234)
    for name in engines or ("a",):
        feed(state, EngineReading(engine=name, outcome=Outcome.OK, view=view), clock.advance(1.0))
    feed(state, GpuReading(outcome=Outcome.OK, gpus=(CARD,)), clock.advance(1.0))
    return state, clock


def page(evidence: dict[str, float | str | bool | None] | None = None) -> Claim:
    return Claim(
        detector="stall",
        subject="engine/a",
        severity="page",
        summary="a stands still",
        since=1_700_000_000.0,
        confirmed=True,
        evidence=evidence or {"waiting": 7.0},
    )


def said(state: PipelineState, clock: ManualClock, wrong: str | None = None) -> dict[str, Any]:
    found = topics.retained(BASE, state, clock.now(), wrong)
    assert all(message.retain for message in found.values())
    return {
        topic.removeprefix(f"{BASE}/"): json.loads(one.payload) if one.payload[:1] == b"{" else one.payload
        for topic, one in found.items()
    }


def test_an_engine_and_a_gpu_are_said_with_what_people_can_read() -> None:
    state, clock = some_state()
    now = said(state, clock)
    assert next(iter(now)) == "status", "the birth comes first"
    assert now["status"] == b"online"
    engine = now["engine/a/state"]
    assert (engine["state"], engine["model"], engine["running"], engine["kv_usage"]) == ("ready", "llama", 4.0, 0.251)
    assert engine["ttft_p95_s"] is None, "unknown is null, never 0"
    gpu = now["gpu/GPU-1/state"]
    assert (gpu["power_w"], gpu["memory_used_bytes"], gpu["lost"]) == (312.0, 79_100_000_000, False)
    assert now["state"] == {
        "host": "gpu-a",
        "version": __version__,
        "engines": 1,
        "ready": 1,
        "pages": 0,
        "tickets": 0,
        "notes": 0,
        "wrong": None,
    }
    assert said(state, clock, "the disk is full")["state"]["wrong"] == "the disk is full"


def test_an_incident_is_there_while_it_is_open() -> None:
    state, clock = some_state()
    state.incidents.see("engine/a", [page()], clock.now())
    (one,) = state.incidents.open
    found = topics.retained(BASE, state, clock.now(), None)[f"{BASE}/incident/{one.id}"]
    assert found.qos == 1
    told = json.loads(found.payload)
    assert (told["detector"], told["severity"], told["state"]) == ("stall", "page", "open")
    assert (told["summary"], told["evidence"]) == ("a stands still", {"waiting": 7.0})
    assert said(state, clock)["state"]["pages"] == 1
    state.incidents.resolve(one, clock.now(), "ann", "known")
    assert f"incident/{one.id}" not in said(state, clock)


def test_evidence_that_is_too_large_stays_here() -> None:
    state, clock = some_state()
    state.incidents.see("engine/a", [page({str(n): "x" * 1000 for n in range(50)})], clock.now())
    (one,) = state.incidents.open
    told = said(state, clock)[f"incident/{one.id}"]
    assert told["evidence"] is None
    assert told["summary"] == "a stands still"


def test_gpus_that_cannot_be_read_keep_their_place_and_are_unknown() -> None:
    state, clock = some_state()
    feed(state, GpuReading(outcome=Outcome.FAILED, error="the driver is silent"), clock.advance(1.0))
    gpu = said(state, clock)["gpu/GPU-1/state"]
    assert (gpu["name"], gpu["power_w"], gpu["memory_used_bytes"]) == ("H200", None, None)


@pytest.mark.parametrize("name", ["a/b", "a+", "#", "", "ä", "$SYS", "x" * 300, "a\x1b[31m", "\ud800"])
def test_no_name_breaks_a_topic_or_becomes_another(name: str) -> None:
    level = topics.level(name)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,120}", level)
    assert level != topics.level(name + "?")
    assert re.fullmatch(r"[A-Za-z0-9_-]*", ident(name))
    assert topics.level("vllm-a.1") == "vllm-a.1"


def test_an_event_is_one_line_with_its_time() -> None:
    one = topics.event(BASE, "gpu-a", Event(t=12.3456, subject="engine/a", kind="ready", text="it serves"))
    assert (one.topic, one.qos, one.retain) == (f"{BASE}/event", 1, False)
    assert json.loads(one.payload) == {
        "t": 12.346,
        "host": "gpu-a",
        "subject": "engine/a",
        "kind": "ready",
        "text": "it serves",
        "severity": "info",
    }


# --- Home Assistant ---------------------------------------------------------------------------------------------------


def devices(state: PipelineState) -> dict[str, Any]:
    found = discovery("homeassistant", BASE, "gpu-a", state)
    assert all(one.retain and one.qos == 1 for one in found.values())
    return {topic: json.loads(one.payload) for topic, one in found.items()}


def test_each_device_has_its_own_place_and_hangs_at_its_host() -> None:
    state, _ = some_state("a", "vllm.b")
    found = devices(state)
    assert [topic.split("/")[2] for topic in found] == [
        "opsboard_gpu-a",
        "opsboard_gpu-a_engine_a",
        ident("opsboard_gpu-a_engine_vllm.b"),
        "opsboard_gpu-a_gpu_GPU-1",
    ]
    host, *others = found.values()
    assert all(one["device"]["via_device"] == host["device"]["identifiers"][0] for one in others)
    ids = [entity["unique_id"] for one in found.values() for entity in one["components"].values()]
    assert len(ids) == len(set(ids)) > 20
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", topic.split("/")[2]) for topic in found)


def test_entities_read_what_is_published() -> None:
    """Each template names a key of the topic it reads, and none is of a number that is unknown."""
    state, clock = some_state()
    now = topics.retained(BASE, state, clock.now(), None)
    for one in devices(state).values():
        assert one["availability_topic"] == f"{BASE}/status"
        assert (one["payload_available"], one["payload_not_available"]) == ("online", "offline")
        for entity in one["components"].values():
            if entity["state_topic"] == f"{BASE}/heartbeat":
                continue
            known = json.loads(now[entity["state_topic"]].payload)
            shown = SHOWN.fullmatch(entity["value_template"])
            assert shown is not None
            keys = re.findall(r"value_json\.(\w+)", shown[1])
            assert keys
            assert set(keys) <= set(known)


def shown(template: str, value_json: dict[str, Any]) -> object:
    """Return what a template makes of a state: those of ours mean the same in Python."""

    class Values:
        def __getattr__(self, name: str) -> Any:
            return value_json[name]

    found = SHOWN.fullmatch(template)
    assert found is not None
    return eval(found[1].replace("none", "None"), {"value_json": Values()})


def test_units_are_what_people_use_and_unknown_stays_unknown() -> None:
    state, clock = some_state()
    known = said(state, clock)
    engine = devices(state)["homeassistant/device/opsboard_gpu-a_engine_a/config"]["components"]
    assert shown(engine["kv_usage"]["value_template"], known["engine/a/state"]) == 25.1
    assert engine["kv_usage"]["unit_of_measurement"] == "%"
    assert shown(engine["itl_p95_s"]["value_template"], known["engine/a/state"]) is None
    assert shown(engine["serving"]["value_template"], known["engine/a/state"]) == "ON"
    assert set(engine["state"]["options"]) == {one.value for one in EngineState}
    gpu = devices(state)["homeassistant/device/opsboard_gpu-a_gpu_GPU-1/config"]["components"]
    assert shown(gpu["memory_used_bytes"]["value_template"], known["gpu/GPU-1/state"]) == 79.1
    host = devices(state)["homeassistant/device/opsboard_gpu-a/config"]["components"]
    assert shown(host["trouble"]["value_template"], said(state, clock, "the disk is full")["state"]) == "ON"
    assert shown(host["paged"]["value_template"], known["state"]) == "OFF"


def test_only_devices_of_this_host_are_left_over() -> None:
    ours = json.dumps({"availability_topic": f"{BASE}/status"}).encode()
    others = json.dumps({"availability_topic": "opsboard/v1/gpu-a2/status"}).encode()
    topic = "homeassistant/device/opsboard_gpu-a_engine_gone/config"
    assert left_over(topic, ours, "homeassistant", BASE)
    for payload in (others, b"", b"[]", b"not json", b"[" * 100_000):
        assert not left_over(topic, payload, "homeassistant", BASE)
    assert not left_over("zigbee/device/x/config", ours, "homeassistant", BASE)


# --- what may be configured -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"url": "broker.example.com"}, "expected mqtts://HOST"),
        ({"url": "http://broker"}, "expected mqtts://HOST"),
        ({"url": "mqtts://broker:port"}, "expected mqtts://HOST"),
        ({"url": "mqtts://broker/topic"}, "expected mqtts://HOST"),
        ({"url": "mqtts://me:secret@broker"}, "have keys of their own"),
        ({"prefix": "a/#"}, "`mqtt.prefix`"),
        ({"prefix": ""}, "`mqtt.prefix`"),
        ({"prefix": "$SYS"}, "`mqtt.prefix`"),
        ({"id": "a/b"}, "`mqtt.id`"),
        ({"discovery_prefix": "a//b"}, "`mqtt.discovery_prefix`"),
        ({"command_key": Secret("secret")}, "at least 32 characters"),
        ({"password": Secret("x")}, "needs `username`"),
        ({"key": "key.pem"}, "needs `cert`"),
        ({"url": "mqtt://broker", "ca": "ca.pem"}, "is for TLS"),
        ({"ca": "nowhere.pem"}, "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], said: str, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"url": "mqtts://broker.example.com"}
    check_mqtt(tmp_path / "opsboard.toml", Mqtt(**fields))
    with pytest.raises(ConfigError) as refused:
        check_mqtt(tmp_path / "opsboard.toml", Mqtt(**(fields | wrong)))
    assert said in refused.value.message
    assert "secret" not in refused.value.message
