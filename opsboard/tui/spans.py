"""What every screen is made of: spans of styled text, and how text is made to fit cells. Pure; no terminal library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from rich.cells import cell_len, set_cell_size

from opsboard.core.text import sanitise

Style = Literal[
    "", "dim", "strong", "ok", "warn", "bad", "info", "head", "select", "key", "alarm", "notice", "found", "area"
]
"""What a piece of text means; theme.py says how it looks."""


class Span(NamedTuple):
    """A piece of one line. Columns stay separate spans: a span is the smallest thing that is repainted."""

    text: str
    style: Style = ""


Line = tuple[Span, ...]
EMPTY: Line = ()


def width_of(text: str) -> int:
    """Return the cells that ``text`` takes (wide characters take two)."""
    return len(text) if text.isascii() else cell_len(text)


def line_width(line: Iterable[Span]) -> int:
    """Return the cells that a line takes."""
    return sum(width_of(span.text) for span in line)


def line_text(line: Iterable[Span]) -> str:
    """Return the bare text of a line."""
    return "".join(span.text for span in line)


def fit(text: str, width: int, align: Literal["<", ">"] = "<", *, middle: bool = False) -> str:
    """Return ``text`` made harmless and exactly ``width`` cells long.

    What is too long is cut at the end, or in the ``middle`` where both ends tell names apart.
    """
    if width <= 0:
        return ""
    text = sanitise(text)
    size = width_of(text)
    if size > width:
        if width == 1:
            return set_cell_size(text, 1)
        if middle and width >= 7:
            tail = (width - 1) // 2
            return set_cell_size(text, width - 1 - tail) + "…" + _last(text, tail)
        return set_cell_size(text, width - 1) + "…"
    pad = " " * (width - size)
    return pad + text if align == ">" else text + pad


def _last(text: str, width: int) -> str:
    """Return exactly the last ``width`` cells of ``text``."""
    kept = ""
    for char in reversed(text):
        if width_of(char + kept) > width:
            break
        kept = char + kept
    return " " * (width - width_of(kept)) + kept


def clip(line: Iterable[Span], width: int) -> Line:
    """Return ``line`` made exactly ``width`` cells long: what is over falls off, what lacks becomes blank."""
    kept: list[Span] = []
    left = width
    for span in line:
        size = width_of(span.text)
        if size > left:
            if left:
                kept.append(Span(fit(span.text, left), span.style))
            left = 0
            break
        if size:
            kept.append(span)
        left -= size
    if left:
        kept.append(Span(" " * left))
    return tuple(kept)


def wrapped(line: Iterable[Span], width: int, indent: str = "") -> list[Line]:
    """Return ``line`` over lines of at most ``width`` cells, words whole where they can be, later lines indented."""
    spans = list(line)
    text = line_text(spans)
    lines: list[Line] = []
    while True:
        lead = indent if lines else ""
        head = _first(text, max(2, width - len(lead)))
        if len(head) < len(text) and (space := head.rfind(" ") + 1) > len(head) // 2:
            head = head[:space]
        row, spans = _split(spans, len(head))
        lines.append((Span(lead), *row) if lead else tuple(row))
        text = text[len(head) :]
        if not text:
            return lines


def _split(spans: Sequence[Span], at: int) -> tuple[list[Span], list[Span]]:
    """Return the spans of the first ``at`` characters, and the rest."""
    head: list[Span] = []
    for number, span in enumerate(spans):
        if at < len(span.text):
            rest = [Span(span.text[at:], span.style), *spans[number + 1 :]]
            return ([*head, Span(span.text[:at], span.style)] if at else head), rest
        head.append(span)
        at -= len(span.text)
    return head, []


def _first(text: str, width: int) -> str:
    """Return as many characters from the front of ``text`` as ``width`` cells hold."""
    if text.isascii():
        return text[:width]
    for at, char in enumerate(text):
        width -= cell_len(char)
        if width < 0:
            return text[:at]
    return text


def dimmed(line: Iterable[Span]) -> Line:
    """Return ``line`` as something that was true a while ago."""
    return tuple(Span(span.text, "dim") for span in line)


def split_ends(left: Sequence[Span], right: Sequence[Span], width: int) -> Line:
    """Return ``left`` and ``right`` at the ends of one line; the right part falls off when there is no room."""
    gap = width - line_width(left) - line_width(right)
    if gap < 1:
        return clip(left, width)
    return (*left, Span(" " * gap), *right)


def rule(title: Sequence[Span], width: int, horizontal: str) -> Line:
    """Return a heading: a thin rule with ``title`` in it."""
    lead = Span(horizontal + " ", "dim")
    used = width_of(lead.text) + line_width(title) + 1
    return clip((lead, *title, Span(" " + horizontal * max(0, width - used), "dim")), width)


_IN_ASCII = str.maketrans("…·–—→“”‘’", "~--->\"\"''")


def plain_ascii(line: Line) -> Line:
    """Return ``line`` in ASCII: what has no likeness there becomes as many ``?`` as it takes cells."""
    return tuple(span if span.text.isascii() else Span(_ascii(span.text), span.style) for span in line)


def _ascii(text: str) -> str:
    text = text.translate(_IN_ASCII)
    return "".join(char if char.isascii() else "?" * cell_len(char) for char in text)
