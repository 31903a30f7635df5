"""The Textual application: follows the feed, holds the pages, carries out what they ask for."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.style import Style as RichStyle
from textual.app import App

from opsboard.config.places import state_dir
from opsboard.core.clock import Clock
from opsboard.core.errors import ControlError, OpsboardError, UsageError
from opsboard.core.routes import last_target
from opsboard.core.text import sanitise
from opsboard.core.wire import Status
from opsboard.tui import commands
from opsboard.tui.dialog import TAKES_OUT, Question, needless
from opsboard.tui.driver import Driver, congested, exit_soon, without_extras
from opsboard.tui.dump import dump
from opsboard.tui.feed import Feed
from opsboard.tui.history import CHARTED, RECENT, Range, series_of
from opsboard.tui.incidents import open_ones
from opsboard.tui.screens.board import BoardPage
from opsboard.tui.screens.confirm import ConfirmPage
from opsboard.tui.screens.engine import EnginePage
from opsboard.tui.screens.incident import IncidentPage
from opsboard.tui.screens.incidents import IncidentsPage
from opsboard.tui.screens.page import Page
from opsboard.tui.screens.reading import EventsPage, HelpPage
from opsboard.tui.session import Session
from opsboard.tui.spans import Style
from opsboard.tui.terminal import Leaving, gone
from opsboard.tui.view import Order

COPY_BYTES = 1000
"""An engine's name is never longer; terminals refuse long clipboards."""


