"""The board: one view in, the lines of one screen out. Pure, so that every screen is a text that a test can hold."""

from __future__ import annotations

from collections.abc import Callable

from opsboard.core.wire import Status
from opsboard.tui.empty import centred, no_daemon, no_engines, too_small
from opsboard.tui.focus import charts_beside, focus
from opsboard.tui.footer import Hints, footer
from opsboard.tui.gpus import gpu_table, grid, grid_rows, no_gpus, summary
from opsboard.tui.header import banners, header
from opsboard.tui.incidents import heading, panel, wanted_lines
from opsboard.tui.layout import Rooms, share_out
from opsboard.tui.spans import Line, clip, dimmed, plain_ascii
from opsboard.tui.table import table
from opsboard.tui.timeline import newest
from opsboard.tui.view import FLOOR, Size, View

Body = Callable[[View, Size], list[Line]]
"""Draws what stands between header and footer into the given room."""


def board(view: View, size: Size, hints: Hints) -> list[Line]:
    """Return exactly ``size.height`` lines of exactly ``size.width`` cells."""
    return framed(view, size, hints, _body)


def framed(view: View, size: Size, hints: Hints, body: Body) -> list[Line]:
    """Return header, banners, what ``body`` draws, and footer, made to fit the terminal in cells and in characters."""
    width, height = size
    if width < FLOOR.width or height < FLOOR.height:
        lines = too_small(size)
        return [*lines, *([clip((), width)] * (height - len(lines)))]
    top = [header(view, width), *banners(view, width)]
    room = Size(width, height - len(top) - 1)
    lines = [clip(line, width) for line in body(view, room)][: room.height]
    lines += [clip((), width)] * (room.height - len(lines))
    lines = [*top, *lines, footer(width, hints, message=view.message, prompt=view.prompt)]
    return [plain_ascii(line) for line in lines] if view.glyphs.ascii else lines


def _body(view: View, room: Size) -> list[Line]:
    status = view.status
    if status is None:
        return centred(no_daemon(view), room)
    if not status.engines:
        return _without_engines(view, status, room)
    rooms = _rooms(view, status, room)
    lines = [line for _, line in _incidents(view, room.width, rooms)] + table(view, room.width, rooms.table)
    lines += _gpus(view, status, rooms, room.width)
    lines += focus(view, room.width, rooms.focus)
    if rooms.charts:
        lines += charts_beside(view, room.width, rooms.charts)
    return lines + newest(view, room.width, room.height - len(lines))


def _rooms(view: View, status: Status, room: Size) -> Rooms:
    whole = Size(room.width, room.height + 2)
    return share_out(
        whole,
        banners=0,
        engines=max(1, len(view.rows)),
        gpus=len(status.gpus),
        grid_rows=grid_rows(status, room.width),
        incidents=wanted_lines(view, whole),
    )


def _incidents(view: View, width: int, rooms: Rooms) -> list[tuple[int | None, Line]]:
    if rooms.incidents < 3 or not rooms.spacious:
        return panel(view, width, rooms.incidents)
    return [(None, heading(view, width)), *panel(view, width, rooms.incidents - 1)]


def incident_at(view: View, size: Size, y: int) -> int | None:
    """Return the number of the open incident that line ``y`` of the board tells of."""
    status = view.status
    top = 1 + len(banners(view, size.width))
    if status is None or not status.engines or not top <= y:
        return None
    room = Size(size.width, size.height - top - 1)
    told = _incidents(view, size.width, _rooms(view, status, room))
    return told[y - top][0] if y - top < len(told) else None


def _gpus(view: View, status: Status, rooms: Rooms, width: int) -> list[Line]:
    if not rooms.gpus:
        return []
    if not status.gpus:
        lines = [no_gpus(status, width)]
    elif rooms.gpu_table:
        lines = gpu_table(view, status.gpus, width)
    elif rooms.gpu_summary:
        lines = [summary(view, status, width)]
    else:
        lines = grid(view, status.gpus, width)
    return [dimmed(line) for line in lines] if view.stale else lines


def _without_engines(view: View, status: Status, room: Size) -> list[Line]:
    events = 4 if room.height >= 18 else 1
    gpus = grid(view, status.gpus, room.width) if status.gpus else [no_gpus(status, room.width)]
    if len(gpus) > room.height - 14:
        gpus = [summary(view, status, room.width)]
    lines = centred(no_engines(status), Size(room.width, room.height - events - len(gpus)))
    lines += [clip((), room.width)] * (room.height - events - len(gpus) - len(lines))
    return lines + gpus + newest(view, room.width, events)
