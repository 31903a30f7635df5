"""Charts of one engine's past: a heading with the newest value, the curve, its scale."""

from __future__ import annotations

from collections.abc import Callable

from opsboard.core.model import Record
from opsboard.core.wire import Engine
from opsboard.tui import format as fmt
from opsboard.tui.bars import area, nice_top, resample
from opsboard.tui.history import Range
from opsboard.tui.latency import on_board
from opsboard.tui.spans import Line, Span, clip, fit, line_width
from opsboard.tui.view import Size, View


class Chart(Record, frozen=True, kw_only=True):
    """What a chart shows: a field that has a trail (history.py), its unit's format, the smallest full scale."""

    field: str
    title: str
    text: Callable[[float | None], str]
    floor: float
    fixed: bool = False
    """True where the scale never grows (a ratio)."""


CHARTS = (
    Chart(field="kv_usage", title="KV cache", text=fmt.percent, floor=1.0, fixed=True),
    Chart(field="generation_tokens_per_s", title="tokens/s", text=fmt.count, floor=10.0),
    Chart(field="ttft_p95_s", title="TTFT p95", text=fmt.seconds, floor=0.1),
    Chart(field="itl_p95_s", title="ITL p95", text=fmt.seconds, floor=0.02),
    Chart(field="running", title="running", text=fmt.whole, floor=4.0),
    Chart(field="waiting", title="waiting", text=fmt.whole, floor=4.0),
)
_AXIS = 6


def chart(what: Chart, engine: Engine, view: View, span: Range, size: Size) -> list[Line]:
    """Return as many lines as ``size`` has: a heading, then the curve with its full scale at the top left.

    The heading says which part of ``span`` is shown: less than all of it where there is no longer past.
    """
    width, height = size
    columns = max(1, width - _AXIS)
    shown = view.trails.filled(engine.name, span)
    values = resample(view.trails.get(engine.name, what.field, span).values(shown.seconds), columns)
    top = what.floor if what.fixed else nice_top(values, what.floor)
    now = getattr(engine, what.field)
    said = on_board(engine, what.field, 5) if what.field in engine.latency_bounds else what.text(now)
    heading: list[Span] = [
        Span(" " + what.title, "dim"),
        Span(fit(said, 6, ">"), "strong" if now is not None else "dim"),
    ]
    room = width - line_width(heading) - 1
    heading.append(Span(fit("last " + shown.label, room, ">"), "dim") if room > 8 else Span(""))
    lines = [clip(heading, width)]
    rows = area(values, columns, height - 1, top, view.glyphs)
    for number, row in enumerate(rows):
        label = what.text(top) if number == 0 else what.text(0.0) if number == len(rows) - 1 and height > 2 else ""
        lines.append(clip((Span(fit(label, _AXIS - 1, ">") + " ", "dim"), Span(row, "area")), width))
    return lines
