"""Events as lines: when, who, what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opsboard.core.wire import EventInfo
from opsboard.tui import format as fmt
from opsboard.tui.spans import Line, Span, Style, clip, fit, rule, width_of
from opsboard.tui.view import View

KEPT = 500
"""Events that a board remembers."""

_STYLES: dict[str, Style] = {"warning": "warn", "error": "bad"}


def merged(known: Sequence[EventInfo], news: Iterable[EventInfo]) -> tuple[EventInfo, ...]:
    """Return what is known with ``news`` added, each once, by time, the newest :data:`KEPT` of them."""
    seen = set(known)
    fresh = [event for event in news if event not in seen]
    if not fresh:
        return tuple(known)
    return tuple(sorted((*known, *fresh), key=lambda event: event.t)[-KEPT:])


def event_line(event: EventInfo, view: View, width: int) -> Line:
    """Return one event as one line."""
    style = _STYLES.get(event.severity, "")
    subject = event.subject.removeprefix("engine/")
    room = 10 if width < 100 else 18
    lead = f"{view.glyphs.warn} " if style else "  "
    return clip(
        (
            Span(f" {when(event.t, view)} ", "dim"),
            Span(lead, style),
            Span(fit(subject, max(room, min(width_of(subject), width // 4)), middle=True) + " ", style or "strong"),
            Span(fit(event.text, len(event.text))),
        ),
        width,
    )


def when(t: float, view: View) -> str:
    """Return the time of day, with the weekday in the seconds' place when it was another day."""
    old = view.status is not None and view.status.time - t > 20 * 3600
    return fmt.clock(t, view.zone, "%a %H:%M" if old else " %H:%M:%S")


def newest(view: View, width: int, height: int) -> list[Line]:
    """Return the newest events, the newest last, under a heading when there is room for one."""
    if height <= 0:
        return []
    lines: list[Line] = []
    if height >= 3:
        lines.append(rule((Span("events", "dim"),), width, view.glyphs.horizontal))
        height -= 1
    shown = view.events[-height:]
    lines += [event_line(event, view, width) for event in shown]
    if not shown:
        lines.append(clip((Span(" no events yet", "dim"),), width))
    return lines
