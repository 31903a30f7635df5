"""Any receiver of Alertmanager's webhooks (version 4), signed as Standard Webhooks asks.

Sources: github.com/prometheus/alertmanager template.Data, github.com/standard-webhooks/standard-webhooks specification.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta

from alerts.answers import by_status
from alerts.notifier import Http, Notifier, Request
from opsboard.core.deliveries import Delivery, Message
from opsboard.core.model import Record
from opsboard.core.secret import Secret

LIMIT_BYTES = 20_000
"""Receivers are built for small bodies."""
_NEVER = "0001-01-01T00:00:00Z"


class Params(Record, frozen=True, kw_only=True):
    """What a receiver needs."""

    url: Annotated[Secret, Meta(description="where to post; it may hold a token, so it is never shown")]
    secret: Annotated[
        Secret | None, Meta(description="key of the signature, as `whsec_` and base64; default: not signed")
    ] = None


def alert(message: Message) -> dict[str, Any]:
    """Return an incident as Alertmanager says an alert."""
    labels = {
        "alertname": message.detector,
        "severity": message.severity,
        "instance": message.host,
        "subject": message.subject,
        "incident": str(message.number),
    }
    labels |= {"engine": message.engine} if message.engine is not None else {}
    labels |= {"model": message.model} if message.model is not None else {}
    annotations = {"summary": message.summary, "description": description(message), "news": message.news}
    annotations |= {f"fact_{fact.name.replace(' ', '_')}": fact.text for fact in message.facts}
    annotations |= {"runbook_url": message.runbook} if message.runbook is not None else {}
    return {
        "status": "resolved" if message.over else "firing",
        "labels": labels,
        "annotations": annotations,
        "startsAt": stamp(message.since),
        "endsAt": _NEVER if message.resolved is None else stamp(message.resolved),
        "generatorURL": "",
        "fingerprint": hashlib.sha256(message.key.encode()).hexdigest()[:16],
    }


def description(message: Message) -> str:
    """Return what a message says beyond its sentence, as lines."""
    lines = [f"{fact.name}: {fact.text}" for fact in message.facts]
    lines += [f"done: {action}" for action in message.actions]
    lines += [f"$ {command}" for command in message.commands]
    return "\n".join(lines)


def stamp(t: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(t, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def render(params: Params, delivery: Delivery) -> Sequence[Request]:
    """Return one signed post; what makes it too large is left out from the end."""
    message = delivery.message
    one = alert(message)
    body = _body(delivery.channel, message, one)
    for detail in ("description", *reversed([name for name in one["annotations"] if name.startswith("fact_")])):
        if len(body) <= LIMIT_BYTES:
            break
        one["annotations"].pop(detail)
        body = _body(delivery.channel, message, one)
    headers = {"Content-Type": "application/json"}
    if params.secret is not None:
        number, when = f"{message.uid}-{delivery.seq}", str(int(delivery.at))
        headers |= {
            "webhook-id": number,
            "webhook-timestamp": when,
            "webhook-signature": signature(params.secret, number, when, body),
        }
    return [Http(url=params.url, body=body, headers=headers)]


def signature(secret: Secret, number: str, when: str, body: bytes) -> str:
    """Return the signature of a message: HMAC-SHA256 of ``id.timestamp.body``."""
    text = secret.reveal().removeprefix("whsec_")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = text.encode()
    digest = hmac.new(key, f"{number}.{when}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _body(receiver: str, message: Message, one: dict[str, Any]) -> bytes:
    labels = {name: one["labels"][name] for name in ("alertname", "instance", "severity")}
    whole = {
        "version": "4",
        "groupKey": message.key,
        "truncatedAlerts": 0,
        "status": one["status"],
        "receiver": receiver,
        "groupLabels": {"incident": one["labels"]["incident"]},
        "commonLabels": labels,
        "commonAnnotations": {"summary": message.summary},
        "externalURL": "",
        "alerts": [one],
    }
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


NOTIFIER = Notifier(
    kind="webhook",
    summary="posts what Alertmanager would post (version 4), signed as Standard Webhooks asks",
    params=Params,
    render=render,
    classify=lambda _params, answer: by_status(answer),
)
