"""The engine under the cursor: what the table has no room for, and charts of its last minutes on large screens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from opsboard.core.text import sanitise_line
from opsboard.core.waiting import waiting
from opsboard.core.wire import Engine
from opsboard.tui import format as fmt
from opsboard.tui.charts import CHARTS, Chart, chart
from opsboard.tui.history import RECENT
from opsboard.tui.latency import on_board
from opsboard.tui.spans import Line, Span, clip, dimmed, fit, line_text, rule, width_of, wrapped
from opsboard.tui.view import Size, View, reading_is_old

PAIR = 20
"""Cells of one label and its value."""


def facts(engine: Engine) -> list[tuple[str, str]]:
    """Return what is known of an engine as labels and values, the most asked for first."""
    return [
        ("ttft p50", on_board(engine, "ttft_p50_s", 6)),
        ("itl p50", on_board(engine, "itl_p50_s", 6)),
        ("e2e p95", on_board(engine, "e2e_p95_s", 6)),
        ("queue p95", on_board(engine, "queue_p95_s", 6)),
        ("gpu mem", fmt.size(engine.gpu_memory_bytes)),
        ("host rss", fmt.size(engine.rss_bytes)),
        ("prompt/s", fmt.count(engine.prompt_tokens_per_s)),
        ("req/s", fmt.rate(engine.requests_per_s)),
        ("prefix hits", fmt.percent(engine.prefix_hit_ratio)),
        ("preempt/s", fmt.rate(engine.preemptions_per_s)),
        ("kv tokens", fmt.count(engine.kv_capacity_tokens)),
        ("restarts", fmt.whole(engine.restarts)),
    ]


def pairs(values: Sequence[tuple[str, str]], width: int, rows: int) -> list[Line]:
    """Return labels and values in columns of :data:`PAIR` cells."""
    columns = max(1, width // PAIR)
    lines = []
    for first in range(0, min(len(values), columns * rows), columns):
        spans: list[Span] = []
        for label, value in values[first : first + columns]:
            room = PAIR - 2 - len(label)
            spans += [
                Span(" " + label, "dim"),
                Span(fit(value, room, ">"), "dim" if value == fmt.UNKNOWN else ""),
                Span(" "),
            ]
        lines.append(clip(spans, width))
    return lines


def title(engine: Engine, view: View) -> list[Span]:
    """Return who an engine is: name, model, kind, version, pid."""
    bullet = f" {view.glyphs.bullet} "
    spans = [Span(fit(engine.name, min(width_of(engine.name), 40), middle=True), "strong")]
    if engine.model and engine.model != engine.name:
        spans += [Span(bullet, "dim"), Span(fit(engine.model, min(width_of(engine.model), 48), middle=True))]
    kind = " ".join(part for part in (engine.kind, engine.version) if part)
    if kind:
        spans += [Span(bullet, "dim"), Span(fit(kind, min(width_of(kind), 32)))]
    spans += [
        Span(bullet, "dim"),
        Span(
            f"pid {engine.pid}" if engine.pid is not None else "supervised" if engine.supervised else "observed", "dim"
        ),
    ]
    return spans


def trouble(engine: Engine, view: View) -> str | None:
    """Return in one sentence what is wrong with an engine or its reading, if anything is."""
    interval = view.status.daemon.interval_s if view.status else 1.0
    old = reading_is_old(engine, interval)
    if engine.reading.error and (old or engine.reading.outcome == "FAILED"):
        age = f"numbers are {fmt.age(engine.reading.age_s)} old: " if engine.reading.age_s is not None else ""
        return age + engine.reading.error
    if old:
        return f"numbers are {fmt.age(engine.reading.age_s)} old"
    if engine.restarted:
        return "just restarted: rates are withheld until there are two readings of this life"
    return waiting(engine, view.status.time if view.status else 0.0) or None


def notice(engine: Engine, view: View, width: int, most: int) -> list[Line]:
    """Return what is wrong with an engine, over at most ``most`` lines; of several the last says what to do."""
    said = trouble(engine, view)
    if not said:
        return []
    if not engine.hint:
        return warning(said, width, most)
    if most == 1 or width_of(f" {said}; {engine.hint}") < width:
        return warning(f"{said}; {engine.hint}", width, most)
    return [*warning(said, width, most - 1), *warning(engine.hint, width, 1)]


def warning(text: str, width: int, most: int) -> list[Line]:
    """Return a sentence that must be read, over at most ``most`` lines."""
    rows = wrapped((Span(" " + sanitise_line(text), "warn"),), width - 1, indent=" ")
    if len(rows) > most:
        used = sum(len(line_text(row)) - 1 for row in rows[: most - 1])
        rest = sanitise_line(text)[used:]
        rows = [*rows[: most - 1], (Span(" " + fit(rest, width - 2), "warn"),)]
    return [clip(row, width) for row in rows]


def focus(view: View, width: int, height: int) -> list[Line]:
    """Return a heading and ``height - 1`` lines about the engine under the cursor; nothing without one."""
    engine = view.selected
    if engine is None or height < 2:
        return []
    lines = [rule(title(engine, view), width, view.glyphs.horizontal)]
    rows = height - 1
    idle = engine.state in ("failed", "parked", "backing_off", "unreachable", "draining")
    lines += notice(engine, view, width, min(4, rows) if idle else 1)
    rows = height - len(lines)
    lines += pairs(facts(engine), width, rows)
    if view.stale:
        lines[1:] = [dimmed(line) for line in lines[1:]]
    return lines


def charts_beside(view: View, width: int, height: int) -> list[Line]:
    """Return charts of the selected engine: one row of them, or two where both are high enough to read."""
    engine = view.selected
    if engine is None:
        return []
    rows = 2 if height >= 10 and width < 38 * len(CHARTS) else 1
    number = min(math.ceil(len(CHARTS) / rows), max(1, width // 38))
    lines: list[Line] = []
    for row in range(rows):
        lines += _beside(CHARTS[row * number : row * number + number], engine, view, Size(width, height // rows))
    return lines


def _beside(what: Sequence[Chart], engine: Engine, view: View, size: Size) -> list[Line]:
    cell = size.width // max(1, len(what))
    blocks = [chart(one, engine, view, RECENT, Size(cell - 1, size.height)) for one in what]
    return [
        clip([span for block in blocks for span in (*block[row], Span(" "))], size.width) for row in range(size.height)
    ]
