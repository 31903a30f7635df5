"""Discord by a webhook: one message an incident, changed in place.

Source: docs.discord.com "Execute Webhook" and "Edit Webhook Message" (embed: title 256, description 4,096, 25 fields of
256 and 1,024, footer 2,048, 6,000 in all; ``?wait=true`` tells the id).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from alerts import wording
from alerts.answers import by_status, json_of
from alerts.notifier import Answer, Http, Later, Notifier, Outcome, Rate, Refused, Request, Sent
from alerts.notifiers.webhook import stamp
from opsboard.core.deliveries import Delivery, Message
from opsboard.core.model import Record
from opsboard.core.secret import Secret

TITLE_CHARS, DESCRIPTION_CHARS, FIELDS, FIELD_CHARS, ALL_CHARS = 256, 3000, 12, 200, 5800
_MARKS = re.compile(r"([\\*_~`|>#\[\]()<@:-])")
_COLOURS = {"page": 0xD32F2F, "ticket": 0xF57C00, "note": 0x1976D2}
_OVER = 0x388E3C
_ID = re.compile(r"[0-9]{1,25}")


class Params(Record, frozen=True, kw_only=True):
    """What it needs."""

    url: Annotated[Secret, Meta(description="the webhook's address: whoever has it may write, so it is never shown")]


def escaped(text: str) -> str:
    """Return text that Discord shows as it is."""
    return _MARKS.sub(r"\\\1", text)


def render(params: Params, delivery: Delivery) -> Sequence[Request]:
    """Return the message, new or in the place of the one before."""
    body = {"embeds": [embed(delivery.message)], "allowed_mentions": {"parse": []}, "username": "opsboard"}
    address, before = params.url.reveal().partition("?")[0].rstrip("/"), delivery.before
    if before is not None and _ID.fullmatch(before) and not delivery.message.louder:  # an edit makes no sound
        del body["username"]
        return [_http(Secret(f"{address}/messages/{before}"), body, "PATCH")]
    return [_http(Secret(f"{address}?wait=true"), body, "POST")]


def embed(message: Message) -> dict[str, Any]:
    """Return the message as Discord draws it."""
    head = f"{wording.sign(message)} {wording.word(message)}: {message.detector} on {message.engine or message.host}"
    lines = [f"**{escaped(message.summary)}**"]
    lines += [escaped(message.news)] if message.step not in {"trigger", "resolve"} else []
    lines += [f"`{message.spark}`"] if message.spark is not None else []
    commands = wording.fitting((command.replace("`", "'") for command in message.commands), 900)
    lines += [f"```\n{commands}\n```"] if commands else []
    one: dict[str, Any] = {
        "title": wording.cut(head, TITLE_CHARS),
        "description": wording.fitting((wording.cut(line, 1400) for line in lines), DESCRIPTION_CHARS),
        "color": _OVER if message.over else _COLOURS[message.severity],
        "timestamp": stamp(message.since),
        "footer": {"text": wording.cut(f"opsboard on {message.host}, incident {message.number}", 200)},
        "fields": [],
    }
    if message.runbook is not None and message.runbook.startswith(("https://", "http://")):
        one["url"] = wording.cut(message.runbook, 1000)
    size = sum(len(one[key]) for key in ("title", "description")) + len(one["footer"]["text"])
    for name, said in [row for row in wording.details(message) if row[0] != "drawn"][:FIELDS]:
        field = {
            "name": wording.cut(escaped(name), 100),
            "value": wording.cut(escaped(said), FIELD_CHARS),
            "inline": True,
        }
        size += len(str(field["name"])) + len(str(field["value"]))
        if size > ALL_CHARS:
            break
        one["fields"].append(field)
    return one


def classify(_params: Params, answer: Answer) -> Outcome:
    """Return what an answer means. 401, 403 and 404 end the channel: to go on would have this host banned."""
    outcome = by_status(answer)
    body = json_of(answer)
    if isinstance(outcome, Sent):
        number = body.get("id")
        return Sent(number if isinstance(number, str) and _ID.fullmatch(number) else None)
    if isinstance(outcome, Refused) and body.get("code") == 10008:  # the message was deleted: the next one is new
        return Refused(outcome.why)
    after = body.get("retry_after")
    if isinstance(outcome, Later) and outcome.after_s is None and isinstance(after, int | float):
        return Later(outcome.why, min(3600.0, max(0.0, float(after))))
    return outcome


def _http(url: Secret, body: dict[str, Any], method: str) -> Http:
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return Http(url=url, body=data, method=method, headers={"Content-Type": "application/json"})


NOTIFIER = Notifier(
    kind="discord",
    summary="a message an incident in Discord, changed in place",
    params=Params,
    render=render,
    classify=classify,
    rate=Rate(every_s=1.0, burst=5),
    edits=True,
    groups=True,
)
