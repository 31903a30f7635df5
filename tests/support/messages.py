"""Incidents and messages for tests of what is told."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from alerts.message import About, message
from opsboard.core.deliveries import Delivery, Message, NewDelivery
from opsboard.core.incidents import Entry, Incident, IncidentAction

T = 1_700_000_000.0
ABOUT = About(host="gpu-a", model="llama-3.3-70b", runbook="https://wiki.example.com/{detector}", spark="▁▂▅█")
LEAK = Incident(
    id=42,
    uid="0123456789abcdef0123456789abcdef",
    detector="kv_leak",
    subject="engine/vllm-a",
    severity="page",
    since=T - 9000,
    opened=T,
    summary="vllm-a has lost 214 KV blocks since 02:41, 1.0 a finished request, pool exhausted in 3 h 10 m",
    first_summary="vllm-a has lost 3 KV blocks",
    evidence={"lost_blocks": 214.0, "lost_tokens": 6848.0, "by": "requests", "exhausted_in_s": 11400.0, "low": None},
    confirmed=True,
    actions=(IncidentAction(id="a", kind="drain", time=T, outcome="ok", reason="policy kv_leak"),),
    timeline=(Entry(t=T, kind="opened", text="opened"),),
)
ACKED = replace(LEAK, acknowledged=T + 60, acknowledged_by="ann")
OVER = replace(LEAK, ended=T + 500, resolved=T + 600)


def told(incident: Incident = LEAK, step: str = "trigger", **changes: Any) -> Message:
    made = message(incident, step, "opened: " + incident.summary, ABOUT, T)  # type: ignore[arg-type]
    return replace(made, **changes)


def delivery(of: Message | None = None, **changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "id": 1,
        "channel": "oncall",
        "seq": 1,
        "message": of or told(),
        "created": T,
        "not_before": T,
        "at": T + 1,
    }
    return Delivery(**(fields | changes))


def new(channel: str, of: Message | None = None, not_before: float = T) -> NewDelivery:
    return NewDelivery(channel=channel, message=of or told(), not_before=not_before)
