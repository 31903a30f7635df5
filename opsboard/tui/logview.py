"""An engine's log on the screen: a window over its last lines, search, follow. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from opsboard.core.model import Record
from opsboard.core.text import sanitise_line
from opsboard.tui.spans import Line, Span, Style, clip, fit, rule, width_of, wrapped
from opsboard.tui.view import Size, View

KEPT = 5000
"""Lines that are kept of a log."""
SHIFT = 20
"""Cells of one step to the side."""


class LogWindow(Record, frozen=True, kw_only=True):
    """Which part is shown: ``end`` is the line after the last shown one, None while following.

    Long lines are wrapped, or run off the side and are looked at from cell ``shift`` on.
    """

    end: int | None = None
    shift: int = 0
    wrap: bool = True
    search: str = ""

    @property
    def follow(self) -> bool:
        """True while new lines push old ones up."""
        return self.end is None


def moved(window: LogWindow, total: int, least: int, by: int) -> LogWindow:
    """Return the window moved ``by`` lines down (negative: up); at the very end it follows again.

    ``least`` is how many lines there are down to the end of the first screen (:func:`first_screen`).
    """
    end = (total if window.end is None else window.end) + by
    end = max(min(least, total), end)
    return msgspec.structs.replace(window, end=None if end >= total else end)


def found(lines: Sequence[str], window: LogWindow, room: Size, step: int) -> LogWindow | None:
    """Return the window with the next (``step`` 1) or previous (-1) match as its last line, None without one.

    The search goes round the ends, letters' case does not matter, and unwrapped lines move to the side where they must.
    """
    total = len(lines)
    text = window.search.lower()
    if not text or not total:
        return None
    last = (total if window.end is None else window.end) - 1
    for distance in range(1, total + 1):
        at = (last + step * distance) % total
        if text in lines[at].lower():
            end = max(at + 1, min(first_screen(lines, window, room), total))
            column = lines[at].lower().find(text)
            seen = window.wrap or (window.shift <= column and column + len(text) < window.shift + room.width - 2)
            shift = window.shift if seen else max(0, column - room.width // 3)
            return msgspec.structs.replace(window, end=end, shift=shift)
    return None


def first_screen(lines: Sequence[str], window: LogWindow, room: Size) -> int:
    """Return how many lines from the first one on fill ``room.height`` rows (at least one)."""
    if not window.wrap:
        return room.height
    rows = 0
    for number, line in enumerate(lines, start=1):
        rows += len(_rows(line, window, room.width))
        if rows >= room.height:
            return number if rows == room.height else max(1, number - 1)
    return room.height


def log(lines: Sequence[str], window: LogWindow, view: View, width: int, height: int) -> list[Line]:
    """Return a heading and at most ``height - 1`` rows, those of the last line lowest, matches marked."""
    total = len(lines)
    end = total if window.end is None else min(window.end, total)
    first, rows = end, list[Line]()
    while first > 0 and len(rows) < height - 1:
        more = _rows(lines[first - 1], window, width)
        if rows and len(more) + len(rows) > height - 1:
            break
        rows = more + rows
        first -= 1
    where = f"{first + 1}-{end} of {total}" if total else "no lines yet"
    mode = "following" if window.follow else "held, f follows"
    title = [Span("log", "strong"), Span(f"  {where}  {mode}", "dim")]
    if window.search:
        title.append(Span(f"  /{fit(window.search, min(len(window.search), 30))}", "key"))
    return [rule(title, width, view.glyphs.horizontal), *rows[: height - 1]]


def _rows(raw: str, window: LogWindow, width: int) -> list[Line]:
    """Return the rows of one line."""
    text = sanitise_line(raw)
    style = level(raw)
    if not window.wrap:
        return [clip((Span(" "), *_marked(_cut(text[window.shift :], width), window.search, style)), width)]
    spans = (Span(" "), *_marked(text, window.search, style))
    return [clip(row, width) for row in wrapped(spans, width - 1, indent="     ")]


def _cut(text: str, width: int) -> str:
    """Return ``text`` cut where the row ends."""
    return fit(text, min(width_of(text), max(1, width - 1)))


def _marked(text: str, search: str, style: Style) -> list[Span]:
    """Return ``text`` with what was searched marked."""
    spans: list[Span] = []
    wanted = search.lower()
    at = text.lower().find(wanted) if wanted else -1
    while at >= 0:
        spans += [Span(text[:at], style), Span(text[at : at + len(wanted)], "found")]
        text = text[at + len(wanted) :]
        at = text.lower().find(wanted)
    return [*spans, Span(text, style)]


def level(line: str) -> Style:
    """Return how a log line looks: by the level's word near its beginning."""
    head = line[:64]
    if "ERROR" in head or "CRITICAL" in head or "Traceback" in head:
        return "bad"
    return "warn" if "WARN" in head else "dim" if "DEBUG" in head else ""
