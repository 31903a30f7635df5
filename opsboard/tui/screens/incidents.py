"""The page that lists incidents: what is open first, then what is over, the newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import events

from opsboard.core.errors import ControlError
from opsboard.core.text import sanitise
from opsboard.tui.incidents import names_width, open_ones, row
from opsboard.tui.keys import Key
from opsboard.tui.present import framed
from opsboard.tui.screens.page import COMMON, Page
from opsboard.tui.session import with_changes
from opsboard.tui.spans import Line, Span, clip, fit, rule
from opsboard.tui.table import window
from opsboard.tui.view import Size, View

if TYPE_CHECKING:
    from opsboard.core.wire import Incident

LISTED = 200
"""Of the past so many are asked for; `opsboard incident list --all -n` has them all."""


class IncidentsPage(Page):
    """All incidents, of one engine or of all."""

    TITLE_OF_HELP = "the list of incidents"
    KEYS = (
        Key(keys=("escape", "q"), action="back", text="back", group="Move", hint="back"),
        Key(keys=("enter",), action="open", text="open it", group="Move", hint="open"),
        Key(keys=("j", "down"), action="move(1)", text="down", group="Move"),
        Key(keys=("k", "up"), action="move(-1)", text="up", group="Move"),
        Key(keys=("pagedown", "ctrl+d"), action="move(10)", text="ten down", group="Move"),
        Key(keys=("pageup", "ctrl+u"), action="move(-10)", text="ten up", group="Move"),
        Key(keys=("g", "home"), action="move(-9999)", text="first", group="Move"),
        Key(keys=("G", "end"), action="move(9999)", text="last", group="Move"),
        *COMMON,
    )

    def __init__(self, engine: str | None = None) -> None:
        """``engine``: only those of this one."""
        super().__init__()
        self._engine = engine
        self._past: list[Incident] | None = None
        self._problem: str | None = None
        self._cursor: int | None = None
        self._shown: list[int] = []
        self._top = 0

    def on_mount(self) -> None:
        """Ask for what is over."""
        self.run_worker(self._fetch(), exit_on_error=True)
        super().on_mount()

    def on_screen_resume(self) -> None:
        """Ask again: one may have been closed meanwhile."""
        if self._past is not None:
            self.run_worker(self._fetch(), exit_on_error=True)
        super().on_screen_resume()

    async def _fetch(self) -> None:
        subject = None if self._engine is None else f"engine/{self._engine}"
        try:
            self._past = await self.board.feed.incidents(subject, LISTED)
            self._problem = None
        except ControlError as error:
            self._problem = error.message
        self.redraw()

    def listed(self) -> list[Incident]:
        """Return them in their order: open ones as urgent as they are, then the newest."""
        subject = None if self._engine is None else f"engine/{self._engine}"
        going = open_ones(self.session.status, subject)
        known = {one.id for one in going}
        status = self.session.status
        closed = {one.id: one for one in self._past or () if one.resolved is not None}
        fresh = [one for one in (status.incidents if status else ()) if one.resolved is not None]
        closed |= {one.id: one for one in fresh if subject in {None, one.subject}}
        return going + sorted((one for one in closed.values() if one.id not in known), key=lambda one: -one.id)

    # --- drawing ----------------------------------------------------------------------------------------------------

    def draw(self, size: Size) -> list[Line]:
        """Return the list."""
        view = with_changes(self.session.view(), prompt=self.prompt)
        return framed(view, size, self.footer_keys(), self._body)

    def _body(self, view: View, room: Size) -> list[Line]:
        ones = self.listed()
        numbers = [one.id for one in ones]
        if self._cursor not in numbers:
            self._cursor = numbers[0] if numbers else None
        going = sum(one.resolved is None for one in ones)
        of = "" if self._engine is None else f" of {sanitise(self._engine)}"
        title = f"incidents{of}: {going} open, {len(ones) - going} over"
        lines = [rule((Span(title, "strong"),), room.width, view.glyphs.horizontal)]
        if self._problem:
            lines.append(clip((Span(" " + fit(self._problem, room.width - 2), "warn"),), room.width))
        if not ones:
            said = "asking the daemon" if self._past is None and not self._problem else "no incident so far"
            return [*lines, clip((Span(" " + said, "dim"),), room.width)]
        first, last = window([str(n) for n in numbers], str(self._cursor), room.height - len(lines))
        names = names_width(ones, room.width)
        self._top, self._shown = self.size.height - 1 - room.height + len(lines), numbers[first:last]
        for one in ones[first:last]:
            lines += row(one, view, room.width, names, selected=one.id == self._cursor)
        return lines

    # --- keys -------------------------------------------------------------------------------------------------------

    def action_back(self) -> None:
        """Return to where we came from."""
        self.app.pop_screen()

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        numbers = [one.id for one in self.listed()]
        if numbers:
            at = numbers.index(self._cursor) if self._cursor in numbers else 0
            self._cursor = numbers[min(max(at + by, 0), len(numbers) - 1)]
            self.redraw()

    def wheel(self, by: int) -> None:
        """Move the cursor."""
        self.action_move(by)

    def action_open(self) -> None:
        """Open the one under the cursor; from there to its neighbours in this list."""
        if self._cursor is not None:
            self.board.open_incident(self._cursor, [one.id for one in self.listed()])

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on a line; a click on the cursor's own line opens it."""
        at = event.y - self._top
        if not 0 <= at < len(self._shown):
            return
        if self._shown[at] == self._cursor:
            self.action_open()
        else:
            self._cursor = self._shown[at]
            self.redraw()
