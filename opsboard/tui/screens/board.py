"""The first page: the board."""

from __future__ import annotations

from textual import events

from opsboard.tui.columns import COLUMNS
from opsboard.tui.incidents import open_ones
from opsboard.tui.keys import Key
from opsboard.tui.present import board, incident_at
from opsboard.tui.screens.page import COMMON, Page
from opsboard.tui.session import with_changes
from opsboard.tui.spans import Line, line_text
from opsboard.tui.table import filtered, ordered
from opsboard.tui.view import Order, Size, View

_SORTS = {
    "S": "state",
    "N": "name",
    "L": "running",
    "W": "waiting",
    "K": "kv",
    "O": "tokens",
    "T": "ttft",
    "I": "itl",
    "E": "errors",
    "M": "gpumem",
    "U": "uptime",
}
SETTLED_S = 5.0
"""Rows keep their places this long after a sort or a key, so that they do not run away from under the cursor."""

_TITLES = {column.key: column.title for column in COLUMNS}
_CYCLE = (None, *_SORTS.values())


class BoardPage(Page):
    """All engines, GPUs and the newest events."""

    TITLE_OF_HELP = "the board"
    KEYS = (
        Key(keys=("enter",), action="open", text="open the engine", group="Move", hint="open"),
        Key(keys=("j", "down"), action="move(1)", text="down", group="Move"),
        Key(keys=("k", "up"), action="move(-1)", text="up", group="Move"),
        Key(keys=("g", "home"), action="move(-9999)", text="first", group="Move"),
        Key(keys=("G", "end"), action="move(9999)", text="last", group="Move"),
        Key(keys=("pagedown", "ctrl+d"), action="move(10)", text="ten down", group="Move"),
        Key(keys=("pageup", "ctrl+u"), action="move(-10)", text="ten up", group="Move"),
        Key(keys=("slash",), action="filter", text="filter (!word excludes)", group="Find", hint="filter"),
        Key(keys=("escape",), action="clear", text="clear the filter", group="Find"),
        Key(keys=("ctrl+r",), action="recall", text="the last filter again", group="Find"),
        Key(keys=("s",), action="act('start')", text="start", group="Engine", hint="start", mutates=True),
        Key(keys=("x",), action="act('stop')", text="stop", group="Engine", hint="stop", mutates=True),
        Key(keys=("r",), action="act('restart')", text="restart", group="Engine", hint="restart", mutates=True),
        Key(keys=("d",), action="act('drain')", text="drain", group="Engine", mutates=True),
        Key(keys=("u",), action="act('undrain')", text="undrain", group="Engine", mutates=True),
        Key(keys=("i",), action="incident", text="the most urgent incident", group="Engine"),
        Key(keys=("l",), action="logs", text="its log", group="Engine"),
        Key(keys=("y",), action="copy", text="copy its name", group="Engine"),
        Key(keys=("e",), action="events", text="all events", group="Engine"),
        *(
            Key(keys=(letter,), action=f"sort('{key}')", text=_TITLES[key].lower(), group="Sort (again: reverse)")
            for letter, key in _SORTS.items()
        ),
        Key(keys=("comma",), action="cycle(-1)", text="previous column", group="Sort (again: reverse)"),
        Key(keys=("full_stop",), action="cycle(1)", text="next column", group="Sort (again: reverse)"),
        Key(keys=("v",), action="reverse", text="reverse", group="Sort (again: reverse)"),
        Key(keys=("0",), action="sort('')", text="as configured", group="Sort (again: reverse)"),
        *COMMON,
        Key(keys=("q",), action="app.quit", text="quit", group="Everywhere"),
    )

    def __init__(self) -> None:
        """Begin in the configured order, with the first engine under the cursor."""
        super().__init__()
        self.order = Order()
        self.filter = ""
        self._last_filter = ""
        self._cursor: str | None = None
        self._rows: tuple[str, ...] = ()
        self._sorted_at = float("-inf")

    def footer_keys(self) -> list[tuple[str, str]]:
        """Return the page's hints; only those that make sense while there are no engines."""
        known = super().footer_keys()
        if open_ones(self.session.status):
            known.insert(0, ("i", "incident"))
        return known if self._rows or self.filter else [*known[-3:-1], ("q", "quit"), known[-1]]

    # --- drawing ----------------------------------------------------------------------------------------------------

    def _view(self) -> View:
        return with_changes(
            self.session.view(),
            rows=self._rows,
            cursor=self._cursor,
            order=self.order,
            filter=self.filter,
            prompt=self.prompt,
        )

    def draw(self, size: Size) -> list[Line]:
        """Return the board."""
        self._settle()
        view = self._view()
        if self.filter and self.prompt is None:
            total = len(view.status.engines) if view.status else 0
            note = f"filter {self.filter}  ({len(self._rows)} of {total} shown, Esc clears)"
            view = with_changes(view, message=f"{note}  {view.message}" if view.message else note)
        return board(view, size, self.footer_keys())

    def _settle(self) -> None:
        """Choose the rows and their order: at once when rows came or went, else lazily."""
        status = self.session.status
        engines = filtered(status.engines, self.filter) if status else []
        names = {engine.name for engine in engines}
        now = self.board.clock.now().mono
        if names != set(self._rows) or now - self._sorted_at > SETTLED_S:
            self._rows = tuple(engine.name for engine in ordered(engines, self.order))
            self._sorted_at = now
        if self._cursor not in names:
            self._cursor = self._rows[0] if self._rows else None

    def _sort_now(self) -> None:
        self._sorted_at = float("-inf")
        self.redraw()

    # --- keys -------------------------------------------------------------------------------------------------------

    @property
    def cursor(self) -> str | None:
        """The engine under the cursor."""
        return self._cursor

    def action_move(self, by: int) -> None:
        """Move the cursor; the rows hold still for a while."""
        if self._rows:
            at = self._rows.index(self._cursor) if self._cursor in self._rows else 0
            self._cursor = self._rows[min(max(at + by, 0), len(self._rows) - 1)]
            self._sorted_at = self.board.clock.now().mono
            self.board.want_history(self._cursor)
            self.redraw()

    def wheel(self, by: int) -> None:
        """Move the cursor."""
        self.action_move(by)

    def on_click(self, event: events.Click) -> None:
        """Open an incident; put the cursor on a row, and open the engine where it is on it."""
        number = incident_at(self._view(), self.room, event.y)
        if number is not None:
            self.board.open_incident(number)
            return
        lines = [line_text(line) for line in self.canvas.lines] if self.canvas is not None else []
        here = next((y for y, text in enumerate(lines) if text.startswith(self.session.glyphs.cursor)), None)
        if here is None or self._cursor is None or not 0 <= event.y < len(lines):
            return
        row = self._rows.index(self._cursor) + event.y - here
        if event.y == here:
            self.action_open()
        elif 0 <= row < len(self._rows) and self._rows[row][:6] in lines[event.y]:
            self.action_move(event.y - here)

    def action_open(self) -> None:
        """Open the engine under the cursor."""
        if self._cursor is not None:
            self.board.open_engine(self._cursor)

    def action_incident(self) -> None:
        """Open the most urgent incident, or the list where nothing is open."""
        self.board.show_urgent()

    def action_logs(self) -> None:
        """Open its log."""
        if self._cursor is not None:
            self.board.open_engine(self._cursor, "log")

    def action_act(self, kind: str) -> None:
        """Ask before an engine is touched."""
        if self._cursor is not None:
            self.board.propose(kind, self._cursor)

    def action_copy(self) -> None:
        """Copy the engine's name."""
        if self._cursor is not None:
            self.board.copy(self._cursor)

    def action_events(self) -> None:
        """Show the timeline."""
        self.board.show_events()

    def action_sort(self, key: str) -> None:
        """Sort by a column; by the same one again reverses."""
        again = bool(key) and key == self.order.column
        self.order = Order(column=key or None, reverse=again and not self.order.reverse)
        self._sort_now()

    def action_reverse(self) -> None:
        """Turn the order round."""
        self.order = Order(column=self.order.column, reverse=not self.order.reverse)
        self._sort_now()

    def action_cycle(self, by: int) -> None:
        """Sort by the next or previous column."""
        at = _CYCLE.index(self.order.column) if self.order.column in _CYCLE else 0
        self.order = Order(column=_CYCLE[(at + by) % len(_CYCLE)])
        self._sort_now()

    # --- filter -----------------------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Type a filter; it works with each letter."""
        self.ask("/", self.filter)

    def action_recall(self) -> None:
        """Type the last filter again."""
        self.set_filter(self._last_filter)
        self.ask("/", self.filter)

    def action_clear(self) -> None:
        """Show all engines again."""
        self.set_filter("")

    def set_filter(self, text: str) -> None:
        """Show only the engines that match."""
        if self.filter and self.filter != text:
            self._last_filter = self.filter
        self.filter = text
        self._sort_now()

    def prompt_changed(self, mark: str, text: str) -> None:
        """Filter while it is typed."""
        if mark == "/":
            self.filter = text
            self._sorted_at = float("-inf")

    def prompt_left(self, mark: str) -> None:
        """Esc takes the filter back."""
        if mark == "/":
            self.set_filter("")
