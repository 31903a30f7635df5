"""The engine table: a heading and one line an engine, whatever state it is in."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.waiting import reason, waits_for
from opsboard.core.wire import Engine
from opsboard.tui import format as fmt
from opsboard.tui.bars import bar
from opsboard.tui.columns import BY_KEY, WIDE, Column, Placed, place, state_key
from opsboard.tui.header import STATE_STYLES
from opsboard.tui.spans import Line, Span, clip, dimmed, fit, width_of
from opsboard.tui.view import Order, View, reading_is_old

_EXITED = "exited by itself with code "
"""What supervision says of most ends: a narrow row has better use for its cells."""


def filtered(engines: Sequence[Engine], text: str) -> list[Engine]:
    """Return the engines with every word of ``text`` in name, model, kind or state, none that follows a ``!``."""
    words = text.lower().split()
    kept = []
    for engine in engines:
        known = " ".join((engine.name, engine.model or "", engine.kind or "", engine.state)).lower()
        if all(
            (word[1:] not in known) if word.startswith("!") and len(word) > 1 else (word in known) for word in words
        ):
            kept.append(engine)
    return kept


def ordered(engines: Sequence[Engine], order: Order) -> list[Engine]:
    """Return the engines in order; numbers begin with the highest, unknown ones come last either way."""
    column = BY_KEY.get(order.column or "")
    if column is None:
        return list(reversed(engines)) if order.reverse else list(engines)
    known = [engine for engine in engines if column.sort(engine) is not None]
    unknown = [engine for engine in engines if column.sort(engine) is None]
    descending = column.key not in ("state", "name", "model")
    known.sort(key=lambda e: (column.sort(e), e.name), reverse=descending != order.reverse)
    return known + unknown


def window(rows: Sequence[str], cursor: str | None, height: int) -> tuple[int, int]:
    """Return which rows are shown when ``height`` fit: the cursor stays in sight, pages do not creep."""
    if len(rows) <= height or height <= 0:
        return 0, min(len(rows), max(height, 0))
    at = rows.index(cursor) if cursor in rows else 0
    first = min(max(0, at - height // 2), len(rows) - height)
    return first, first + height


def table(view: View, width: int, height: int) -> list[Line]:
    """Return the heading and at most ``height - 1`` engines."""
    engines = {engine.name: engine for engine in view.status.engines} if view.status else {}
    rows = [name for name in view.rows if name in engines]
    first, last = window(rows, view.cursor, height - 1)
    names = max((width_of(name) for name in rows), default=0)
    models = max((width_of(engines[name].model or "") for name in rows), default=0)
    placed = place(width, names, models)
    lines = [_heading(view, placed, width, (first, last, len(rows)))]
    lines += [_row(engines[name], view, placed, width) for name in rows[first:last]]
    if not rows and engines:
        lines.append(
            clip((Span(f"   no engine matches {fit(view.filter, 30).strip()!r}; Esc clears the filter", "dim"),), width)
        )
    return [line if not view.stale or not i else dimmed(line) for i, line in enumerate(lines)]


def _heading(view: View, placed: Placed, width: int, shown: tuple[int, int, int]) -> Line:
    spans = [Span(" ", "head")]
    for column, cells in placed:
        title = _title(column, view, cells)
        lead = "" if column.key == "state" or column.align == ">" else " "
        spans.append(Span(fit(lead + title, cells, column.align), "head"))
    first, last, total = shown
    line = clip(spans, width)
    if last - first < total:
        where = f" {first + 1}-{last} of {total}"
        line = _note_after_name(line, where, placed)
    return tuple(Span(span.text, "head") for span in line)


def _note_after_name(line: Line, note: str, placed: Placed) -> Line:
    """Put ``note`` behind the title of the name column, as far as there is room."""
    spans = list(line)
    at = 1 + next(i for i, (column, _) in enumerate(placed) if column.key == "name")
    cells = width_of(spans[at].text)
    spans[at] = Span(fit((" ENGINE" if cells >= len(note) + 7 else "") + note, cells), "head")
    return tuple(spans)


def _title(column: Column, view: View, cells: int) -> str:
    if view.order.column != column.key:
        return column.title if len(column.title) < cells else column.title.partition("/")[0]
    descending = (column.key not in ("state", "name", "model")) != view.order.reverse
    arrow = view.glyphs.down if descending else view.glyphs.up
    title = column.title if len(column.title) <= cells - 2 else column.title.partition("/")[0]
    return title[: cells - 2] + arrow


def _row(engine: Engine, view: View, placed: Placed, width: int) -> Line:
    selected = engine.name == view.cursor
    spans: list[Span] = [Span(view.glyphs.cursor if selected else " ", "strong" if selected else "")]
    old = engine.state == "unreachable" or reading_is_old(engine, view.status.daemon.interval_s if view.status else 1.0)
    said = _instead_of_numbers(engine, view, wide=width >= WIDE)
    for column, cells in placed:
        if said and column.key not in ("state", "name"):
            break
        cell = column.cell(engine, view, cells)
        if column.key == "name" and selected:
            cell = (Span(" "), Span(cell[0].text[1:], "select"))
        elif old and column.key not in ("state", "name"):
            cell = dimmed(cell)
        spans += cell
    if said:
        used = sum(width_of(span.text) for span in spans)
        return clip((*spans, Span("  "), *_fitted(said, width - used - 2)), width)
    return clip(spans, width)


def _fitted(said: Sequence[Span], width: int) -> Line:
    """Cut a sentence so that its first part keeps its room."""
    spans: list[Span] = []
    for span in said:
        cells = min(width_of(span.text), width)
        spans.append(Span(fit(span.text, cells), span.style))
        width -= cells
    return tuple(spans)


def _instead_of_numbers(engine: Engine, view: View, *, wide: bool) -> list[Span]:
    """Return what matters more than numbers that are not there: the progress of a start, why an engine failed."""
    state = engine.state
    if state == "starting":
        return _progress(engine, view)
    style = STATE_STYLES.get(state_key(engine, view), "")
    if state in ("failed", "parked", "backing_off", "stopped"):
        text = reason(engine) or engine.reading.error or ""
        due = waits_for(engine, view.status.time) if view.status else None
        code = engine.exit_code
        told = (
            code is None or (code == 0 and state == "stopped") or f"code {code}" in text or (code < 0 and "SIG" in text)
        )
        text = text if wide else text.replace(_EXITED, "exit ", 1)
        spans = [
            Span("" if told else f"exit {code}  ", style),
            Span(f"{due}  " if due else "", style),
            Span(_ago(engine, view) if not due and (wide or not text) else "", "dim"),
            Span(text, "" if state != "stopped" else "dim"),
        ]
        return spans if any(span.text for span in spans) else []
    if state == "unreachable" and engine.running is None and engine.kv_usage is None:
        ago = _ago(engine, view) if wide else ""
        return [Span(ago, "dim"), Span(engine.message or engine.reading.error or "no answer yet")]
    return []


def _ago(engine: Engine, view: View) -> str:
    if view.status is None or engine.state_since is None:
        return ""
    return f"{fmt.age(view.status.time - engine.state_since)} ago  "


def _progress(engine: Engine, view: View) -> list[Span]:
    now = view.status.time if view.status else None
    since = engine.state_since
    elapsed = fmt.age(now - since if now is not None and since is not None else None)
    if engine.progress is None:
        return [Span(fit(engine.phase or "starting", 22) + " ", "info"), Span(elapsed)]
    filled, empty = bar(engine.progress, 16, view.glyphs, "info")
    number = f" {fit(fmt.percent(engine.progress), 4, '>')}  "
    return [Span(fit(engine.phase or "starting", 18) + " ", "info"), filled, empty, Span(number), Span(elapsed, "dim")]
