"""Which cells of a line changed: the least that must be sent to the terminal."""

from __future__ import annotations

from opsboard.tui.spans import Line, line_width, width_of

JOIN = 4
"""Unchanged cells between two changes that are sent along: fewer than a cursor movement costs."""


def changed(old: Line, new: Line) -> list[tuple[int, int]]:
    """Return the stretches ``(first, end)`` of ``new`` that differ from ``old``, in cells, whole spans each.

    Lines whose spans do not lie alike differ from the first such span to the end.
    """
    if old == new:
        return []
    stretches: list[tuple[int, int]] = []
    x = 0
    for before, after in zip(old, new, strict=False):
        cells = width_of(after.text)
        if width_of(before.text) != cells:
            break
        if before != after and cells:
            if stretches and x - stretches[-1][1] < JOIN:
                stretches[-1] = (stretches[-1][0], x + cells)
            else:
                stretches.append((x, x + cells))
        x += cells
    else:
        if len(old) == len(new):
            return stretches
    end = max(line_width(old), line_width(new))
    if stretches and x - stretches[-1][1] < JOIN:
        x = stretches.pop()[0]
    return [*stretches, (x, end)] if end > x else stretches
