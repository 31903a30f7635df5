"""Incidents as lines: how urgent, of what, one sentence, for how long, whether somebody has taken it on."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.text import sanitise
from opsboard.core.wire import Incident, Status
from opsboard.tui import format as fmt
from opsboard.tui.layout import SPACIOUS
from opsboard.tui.spans import Line, Span, Style, clip, fit, line_text, line_width, rule, width_of, wrapped
from opsboard.tui.view import Size, View

URGENCY_STYLES: dict[str, Style] = {"page": "bad", "ticket": "warn", "note": "info"}
_LOUDEST = ("page", "ticket", "note")
_WORDS = {"acknowledged": "acked", "resolved": "over"}
WIDE = 100
_INDENT = 10
_LOOKED_AT = 20


def open_ones(status: Status | None, subject: str | None = None) -> list[Incident]:
    """Return what is open (of ``subject``, or of all): the loudest first, of those what nobody has taken on, the older.

    A severity that this board does not know is as loud as any.
    """
    going = [one for one in (status.incidents if status else ()) if one.resolved is None]
    return sorted((one for one in going if subject in {None, one.subject}), key=_urgent)


def _urgent(one: Incident) -> tuple[int, bool, float]:
    known = one.severity in _LOUDEST
    return _LOUDEST.index(one.severity) if known else 0, one.acknowledged is not None, one.opened


def about(one: Incident) -> str:
    """Return what an incident is of, as people call it."""
    return sanitise(one.subject.removeprefix("engine/"))


def began(one: Incident) -> float:
    """Return when it began as far as is known, in Unix seconds."""
    return one.opened if one.since is None else one.since


def lasted(one: Incident, view: View) -> float:
    """Return for how many seconds it goes on, or went on."""
    now = view.status.time if view.status else began(one)
    return (one.ended or one.resolved or now) - began(one)


def _doubts(one: Incident) -> list[str]:
    suspected = not one.confirmed and one.resolved is None
    return ["suspected"] * suspected + ["flapping"] * one.flapping


def sentence(one: Incident) -> str:
    """Return what is wrong in one sentence, with whether it is certain and stays."""
    return "".join(f"{word}: " for word in _doubts(one)) + sanitise(one.summary)


def whole_sentence(one: Incident) -> str:
    """Return the sentence with what it is of."""
    name, said, doubts = about(one), sanitise(one.summary), _doubts(one)
    if name in said or one.subject == "host":
        return sentence(one)
    if doubts or not said.startswith("has "):
        return f"{', '.join((name, *doubts))}: {said}"
    return f"{name} {said}"


def urgency(one: Incident, view: View) -> Span:
    """Return shape and word of its severity."""
    shape = view.glyphs.urgency.get(one.severity, view.glyphs.warn)
    style: Style = "dim" if one.resolved is not None else URGENCY_STYLES.get(one.severity, "warn")
    return Span(fit(f"{shape} {one.severity}", 8), style)


def names_width(ones: Sequence[Incident], width: int) -> int:
    """Return the cells that the names of what they are of get."""
    longest = max((width_of(about(one)) for one in ones), default=0)
    return min(longest, 12 if width < WIDE else 28)


def row(
    one: Incident, view: View, width: int, names: int, *, most: int = 1, more: int = 0, selected: bool = False
) -> list[Line]:
    """Return one incident over one line, or two where ``most`` allows and its sentence needs them.

    ``names`` cells tell what it is of; ``more``: so many others are not shown.
    """
    left = [Span(view.glyphs.cursor if selected else " ", "strong"), urgency(one, view), Span(" ")]
    if width >= WIDE:
        left += [Span(fit(f"#{one.id}", 6), "dim")]
    left += [Span(fit(about(one), names, middle=True), "select" if selected else "strong"), Span("  ")]
    word = f"+{more} more" if more else fit("quiet" if one.silenced else _WORDS.get(one.state, one.state), 5)
    right = [
        Span(fit(fmt.age(lasted(one, view)), 6, ">") + "  ", "dim"),
        Span(word + " ", "strong" if one.state == "open" or more else "dim"),
    ]
    room = max(8, width - line_width(left) - line_width(right))
    style: Style = "dim" if one.resolved is not None else ""
    said = sentence(one)
    head = line_text(wrapped((Span(said),), room)[0]) if most > 1 else said
    lines = [clip((*left, Span(fit(head, room), style), *right), width)]
    if len(head) < len(said):
        rest = fit(said[len(head) :].strip(), width - _INDENT - 1)
        lines.append(clip((Span(" " * _INDENT), Span(rest, style)), width))
    return lines


def wanted_lines(view: View, size: Size) -> int:
    """Return the lines that the panel would like on a terminal of ``size``: none where nothing is open."""
    ones = open_ones(view.status)[:_LOOKED_AT]
    if not ones:
        return 0
    names = names_width(ones, size.width)
    needed = sum(len(row(one, view, size.width, names, most=2)) for one in ones)
    most = 4 if size.height < SPACIOUS else max(4, size.height // 5)
    return min(needed, most) + (size.height >= SPACIOUS)


def panel(view: View, width: int, height: int) -> list[tuple[int | None, Line]]:
    """Return at most ``height`` lines about what is open, each with the number of its incident.

    The loudest get their whole sentence first; those that have no line are counted.
    """
    ones = open_ones(view.status)
    if height <= 0 or not ones:
        return []
    names = names_width(ones, width)
    shown = ones[:height]
    spare = height - len(shown)
    lines: list[tuple[int | None, Line]] = []
    for one in shown:
        more = len(ones) - height if one is shown[-1] else 0
        rows = row(one, view, width, names, most=1 if more > 0 else 1 + min(spare, 1), more=max(0, more))
        spare -= len(rows) - 1
        lines += [(one.id, line) for line in rows]
    return lines


def heading(view: View, width: int) -> Line:
    """Return what stands above the panel where there is room."""
    number = len(open_ones(view.status))
    word = "incident" if number == 1 else "incidents"
    title = (Span(f"{number} open {word}", "strong"), Span("  i opens", "dim"))
    return rule(title, width, view.glyphs.horizontal)
