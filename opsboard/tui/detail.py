"""One engine's own screen: who it is, and one of five looks at it."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.doubts import doubts
from opsboard.core.model import Record
from opsboard.core.wire import Engine, EngineDetail
from opsboard.tui import format as fmt
from opsboard.tui.anatomy import anatomy
from opsboard.tui.bars import bar
from opsboard.tui.charts import CHARTS, chart
from opsboard.tui.columns import kv_style, state_key
from opsboard.tui.focus import notice, title
from opsboard.tui.header import STATE_STYLES
from opsboard.tui.history import RECENT, Range
from opsboard.tui.incidents import open_ones, sentence, urgency
from opsboard.tui.latency import latencies, rows
from opsboard.tui.logview import LogWindow, log
from opsboard.tui.spans import Line, Span, clip, dimmed, fit, line_width, split_ends, width_of
from opsboard.tui.steps import course, story, timely
from opsboard.tui.timeline import event_line
from opsboard.tui.view import Size, View, reading_is_old

LOOKS = ("overview", "anatomy", "log", "events", "timeline")
_FROM_THE_TOP = ("anatomy", "timeline")


class EngineView(Record, frozen=True, kw_only=True):
    """The state of an engine's screen.

    ``detail`` is None until the daemon told it; ``top`` is the first shown line (None: events at their end, all else
    at its beginning).
    """

    name: str
    look: str = "overview"
    detail: EngineDetail | None = None
    span: Range = RECENT
    mode: str = "all"
    top: int | None = None
    log: Sequence[str] = ()
    window: LogWindow = LogWindow()
    problem: str | None = None


def engine_screen(view: View, own: EngineView, room: Size) -> list[Line]:
    """Return the lines between header and footer."""
    engine = _engine(view, own.name)
    if engine is None:
        return [
            clip(line, room.width)
            for line in ((), (Span(f" {fit(own.name, 40).strip()} is not on the board", "warn"),))
        ]
    head = _head(engine, view, own, room.width)
    lines = _look(engine, view, own, Size(room.width, room.height - len(head)))
    old = view.stale or engine.state == "unreachable" or _old(engine, view)
    return head + ([dimmed(line) for line in lines] if old and own.look == "overview" else lines)


def log_room(view: View, own: EngineView, room: Size) -> Size:
    """Return what of ``room`` is there for the lines of a log: less the head, a problem and the log's own heading."""
    used = 1 + bool(own.problem) + _head_height(view, own, room.width)
    return Size(room.width, max(1, room.height - used))


def _head_height(view: View, own: EngineView, width: int) -> int:
    engine = _engine(view, own.name)
    return len(_head(engine, view, own, width)) if engine else 0


def _engine(view: View, name: str) -> Engine | None:
    return next((e for e in view.status.engines if e.name == name), None) if view.status else None


def _head(engine: Engine, view: View, own: EngineView, width: int) -> list[Line]:
    """Return who it is, what it does, what is wrong with it, and the looks there are."""
    head = [_who(engine, view, width), _doing(engine, view, width), _tabs(own, view, width)]
    return head + _incident(engine, view, width) + notice(engine, view, width, 3) + _unjudged(engine, width)


def _unjudged(engine: Engine, width: int) -> list[Line]:
    """Return a line on what no detector can judge: with the reasons, where there is room for them."""
    whole = doubts(engine)
    if whole is None:
        return []
    names = ", ".join(one.name for one in engine.detectors if one.state == "unknown")
    said = whole if width_of(whole) + 2 <= width else f"cannot judge {names}; anatomy tells why"
    return [clip((Span(" " + fit(said, width - 2), "dim"),), width)]


def _incident(engine: Engine, view: View, width: int) -> list[Line]:
    """Return its most urgent open incident in one line, and how many there are."""
    ones = open_ones(view.status, f"engine/{engine.name}")
    if not ones:
        return []
    more = f"+{len(ones) - 1} more, i opens " if len(ones) > 1 else "i opens "
    left = [Span(" "), urgency(ones[0], view), Span(" ")]
    room = width - line_width(left) - width_of(more) - 1
    return [clip((*left, Span(fit(sentence(ones[0]), room)), Span(" " + more, "dim")), width)]


def _old(engine: Engine, view: View) -> bool:
    return reading_is_old(engine, view.status.daemon.interval_s if view.status else 1.0)


def _who(engine: Engine, view: View, width: int) -> Line:
    key = state_key(engine, view)
    shape = view.glyphs.states.get(key, "?")
    word = f"stale {fmt.age(engine.reading.age_s)}" if key == "stale" else fmt.state_word(key, short=False)
    return clip((Span(f" {shape} {word}  ", STATE_STYLES.get(key, "")), *title(engine, view)), width)


