"""The GPUs: a grid of short cells, a table where there is room, or one line that sums them up."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.holders import is_strange, strangers
from opsboard.core.model import GpuProcess
from opsboard.core.wire import Gpu, Status
from opsboard.tui import format as fmt
from opsboard.tui.bars import bar
from opsboard.tui.spans import Line, Span, Style, clip, fit
from opsboard.tui.view import View

CELL = 40
TABLE_WIDTH = 110
"""The table of GPUs needs this many cells."""


def grid_columns(width: int) -> int:
    """Return how many GPUs stand side by side."""
    return max(1, width // CELL)


def grid_rows(status: Status, width: int) -> int:
    """Return the lines that the grid takes; one when there is only a message to show."""
    if not status.gpus:
        return 1
    columns = grid_columns(width)
    return (len(status.gpus) + columns - 1) // columns + bool(strangers(status.gpus))


def no_gpus(status: Status, width: int) -> Line:
    """Return the one line of a machine without GPUs to see."""
    return clip(
        (Span(" no GPU  ", "strong"), Span(fit(status.gpu_message or "none was found", width - 10), "dim")), width
    )


def grid(view: View, gpus: Sequence[Gpu], width: int) -> list[Line]:
    """Return the GPUs as cells of :data:`CELL`, numbered down the columns' rows from left to right."""
    columns = grid_columns(width)
    cell = width // columns
    lines = []
    for first in range(0, len(gpus), columns):
        spans: list[Span] = []
        for gpu in gpus[first : first + columns]:
            spans += clip(_cell(gpu, view, cell), cell)
        lines.append(clip(spans, width))
    strange = strangers(gpus)
    if strange:
        more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        lines.append(clip((Span(f" {view.glyphs.warn} "), Span(fit(strange[0] + more, width - 4), "warn")), width))
    return lines


def _label(gpu: Gpu) -> str:
    return f"{gpu.index} {gpu.mig}" if gpu.mig else str(gpu.index)


def _memory_ratio(gpu: Gpu) -> float | None:
    if gpu.memory_used_bytes is None or not gpu.memory_total_bytes:
        return None
    return gpu.memory_used_bytes / gpu.memory_total_bytes


def _trouble(gpu: Gpu) -> str:
    """Return in one word what is wrong with a GPU, empty when nothing is."""
    if gpu.ecc_uncorrected:
        return f"ECC {fmt.count(gpu.ecc_uncorrected)}"
    if gpu.xid:
        return f"Xid {gpu.xid}"
    return "slowed" if gpu.throttle else ""


def _cell(gpu: Gpu, view: View, cells: int) -> list[Span]:
    label = fit(_label(gpu), 11) if gpu.mig else "GPU" + fit(str(gpu.index), 3, ">")
    if gpu.lost:
        return [
            Span(f" {label} ", "strong"),
            Span(f"{view.glyphs.states['failed']} LOST", "bad"),
            Span("  fell off the bus", "dim"),
        ]
    filled, empty = bar(_memory_ratio(gpu), 4 if gpu.mig else 6, view.glyphs, "ok")
    used = f"{fmt.size(gpu.memory_used_bytes).removesuffix('G')}/{_total(gpu)}"
    trouble = _trouble(gpu)
    spans = [
        Span(f" {label} ", "strong"),
        filled,
        empty,
        Span(fit(used, 9, ">"), "" if gpu.memory_used_bytes is not None else "dim"),
    ]
    spans += [_number(fmt.percent(gpu.utilization), 5)]
    if not gpu.mig:
        spans.append(_number(_watts(gpu), 5))
        spans.append(_number(_celsius(gpu), 4, _heat(gpu)))
    if trouble:
        spans.append(
            Span(
                f" {trouble if cells >= CELL + 4 else view.glyphs.warn}",
                "warn" if gpu.throttle and not gpu.xid else "bad",
            )
        )
    return spans


def _number(text: str, cells: int, style: Style = "") -> Span:
    return Span(fit(text, cells, ">"), "dim" if text == fmt.UNKNOWN else style)


def _total(gpu: Gpu) -> str:
    total = gpu.memory_total_bytes
    return fmt.UNKNOWN if total is None else f"{total / 2**30:.0f}G" if total >= 2**30 else fmt.size(total)


def _watts(gpu: Gpu) -> str:
    return fmt.UNKNOWN if gpu.power_w is None else f"{gpu.power_w:.0f}W"


def _celsius(gpu: Gpu) -> str:
    return fmt.UNKNOWN if gpu.temperature_c is None else f"{gpu.temperature_c:.0f}C"