class BoardApp(App[int]):
    """Everything that is drawn goes through the pages; everything that is known through the session."""

    CSS = "Screen { background: ansi_default; overflow: hidden; }"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = []

    def __init__(
        self, feed: Feed, session: Session, clock: Clock, looks: Mapping[Style, RichStyle], *, on_terminal: bool = True
    ) -> None:
        """``on_terminal`` is False in tests, where no terminal can go away."""
        super().__init__(driver_class=Driver, ansi_color=True)
        without_extras(self)
        self.feed = feed
        self.session = session
        self.clock = clock
        self.looks = looks
        self.leaving: Leaving | None = None
        self._on_terminal = on_terminal
        self._past: set[tuple[str, str, str]] = set()
        self._base = BoardPage()

    # --- life -------------------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Show the board and begin to follow the feed."""
        self.push_screen(self._base)
        self.run_worker(self._follow(), exit_on_error=True)
        self.set_interval(1.0, self._second)

    async def _follow(self) -> None:
        """Take in news for ever; draw them unless the display is held or the terminal is behind."""
        async for news in self.feed.watch():
            self.session.take(news)
            if isinstance(news, Status):
                self._want_new_histories(news)
            else:
                self._past.clear()  # once the daemon is back, ask what it recorded meanwhile
            page = self.page
            if isinstance(page, (EnginePage, IncidentPage)):
                page.news()
            if not self.session.paused and not self.congested:
                page.redraw()
                self._want_charts()

    def exit_soon(self) -> None:
        """End in an orderly way; may be called from a signal handler."""
        exit_soon(self)

    def _second(self) -> None:
        """Once a second: notice that the terminal went away, let ages and messages move on."""
        if self._on_terminal and gone() and self.leaving is not None:
            self.leaving.leave(signal.SIGHUP)
        elif self.session.moving and not self.congested:
            self.page.redraw()

    @property
    def page(self) -> Page:
        """The page that is shown."""
        screen = self.screen
        return screen if isinstance(screen, Page) else self._base

    @property
    def congested(self) -> bool:
        """True while the terminal is behind: then states are skipped, never queued."""
        return congested(self)

    # --- the past ---------------------------------------------------------------------------------------------------

    def _want_new_histories(self, status: Status) -> None:
        new = [engine.name for engine in status.engines if (engine.name, "kv_usage", RECENT.label) not in self._past]
        for name in new:
            self.want_history(name, ("kv_usage",))

    def _want_charts(self) -> None:
        """Fetch what the charts of the engine under the cursor show."""
        if self._base.cursor is not None:
            self.want_history(self._base.cursor)

    def want_history(self, engine: str, fields: Sequence[str] | None = None, span: Range = RECENT) -> None:
        """Fetch the past of some fields once; all charted ones only where charts are shown."""
        if fields is None:
            fields = CHARTED if self.size.width >= 76 and self.size.height > 30 else ("kv_usage",)
        missing = [field for field in fields if (engine, field, span.label) not in self._past]
        if missing and self.session.status is not None:
            self._past.update((engine, field, span.label) for field in missing)
            self.run_worker(self._fetch(engine, missing, span, self.session.status.time), exit_on_error=True)

    async def _fetch(self, engine: str, fields: Sequence[str], span: Range, now: float) -> None:
        try:
            past = await self.feed.history(series_of([engine], fields), now - span.seconds, now, span.step)
        except ControlError as error:
            self._past.difference_update((engine, field, span.label) for field in fields)
            self.session.say(f"no history: {error.message}")
            return
        for history in past:
            field = history.series.rpartition("/")[2]
            self.session.trails.get(engine, field, span).fill(history)
        self.page.redraw()

    # --- what pages ask for -----------------------------------------------------------------------------------------

    def open_engine(self, name: str, look: str = "overview") -> None:
        """Show one engine."""
        below = self._below
        if isinstance(below, EnginePage) and below.own.name == name:
            self.pop_screen()
            below.action_look(look)
        else:
            self.push_screen(EnginePage(name, look))

    def show_events(self) -> None:
        """Show the timeline."""
        self.push_screen(EventsPage())

    def open_incident(self, number: int, among: Sequence[int] = ()) -> None:
        """Show one incident; ``among`` those that are next to it, in their order (none: those that are open)."""
        below = self._below
        if isinstance(below, IncidentPage) and below.own.id == number:
            self.pop_screen()
        else:
            self.push_screen(IncidentPage(number, among))

    def show_incidents(self, engine: str | None = None) -> None:
        """List all incidents, of ``engine`` or of all."""
        if isinstance(self._below, IncidentsPage):
            self.pop_screen()
        else:
            self.push_screen(IncidentsPage(engine))

    def show_urgent(self, engine: str | None = None) -> None:
        """Show the most urgent incident that is open, of ``engine`` or of all; the list where none is."""
        ones = open_ones(self.session.status, None if engine is None else f"engine/{engine}")
        if ones:
            self.open_incident(ones[0].id, [one.id for one in ones] if engine is not None else ())
        else:
            self.show_incidents(engine)

    @property
    def _below(self) -> object:
        """The page one comes back to. Who wants to go there goes back, so that pages do not pile up."""
        return self.screen_stack[-2] if len(self.screen_stack) > 1 else None

    def show_help(self, about: Page) -> None:
        """Show the keys of a page."""
        self.push_screen(HelpPage(about.KEYS, about.TITLE_OF_HELP))

    def copy(self, text: str) -> None:
        """Hand ``text`` to the terminal's clipboard (OSC 52)."""
        safe = sanitise(text)[:COPY_BYTES]
        self.copy_to_clipboard(safe)
        self.say(f"copied {safe} (if the terminal allows it)")

    def dump(self, page: Page) -> None:
        """Save what ``page`` shows."""
        try:
            path = dump(page.draw(page.room), self.session.status, _dump_dir(), self.clock.now().wall)
        except (OSError, OpsboardError) as error:
            self.say(f"not saved: {error}")
        else:
            self.say(f"saved {path} (and .json)")

    def say(self, text: str) -> None:
        """Show a message in the footer."""
        self.session.say(text)
        self.page.redraw()

    def propose(self, kind: str, name: str, *, now: bool = False) -> None:
        """Ask whether to touch an engine, if that is possible at all; ``now`` as on the command line."""
        status = self.session.status
        engine = next((e for e in status.engines if e.name == name), None) if status else None
        if status is None or engine is None:
            return
        if self.session.readonly:
            self.say("read-only: engines cannot be touched from here")
        elif self.session.view().stale:
            self.say(f"the daemon does not answer: {kind} is not possible now")
        elif not engine.supervised and not (engine.restartable and kind == "restart"):
            only = (
                "it can only be restarted"
                if engine.restartable
                else f"opsboard did not start it and does not {kind} it"
            )
            self.say(f"{sanitise(name)} is observed only: {only}")
        elif (why := needless(engine, kind)) is not None:
            self.say(sanitise(why))
        else:
            objection = last_target(name, status.routes) if kind in TAKES_OUT else None
            question = Question(engine=engine, kind=kind, now=now, objection=objection)
            self.push_screen(ConfirmPage(question, self.page, lambda: self._act_soon(kind, name, now=now)))

    def _act_soon(self, kind: str, name: str, *, now: bool) -> None:
        self.run_worker(self._act(kind, name, now=now), exit_on_error=True)

    async def _act(self, kind: str, name: str, *, now: bool) -> None:
        try:
            accepted = await self.feed.act(name, kind, "on the board", now=now)
        except ControlError as error:
            self.say(f"{kind} {sanitise(name)}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        else:
            self.say(f"{accepted.kind} {sanitise(accepted.engine)}: the daemon took it on; events tell how it goes")

    # --- the command line -------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        status = self.session.status
        return [engine.name for engine in status.engines] if status else []

    def command_choices(self, text: str) -> tuple[str, ...]:
        """Return what could come next."""
        return commands.choices(text, self._names())

    def complete(self, text: str) -> str:
        """Return ``text`` completed as far as it is clear."""
        return commands.completed(text, self._names())

    def obey(self, text: str) -> None:
        """Carry out a typed command."""
        try:
            command = commands.parse(text, self._names())
        except UsageError as error:
            self.say(error.message + (f"; one of: {error.hint}" if error.hint else ""))
            return
        verb = command.verb
        if verb in commands.ACTIONS:
            self.propose(verb, command.argument, now=command.now)
        elif verb in ("open", "logs"):
            self.open_engine(command.argument, "log" if verb == "logs" else "overview")
        elif verb == "sort":
            self._base.order = Order(column=command.argument or None, reverse=command.reverse)
            self._base.set_filter(self._base.filter)
        elif verb == "filter":
            self._base.set_filter(command.argument)
        elif verb == "incident":
            self.open_incident(int(command.argument))
        elif verb in ("events", "incidents"):
            todo = self.show_events if verb == "events" else self.show_incidents
            todo()
        else:
            self._plain(verb)

    def _plain(self, verb: str) -> None:
        page = self.page
        todo: dict[str, Any] = {
            "help": page.action_help,
            "pause": page.action_pause,
            "dump": page.action_dump,
            "quit": self.exit,
        }
        todo[verb]()


def _dump_dir() -> Path:
    """Return where screens are saved: a user's own state directory."""
    return state_dir(None, uid=1) / "screens"
