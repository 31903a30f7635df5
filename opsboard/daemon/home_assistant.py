"""What Home Assistant is to know of this host: MQTT discovery in its device form (Home Assistant 2024.11), pure.

A device for the host, one for each engine, one for each GPU; entities read the retained states. Where a daemon or its
broker is away they are unavailable.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from opsboard.core.version import __version__
from opsboard.core.words import EngineState
from opsboard.daemon.mqtt_topics import engine_topic, gpu_topic
from opsboard.daemon.pipeline import PipelineState
from opsboard.mqttc.connection import Message

_SILENT_S = 180
"""A heartbeat that stays away for so long is off: three of them."""


class _Sensor(NamedTuple):
    """An entity. ``to`` turns a number to its unit; what is unknown stays so (none is Home Assistant's word for it)."""

    key: str
    name: str
    device_class: str | None = None
    unit: str | None = None
    to: str = ""
    digits: int | None = None


_HOST = (
    _Sensor("ready", "Ready engines"),
    _Sensor("pages", "Open pages"),
    _Sensor("tickets", "Open tickets"),
    _Sensor("notes", "Open notes"),
)
_ENGINE = (
    _Sensor("running", "Running requests"),
    _Sensor("waiting", "Waiting requests"),
    _Sensor("kv_usage", "KV cache in use", unit="%", to=" * 100", digits=1),
    _Sensor("ttft_p95_s", "First token p95", "duration", "s", digits=2),
    _Sensor("itl_p95_s", "Inter-token latency p95", "duration", "ms", to=" * 1000", digits=1),
    _Sensor("generation_tokens_per_s", "Generated tokens", unit="tokens/s", digits=0),
    _Sensor("prompt_tokens_per_s", "Prompt tokens", unit="tokens/s", digits=0),
    _Sensor("requests_per_s", "Requests", unit="1/s", digits=2),
    _Sensor("error_ratio", "Failed requests", unit="%", to=" * 100", digits=2),
    _Sensor("gpu_memory_bytes", "GPU memory", "data_size", "GB", to=" / 1000000000", digits=1),
)
_GPU = (
    _Sensor("memory_used_bytes", "Memory used", "data_size", "GB", to=" / 1000000000", digits=1),
    _Sensor("utilization", "Utilization", unit="%", to=" * 100", digits=0),
    _Sensor("power_w", "Power", "power", "W", digits=0),
    _Sensor("temperature_c", "Temperature", "temperature", "°C", digits=0),
)


def discovery(prefix: str, base: str, id: str, state: PipelineState) -> dict[str, Message]:
    """Return the retained messages that make Home Assistant know what there is, by topic.

    ``prefix`` is Home Assistant's, ``base`` where our topics begin, ``id`` this host's.
    """
    host = ident(f"opsboard_{id}")
    found = [_device(prefix, base, host, {"name": f"opsboard {state.host}"}, _host_entities(host, base))]
    for name in state.engines:
        about = {"name": f"{state.host} {name}", "model": "inference server", "via_device": host}
        key = ident(f"opsboard_{id}_engine_{name}")
        found.append(_device(prefix, base, key, about, _engine_entities(key, engine_topic(base, name))))
    for gpu in () if state.gpus is None else state.gpus.gpus:
        about = {"name": f"{state.host} GPU {gpu.index}", "model": gpu.name or "GPU", "via_device": host}
        key = ident(f"opsboard_{id}_gpu_{gpu.uuid}")
        lost = _binary(key, gpu_topic(base, gpu.uuid), "lost", ("Lost", "problem"), "value_json.lost")
        sensors = _sensors(key, gpu_topic(base, gpu.uuid), _GPU)
        found.append(_device(prefix, base, key, about, sensors | lost))
    return {message.topic: message for message in found}


def left_over(topic: str, payload: bytes, prefix: str, base: str) -> bool:
    """Whether a retained message is the discovery of a device that this host has published."""
    if not topic.startswith(f"{prefix}/device/"):
        return False
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("availability_topic") == f"{base}/status"


def ident(name: str) -> str:
    """Return a name as Home Assistant takes ids: letters, digits, ``_`` and ``-``; two names never become one."""
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "_-") else "_" for char in name)
    return plain if plain == name else f"{plain}_{zlib.crc32(name.encode('utf-8', 'replace')):08x}"


def _device(prefix: str, base: str, key: str, about: Mapping[str, str], entities: Mapping[str, Any]) -> Message:
    payload = {
        "device": {"identifiers": [key], "manufacturer": "opsboard", "sw_version": __version__, **about},
        "origin": {"name": "opsboard", "sw_version": __version__},
        "availability_topic": f"{base}/status",
        "payload_available": "online",
        "payload_not_available": "offline",
        "components": entities,
    }
    return Message(f"{prefix}/device/{key}/config", msgspec.json.encode(payload), 1, retain=True)


def _host_entities(key: str, base: str) -> dict[str, Any]:
    topic = f"{base}/state"
    alive = {
        "platform": "binary_sensor",
        "name": "Heartbeat",
        "unique_id": f"{key}_heartbeat",
        "state_topic": f"{base}/heartbeat",
        "device_class": "connectivity",
        "value_template": "ON",
        "expire_after": _SILENT_S,
    }
    troubled = _binary(key, topic, "trouble", ("Alerting broken", "problem"), "value_json.wrong is not none")
    paged = _binary(key, topic, "paged", ("Page open", "problem"), "value_json.pages > 0")
    return _sensors(key, topic, _HOST) | troubled | paged | {"heartbeat": alive}


def _engine_entities(key: str, topic: str) -> dict[str, Any]:
    state = {
        "platform": "sensor",
        "name": "State",
        "unique_id": f"{key}_state",
        "state_topic": topic,
        "device_class": "enum",
        "options": [one.value for one in EngineState],
        "value_template": "{{ value_json.state }}",
    }
    serves = _binary(key, topic, "serving", ("Serving", "running"), "value_json.state == 'ready'")
    return {"state": state} | serves | _sensors(key, topic, _ENGINE)


def _sensors(key: str, topic: str, sensors: Iterable[_Sensor]) -> dict[str, Any]:
    return {one.key: _sensor(key, topic, one) for one in sensors}


def _sensor(key: str, topic: str, one: _Sensor) -> dict[str, Any]:
    value = f"value_json.{one.key}"
    if one.to:
        value = f"{value}{one.to} if {value} is not none else none"
    found = {
        "platform": "sensor",
        "name": one.name,
        "unique_id": f"{key}_{one.key}",
        "state_topic": topic,
        "state_class": "measurement",
        "device_class": one.device_class,
        "unit_of_measurement": one.unit,
        "suggested_display_precision": one.digits,
        "value_template": f"{{{{ {value} }}}}",
    }
    return {name: what for name, what in found.items() if what is not None}


def _binary(key: str, topic: str, what: str, about: tuple[str, str], truth: str) -> dict[str, Any]:
    """Return something that is or is not so; ``about`` is its name and its device class."""
    name, device_class = about
    return {
        what: {
            "platform": "binary_sensor",
            "name": name,
            "unique_id": f"{key}_{what}",
            "state_topic": topic,
            "device_class": device_class,
            "value_template": f"{{{{ 'ON' if {truth} else 'OFF' }}}}",
        }
    }
