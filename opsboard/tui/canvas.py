"""The one widget: holds the lines of a screen and sends the cells that changed, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from opsboard.tui.diff import changed
from opsboard.tui.driver import write
from opsboard.tui.spans import Line, Span, Style, line_width, width_of


class Canvas(Widget):
    """Textual's Line API at its lowest level: strips are made when a line changes and handed out as they are."""

    DEFAULT_CSS = "Canvas { width: 1fr; height: 1fr; }"

    def __init__(self, looks: Mapping[Style, RichStyle]) -> None:
        """``looks`` says how each style looks on this terminal."""
        super().__init__()
        self._looks = looks
        self._lines: list[Line] = []
        self._strips: list[Strip] = []
        self._painted = False

    @property
    def lines(self) -> Sequence[Line]:
        """What is shown."""
        return self._lines

    def show(self, lines: list[Line]) -> None:
        """Show ``lines`` from the top left; what is on the terminal already is not sent again."""
        before, self._lines = self._lines, lines
        if len(before) != len(lines) or not self._painted:
            self._strips = [self._strip(line) for line in lines]
            self._painted = False
            self.refresh()
            return
        out: list[str] = []
        for y, (old, new) in enumerate(zip(before, lines, strict=True)):
            stretches = changed(old, new)
            if stretches:
                self._strips[y] = self._strip(new)
                out += self._sequences(new, y, stretches)
        if out:
            write(self.app, "".join(out))

    def forget(self) -> None:
        """Let the next :meth:`show` paint everything: something else may be on the terminal now."""
        self._painted = False

    def _sequences(self, line: Line, y: int, stretches: Sequence[tuple[int, int]]) -> Iterator[str]:
        """Yield cursor movements and texts that bring the stretches of a line up to date."""
        top, left = self.region.y + y + 1, self.region.x + 1
        for first, end in stretches:
            strip = Strip([self._segment(span) for span in _part(line, first, end)])
            yield f"\x1b[{top};{left + first}H{strip.render(self.app.console)}"

    def _strip(self, line: Line) -> Strip:
        return Strip([self._segment(span) for span in line if span.text], line_width(line))

    def _segment(self, span: Span) -> Segment:
        return Segment(span.text, self._looks[span.style] or None)

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the strips of ``crop``, blank where there are none: what the compositor paints when it paints all."""
        self._painted = True
        strips = self._strips[crop.y : crop.bottom]
        if crop.x or any(strip.cell_length != crop.width for strip in strips):
            strips = [strip.crop_extend(crop.x, crop.right, None) for strip in strips]
        return strips + [Strip.blank(crop.width)] * (crop.height - len(strips))


def _part(line: Line, first: int, end: int) -> Iterator[Span]:
    """Yield the spans of ``line`` between two cells that lie on the edges of spans."""
    x = 0
    for span in line:
        if first <= x < end and span.text:
            yield span
        x += width_of(span.text)
