"""Sentences and lines that several services say alike, and how text is cut to what one takes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from alerts.timeline import told_s
from opsboard.core.deliveries import Message

CUT = "…"
_SIGNS = {"page": "🔴", "ticket": "🟠", "note": "🔵"}
_WORDS = {"page": "PAGE", "ticket": "TICKET", "note": "NOTE"}


def cut(text: str, most: int) -> str:
    """Return ``text`` with at most ``most`` characters; a cut shows."""
    return text if len(text) <= most else text[: max(0, most - len(CUT))] + CUT


def fitting(lines: Iterable[str], most: int, joint: str = "\n") -> str:
    """Return the first lines that fit into ``most`` characters, joined; that some are left out shows."""
    kept, size = [], 0
    for line in lines:
        size += len(line) + len(joint)
        if size > most - len(CUT):
            kept.append(CUT)
            break
        kept.append(line)
    return joint.join(kept)


def sign(message: Message) -> str:
    """Return a sign for eyes that are quick; never alone."""
    if message.test:
        return "🧪"
    return "✅" if message.over else _SIGNS[message.severity]


def word(message: Message) -> str:
    """Return the same in a word."""
    if message.test:
        return "TEST"
    if message.over:
        return "RESOLVED"
    return _WORDS[message.severity] + (", acknowledged" if message.state == "acknowledged" else "")


def headline(message: Message) -> str:
    """Return who, and what in one sentence, after the word that says how loud."""
    return f"[{word(message)}] {where(message)}: {message.summary}"


def where(message: Message) -> str:
    """Return the place: engine and host."""
    return message.host if message.engine is None else f"{message.engine} on {message.host}"


def moment(t: float) -> str:
    """Return Unix seconds as people of several time zones read them."""
    return utc(t).strftime("%Y-%m-%d %H:%M:%S UTC")


def utc(t: float) -> datetime:
    """Return Unix seconds as a date in UTC."""
    return datetime.fromtimestamp(t, UTC)


def lasted(message: Message) -> str:
    """Return since when it is so, or how long it was."""
    if message.resolved is not None:
        return f"{moment(message.since)}, for {told_s(message.resolved - message.since)}"
    return moment(message.since)


def details(message: Message) -> list[tuple[str, str]]:
    """Return what stands below the headline, by name, the most important first."""
    rows = [("since", lasted(message))]
    rows += [("model", message.model)] if message.model is not None else []
    rows += [("acknowledged by", message.acknowledged_by)] if message.acknowledged_by is not None else []
    rows += [("done", action) for action in message.actions[-1:]]
    rows += [("drawn", message.spark)] if message.spark is not None else []
    return rows + [(fact.name, fact.text) for fact in message.facts]


def text(message: Message, most: int) -> str:
    """Return the whole message in plain lines, of at most ``most`` characters."""
    news = [message.news] if message.step not in {"trigger", "resolve"} else []
    lines = [headline(message), *news, *(f"{name}: {said}" for name, said in details(message))]
    lines += [f"$ {command}" for command in message.commands]
    lines += [message.runbook] if message.runbook is not None else []
    return fitting((cut(line, most) for line in lines), most)
