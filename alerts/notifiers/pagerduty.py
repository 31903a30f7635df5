"""PagerDuty, Events API v2: one incident there for one here, joined by a key that no other incident ever has.

Source: developer.pagerduty.com, "Send an Event to PagerDuty" (summary 1024 characters, dedup_key 255, event 512 kB).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta

from alerts import wording
from alerts.answers import by_status, json_of, said
from alerts.message import bounded
from alerts.notifier import Answer, Http, Notifier, Outcome, Rate, Refused, Request
from alerts.notifiers.webhook import stamp
from opsboard.core.deliveries import Delivery, Message
from opsboard.core.model import Record
from opsboard.core.secret import Secret

HOSTS = {"us": "events.pagerduty.com", "eu": "events.eu.pagerduty.com"}
SUMMARY_CHARS, SOURCE_CHARS = 1024, 255
_SEVERITY = {"page": "critical", "ticket": "warning", "note": "info"}
_ACTION = {"trigger": "trigger", "update": "trigger", "acknowledge": "acknowledge", "resolve": "resolve"}


class Params(Record, frozen=True, kw_only=True):
    """What a service of PagerDuty's needs."""

    routing_key: Annotated[Secret, Meta(description="the integration key (Events API v2) of the service")]
    region: Annotated[Literal["us", "eu"], Meta(description="where the account is")] = "us"


def render(params: Params, delivery: Delivery) -> Sequence[Request]:
    """Return the event. News of an incident that it knows change its details and ring nobody again."""
    message = bounded(delivery.message)
    event: dict[str, Any] = {
        "routing_key": params.routing_key.reveal(),
        "event_action": _ACTION[message.step],
        "dedup_key": message.key,
    }
    if event["event_action"] == "trigger":
        event["payload"] = payload(message)
        event["client"] = "opsboard"
        event["links"] = [] if message.runbook is None else [{"href": message.runbook, "text": "runbook"}]
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json"}
    return [Http(url=Secret(f"https://{HOSTS[params.region]}/v2/enqueue"), body=body, headers=headers)]


def payload(message: Message) -> dict[str, Any]:
    """Return what PagerDuty shows."""
    details = dict(wording.details(message))
    details["news"] = message.news
    details["type"] = "\n".join(message.commands)
    return {
        "summary": wording.cut(f"{wording.where(message)}: {message.summary}", SUMMARY_CHARS),
        "source": wording.cut("/".join(part for part in (message.host, message.engine) if part), SOURCE_CHARS),
        "severity": "info" if message.test else _SEVERITY[message.severity],
        "timestamp": stamp(message.since),
        "component": message.engine or message.subject,
        "group": message.host,
        "class": message.detector,
        "custom_details": details,
    }


def classify(_params: Params, answer: Answer) -> Outcome:
    """Return what an answer means; 202 is taken. A key that PagerDuty does not know breaks the channel."""
    if answer.status == 400:
        text = said(answer)
        errors = json_of(answer).get("errors")
        named = " ".join(str(one) for one in errors) if isinstance(errors, list) else text
        return Refused(f"HTTP 400: {text}", channel="routing" in named.lower())
    return by_status(answer)


NOTIFIER = Notifier(
    kind="pagerduty",
    summary="an incident in PagerDuty (Events API v2): triggered, acknowledged and resolved from here",
    params=Params,
    render=render,
    classify=classify,
    rate=Rate(every_s=0.5, burst=60),
    edits=True,
)
