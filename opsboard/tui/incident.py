"""One incident's own screen: what is wrong, what to do, the evidence drawn and in words, what happened so far."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.incidents import Entry
from opsboard.core.model import Record
from opsboard.core.text import sanitise
from opsboard.core.wire import History, Incident, IncidentDetail
from opsboard.tui import format as fmt
from opsboard.tui.advice import advice
from opsboard.tui.curves import Tracks, gathered, span
from opsboard.tui.detail import last_top, scrolled
from opsboard.tui.drawing import Marks, draw
from opsboard.tui.evidence import facts, grid, listed, ordered
from opsboard.tui.incidents import about, began, lasted, urgency, whole_sentence
from opsboard.tui.pictures import Picture, pictures
from opsboard.tui.spans import Line, Span, Style, clip, dimmed, fit, line_width, rule, split_ends, width_of, wrapped
from opsboard.tui.timeline import when
from opsboard.tui.view import Size, View

LOOKS = ("overview", "evidence", "timeline")
_STYLES: dict[str, Style] = {
    "opened": "warn", "confirmed": "warn", "severity": "warn", "back": "warn", "caused": "warn", "flapping": "warn",
    "resolved": "ok", "gone": "ok", "action": "info", "note": "strong", "ack": "strong",
    "silence": "strong",
}  # fmt: skip
_BESIDE = 57
"""Cells of a drawing that stands beside another."""


class IncidentView(Record, frozen=True, kw_only=True):
    """The state of an incident's screen. ``past`` is what is remembered of its series; ``among`` those one can go to.

    ``detail`` is None until the daemon told it; ``top`` is the first shown line (None: a timeline at its end).
    """

    id: int
    among: tuple[int, ...] = ()
    detail: IncidentDetail | None = None
    past: tuple[History, ...] = ()
    look: str = "overview"
    top: int | None = 0
    problem: str | None = None


def current(view: View, own: IncidentView) -> Incident | None:
    """Return the incident as the board tells it now, else as it was told in detail."""
    going = view.status.incidents if view.status else ()
    on_board = next((one for one in going if one.id == own.id), None)
    return on_board or (own.detail.incident if own.detail is not None else None)


def incident_screen(view: View, own: IncidentView, room: Size) -> list[Line]:
    """Return the lines between header and footer."""
    one = current(view, own)
    if one is None:
        said = own.problem or f"asking the daemon about incident {own.id}"
        return [clip((), room.width), clip((Span(" " + fit(said, room.width - 2), "dim"),), room.width)]
    head = _head(one, view, own, room)
    lines = _look(one, view, own, Size(room.width, room.height - len(head)))
    return head + ([dimmed(line) for line in lines] if view.stale and own.look == "overview" else lines)


def moved_top(view: View, own: IncidentView, room: Size, by: int) -> int | None:
    """Return ``own.top`` after a scroll by ``by`` lines (negative: up); a timeline at its end stays there: None."""
    one = current(view, own)
    if one is None or own.look == "overview":
        return own.top
    inner = room.height - len(_head(one, view, own, room))
    end = last_top(len(_lines(one, view, own, room.width)), inner)
    at = end if own.top is None else min(own.top, end)
    top = max(0, min(at + by, end))
    return None if own.look == "timeline" and top == end else top


# --- who, what, since when, what to do ---


def _head(one: Incident, view: View, own: IncidentView, room: Size) -> list[Line]:
    width = room.width
    said = wrapped((Span(" " + whole_sentence(one), "strong"),), width - 1, indent=" ")
    head = [_who(one, view, own, width), *(clip(line, width) for line in said[: max(2, room.height // 5)])]
    head += _times(one, view, room)
    todo = advice(one)
    if todo and room.height >= 12:
        lines = wrapped((Span(" do: ", "key"), Span(fit(todo, width_of(todo)))), width - 1, indent="     ")
        head += [clip(line, width) for line in lines[:3]]
    if own.problem:
        head.append(clip((Span(" " + fit(own.problem, width - 2), "warn"),), width))
    return [*head, _tabs(own, width)]


def _who(one: Incident, view: View, own: IncidentView, width: int) -> Line:
    left = [
        Span(" "),
        urgency(one, view),
        Span(f" incident {one.id} ", "strong"),
        Span(f" {sanitise(one.detector)}  ", "dim"),
        Span(fit(about(one), min(width_of(about(one)), max(8, width // 4)), middle=True), "strong"),
        Span(f"  {_state(one, view)}", "strong" if one.state == "open" else ""),
    ]
    right = []
    if own.id in own.among and len(own.among) > 1:
        right = [Span(f"{own.among.index(own.id) + 1} of {len(own.among)} ", "dim")]
    return split_ends(left, right, width)


def _state(one: Incident, view: View) -> str:
    if one.state == "resolved":
        return f"resolved, lasted {fmt.age(lasted(one, view))}"
    taken = "not taken on" if one.acknowledged is None else "taken on"
    return f"open for {fmt.age(lasted(one, view))}, {taken}"


def _times(one: Incident, view: View, room: Size) -> list[Line]:
    parts = [f"began{_at(began(one), view)}", f"told{_at(one.opened, view)}"]
    if one.acknowledged is not None:
        parts.append(f"taken on{_at(one.acknowledged, view)}{_by(one.acknowledged_by)}")
    if one.silenced is not None:
        parts.append(f"silenced until{_at(one.silenced, view)}")
    if one.ended is not None:
        parts.append(f"last seen{_at(one.ended, view)}")
    if one.resolved is not None:
        parts.append(f"resolved{_at(one.resolved, view)}{_by(one.resolved_by)}")
    if one.cause is not None:
        parts.append(f"belongs to incident {one.cause}")
    if one.related:
        parts.append("see " + ", ".join(f"#{number}" for number in one.related))
    text = f" {view.glyphs.bullet} ".join(parts)
    rows = wrapped((Span(" " + text, "dim"),), room.width - 1, indent=" ")
    return [clip(row, room.width) for row in rows[: 2 if room.height >= 18 else 1]]


def _at(t: float, view: View) -> str:
    return " " + when(t, view).strip()


def _by(name: str | None) -> str:
    return f" by {sanitise(name)}" if name else ""


def _tabs(own: IncidentView, width: int) -> Line:
    spans: list[Span] = []
    for number, look in enumerate(LOOKS, start=1):
        spans += [Span(" "), Span(f" {number} {look} ", "select" if look == own.look else "dim")]
    return clip(spans, width)


# --- the looks ---


def _look(one: Incident, view: View, own: IncidentView, room: Size) -> list[Line]:
    if own.look == "overview":
        return _overview(one, view, own, room)
    if own.detail is None:
        return [clip((Span(" asking the daemon", "dim"),), room.width)]
    return scrolled(_lines(one, view, own, room.width), own.top, room)


def _lines(one: Incident, view: View, own: IncidentView, width: int) -> list[Line]:
    """Return all lines of a look that scrolls."""
    if own.look == "timeline":
        return _timeline(own.detail, view, width)
    first = own.detail.first_evidence if own.detail is not None else {}
    known = facts(one.evidence, first)
    return listed(known, width) or [clip((Span(" it came with no numbers", "dim"),), width)]


def _overview(one: Incident, view: View, own: IncidentView, room: Size) -> list[Line]:
    """Return drawings, numbers, and the newest lines of the timeline, as the room allows."""
    known = ordered(one.detector, facts(one.evidence, {}))
    numbers = grid(known, room.width, 3 if room.height < 30 else 8)
    happened = [clip(_entry_head(entry, view), room.width) for entry in own.detail.timeline] if own.detail else []
    left = room.height - len(numbers)
    tail = min(len(happened), max(2, left // 4)) if left >= 9 else min(len(happened), max(0, left - 6))
    drawn = _drawings(one, view, own, Size(room.width, min(left - tail - 1, 20)))
    lines = [*drawn, *numbers]
    rest = room.height - len(lines)
    if rest >= 2 and happened:
        title = rule((Span("timeline", "dim"),), room.width, view.glyphs.horizontal)
        lines += [title, *happened[-(rest - 1) :]]
    return lines[: room.height]


def _drawings(one: Incident, view: View, own: IncidentView, room: Size) -> list[Line]:
    if room.height < 4:
        return []
    what = shown_pictures(one, view)
    tracks = gathered(own.detail.curves if own.detail is not None else (), own.past)
    marks = _marks(one, what, tracks, view)
    if own.detail is None and not tracks:
        return [clip((Span(" asking the daemon", "dim"),), room.width)]
    what = tuple(picture for picture in what if picture.series in tracks) or what[:1]
    number = max(1, min(len(what), room.width // _BESIDE))
    rows = 2 if room.height >= 16 and len(what) > number else 1
    first = Size(room.width, room.height // rows)
    lines = _beside(what[:number], tracks, marks, view, first)
    if rows == 2:
        lines += _beside(what[number : 2 * number], tracks, marks, view, first)
    return lines


def _beside(what: Sequence[Picture], tracks: Tracks, marks: Marks, view: View, room: Size) -> list[Line]:
    cell = room.width // len(what)
    blocks = [draw(picture, tracks, marks, view, Size(cell - 1, room.height)) for picture in what]
    return [clip([s for block in blocks for s in (*block[row], Span(" "))], room.width) for row in range(room.height)]


def shown_pictures(one: Incident, view: View) -> tuple[Picture, ...]:
    """Return what is drawn of it."""
    return pictures(one, view.status.host if view.status else "")


def _marks(one: Incident, what: Sequence[Picture], tracks: Tracks, view: View) -> Marks:
    known = [tracks[series] for picture in what for series in picture.all_series if series in tracks]
    start, end = span(known) or (began(one), one.resolved or one.opened)
    if one.resolved is None and view.status is not None:
        end = min(max(end, start + 1), view.status.time + 1)
    return Marks(start=start, end=end, began=began(one), told=one.opened, ended=one.ended)


def _timeline(detail: IncidentDetail | None, view: View, width: int) -> list[Line]:
    if detail is None:
        return []
    lines = [line for entry in detail.timeline for line in _entry(entry, view, width)]
    if detail.left_out:
        said = f" {detail.left_out} lines in between were given up"
        lines.append(clip((Span(said, "dim"),), width))
    return lines


def _entry_head(entry: Entry, view: View) -> Line:
    """Return a line of the timeline, however long."""
    by = f"{sanitise(entry.by)}: " if entry.by else ""
    when_and_what = Span(f" {when(entry.t, view)}  ", "dim"), Span(fit(entry.kind, 9), _STYLES.get(entry.kind, ""))
    return (*when_and_what, Span("  " + by + sanitise(entry.text)))


def _entry(entry: Entry, view: View, width: int) -> list[Line]:
    *lead, said = _entry_head(entry, view)
    used = line_width(lead) + 2
    lead.append(Span("  "))
    rows = wrapped((Span(said.text.strip()),), max(20, width - used - 1))
    lines = [clip((*lead, *rows[0]), width)]
    lines += [clip((Span(" " * used), *row), width) for row in rows[1:]]
    return lines
