"""Who gets how many lines of the board. Pure arithmetic; docs/terminal.md tells it to people."""

from __future__ import annotations

from opsboard.core.model import Record
from opsboard.tui.gpus import TABLE_WIDTH
from opsboard.tui.view import Size

SPACIOUS = 28
"""From so many lines on the open incidents have a heading."""
FOCUS = 4
"""Lines of the part about the engine under the cursor: a heading and three rows."""


class Rooms(Record, frozen=True, kw_only=True):
    """Lines of each part. ``gpu_table`` is set when the GPUs get a line each, ``gpu_summary`` when all share one."""

    table: int
    incidents: int = 0
    spacious: bool = False
    gpus: int = 0
    gpu_table: bool = False
    gpu_summary: bool = False
    focus: int = 0
    charts: int = 0
    events: int = 0


def share_out(size: Size, *, banners: int, engines: int, gpus: int, grid_rows: int, incidents: int = 0) -> Rooms:
    """Return the lines of each part below the header and above the footer.

    ``gpus`` is the number of GPUs (0: a message takes their line), ``grid_rows`` what their grid takes, ``incidents``
    the lines that those that are open would like. One of these is certain; then come the engines, one line each for
    events and GPUs, the other incidents, the GPU grid, the engine under the cursor, more events, the GPU table, charts;
    what is left goes to events.
    """
    left = size.height - 2 - banners
    told = min(1, incidents)
    table = max(2, min(1 + engines, left - 2 - told))
    left = max(0, left - told - table)
    events = min(1, left)
    left -= events
    gpu = min(1, left)
    left -= gpu
    others = min(incidents - told, left)
    told, left = told + others, left - others
    summary = gpu == 1 and grid_rows > 1
    if summary and left >= grid_rows - 1:
        left -= grid_rows - 1
        gpu, summary = grid_rows, False
    focus = FOCUS if engines and left >= FOCUS else 0
    left -= focus
    more = min(3, left)
    events, left = events + more, left - more
    detailed = bool(gpus) and size.width >= TABLE_WIDTH and not summary and left >= 1 + gpus - gpu
    if detailed:
        left -= 1 + gpus - gpu
        gpu = 1 + gpus
    charts = min(20, left - left // 3) if focus and left >= 8 and size.width >= 76 else 0
    events += left - charts
    return Rooms(
        table=table,
        incidents=told,
        spacious=size.height >= SPACIOUS,
        gpus=gpu,
        gpu_table=detailed,
        gpu_summary=summary,
        focus=focus,
        charts=charts,
        events=events,
    )
