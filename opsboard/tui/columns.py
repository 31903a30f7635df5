"""The columns of the engine table: what each shows, how it sorts, and which of them a width has room for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from opsboard.core.wire import Engine
from opsboard.tui import format as fmt
from opsboard.tui.bars import bar, spark
from opsboard.tui.header import STATE_STYLES
from opsboard.tui.latency import on_board
from opsboard.tui.spans import Span, Style, fit, width_of
from opsboard.tui.view import View, reading_is_old

Cell = Callable[[Engine, View, int], tuple[Span, ...]]
WIDE = 100
"""From this width on, states are spelled out and bars get longer."""


class Column(msgspec.Struct, frozen=True):
    """One column.

    ``width`` (and ``wide`` from :data:`WIDE` cells on) includes the blank before it; a low ``rank`` gets room early.
    """

    key: str
    title: str
    rank: int
    width: int
    cell: Cell
    sort: Callable[[Engine], float | str | None]
    wide: int = 0
    align: Literal["<", ">"] = ">"
    most: int = 0
    """Up to where the column grows when cells are left over."""


def _text(value: Callable[[Engine], str], style: Callable[[Engine], Style] = lambda _: "") -> Cell:
    def cell(engine: Engine, _view: View, width: int) -> tuple[Span, ...]:
        text = value(engine)
        return (Span(fit(text, width, ">"), "dim" if text == fmt.UNKNOWN else style(engine)),)

    return cell


def _latency(field: str) -> Cell:
    return _text(lambda engine: on_board(engine, field, 5))


def _left(value: Callable[[Engine], str | None], *, publisher: bool = False) -> Cell:
    def cell(engine: Engine, _view: View, width: int) -> tuple[Span, ...]:
        text = value(engine)
        if publisher and text and width_of(text) > width - 1:
            text = text.rpartition("/")[2]  # the publisher of a model says least
        return (Span(" " + fit(text or fmt.UNKNOWN, width - 1, middle=True), "" if text else "dim"),)

    return cell


def state_key(engine: Engine, view: View) -> str:
    """Return the state as shown: a ready engine whose numbers are old is ``stale``."""
    interval = view.status.daemon.interval_s if view.status else 1.0
    return "stale" if engine.state == "ready" and reading_is_old(engine, interval) else engine.state


def _state(engine: Engine, view: View, width: int) -> tuple[Span, ...]:
    key = state_key(engine, view)
    word = f"stale {fmt.age(engine.reading.age_s)}" if key == "stale" else fmt.state_word(key, short=width < 12)
    if engine.restarted and key == "ready":
        word += " " + view.glyphs.again
    shape = view.glyphs.states.get(key, "?")
    return (Span(fit(f"{shape} {word}", width), STATE_STYLES.get(key, "")),)


def _kv(engine: Engine, view: View, width: int) -> tuple[Span, ...]:
    style: Style = kv_style(engine.kv_usage)
    filled, empty = bar(engine.kv_usage, width - 6, view.glyphs, style)
    known = engine.kv_usage is not None
    number = Span(fit(fmt.percent(engine.kv_usage), 5, ">"), (style if style != "ok" else "") if known else "dim")
    return Span(" "), filled, empty, number


def kv_style(ratio: float | None) -> Style:
    """Return how full a cache looks: above 90 % requests begin to wait, above 97 % they are pushed out."""
    if ratio is None:
        return "dim"
    return "bad" if ratio >= 0.97 else "warn" if ratio >= 0.9 else "ok"


def _kv_spark(engine: Engine, view: View, width: int) -> tuple[Span, ...]:
    cells = width - 1
    values = view.trails.get(engine.name, "kv_usage").grouped(cells, max(1, 60 // cells))
    return (Span(" " + spark(values, cells, 1.0, view.glyphs), "info"),)


def _tokens(engine: Engine) -> str:
    idle = engine.generation_tokens_per_s == 0 and engine.running == 0 and engine.waiting == 0
    return "idle" if idle else fmt.count(engine.generation_tokens_per_s)


def _tokens_style(engine: Engine) -> Style:
    if engine.generation_tokens_per_s == 0:
        return "warn" if engine.running else "dim"
    return "strong"


def _since(engine: Engine, view: View, width: int) -> tuple[Span, ...]:
    """Show the uptime of what serves, for all else how long it has been like that."""
    serving = engine.state in ("ready", "draining") and engine.started is not None
    start = engine.started if serving else engine.state_since
    if view.status is None or start is None:
        return (Span(fit(fmt.UNKNOWN, width, ">"), "dim"),)
    return (Span(fit(fmt.age(view.status.time - start), width, ">")),)


def _above_zero(field: str, style: Style) -> Callable[[Engine], Style]:
    return lambda engine: style if (getattr(engine, field) or 0) > 0 else ""


def _memory(engine: Engine) -> str:
    return fmt.size(engine.gpu_memory_bytes)


STATE_ORDER = (
    "failed",
    "parked",
    "unreachable",
    "backing_off",
    "stopping",
    "draining",
    "starting",
    "ready",
    "asleep",
    "stopped",
)


def _trouble(engine: Engine) -> float:
    return STATE_ORDER.index(engine.state) if engine.state in STATE_ORDER else len(STATE_ORDER)


COLUMNS: tuple[Column, ...] = (
    Column("state", "STATE", 0, 11, _state, _trouble, wide=14, align="<"),
    Column("name", "ENGINE", 0, 11, _left(lambda e: e.name), lambda e: e.name, most=36, align="<"),
    Column("model", "MODEL", 11, 16, _left(lambda e: e.model, publisher=True), lambda e: e.model, most=44, align="<"),
    Column("running", "RUN", 1, 5, _text(lambda e: fmt.whole(e.running)), lambda e: e.running),
    Column(
        "waiting",
        "WAIT",
        1,
        5,
        _text(lambda e: fmt.whole(e.waiting), _above_zero("waiting", "warn")),
        lambda e: e.waiting,
    ),
    Column("kv", "KV CACHE", 2, 12, _kv, lambda e: e.kv_usage, wide=16, align="<"),
    Column("trend", "5 MIN", 9, 6, _kv_spark, lambda e: e.kv_usage, wide=13, align="<"),
    Column("tokens", "TOK/S", 3, 6, _text(_tokens, _tokens_style), lambda e: e.generation_tokens_per_s),
    Column("ttft", "TTFT", 4, 6, _latency("ttft_p95_s"), lambda e: e.ttft_p95_s),
    Column("itl", "ITL", 5, 6, _latency("itl_p95_s"), lambda e: e.itl_p95_s),
    Column("e2e", "E2E", 12, 6, _latency("e2e_p95_s"), lambda e: e.e2e_p95_s),
    Column("queue", "QUEUE", 13, 6, _latency("queue_p95_s"), lambda e: e.queue_p95_s),
    Column(
        "errors",
        "ERR/S",
        6,
        5,
        _text(lambda e: fmt.rate(e.errors_per_s), _above_zero("errors_per_s", "bad")),
        lambda e: e.errors_per_s,
    ),
    Column("requests", "REQ/S", 15, 6, _text(lambda e: fmt.rate(e.requests_per_s)), lambda e: e.requests_per_s),
    Column(
        "prompt", "PROMPT/S", 14, 9, _text(lambda e: fmt.count(e.prompt_tokens_per_s)), lambda e: e.prompt_tokens_per_s
    ),
    Column("prefix", "PREFIX", 16, 7, _text(lambda e: fmt.percent(e.prefix_hit_ratio)), lambda e: e.prefix_hit_ratio),
    Column(
        "preempt",
        "PREEMPT",
        18,
        8,
        _text(lambda e: fmt.rate(e.preemptions_per_s), _above_zero("preemptions_per_s", "warn")),
        lambda e: e.preemptions_per_s,
    ),
    Column("gpumem", "GPU MEM", 10, 8, _text(_memory), lambda e: e.gpu_memory_bytes),
    Column("rss", "RSS", 17, 6, _text(lambda e: fmt.size(e.rss_bytes)), lambda e: e.rss_bytes),
    Column("restarts", "RESTARTS", 19, 9, _text(lambda e: fmt.whole(e.restarts)), lambda e: e.restarts),
    Column("uptime", "UP", 7, 6, _since, lambda e: -(e.started or e.state_since or 0.0)),
)
BY_KEY = {column.key: column for column in COLUMNS}

_NAMES = ((0, 16, 16), (WIDE, 22, 16), (160, 44, 34))
"""From a width on: cells that a name and a model get before the less needed columns get any."""

Placed = tuple[tuple[Column, int], ...]


def place(width: int, longest_name: int, longest_model: int) -> Placed:
    """Return the columns that ``width`` cells have room for, in table order with their widths.

    Cells left over go to names. Columns join in the order of their rank; docs/terminal.md lists it.
    """
    left = width - 1
    _, name, model = next(limits for limits in reversed(_NAMES) if width >= limits[0])
    base = {
        "name": max(BY_KEY["name"].width, min(longest_name + 1, name)),
        "model": max(BY_KEY["model"].width, min(longest_model + 1, model)),
    }
    chosen: dict[str, int] = {}
    for column in sorted(COLUMNS, key=lambda c: c.rank):
        need = base.get(column.key, column.wide if column.wide and width >= WIDE else column.width)
        if need > left and column.rank:
            break
        chosen[column.key] = need
        left -= need
    for key, longest in (("name", longest_name), ("model", longest_model)):
        if key in chosen:
            extra = max(0, min(left, min(BY_KEY[key].most, longest + 1) - chosen[key]))
            chosen[key] += extra
            left -= extra
    return tuple((column, chosen[column.key]) for column in COLUMNS if column.key in chosen)
