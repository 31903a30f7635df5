"""What is retained at a broker: the present state as messages, one a topic, pure. What is not there is cleared.

Numbers have three significant digits, so that what does not change for people is not published again. Unknown is null.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from opsboard.core import incidents
from opsboard.core.clock import Now
from opsboard.core.model import Event
from opsboard.core.version import __version__
from opsboard.core.wire import Engine, Gpu
from opsboard.daemon import board
from opsboard.daemon.pipeline import PipelineState
from opsboard.mqttc.connection import Message

ENGINE = (
    *("name", "kind", "model", "version", "state", "state_since", "phase", "progress", "message", "started"),
    *("restarts", "running", "waiting", "kv_usage", "ttft_p50_s", "ttft_p95_s", "itl_p50_s", "itl_p95_s", "e2e_p95_s"),
    *("queue_p95_s", "prompt_tokens_per_s", "generation_tokens_per_s", "requests_per_s", "errors_per_s"),
    *("error_ratio", "preemptions_per_s", "prefix_hit_ratio", "rss_bytes", "gpu_memory_bytes"),
)
"""Fields of an engine, as ``status --json`` has them."""
GPU = (
    *("index", "uuid", "name", "mig", "lost", "memory_used_bytes", "memory_total_bytes", "utilization", "power_w"),
    *("power_limit_w", "temperature_c", "sm_clock_mhz", "throttle", "ecc_uncorrected", "xid"),
)
INCIDENT = (
    *("id", "uid", "detector", "subject", "severity", "state", "since", "opened", "acknowledged", "acknowledged_by"),
    *("summary", "confirmed", "flapping", "cause", "evidence"),
)
_TIMES = frozenset({"state_since", "started", "since", "opened", "acknowledged", "t"})
_DIGITS = 3
EVIDENCE_BYTES = 12 * 1024
"""More evidence than that stays here: brokers and what listens to them limit what a message may hold."""
_NO_LEVEL = re.compile(r"[^A-Za-z0-9._-]")
_LEVEL_CHARS = 100


def level(name: str) -> str:
    """Return a name as one level of a topic: letters, digits, ``.``, ``_``, ``-``; others become ``_``.

    Two names never become one: a changed one gets the checksum of what it was.
    """
    plain = _NO_LEVEL.sub("_", name)[:_LEVEL_CHARS] or "_"
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode('utf-8', 'replace')):08x}"


def online(base: str, *, here: bool) -> Message:
    """Return the birth, or the death that is the will, too."""
    return Message(f"{base}/status", b"online" if here else b"offline", 1, retain=True)


def retained(base: str, state: PipelineState, now: Now, wrong: str | None) -> dict[str, Message]:
    """Return all that is to be retained now, by topic. ``wrong`` is what keeps people from being told."""
    engines = [board.engine(state, track, now) for track in state.engines.values()]
    gpus = () if state.gpus is None else state.gpus.gpus
    found = [
        online(base, here=True),
        Message(f"{base}/state", _json(_host(state, engines, wrong)), 0, retain=True),
        *(Message(engine_topic(base, one.name), _fields(one, ENGINE), 0, retain=True) for one in engines),
        *(Message(gpu_topic(base, one.uuid), _fields(one, GPU), 0, retain=True) for one in map(board.gpu_line, gpus)),
        *(Message(f"{base}/incident/{one.id}", _incident(one), 1, retain=True) for one in state.incidents.open),
    ]
    return {message.topic: message for message in found}


def ours(base: str) -> tuple[str, ...]:
    """Return patterns of topics of which an earlier daemon may have left some that are not true any more."""
    return f"{base}/engine/+/state", f"{base}/gpu/+/state", f"{base}/incident/+"


def engine_topic(base: str, name: str) -> str:
    """Return where an engine's state is."""
    return f"{base}/engine/{level(name)}/state"


def gpu_topic(base: str, uuid: str) -> str:
    """Return where a GPU's state is."""
    return f"{base}/gpu/{level(uuid)}/state"


def event(base: str, host: str, one: Event) -> Message:
    """Return a line of a timeline."""
    said = {"t": round(one.t, 3), "host": host, "subject": one.subject, "kind": one.kind}
    return Message(f"{base}/event", _json({**said, "text": one.text, "severity": one.severity.value}), 1)


def heartbeat(base: str, now: Now) -> Message:
    """Return a sign of life."""
    return Message(f"{base}/heartbeat", _json({"t": round(now.wall, 3)}), 0)


def _host(state: PipelineState, engines: Iterable[Engine], wrong: str | None) -> Mapping[str, object]:
    loudness = [one.severity for one in state.incidents.open]
    states = [one.state for one in engines]
    return {
        "host": state.host,
        "version": __version__,
        "engines": len(states),
        "ready": states.count("ready"),
        **{f"{severity}s": loudness.count(severity) for severity in ("page", "ticket", "note")},
        "wrong": wrong,
    }


def _fields(one: Engine | Gpu, names: Iterable[str]) -> bytes:
    return _json({name: _short(name, getattr(one, name)) for name in names})


def _incident(one: incidents.Incident) -> bytes:
    line = board.incident(one)
    said = {name: _short(name, getattr(line, name)) for name in INCIDENT}
    said["evidence"] = {name: _short(name, value) for name, value in line.evidence.items()}
    data = _json(said)
    return data if len(data) <= EVIDENCE_BYTES else _json({**said, "evidence": None})


def _short(name: str, value: object) -> object:
    """Return a number as people read it. Counts keep all their digits; sizes and measures do not."""
    if name in _TIMES and isinstance(value, float):
        return round(value, 3)
    if isinstance(value, float) or (isinstance(value, int) and name.endswith("_bytes")):
        return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else int(float(f"{value:.{_DIGITS}g}"))
    return value


_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode
