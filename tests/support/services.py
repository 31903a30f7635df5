"""What services refuse, as their documentation has it: raises AssertionError where the real one would say no."""

from __future__ import annotations

import json
import re
from typing import Any

from alerts.notifier import Http


def body_of(request: object) -> dict[str, Any]:
    assert isinstance(request, Http)
    found = json.loads(request.body)
    assert isinstance(found, dict)
    return found


def check_pagerduty(request: object) -> dict[str, Any]:
    """Events API v2, "PD-CEF": https://developer.pagerduty.com/docs/send-alert-event."""
    event = body_of(request)
    assert isinstance(request, Http)
    assert len(request.body) < 512 * 1024
    assert event["event_action"] in {"trigger", "acknowledge", "resolve"}
    assert len(event["dedup_key"]) <= 255
    assert event["routing_key"]
    if event["event_action"] == "trigger":
        payload = event["payload"]
        assert 0 < len(payload["summary"]) <= 1024
        assert payload["severity"] in {"critical", "error", "warning", "info"}
        assert payload["source"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", payload["timestamp"])
        assert all(set(link) <= {"href", "text"} for link in event["links"])
    return event


def check_slack(body: dict[str, Any]) -> None:
    """Block Kit: https://docs.slack.dev/reference/block-kit."""
    assert len(body["text"]) <= 4000
    size = 0
    assert len(body["blocks"]) <= 50
    for block in body["blocks"]:
        match block["type"]:
            case "header":
                assert block["text"]["type"] == "plain_text"
                assert 0 < len(block["text"]["text"]) <= 150
            case "section":
                fields = block.get("fields", [])
                assert ("text" in block) != bool(fields)
                assert len(fields) <= 10
                assert all(0 < len(field["text"]) <= 2000 for field in fields)
                assert len(block.get("text", {}).get("text", "")) <= 3000
            case other:
                raise AssertionError(other)
        size += len(json.dumps(block))
    assert size < 13_000, "msg_blocks_too_long"
    text = json.dumps(body, ensure_ascii=False)
    assert not re.search(r"<[!@#]", text), "nobody is called"


def check_discord(body: dict[str, Any]) -> None:
    """Embeds: https://docs.discord.com/developers/resources/message#embed-object-embed-limits."""
    assert body["allowed_mentions"] == {"parse": []}
    (embed,) = body["embeds"]
    fields = embed["fields"]
    assert len(embed["title"]) <= 256
    assert len(embed["description"]) <= 4096
    assert len(embed["footer"]["text"]) <= 2048
    assert len(fields) <= 25
    assert all(0 < len(field["name"]) <= 256 and 0 < len(field["value"]) <= 1024 for field in fields)
    texts = [embed["title"], embed["description"], embed["footer"]["text"]]
    texts += [field[key] for field in fields for key in ("name", "value")]
    assert sum(map(len, texts)) <= 6000


def check_teams(request: object) -> None:
    """An Adaptive Card 1.4 in a message for a workflow: https://adaptivecards.io/explorer."""
    body = body_of(request)
    assert isinstance(request, Http)
    assert len(request.body) <= 20_000
    (attachment,) = body["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert {part["type"] for part in card["body"]} <= {"TextBlock", "FactSet"}
    assert all(fact["title"] and fact["value"] for part in card["body"] for fact in part.get("facts", []))


def check_ntfy(body: dict[str, Any]) -> None:
    """Publishing as JSON: https://docs.ntfy.sh/publish/#publish-as-json."""
    assert len(body["message"].encode()) <= 4096
    assert len(body["title"].encode()) <= 1024
    assert len(",".join(body["tags"]).encode()) <= 512
    assert body["priority"] in {1, 2, 3, 4, 5}
    assert len(body.get("actions", [])) <= 3
