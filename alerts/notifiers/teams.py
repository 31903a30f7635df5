"""Microsoft Teams by a workflow ("Post to a channel when a webhook request is received"): an Adaptive Card.

Source: learn.microsoft.com "Create incoming webhooks with Workflows" (28 kB after wrapping, so 20 kB here; more than 4
requests a second are throttled; 202 says accepted, the flow may still fail unseen), adaptivecards.io schema 1.4.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from alerts import wording
from alerts.answers import by_status
from alerts.notifier import Http, Notifier, Rate, Request
from opsboard.core.deliveries import Delivery, Message
from opsboard.core.model import Record
from opsboard.core.secret import Secret

LIMIT_BYTES = 20_000
TEXT_CHARS, FACT_CHARS = 1500, 300
_LINK = "](", "]\u200b("
"""Nothing of no width between the two, and a card takes it for a link."""
_COLOUR = {"page": "attention", "ticket": "warning", "note": "accent"}


class Params(Record, frozen=True, kw_only=True):
    """What it needs."""

    url: Annotated[Secret, Meta(description="the workflow's address: whoever has it may write, so it is never shown")]


def escaped(text: str) -> str:
    """Return text of which a card makes no link and no emphasis; it knows no other escape."""
    text = text.replace(*_LINK)
    for mark in "*_":
        text = text.replace(mark, f"{mark}\u200b")
    return text


def render(params: Params, delivery: Delivery) -> Sequence[Request]:
    """Return a card for the beginning, for news that makes it a page, and for the end; it cannot change one."""
    message = delivery.message
    if delivery.told and message.step in {"update", "acknowledge"} and not message.louder:
        return ()
    rows = wording.details(message)
    body = _body(message, rows)
    while len(body) > LIMIT_BYTES and rows:
        rows = rows[: len(rows) // 2]
        body = _body(message, rows)
    return [Http(url=params.url, body=body, headers={"Content-Type": "application/json"})]


def _body(message: Message, rows: Sequence[tuple[str, str]]) -> bytes:
    card = {"contentType": "application/vnd.microsoft.card.adaptive", "content": _card(message, rows)}
    whole = {"type": "message", "attachments": [card]}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _card(message: Message, rows: Sequence[tuple[str, str]]) -> dict[str, Any]:
    head = f"{wording.sign(message)} {wording.word(message)}: {message.detector} on {message.engine or message.host}"
    parts: list[dict[str, Any]] = [
        _text(wording.cut(escaped(head), 200), size="large", weight="bolder", color=_colour(message)),
        _text(wording.cut(escaped(message.summary), TEXT_CHARS), weight="bolder"),
    ]
    if message.step not in {"trigger", "resolve"}:
        parts.append(_text(wording.cut(escaped(message.news), TEXT_CHARS)))
    facts = [
        {"title": wording.cut(escaped(name), 60), "value": wording.cut(escaped(said), FACT_CHARS)}
        for name, said in rows
    ]
    parts.append({"type": "FactSet", "facts": [{"title": "host", "value": escaped(message.host)}, *facts]})
    parts += [_text(wording.cut(escaped(line), 300), fontType="monospace") for line in message.commands[:4]]
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": parts,
        "msteams": {"width": "Full"},
    }
    if message.runbook is not None and message.runbook.startswith(("https://", "http://")):
        card["actions"] = [{"type": "Action.OpenUrl", "title": "runbook", "url": wording.cut(message.runbook, 1000)}]
    return card


def _text(text: str, **style: str) -> dict[str, Any]:
    return {"type": "TextBlock", "text": text, "wrap": True, **style}


def _colour(message: Message) -> str:
    return "good" if message.over else _COLOUR[message.severity]


NOTIFIER = Notifier(
    kind="teams",
    summary="a card in Microsoft Teams by a workflow: beginning and end, each a new one",
    params=Params,
    render=render,
    classify=lambda _params, answer: by_status(answer),
    rate=Rate(every_s=0.5, burst=4),
    groups=True,
)
