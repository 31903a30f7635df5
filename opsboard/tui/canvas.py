"""The one widget: holds the lines of a screen and repaints the cells that changed, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from opsboard.tui.diff import changed
from opsboard.tui.spans import EMPTY, Line, Style, line_width


class Canvas(Widget):
    """Textual's Line API at its lowest level: strips are made when a line changes and handed out as they are."""

    DEFAULT_CSS = "Canvas { width: 1fr; height: 1fr; }"

    def __init__(self, styles: Mapping[Style, RichStyle]) -> None:
        """``styles`` says how each style looks on this terminal."""
        super().__init__()
        self._looks = styles
        self._lines: list[Line] = []
        self._strips: list[Strip] = []

    @property
    def lines(self) -> Sequence[Line]:
        """What is shown."""
        return self._lines

    def show(self, lines: list[Line]) -> None:
        """Show ``lines`` from the top left; only what differs from before is painted."""
        regions = [
            Region(first, y, end - first, 1)
            for y, (old, new) in enumerate(zip_longest(self._lines, lines, fillvalue=EMPTY))
            for first, end in changed(old, new)
        ]
        if not regions:
            return
        kept = zip_longest(self._lines, self._strips)
        before = {y: (line, strip) for y, (line, strip) in enumerate(kept)}
        self._strips = [
            before[y][1] if y in before and before[y][0] is not None and before[y][0] == line else self._strip(line)
            for y, line in enumerate(lines)
        ]
        self._lines = lines
        self.refresh(*regions)

    def _strip(self, line: Line) -> Strip:
        return Strip([Segment(s.text, self._looks[s.style] or None) for s in line if s.text], line_width(line))

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the strips of ``crop``, blank where there are none."""
        blank = Strip.blank(crop.width)
        strips = self._strips[crop.y : crop.bottom]
        if crop.x or any(strip.cell_length != crop.width for strip in strips):
            strips = [strip.crop_extend(crop.x, crop.right, None) for strip in strips]
        return strips + [blank] * (crop.height - len(strips))
