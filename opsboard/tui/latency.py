"""The latencies of one engine: quantiles over three windows, or one window with the buckets they were read from."""

from __future__ import annotations

from opsboard.core.wire import Engine, EngineDetail, Latency, Quantile
from opsboard.tui import format as fmt
from opsboard.tui.spans import Line, Span, clip, fit

WINDOWS = ("10s", "1m", "5m")
_ORDER = ("ttft", "itl", "tpot", "e2e", "queue", "prefill", "decode", "inference")
_QUANTILES = ("p50", "p95", "p99")
_CELL = 7


def modes() -> tuple[str, ...]:
    """Return the ways to look: all windows side by side, then each with its buckets."""
    return ("all", *WINDOWS)


def rows(detail: EngineDetail, limit: int) -> list[str]:
    """Return the names of the latencies in order of interest, at most ``limit``."""
    known = [name for name in _ORDER if name in detail.latencies]
    return (known + sorted(set(detail.latencies) - set(_ORDER)))[:limit]


def latencies(detail: EngineDetail, mode: str, width: int, limit: int) -> list[Line]:
    """Return a table of at most ``limit`` latencies and its two heading lines."""
    names = rows(detail, limit)
    if not names:
        return [clip((Span(" no latencies known yet", "dim"),), width)]
    if mode == "all":
        return _all_windows(detail, names, width)
    return _one_window(detail, names, mode, width)


def _all_windows(detail: EngineDetail, names: list[str], width: int) -> list[Line]:
    group = len(_QUANTILES) * _CELL + 2
    first = [Span(fit(" last", 10), "dim")] + [Span(fit(f"    {window}", group), "dim") for window in WINDOWS]
    second = [Span(fit(" LATENCY", 10), "head")]
    for _ in WINDOWS:
        second += [Span("".join(fit(q, _CELL, ">") for q in _QUANTILES) + "  ", "head")]
    lines = [clip(first, width), clip(second, width)]
    for name in names:
        spans = [Span(" " + fit(name, 9))]
        for window in WINDOWS:
            latency = detail.latencies[name].get(window)
            spans += [_cell(_quantile(latency, q), _CELL) for q in _QUANTILES]
            spans.append(Span("  "))
        lines.append(clip(spans, width))
    return lines


def _one_window(detail: EngineDetail, names: list[str], window: str, width: int) -> list[Line]:
    cell = max(19, min(30, (width - 22) // 3))
    first = fit(f" last {window}: each quantile lies in the bucket beside it", width)
    heading = fit(" LATENCY", 10) + fit("count", 6, ">") + fit("mean", 6, ">")
    heading += "".join("  " + fit(f"{q:>5} bucket", cell - 2) for q in _QUANTILES)
    lines: list[Line] = [(Span(first, "dim"),), (Span(fit(heading, width), "head"),)]
    for name in names:
        latency = detail.latencies[name].get(window)
        spans = [
            Span(" " + fit(name, 9)),
            _plain(fmt.count(latency.count if latency else None), 6),
            _plain(fmt.seconds(latency.mean if latency else None), 6),
        ]
        for q in _QUANTILES:
            found = _quantile(latency, q)
            spans += [_cell(found, 7), Span(" " + fit(bucket(found), cell - 8), "dim")]
        lines.append(clip(spans, width))
    return lines


def on_board(engine: Engine, field: str, cells: int) -> str:
    """Return a latency of the board's line in at most ``cells`` cells (five or more)."""
    value = getattr(engine, field)
    bounds = engine.latency_bounds.get(field)
    return fmt.seconds(value) if bounds is None else fmt.within(value, *bounds, cells)


def bucket(quantile: Quantile | None) -> str:
    """Return the bounds between which a quantile truly lies."""
    if quantile is None:
        return ""
    if quantile.upper is None:
        return "no bound"
    return f"{fmt.seconds(quantile.lower)}-{fmt.seconds(quantile.upper)}"


def _quantile(latency: Latency | None, name: str) -> Quantile | None:
    return getattr(latency, name) if latency is not None else None


def _cell(quantile: Quantile | None, width: int) -> Span:
    if quantile is None:
        return _plain(fmt.UNKNOWN, width)
    return _plain(fmt.within(quantile.value, quantile.lower, quantile.upper, width - 1), width)


def _plain(text: str, width: int) -> Span:
    return Span(fit(text, width, ">"), "dim" if text == fmt.UNKNOWN else "")
