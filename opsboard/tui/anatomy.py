"""What an engine is made of: how it started, its processes and GPUs, how it is run, how its requests ended."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.model import Phase, ProcessView
from opsboard.core.text import sanitise
from opsboard.core.wire import DetectorInfo, EngineDetail, Gpu
from opsboard.tui import format as fmt
from opsboard.tui.bars import bar
from opsboard.tui.focus import facts, pairs, trouble
from opsboard.tui.gpus import TABLE_WIDTH, gpu_table, grid
from opsboard.tui.spans import Line, Span, clip, fit, rule, wrapped
from opsboard.tui.view import View


def anatomy(detail: EngineDetail, view: View, width: int) -> list[Line]:
    """Return all of it, longer than a screen at times: the page scrolls."""
    lines: list[Line] = []
    for title, part in (
        ("last words", _words(detail, view, width)),
        ("start-up", _phases(detail.phases, view, width)),
        ("processes", _processes(detail.processes, width)),
        ("GPUs", _gpus(detail, view, width)),
        ("numbers", pairs(facts(detail.engine), width, 12)),
        ("finished requests", _finished(detail, width)),
        ("detectors", _detectors(detail.engine.detectors, width)),
        ("how it is run", _command(detail, width)),
    ):
        if part:
            lines += [rule((Span(title, "strong"),), width, view.glyphs.horizontal), *part]
    return lines


def _words(detail: EngineDetail, view: View, width: int) -> list[Line]:
    engine = detail.engine
    lines = []
    if engine.exit_code is not None:
        lines.append(clip((Span(" exit code ", "dim"), Span(_exit(engine.exit_code))), width))
    shown = trouble(engine, view)  # stands above already
    said = [text for text in (engine.message, engine.reading.error) if text and text not in (shown or "")]
    return lines + [clip((Span(" " + fit(text, width - 2), "warn"),), width) for text in said]


def _exit(code: int) -> str:
    return f"{code}" if code >= 0 else f"killed by signal {-code}"


def _phases(phases: Sequence[Phase], view: View, width: int) -> list[Line]:
    """Return one line a phase; its bar compares it with the whole start, or with last time while it runs."""
    total = sum(phase.seconds or 0 for phase in phases) or 1.0
    cells = max(8, min(40, width - 52))
    lines = []
    for phase in phases:
        filled, empty = bar((phase.seconds or 0) / total, cells, view.glyphs, "info")
        last = f"last time {fmt.duration(phase.last_seconds)}" if phase.last_seconds is not None else "first time"
        slow = (
            phase.last_seconds is not None
            and phase.seconds is not None
            and phase.seconds > 1.5 * phase.last_seconds + 1
        )
        lines.append(
            clip(
                (
                    Span(" " + fit(phase.name, 20) + " "),
                    filled,
                    empty,
                    Span(fit(fmt.duration(phase.seconds), 8, ">"), "warn" if slow else "" if phase.seconds else "dim"),
                    Span("  " + last, "dim"),
                ),
                width,
            )
        )
    return lines


def _processes(processes: Sequence[ProcessView], width: int) -> list[Line]:
    if not processes:
        return []
    heading = f" {'ROLE':<16}{'PID':>8}{'CPU':>7}{'RSS':>8}{'ANON':>8}{'SWAP':>8}  NAME"
    lines: list[Line] = [(Span(fit(heading, width), "head"),)]
    for process in processes:
        swapped = (process.swap_bytes or 0) > 0
        lines.append(
            clip(
                (
                    Span(" " + fit(process.role, 16)),
                    Span(fit(str(process.pid), 8, ">")),
                    _known(fmt.percent(process.cpu_ratio), 7),
                    _known(fmt.size(process.rss_bytes), 8),
                    _known(fmt.size(process.rss_anon_bytes), 8),
                    Span(
                        fit(fmt.size(process.swap_bytes), 8, ">"),
                        "warn" if swapped else "" if process.swap_bytes == 0 else "dim",
                    ),
                    Span("  " + fit(process.name, max(4, width - 59)), "dim"),
                ),
                width,
            )
        )
    return lines


def _known(text: str, width: int) -> Span:
    return Span(fit(text, width, ">"), "dim" if text == fmt.UNKNOWN else "")


def gpus_of(detail: EngineDetail, view: View) -> tuple[Gpu, ...]:
    """Return the GPUs on which a process of the engine holds memory."""
    gpus = view.status.gpus if view.status else ()
    return tuple(gpu for gpu in gpus if any(process.engine == detail.engine.name for process in gpu.processes))


def _gpus(detail: EngineDetail, view: View, width: int) -> list[Line]:
    mine = gpus_of(detail, view)
    if view.status is None or not mine:
        return []
    return (gpu_table if width >= TABLE_WIDTH else grid)(view, mine, width)


def _finished(detail: EngineDetail, width: int) -> list[Line]:
    return pairs([(reason, fmt.count(number)) for reason, number in sorted(detail.finished.items())], width, 3)


def _detectors(detectors: Sequence[DetectorInfo], width: int) -> list[Line]:
    """Return one line each: whether it judges, and why not."""
    return [
        clip(
            (
                Span(" " + fit(one.name, 20)),
                Span(" " + fit(one.state, 9), "warn" if one.state == "unknown" else "dim"),
                Span(fit(sanitise(one.reason or ""), max(4, width - 32)), "dim"),
            ),
            width,
        )
        for one in detectors
    ]


def _command(detail: EngineDetail, width: int) -> list[Line]:
    """Return the command over as many lines as it needs, then where it listens and logs."""
    lines: list[Line] = []
    text = " ".join(detail.command or ())
    room = max(10, width - 12)
    for first in range(0, min(len(text), 4 * room), room):
        lead = "command" if first == 0 else ""
        lines.append(clip((Span(" " + fit(lead, 9), "dim"), Span(fit(text[first : first + room], room))), width))
    for label, value in (("url", detail.engine.url), ("log", detail.log_path)):
        if value:
            lines.append(clip((Span(" " + fit(label, 9), "dim"), Span(fit(value, room, middle=True))), width))
    if detail.aliases:
        said = ", ".join(f"{name} = {series}" for name, series in sorted(detail.aliases.items()))
        heading = Span(" " + fit("read from", 9) + " ", "dim")
        lines += [
            clip(row, width) for row in wrapped((heading, Span(sanitise(said), "dim")), width - 1, indent=" " * 11)
        ]
    return lines
