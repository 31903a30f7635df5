"""ntfy, ntfy.sh or one's own: publishes as JSON, one notification an incident where the server can change it.

Source: docs.ntfy.sh/publish (message 4,096 bytes, title 1 kB, tags 512 B; ``sequence_id`` since server 2.16, older ones
post anew).
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

MESSAGE_BYTES, TITLE_CHARS = 4000, 200
_PRIORITY = {"page": 5, "ticket": 3, "note": 2}
_TAG = {"page": "rotating_light", "ticket": "warning", "note": "information_source"}


class Params(Record, frozen=True, kw_only=True):
    """What a topic needs."""

    topic: Annotated[str, Meta(description="the topic; whoever knows it may read, so choose one that nobody guesses")]
    server: Annotated[str, Meta(description="address of the server")] = "https://ntfy.sh"
    token: Annotated[Secret | None, Meta(description="access token; default: none")] = None

    def __post_init__(self) -> None:
        """Check what can be checked. Raises ValueError."""
        if not self.server.startswith(("https://", "http://")):
            raise ValueError(f"`server`: expected an address, found {self.server!r}")
        if not self.topic or not self.topic.replace("-", "").replace("_", "").isalnum() or len(self.topic) > 64:
            raise ValueError("`topic`: expected letters, digits, `-` and `_`, at most 64")


def render(params: Params, delivery: Delivery) -> Sequence[Request]:
    """Return the notification; news that is not loud makes no sound."""
    message = delivery.message
    body: dict[str, Any] = {
        "topic": params.topic,
        "title": wording.cut(f"[{wording.word(message)}] {wording.where(message)}", TITLE_CHARS),
        "message": _text(message),
        "priority": _priority(message),
        "tags": [_tag(message), message.detector],
        "sequence_id": f"opsboard-{message.uid}",
    }
    if message.runbook is not None:
        body["actions"] = [{"action": "view", "label": "runbook", "url": message.runbook}]
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    secret = {} if params.token is None else {"Authorization": Secret(f"Bearer {params.token.reveal()}")}
    headers = {"Content-Type": "application/json"}
    return [Http(url=Secret(params.server), body=data, headers=headers, secret_headers=secret)]


def _text(message: Message) -> str:
    whole = wording.text(message, MESSAGE_BYTES)
    most = MESSAGE_BYTES
    while len(whole.encode()) > MESSAGE_BYTES:  # characters of several bytes
        most = most * 3 // 4
        whole = wording.text(message, most)
    return whole


def _priority(message: Message) -> int:
    if message.test or message.over or message.step == "acknowledge" or not _aloud(message):
        return 3 if message.over and message.severity == "page" else 2
    return _PRIORITY[message.severity]


def _aloud(message: Message) -> bool:
    return message.step == "trigger" or message.louder


def _tag(message: Message) -> str:
    return "white_check_mark" if message.over else _TAG[message.severity]


NOTIFIER = Notifier(
    kind="ntfy",
    summary="a push notification by ntfy.sh or a server of your own",
    params=Params,
    render=render,
    classify=lambda _params, answer: by_status(answer),
    rate=Rate(every_s=5.0, burst=60),
    edits=True,
    groups=True,
)
