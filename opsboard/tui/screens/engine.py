"""The page of one engine: overview, anatomy, log, events."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from opsboard.core.errors import ControlError
from opsboard.tui.detail import LOOKS, EngineView, engine_screen, log_room, moved_top
from opsboard.tui.history import CHARTED, RANGES
from opsboard.tui.keys import Key, hints
from opsboard.tui.latency import modes
from opsboard.tui.logview import KEPT, SHIFT, first_screen, found, moved
from opsboard.tui.present import framed
from opsboard.tui.screens.page import COMMON, Page
from opsboard.tui.session import with_changes
from opsboard.tui.view import Size, View

if TYPE_CHECKING:
    from textual.worker import Worker

    from opsboard.tui.spans import Line

LOG_PAINT_S = 0.5
"""A log is repainted at most twice a second, however fast it grows."""
LOG_TAIL = 500
_RETRY_S = 2.0


class EnginePage(Page):
    """All that is known of one engine."""

    TITLE_OF_HELP = "an engine"
    KEYS = (
        Key(keys=("escape", "q"), action="back", text="back to the board", group="Move", hint="back"),
        *(
            Key(keys=(str(n),), action=f"look('{look}')", text=look, group="Look at")
            for n, look in enumerate(LOOKS, start=1)
        ),
        Key(keys=("tab",), action="next_look(1)", text="next", group="Look at"),
        Key(keys=("shift+tab",), action="next_look(-1)", text="previous", group="Look at"),
        Key(keys=("j", "down"), action="scroll(1)", text="down", group="Move"),
        Key(keys=("k", "up"), action="scroll(-1)", text="up", group="Move"),
        Key(keys=("pagedown", "ctrl+d"), action="page(1)", text="a page down", group="Move"),
        Key(keys=("pageup", "ctrl+u"), action="page(-1)", text="a page up", group="Move"),
        Key(keys=("g", "home"), action="scroll(-99999)", text="top", group="Move"),
        Key(keys=("G", "end"), action="scroll(99999)", text="end", group="Move"),
        Key(keys=("t",), action="range", text="time range of the charts", group="Overview", hint="range"),
        Key(keys=("b",), action="mode", text="latencies or buckets", group="Overview", hint="buckets"),
        Key(keys=("f",), action="follow", text="follow, or hold", group="Log", hint="follow"),
        Key(keys=("slash",), action="search", text="search", group="Log", hint="search"),
        Key(keys=("n",), action="find(1)", text="next match", group="Log"),
        Key(keys=("N",), action="find(-1)", text="previous match", group="Log"),
        Key(keys=("w",), action="wrap", text="wrap long lines or not", group="Log", hint="wrap"),
        Key(keys=("left",), action="shift(-1)", text="left, unwrapped", group="Log"),
        Key(keys=("right",), action="shift(1)", text="right, unwrapped", group="Log"),
        Key(keys=("s",), action="act('start')", text="start", group="Engine", hint="start", mutates=True),
        Key(keys=("x",), action="act('stop')", text="stop", group="Engine", hint="stop", mutates=True),
        Key(keys=("r",), action="act('restart')", text="restart", group="Engine", hint="restart", mutates=True),
        Key(keys=("d",), action="act('drain')", text="drain", group="Engine", mutates=True),
        Key(keys=("u",), action="act('undrain')", text="undrain", group="Engine", mutates=True),
        Key(keys=("i",), action="incident", text="its most urgent incident", group="Engine"),
        Key(keys=("y",), action="copy", text="copy its name", group="Engine"),
        *COMMON,
    )

    def __init__(self, name_of_engine: str, look: str = "overview") -> None:
        """Open on one of the looks."""
        super().__init__()
        self.own = EngineView(name=name_of_engine, look=look)
        self._log: deque[str] = deque(maxlen=KEPT)
        self._log_changed = False
        self._reader: Worker[None] | None = None
        self._asking = False
        self._log_room = self._look_room = Size(80, 18)

    def on_mount(self) -> None:
        """Ask for the details and the past at once."""
        super().on_mount()
        self.news()
        self.board.want_history(self.own.name, CHARTED, self.own.span)
        self.set_interval(LOG_PAINT_S, self._paint_log)
        self._read_log()

    def footer_keys(self) -> list[tuple[str, str]]:
        """Return the hints of what is looked at."""
        return hints(keys_of(self.own.look), self.session.glyphs, readonly=self.session.readonly)

    def draw(self, size: Size) -> list[Line]:
        """Return the engine's screen."""
        view = with_changes(self.session.view(), prompt=self.prompt)
        return framed(view, size, self.footer_keys(), self._body)

    def _body(self, view: View, room: Size) -> list[Line]:
        self._log_room, self._look_room = log_room(view, self.own, room), room
        own = msgspec.structs.replace(self.own, log=tuple(self._log)) if self.own.look == "log" else self.own
        return engine_screen(view, own, room)

    def _change(self, **changes: object) -> None:
        self.own = msgspec.structs.replace(self.own, **changes)
        self.redraw()

    # --- facts ------------------------------------------------------------------------------------------------------

    def news(self) -> None:
        """Ask for the details again, one question at a time."""
        if not self._asking and self.own.look != "log" and not self.session.paused:
            self._asking = True
            self.run_worker(self._ask_detail(), exit_on_error=True)

    async def _ask_detail(self) -> None:
        try:
            detail = await self.board.feed.detail(self.own.name)
        except ControlError as error:
            self.own = msgspec.structs.replace(self.own, problem=error.message)
        else:
            self.own = msgspec.structs.replace(self.own, detail=detail, problem=None)
        finally:
            self._asking = False
        if not self.session.paused:
            self.redraw()

    def _read_log(self) -> None:
        if self.own.look == "log" and self._reader is None:
            self._reader = self.run_worker(self._follow_log(), exit_on_error=True)

    async def _follow_log(self) -> None:
        """Read the log for as long as the page lives; begin anew when the daemon or the stream goes away."""
        while True:
            problem = "the log ended; asking again"
            fresh = True
            try:
                async for line in self.board.feed.logs(self.own.name, LOG_TAIL):
                    if fresh:
                        self._log.clear()
                        fresh = False
                        self.own = msgspec.structs.replace(self.own, problem=None)
                    self._take_line(line)
            except ControlError as error:
                problem = error.message
            self._log_changed = True
            self.own = msgspec.structs.replace(self.own, problem=problem)
            await asyncio.sleep(_RETRY_S)

    def _take_line(self, line: str) -> None:
        """Keep a line; a held window stays on the lines it shows while old ones fall off."""
        full = len(self._log) == KEPT
        self._log.append(line)
        self._log_changed = True
        window = self.own.window
        if full and window.end is not None:
            held = msgspec.structs.replace(window, end=max(1, window.end - 1))
            self.own = msgspec.structs.replace(self.own, window=held)

    def _paint_log(self) -> None:
        if self._log_changed and self.own.look == "log" and not self.session.paused and not self.board.congested:
            self._log_changed = False
            self.redraw()

    # --- keys -------------------------------------------------------------------------------------------------------

    def action_back(self) -> None:
        """Return to the board."""
        self.app.pop_screen()

    def action_look(self, look: str) -> None:
        """Show another side."""
        self._change(look=look, top=None)
        self._read_log()
        self.news()

    def action_next_look(self, by: int) -> None:
        """Show the next side."""
        self.action_look(LOOKS[(LOOKS.index(self.own.look) + by) % len(LOOKS)])

    def action_scroll(self, by: int) -> None:
        """Scroll what is longer than the screen."""
        if self.own.look == "log":
            least = first_screen(self._log, self.own.window, self._log_room)
            self._change(window=moved(self.own.window, len(self._log), least, by))
        else:
            self._change(top=moved_top(self.session.view(), self.own, self._look_room, by))

    def action_page(self, by: int) -> None:
        """Scroll by what is seen at once, less a line."""
        self.action_scroll(by * max(1, self._log_room.height - 1))

    def wheel(self, by: int) -> None:
        """Scroll."""
        self.action_scroll(by)

    def action_range(self) -> None:
        """Chart another stretch of time."""
        span = RANGES[(RANGES.index(self.own.span) + 1) % len(RANGES)]
        self._change(span=span)
        self.board.want_history(self.own.name, CHARTED, span)

    def action_mode(self) -> None:
        """Show the latencies another way."""
        known = modes()
        self._change(mode=known[(known.index(self.own.mode) + 1) % len(known)])

    def action_follow(self) -> None:
        """Follow the log, or hold it."""
        window = self.own.window
        self._change(window=msgspec.structs.replace(window, end=len(self._log) if window.follow else None))

    def action_shift(self, by: int) -> None:
        """Look further to the side of long lines."""
        window = self.own.window
        self._change(window=msgspec.structs.replace(window, shift=max(0, window.shift + by * SHIFT), wrap=False))

    def action_wrap(self) -> None:
        """Wrap long lines, or let them run off the side."""
        window = self.own.window
        self._change(window=msgspec.structs.replace(window, wrap=not window.wrap, shift=0))

    def action_search(self) -> None:
        """Type what to search in the log."""
        if self.own.look != "log":
            self.action_look("log")
        self.ask("/", self.own.window.search)

    def prompt_done(self, mark: str, text: str) -> None:
        """Search backwards from the newest line."""
        if mark != "/":
            super().prompt_done(mark, text)
            return
        self._change(window=msgspec.structs.replace(self.own.window, search=text))
        if text:
            self.action_find(-1)

    def action_find(self, step: int) -> None:
        """Go to another match."""
        window = found(tuple(self._log), self.own.window, self._log_room, step)
        if window is None:
            self.session.say(
                f"no match for {self.own.window.search!r}" if self.own.window.search else "nothing to find"
            )
            self.redraw()
        else:
            self._change(window=window)

    def action_act(self, kind: str) -> None:
        """Ask before the engine is touched."""
        self.board.propose(kind, self.own.name)

    def action_incident(self) -> None:
        """Show what is open of it, else what was."""
        self.board.show_urgent(self.own.name)

    def action_copy(self) -> None:
        """Copy the engine's name."""
        self.board.copy(self.own.name)


def keys_of(look: str) -> tuple[Key, ...]:
    """Return the keys that do something while ``look`` is shown."""
    others = {other.capitalize() for other in LOOKS} - {look.capitalize()}
    return tuple(key for key in EnginePage.KEYS if key.group not in others)
