"""A line that is being typed: what each key does to it. Pure."""

from __future__ import annotations

from opsboard.core.text import sanitise

LIMIT = 200


def edited(text: str, key: str, character: str | None) -> str | None:
    """Return ``text`` after a key (in Textual's names), None when the key is not one of editing."""
    if key in ("backspace", "ctrl+h"):
        return text[:-1]
    if key == "ctrl+u":
        return ""
    if key in ("ctrl+w", "ctrl+backspace"):
        return text.rstrip()[: text.rstrip().rfind(" ") + 1]
    if character and character.isprintable() and len(character) == 1:
        return (text + character)[:LIMIT]
    return None


def pasted(text: str, paste: str) -> str:
    """Return ``text`` with the first line of what was pasted, made harmless."""
    first = paste.splitlines()[0] if paste.splitlines() else ""
    return (text + sanitise(first, LIMIT))[:LIMIT]