def summary(view: View, status: Status, width: int) -> Line:
    """Return all GPUs in one line, for a terminal without room for more."""
    gpus = status.gpus
    if not gpus:
        return no_gpus(status, width)
    used = [g.memory_used_bytes for g in gpus if g.memory_used_bytes is not None]
    total = [g.memory_total_bytes for g in gpus if g.memory_total_bytes is not None]
    busy = [g.utilization for g in gpus if g.utilization is not None]
    power = [g.power_w for g in gpus if g.power_w is not None]
    heat = [g.temperature_c for g in gpus if g.temperature_c is not None]
    spans = [
        Span(f" {len(gpus)} GPU{'s' if len(gpus) > 1 else ''} ", "strong"),
        Span(f" mem {fmt.size(sum(used) if used else None)}/{fmt.size(sum(total) if total else None)}"),
        Span(f"  util {fmt.percent(sum(busy) / len(busy) if busy else None)}"),
        Span(f"  {fmt.count(sum(power)) + 'W' if power else fmt.UNKNOWN}"),
        Span(f"  max {max(heat):.0f}C" if heat else ""),
    ]
    lost = sum(gpu.lost for gpu in gpus)
    ill = sum(bool(_trouble(gpu)) for gpu in gpus if not gpu.lost)
    if lost:
        spans.append(Span(f"  {view.glyphs.states['failed']} {lost} LOST", "bad"))
    strange = len(strangers(gpus))
    if strange:
        spans.append(Span(f"  {view.glyphs.warn} {strange} not ours", "warn"))
    if ill:
        spans.append(Span(f"  {view.glyphs.warn} {ill} in trouble", "warn"))
    return clip(spans, width)


def gpu_table(view: View, gpus: Sequence[Gpu], width: int) -> list[Line]:
    """Return one line a GPU with all that is known of it; needs :data:`TABLE_WIDTH` cells."""
    bars = _bars(width)
    heading = f"{'GPU':>4} {'NAME':<17} {'MEMORY':<{bars[0] + 12}} {'UTIL':<{bars[1] + 5}} {'POWER':>9} {'TEMP':>5}"
    heading += f" {'CLOCK':>8}  {'HEALTH':<14} ENGINES"
    return [
        (Span(fit(heading, width), "head"),),
        *(clip(_table_row(gpu, view, width), width) for gpu in gpus),
    ]


def _bars(width: int) -> tuple[int, int]:
    """Return the cells of the bars of memory and utilisation."""
    return (16, 12) if width >= 150 else (6, 5)


def _table_row(gpu: Gpu, view: View, width: int) -> list[Span]:
    label = Span(fit(str(gpu.index), 4, ">"), "strong")
    said = (gpu.name or fmt.UNKNOWN).removeprefix("NVIDIA ")
    name = Span(" " + fit(f"{gpu.mig} {said}" if gpu.mig else said, 17))
    if gpu.lost:
        lost = f" {view.glyphs.states['failed']} LOST"
        return [label, name, Span(lost, "bad"), Span("  fell off the bus; a reset or a reboot brings it back", "dim")]
    cells = _bars(width)
    memory, no_memory = bar(_memory_ratio(gpu), cells[0], view.glyphs, "ok")
    busy, idle = bar(gpu.utilization, cells[1], view.glyphs, "info")
    return [
        label,
        name,
        Span(" "),
        memory,
        no_memory,
        _number(f"{fmt.size(gpu.memory_used_bytes)}/{_total(gpu)}", 12),
        Span(" "),
        busy,
        idle,
        _number(fmt.percent(gpu.utilization), 5),
        _number(_power(gpu), 10),
        _number(_celsius(gpu), 6, _heat(gpu)),
        _number(f"{gpu.sm_clock_mhz:.0f}MHz" if gpu.sm_clock_mhz is not None else fmt.UNKNOWN, 9),
        _health(gpu),
        _engines(gpu, view, width - 84 - sum(cells)),
    ]


def _power(gpu: Gpu) -> str:
    return _watts(gpu) if gpu.power_limit_w is None else f"{_watts(gpu).removesuffix('W')}/{gpu.power_limit_w:.0f}W"


def _heat(gpu: Gpu) -> Style:
    """Return how a temperature looks: from 85 C on, data-centre cards begin to slow down."""
    return "warn" if (gpu.temperature_c or 0) >= 85 else ""


def _health(gpu: Gpu) -> Span:
    slowed = bool(gpu.throttle) and not gpu.xid and not gpu.ecc_uncorrected
    text = ", ".join(gpu.throttle or ()) if slowed else _trouble(gpu)
    return Span("  " + fit(text or "ok", 14), "warn" if slowed else "bad" if text else "dim")


def _engines(gpu: Gpu, view: View, cells: int) -> Span:
    names = sorted({process.engine for process in gpu.processes if process.engine})
    strange = [_strange(process) for process in gpu.processes if is_strange(process)]
    said = "; ".join(part for part in (*strange, " ".join(names)) if part)
    return Span(" " + fit(said or view.glyphs.gap, max(0, cells), middle=not strange), _whose(names, strange))


def _strange(process: GpuProcess) -> str:
    """Name a process that is no engine's, in few cells; `opsboard status` says more."""
    whose = "not ours" if process.left is None else f"left of {process.left}"
    return f"{whose}: pid {process.pid} ({process.user or '?'})"


def _whose(names: Sequence[str], strange: Sequence[str]) -> Style:
    return "warn" if strange else "" if names else "dim"