def _doing(engine: Engine, view: View, width: int) -> Line:
    """Return what it does in one line: the progress of a start, else its load."""
    if engine.state == "starting" and view.status is not None:
        filled, empty = bar(engine.progress, 24, view.glyphs, "info")
        since = view.status.time - engine.state_since if engine.state_since is not None else None
        words = f" {fmt.percent(engine.progress)}  {engine.phase or 'starting'}  for {fmt.age(since)}"
        return clip((Span(" "), filled, empty, Span(fit(words, width - 30))), width)
    filled, empty = bar(engine.kv_usage, 10, view.glyphs, kv_style(engine.kv_usage))
    up = view.status.time - engine.started if view.status and engine.started is not None else None
    spans = [
        Span(" running ", "dim"),
        Span(fit(fmt.whole(engine.running), 4)),
        Span(" waiting ", "dim"),
        Span(fit(fmt.whole(engine.waiting), 4), "warn" if engine.waiting else ""),
        Span(" kv ", "dim"),
        filled,
        empty,
        Span(fit(fmt.percent(engine.kv_usage), 5, ">")),
        Span("  tok/s ", "dim"),
        Span(fit(fmt.count(engine.generation_tokens_per_s), 5), "strong"),
        Span("  up ", "dim"),
        Span(fit(fmt.age(up), 5)),
        Span(" restarts ", "dim"),
        Span(fmt.whole(engine.restarts)),
    ]
    return clip(spans, width)


def _tabs(own: EngineView, view: View, width: int) -> Line:
    left: list[Span] = []
    for number, look in enumerate(LOOKS, start=1):
        here = look == own.look
        left += [Span(" "), Span(f" {number} {look} ", "select" if here else "dim")]
    right = [Span(f"{view.trails.filled(own.name, own.span).label} ", "dim")] if own.look == "overview" else []
    return split_ends(left, right, width)


def _look(engine: Engine, view: View, own: EngineView, room: Size) -> list[Line]:
    if own.look == "log":
        problem = [clip((Span(" " + fit(own.problem, room.width - 2), "warn"),), room.width)] if own.problem else []
        return problem + log(own.log, own.window, view, room.width, room.height - len(problem))
    if own.detail is None:
        return [clip((Span(" " + fit(own.problem or "asking the daemon", room.width - 2), "dim"),), room.width)]
    if own.look == "overview":
        return _overview(engine, own.detail, view, own, room)
    top = 0 if own.top is None and own.look in _FROM_THE_TOP else own.top
    return scrolled(_lines(own, own.detail, view, room.width), top, room)


def _lines(own: EngineView, detail: EngineDetail, view: View, width: int) -> list[Line]:
    """Return all lines of a look that scrolls."""
    if own.look == "anatomy":
        return anatomy(detail, view, width)
    if own.look == "timeline":
        return story(detail, view, width)
    lines = [event_line(event, view, width) for event in detail.events]
    return lines or [clip((Span(" no events of this engine yet", "dim"),), width)]


def scrolled(lines: Sequence[Line], top: int | None, room: Size) -> list[Line]:
    """Return the part of ``lines`` that fits, from ``top`` (None: to their end), with a last line if there is more."""
    if len(lines) <= room.height:
        return list(lines)
    end = last_top(len(lines), room.height)
    first = end if top is None else max(0, min(top, end))
    shown = list(lines[first : first + room.height - 1])
    last = first + room.height - 1
    note = f" lines {first + 1}-{last} of {len(lines)}; j and k scroll"
    return [*shown, clip((Span(fit(note, room.width), "dim"),), room.width)]


def last_top(total: int, height: int) -> int:
    """Return the first shown one of ``total`` lines where the last one is shown (:func:`scrolled`)."""
    return total - height + 1 if total > height else 0


def moved_top(view: View, own: EngineView, room: Size, by: int) -> int | None:
    """Return ``own.top`` after a scroll by ``by`` lines down (negative: up); events at their end stay there: None."""
    if own.detail is None or own.look not in (*_FROM_THE_TOP, "events"):
        return own.top
    events = own.look == "events"
    inner = room.height - _head_height(view, own, room.width)
    end = last_top(len(_lines(own, own.detail, view, room.width)), inner)
    at = (end if events else 0) if own.top is None else min(own.top, end)
    top = max(0, min(at + by, end))
    return None if events and top == end else top


def _overview(engine: Engine, detail: EngineDetail, view: View, own: EngineView, room: Size) -> list[Line]:
    """Return the steps of what is under way or just over, latencies, and charts where there is room for them."""
    steps = course(detail, view, room.width) if timely(detail.transaction, view) else []
    room = Size(room.width, room.height - len(steps))
    return steps + _numbers(engine, detail, view, own, room)


def _numbers(engine: Engine, detail: EngineDetail, view: View, own: EngineView, room: Size) -> list[Line]:
    names = rows(detail, max(2, min(8, room.height - 10)))
    lines = latencies(detail, own.mode, room.width, len(names))
    if room.width >= 180 and own.mode == "all":
        beside = latencies(detail, "1m", room.width - 80, len(names))
        lines = [clip((*clip(a, 79), Span(" "), *b), room.width) for a, b in zip(lines, beside, strict=True)]
    left = room.height - len(lines)
    columns = 3 if room.width >= 114 else 2
    high = max(2, left // (-(-len(CHARTS) // columns)))
    cell = room.width // columns
    for first in range(0, len(CHARTS), columns):
        if left < high or high < 3:
            break
        blocks = [chart(one, engine, view, own.span, Size(cell - 1, high)) for one in CHARTS[first : first + columns]]
        lines += [clip([s for block in blocks for s in (*block[row], Span(" "))], room.width) for row in range(high)]
        left -= high
    return lines
