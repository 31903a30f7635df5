"""Slack by an incoming webhook: the lesser form, for it can neither change a message nor answer in a thread.

Source: docs.slack.dev "Sending messages using incoming webhooks" (the answer is the text ``ok``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from alerts.answers import by_status
from alerts.notifier import Http, Notifier, Rate, Request
from alerts.slack_blocks import blocks, fallback
from opsboard.core.deliveries import Delivery
from opsboard.core.model import Record
from opsboard.core.secret import Secret


class Params(Record, frozen=True, kw_only=True):
    """What it needs."""

    url: Annotated[Secret, Meta(description="the webhook's address: whoever has it may write, so it is never shown")]


def render(params: Params, delivery: Delivery) -> Sequence[Request]:
    """Return a message for the beginning, for news that makes it a page, and for the end; the rest would be noise."""
    message = delivery.message
    if delivery.told and message.step in {"update", "acknowledge"} and not message.louder:
        return ()
    body = {"text": fallback(message), "blocks": blocks(message)}
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return [Http(url=params.url, body=data, headers={"Content-Type": "application/json; charset=utf-8"})]


NOTIFIER = Notifier(
    kind="slack_webhook",
    summary="messages in Slack by an incoming webhook: beginning and end, each a new one",
    params=Params,
    render=render,
    classify=lambda _params, answer: by_status(answer),
    rate=Rate(every_s=1.0, burst=5),
    groups=True,
)
