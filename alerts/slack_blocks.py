"""A message as Slack draws it: Block Kit, with all foreign text escaped. Pure.

Source: docs.slack.dev/reference/block-kit (header 150 characters, section 3,000, field 2,000, 10 fields a section).
"""

from __future__ import annotations

from typing import Any

from alerts import wording
from opsboard.core.deliveries import Message

HEADER_CHARS, SECTION_CHARS, FIELD_CHARS = 150, 2900, 300
FIELDS = 10


def escaped(text: str) -> str:
    """Return text that Slack shows as it is: no mention, no link, no markup of its own."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "*_~`":
        text = text.replace(mark, f"{mark}\u200b")  # a word joiner of no width ends what the mark would begin
    return text.replace("@", "@\u200b")


def fallback(message: Message) -> str:
    """Return what notifications and old clients show."""
    return wording.cut(escaped(f"{wording.sign(message)} {wording.headline(message)}"), SECTION_CHARS)


def blocks(message: Message) -> list[dict[str, Any]]:
    """Return the message as blocks."""
    head = f"{wording.sign(message)} {wording.word(message)}: {message.detector} on {message.engine or message.host}"
    found: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": wording.cut(head, HEADER_CHARS), "emoji": False}},
        _section(f"*{escaped(message.summary)}*"),
    ]
    rows = [(name, said) for name, said in wording.details(message) if name != "drawn"]
    fields = [("host", message.host), *rows][:FIELDS]
    found.append({"type": "section", "fields": [_field(name, said) for name, said in fields]})
    if message.spark is not None:
        found.append(_section(f"`{message.spark}`"))
    if message.commands:
        found.append(_section(f"```{wording.fitting(map(_code, message.commands), SECTION_CHARS - 6)}```"))
    if message.runbook is not None and message.runbook.startswith(("https://", "http://")):
        address = message.runbook.replace("|", "%7C").replace(">", "%3E").replace("<", "%3C")
        found.append(_section(f"<{address}|runbook>"))
    return found


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": wording.cut(text, SECTION_CHARS), "verbatim": True}}


def _field(name: str, said: str) -> dict[str, Any]:
    text = f"*{escaped(name)}*\n{escaped(said)}"
    return {"type": "mrkdwn", "text": wording.cut(text, FIELD_CHARS), "verbatim": True}


def _code(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'")
