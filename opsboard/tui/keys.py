"""Keys: one table a page, from which come what they do, its footer and its help."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.model import Record
from opsboard.tui.glyphs import Glyphs
from opsboard.tui.spans import Line, Span, clip, fit

_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "colon": ":",
    "comma": ",",
    "full_stop": ".",
    "space": "Space",
    "escape": "Esc",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "home": "Home",
    "end": "End",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "tab": "Tab",
    "shift+tab": "Shift-Tab",
    "left": "Left",
    "right": "Right",
    "f1": "F1",
}


class Key(Record, frozen=True, kw_only=True):
    """What some keys (in Textual's names) do. ``hint`` is its word in the footer; ``mutates``: touches an engine."""

    keys: tuple[str, ...]
    action: str
    text: str
    group: str
    hint: str | None = None
    mutates: bool = False


def shown(key: str, glyphs: Glyphs) -> str:
    """Return the name of a key as people write it."""
    if key == "enter":
        return glyphs.enter
    if key in ("up", "down"):
        return key.capitalize()
    if key.startswith("ctrl+"):
        return "^" + key.removeprefix("ctrl+").upper()
    return _NAMES.get(key, key)


def hints(keys: Sequence[Key], glyphs: Glyphs, *, readonly: bool) -> list[tuple[str, str]]:
    """Return the footer of a page: the keys that have a hint, without those that may not be used."""
    return [
        (shown(key.keys[0], glyphs), key.hint)
        for key in keys
        if key.hint is not None and not (readonly and key.mutates)
    ]


def help_lines(keys: Sequence[Key], glyphs: Glyphs, width: int, *, readonly: bool) -> list[Line]:
    """Return all keys of a page by group, side by side where ``width`` allows; what read-only forbids is dimmed."""
    groups: dict[str, list[Key]] = {}
    for key in keys:
        groups.setdefault(key.group, []).append(key)
    columns = max(1, min(3, width // 39))
    cell = width // columns
    blocks = [_block(name, members, glyphs, cell, readonly=readonly) for name, members in groups.items()]
    heights = [0] * columns
    piles: list[list[Line]] = [[] for _ in range(columns)]
    for block in blocks:
        at = heights.index(min(heights))
        piles[at] += block
        heights[at] += len(block)
    blank = clip((), cell)
    rows = max(heights)
    padded = [pile + [blank] * (rows - len(pile)) for pile in piles]
    return [clip([span for pile in padded for span in pile[row]], width) for row in range(rows)]


def _block(name: str, members: Sequence[Key], glyphs: Glyphs, width: int, *, readonly: bool) -> list[Line]:
    lines = [clip((Span(" " + name, "strong"),), width)]
    for key in members:
        names = " ".join(dict.fromkeys(shown(one, glyphs) for one in key.keys))
        off = readonly and key.mutates
        text = key.text + " (read-only)" if off else key.text
        lines.append(
            clip(
                (
                    Span("  " + fit(names, 12), "dim" if off else "key"),
                    Span(fit(text, width - 15), "dim" if off else ""),
                ),
                width,
            )
        )
    lines.append(clip((), width))
    return lines
