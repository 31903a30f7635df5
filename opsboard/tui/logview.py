"""An engine's log on the screen: a window over its last lines, search, follow. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.model import Record
from opsboard.core.text import sanitise_line
from opsboard.tui.spans import Line, Span, Style, clip, fit, rule, width_of
from opsboard.tui.view import Size, View

KEPT = 5000
"""Lines that are kept of a log."""
SHIFT = 20
"""Cells of one step to the side."""


class LogWindow(Record, frozen=True, kw_only=True):
    """Which part is shown: ``end`` is the line after the last shown one, None while following; ``shift`` in cells."""

    end: int | None = None
    shift: int = 0
    search: str = ""

    @property
    def follow(self) -> bool:
        """True while new lines push old ones up."""
        return self.end is None


def moved(window: LogWindow, total: int, height: int, by: int) -> LogWindow:
    """Return the window moved ``by`` lines down (negative: up); at the very end it follows again."""
    end = (total if window.end is None else window.end) + by
    end = max(min(height, total), end)
    return LogWindow(end=None if end >= total else end, shift=window.shift, search=window.search)


def found(lines: Sequence[str], window: LogWindow, room: Size, step: int) -> LogWindow | None:
    """Return the window with the next (``step`` 1) or previous (-1) match as its last line, None without one.

    The search goes round the ends, letters' case does not matter, and the window moves to the side where it must.
    """
    total = len(lines)
    text = window.search.lower()
    if not text or not total:
        return None
    last = (total if window.end is None else window.end) - 1
    for distance in range(1, total + 1):
        at = (last + step * distance) % total
        if text in lines[at].lower():
            end = max(at + 1, min(room.height, total))
            column = lines[at].lower().find(text)
            seen = window.shift <= column and column + len(text) < window.shift + room.width - 2
            shift = window.shift if seen else max(0, column - room.width // 3)
            return LogWindow(end=end, shift=shift, search=window.search)
    return None


def log(lines: Sequence[str], window: LogWindow, view: View, width: int, height: int) -> list[Line]:
    """Return a heading and the ``height - 1`` shown lines, matches marked."""
    total = len(lines)
    end = total if window.end is None else min(window.end, total)
    first = max(0, end - (height - 1))
    where = f"{first + 1}-{end} of {total}" if total else "no lines yet"
    mode = "following" if window.follow else "held, f follows"
    title = [Span("log", "strong"), Span(f"  {where}  {mode}", "dim")]
    if window.search:
        title.append(Span(f"  /{fit(window.search, min(len(window.search), 30))}", "key"))
    shown = [_line(lines[i], window, width) for i in range(first, end)]
    return [rule(title, width, view.glyphs.horizontal), *shown]


def _line(raw: str, window: LogWindow, width: int) -> Line:
    text = sanitise_line(raw)[window.shift :]
    style = level(raw)
    spans: list[Span] = [Span(" ")]
    wanted = window.search.lower()
    at = text.lower().find(wanted) if wanted else -1
    while at >= 0 and wanted:
        spans += [Span(text[:at], style), Span(text[at : at + len(wanted)], "found")]
        text = text[at + len(wanted) :]
        at = text.lower().find(wanted)
    spans.append(Span(fit(text, min(width_of(text), width)), style))
    return clip(spans, width)


def level(line: str) -> Style:
    """Return how a log line looks: by the level's word near its beginning."""
    head = line[:64]
    if "ERROR" in head or "CRITICAL" in head or "Traceback" in head:
        return "bad"
    return "warn" if "WARN" in head else "dim" if "DEBUG" in head else ""
