"""Slack by a bot: one message an incident, changed in place, with its timeline in the thread below.

Source: docs.slack.dev chat.postMessage and chat.update (HTTP 200 with ``ok`` false is an error; whole message about
13,000 characters), rate limits (one message a second and channel).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from alerts.answers import by_status, json_of
from alerts.notifier import Answer, Http, Later, Notifier, Outcome, Rate, Refused, Request, Sent
from alerts.slack_blocks import blocks, escaped, fallback
from opsboard.core.deliveries import Delivery
from opsboard.core.model import Record
from opsboard.core.secret import Secret
from opsboard.core.text import sanitise

API = "https://slack.com/api"
_LATER = frozenset(
    {
        *("ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"),
        *("team_added_to_org", "accesslimited"),
    }
)
_MESSAGE = frozenset({"msg_too_long", "msg_blocks_too_long", "invalid_blocks", "invalid_blocks_format", "no_text"})
_GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found"})


class Params(Record, frozen=True, kw_only=True):
    """What a bot needs; it has to be a member of the channel and may write there (scope chat:write)."""

    bot_token: Annotated[Secret, Meta(description="token of the bot, `xoxb-...`, with the scope `chat:write`")]
    to: Annotated[str, Meta(description="channel: its name as `#llm-ops`, or its id, which also lets it be edited")]


def render(params: Params, delivery: Delivery) -> Sequence[Request]:
    """Return the message, new or in the place of the one before, and what is new below it."""
    message, before = delivery.message, _place(delivery.before)
    whole = {"text": fallback(message), "blocks": blocks(message), "unfurl_links": False, "unfurl_media": False}
    if before is None:
        return [_call(params, "chat.postMessage", {"channel": params.to, **whole})]
    channel, ts = before
    changed = {"channel": channel, "ts": ts, "text": whole["text"], "blocks": whole["blocks"]}
    said = {"channel": channel, "thread_ts": ts, "text": escaped(message.news), "link_names": False}
    if message.louder or (message.over and message.severity == "page"):
        said["reply_broadcast"] = True  # an edit makes no sound; whoever was woken sees the end without looking for it
    return [_call(params, "chat.update", changed), _call(params, "chat.postMessage", said)]


def classify(_params: Params, answer: Answer) -> Outcome:
    """Return what an answer means: 200 is nothing yet, ``ok`` is."""
    outcome = by_status(answer)
    if not isinstance(outcome, Sent):
        return outcome
    body = json_of(answer)
    if body.get("ok") is True:
        channel, ts = body.get("channel"), body.get("ts")
        return Sent(f"{channel} {ts}" if isinstance(channel, str) and isinstance(ts, str) else None)
    error = body.get("error")
    why = sanitise(f"Slack says {error if isinstance(error, str) else 'nothing that it ever says'}", 200)
    if not isinstance(error, str) or error in _LATER:
        return Later(why)
    return Refused(why, channel=error not in _MESSAGE | _GONE)


def _place(ref: str | None) -> tuple[str, str] | None:
    channel, space, ts = (ref or "").partition(" ")
    return (channel, ts) if space else None


def _call(params: Params, method: str, body: dict[str, Any]) -> Http:
    return Http(
        url=Secret(f"{API}/{method}"),
        body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
        headers={"Content-Type": "application/json; charset=utf-8"},
        secret_headers={"Authorization": Secret(f"Bearer {params.bot_token.reveal()}")},
    )


NOTIFIER = Notifier(
    kind="slack",
    summary="a message an incident in Slack, changed in place, with its timeline in the thread",
    params=Params,
    render=render,
    classify=classify,
    rate=Rate(every_s=1.0, burst=5),
    edits=True,
    groups=True,
)
