"""Pages that are only read: the timeline, and the help."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from opsboard.tui.detail import last_top, scrolled
from opsboard.tui.keys import Key, help_lines
from opsboard.tui.legend import legend
from opsboard.tui.present import framed
from opsboard.tui.screens.page import COMMON, Page
from opsboard.tui.session import with_changes
from opsboard.tui.spans import Line, Span, clip, rule
from opsboard.tui.timeline import event_line
from opsboard.tui.view import Size, View

_KEYS = (
    Key(keys=("escape", "q"), action="back", text="back", group="Move", hint="back"),
    Key(keys=("j", "down"), action="scroll(1)", text="down", group="Move"),
    Key(keys=("k", "up"), action="scroll(-1)", text="up", group="Move"),
    Key(keys=("pagedown", "ctrl+d"), action="page(1)", text="a page down", group="Move"),
    Key(keys=("pageup", "ctrl+u"), action="page(-1)", text="a page up", group="Move"),
    Key(keys=("g", "home"), action="scroll(-99999)", text="top", group="Move"),
    Key(keys=("G", "end"), action="scroll(99999)", text="end", group="Move"),
    *COMMON,
)


class ReadingPage(Page):
    """A page that scrolls."""

    KEYS = _KEYS
    TITLE_OF_HELP = "a page to read"

    def __init__(self) -> None:
        """Begin at the top."""
        super().__init__()
        self._top: int | None = 0
        self._end = 0

    @abstractmethod
    def content(self, view: View, width: int) -> tuple[str, Sequence[Line]]:
        """Return the title and all lines."""

    def draw(self, size: Size) -> list[Line]:
        """Return the visible part."""
        view = with_changes(self.session.view(), prompt=self.prompt)
        return framed(view, size, self.footer_keys(), self._body)

    def _body(self, view: View, room: Size) -> list[Line]:
        title, lines = self.content(view, room.width)
        inner = Size(room.width, room.height - 1)
        self._end = last_top(len(lines), inner.height)
        heading = rule((Span(title, "strong"),), room.width, view.glyphs.horizontal)
        return [heading, *scrolled(lines, self._top, inner)]

    def wheel(self, by: int) -> None:
        """Scroll."""
        self.action_scroll(by)

    def action_scroll(self, by: int) -> None:
        """Scroll; at the end it stays at the end, whatever is added."""
        top = max(0, min((self._end if self._top is None else self._top) + by, self._end))
        self._top = None if top == self._end else top
        self.redraw()

    def action_page(self, by: int) -> None:
        """Scroll by what is seen at once, less a line."""
        self.action_scroll(by * max(1, self.size.height - 5))

    def action_back(self) -> None:
        """Return to where we came from."""
        self.app.pop_screen()


class EventsPage(ReadingPage):
    """The timeline of the host and all engines, the newest last, as everywhere."""

    KEYS = _KEYS
    TITLE_OF_HELP = "the timeline"

    def __init__(self) -> None:
        """Begin at the end, and follow what comes."""
        super().__init__()
        self._top = None

    def content(self, view: View, width: int) -> tuple[str, Sequence[Line]]:
        """Return all events that this client has heard of."""
        lines = [event_line(event, view, width) for event in view.events]
        return "events, newest last", lines or [clip((Span(" no events yet", "dim"),), width)]


class HelpPage(ReadingPage):
    """The keys of the page that it was called from."""

    KEYS = _KEYS
    TITLE_OF_HELP = "help"

    def __init__(self, keys: Sequence[Key], about: str) -> None:
        """``keys`` are those of the page in question."""
        super().__init__()
        self._keys = keys
        self._about = about

    def content(self, view: View, width: int) -> tuple[str, Sequence[Line]]:
        """Return the keys by group, then what the shapes mean."""
        lines = help_lines(self._keys, view.glyphs, width, readonly=view.readonly)
        lines += legend(view, width)
        return f"keys of {self._about}", lines

    def action_help(self) -> None:
        """Close it again."""
        self.action_back()
