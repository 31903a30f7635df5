"""The evidence of an incident, drawn: its curves, when it began and ended, what they are compared with. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.model import Record
from opsboard.tui import format as fmt
from opsboard.tui.bars import Values, area, nice_top
from opsboard.tui.curves import Track, Tracks, added, against, binned, lowest_highest, rate
from opsboard.tui.glyphs import Glyphs
from opsboard.tui.pictures import Picture
from opsboard.tui.spans import Line, Span, Style, clip, fit
from opsboard.tui.view import Size, View

AXIS = 6
_FLAT = 0.02
"""A level that moved by less than this part of itself is drawn as if it had: its noise would fill the height."""
_BELOW = 0.1
"""So much of what moved is left below the least value."""


class Marks(Record, frozen=True, kw_only=True):
    """What a drawing shows, ``start`` to ``end``, and the moments that it points at, in Unix seconds."""

    start: float
    end: float
    began: float
    told: float | None = None
    ended: float | None = None


def draw(picture: Picture, tracks: Tracks, marks: Marks, view: View, size: Size) -> list[Line]:
    """Return exactly ``size.height`` lines: a heading, the curve, what lies below it."""
    track = tracks.get(picture.series)
    width, height = size
    if track is None or width <= AXIS + 4 or height < 3:
        return _empty(picture, size)
    more = tracks.get(picture.plus or "")
    if more is not None:
        track = added(track, more)
    if picture.kind == "work":
        lines = _by_work(picture, track, tracks, view, size)
    elif picture.kind == "lost":
        lines = _lost(picture, tracks, marks, view, size)
    else:
        lines = _over_time(picture, rate(track) if picture.kind == "rate" else track, marks, view, size)
    return lines or _empty(picture, size)


def _empty(picture: Picture, size: Size) -> list[Line]:
    said = [clip((Span(" " + picture.title, "dim"),), size.width), _text("  nothing is recorded of it", size.width)]
    return (said + [clip((), size.width)] * size.height)[: size.height]


def _text(text: str, width: int) -> Line:
    return clip((Span(fit(text, width), "dim"),), width)


def _heading(title: str, said: Sequence[Span], width: int) -> Line:
    return clip((Span(" " + title + "  ", "dim"), *said), width)


def _over_time(picture: Picture, track: Track, marks: Marks, view: View, size: Size) -> list[Line]:
    if not track.points:
        return []
    columns = size.width - AXIS
    values = [None if v is None else v - picture.base for v in binned(track, marks.start, marks.end, columns)]
    reference = None if picture.reference is None else picture.reference - picture.base
    said = [Span(picture.text(max(0.0, track.points[-1][1] - picture.base)), "strong")]
    if reference is not None:
        said.append(Span(f"  {view.glyphs.dash * 2} {picture.text(reference)}", "dim"))
    curve = _curve(picture, values, view, Size(size.width, size.height - 2), reference)
    return [_heading(picture.title, said, size.width), *curve, _moments(marks, view, size.width)]


def _scale(picture: Picture, values: Values) -> tuple[float, float]:
    """Return what the lowest and the highest row stand for."""
    if not picture.near:
        return 0.0, picture.floor if picture.fixed else nice_top(values, picture.floor)
    low, high = lowest_highest(values)
    room = max(high - low, high * _FLAT) or 1.0
    return max(0.0, low - _BELOW * room), max(high, low + room)


def _curve(picture: Picture, values: Values, view: View, size: Size, reference: float | None = None) -> list[Line]:
    """Return ``size.height`` rows of a filled curve with its scale, and a line where ``reference`` is."""
    low, top = _scale(picture, [*values, reference])
    drawn = area([None if v is None else v - low for v in values], len(values), size.height, top - low, view.glyphs)
    at = None if reference is None else _row_of(reference - low, top - low, size.height)
    lines = []
    for number, cells in enumerate(drawn):
        label = _label(number, size.height, picture.text(top), picture.text(low))
        row = _dashed(cells, view.glyphs) if number == at else [Span(cells, "area")]
        lines.append(clip((label, *row), size.width))
    return lines


def _label(row: int, rows: int, top: str, bottom: str) -> Span:
    text = top if row == 0 else bottom if row == rows - 1 and rows > 1 else ""
    return Span(fit(text, AXIS - 1, ">") + " ", "dim")


def _row_of(value: float, top: float, rows: int) -> int:
    return min(rows - 1, max(0, rows - 1 - int(value / top * rows)))


def _dashed(cells: str, glyphs: Glyphs) -> list[Span]:
    """Return a row with a line through what is blank of it."""
    spans: list[Span] = []
    for char in cells:
        style: Style = "warn" if char == " " else "area"
        text = glyphs.dash if char == " " else char
        if spans and spans[-1].style == style:
            spans[-1] = Span(spans[-1].text + text, style)
        else:
            spans.append(Span(text, style))
    return spans


# --- what is used, and what of it nothing explains ---


def _lost(picture: Picture, tracks: Tracks, marks: Marks, view: View, size: Size) -> list[Line]:
    used = tracks[picture.series]
    gone = tracks.get(picture.other or "")
    columns, rows = size.width - AXIS, size.height - 2
    levels = binned(used, marks.start, marks.end, columns)
    whole = picture.whole or 0.0
    parts = binned(gone, marks.start, marks.end, columns) if gone is not None and whole > 0 else [None] * columns
    shares = [None if part is None else part / whole for part in parts]
    known = [share for share in shares if share is not None]
    said = [
        Span(view.glyphs.ramp[-1] * 2, "bad"),
        Span(f" lost {picture.text(known[-1] if known else None)}", "strong"),
        Span(f"   {view.glyphs.shade * 2}", "area"),
        Span(f" in use {picture.text(used.points[-1][1])}", "dim"),
    ]
    top = min(1.0, nice_top([*levels, *shares], picture.floor))
    heights = [[None if v is None else v / top for v in values] for values in (levels, shares)]
    lines = [_heading(picture.title, said, size.width)]
    for row in range(rows):
        label = _label(row, rows, picture.text(top), picture.text(0.0))
        cells = _stacked(heights[0], heights[1], rows, rows - 1 - row, view.glyphs)
        lines.append(clip((label, *cells), size.width))
    return [*lines, _moments(marks, view, size.width)]


def _stacked(levels: Values, shares: Values, rows: int, row: int, glyphs: Glyphs) -> list[Span]:
    """Return one row (0 the lowest) of what is used, shaded, over what of it is lost, solid; 1.0 fills the height."""
    steps = len(glyphs.ramp) - 1
    spans: list[Span] = []
    for level, share in zip(levels, shares, strict=True):
        text = glyphs.gap if row == 0 and level is None and share is None else " "
        style: Style = ""
        solid = 0 if share is None else max(round(share * rows * steps), 1 if share > 0 else 0) - row * steps
        shaded = 0 if level is None else round(level * rows * steps) - row * steps
        if solid > 0:
            text, style = glyphs.ramp[min(solid, steps)], "bad"
        elif shaded >= steps // 2 or (row == 0 and shaded > 0):
            text, style = glyphs.shade, "area"
        if spans and spans[-1].style == style:
            spans[-1] = Span(spans[-1].text + text, style)
        else:
            spans.append(Span(text, style))
    return spans


# --- against work ---


def _by_work(picture: Picture, track: Track, tracks: Tracks, view: View, size: Size) -> list[Line]:
    counter = tracks.get(picture.other or "")
    if counter is None or not counter.points:
        return []
    columns = size.width - AXIS
    values, total = against(track, counter, columns)
    if total <= 0:
        return []
    said = [Span(picture.text(track.points[-1][1]), "strong")]
    curve = _curve(picture, values, view, Size(size.width, size.height - 2))
    below = (
        Span(" " * AXIS + "0", "dim"),
        Span(fit(f"{fmt.count(total)} requests finished ", columns - 1, ">"), "dim"),
    )
    return [_heading(picture.title, said, size.width), *curve, clip(below, size.width)]


# --- below a curve ---


def _moments(marks: Marks, view: View, width: int) -> Line:
    """Return a line that points at when it began, was told and ended; what does not fit is left out."""
    cells = [" "] * (width - AXIS)
    for name, t in (("began", marks.began), ("ended", marks.ended), ("told", marks.told)):
        if t is not None:
            _point(cells, name, t, marks, view)
    return clip((Span(" " * AXIS), Span("".join(cells), "dim")), width)


def _point(cells: list[str], name: str, t: float, marks: Marks, view: View) -> None:
    if t < marks.start:
        _write(cells, 0, f"< {name} {fmt.clock(t, view.zone, '%a %H:%M')}")
        return
    part = (t - marks.start) / (marks.end - marks.start) if marks.end > marks.start else 1.0
    at = min(len(cells) - 1, int(part * len(cells)))
    words = f"{name} {fmt.clock(t, view.zone, '%H:%M')}"
    left, right = (at - len(words) - 1, f"{words} ^"), (at, f"^ {words}")
    for place, text in (left, right) if name == "began" else (right, left):
        if _write(cells, place, text):
            return
    _write(cells, at, "^")


def _write(cells: list[str], at: int, text: str) -> bool:
    """Put ``text`` where nothing stands yet, with a blank on either side."""
    end = at + len(text)
    if at < 0 or end > len(cells) or any(char != " " for char in cells[max(0, at - 1) : end + 1]):
        return False
    cells[at:end] = text
    return True
