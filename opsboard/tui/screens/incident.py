"""The page of one incident: its reason, its evidence drawn, its timeline; and what people say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from opsboard.core.errors import ControlError
from opsboard.core.text import sanitise
from opsboard.tui.dialog import Closing
from opsboard.tui.history import BUCKETS
from opsboard.tui.incident import LOOKS, IncidentView, current, incident_screen, moved_top, shown_pictures
from opsboard.tui.incidents import began, open_ones
from opsboard.tui.keys import Key
from opsboard.tui.present import framed
from opsboard.tui.screens.confirm import ConfirmPage
from opsboard.tui.screens.page import COMMON, Page
from opsboard.tui.session import with_changes
from opsboard.tui.view import Size, View

if TYPE_CHECKING:
    from opsboard.core.wire import Incident
    from opsboard.tui.spans import Line

AGAIN_S = 5.0
"""So often the past is asked for again while it goes on; its sentence and numbers come with every state."""
BEFORE_S, LONGEST_S = 900.0, 86400.0
"""Drawn from so long before it began, as the series kept with it; a day at most."""
_DONE = {"ack": "is taken on", "note": "has your note", "resolve": "is resolved", "silence": "is silenced"}
QUIET_FOR = "2h "


class IncidentPage(Page):
    """All that is known of one incident."""

    TITLE_OF_HELP = "an incident"
    KEYS = (
        Key(keys=("escape", "q"), action="back", text="back", group="Move", hint="back"),
        Key(keys=("a",), action="ack", text="acknowledge", group="Incident", hint="ack", mutates=True),
        Key(keys=("n",), action="note", text="write a note", group="Incident", hint="note", mutates=True),
        Key(keys=("R",), action="resolve", text="resolve (asks)", group="Incident", hint="resolve",
            mutates=True),
        Key(keys=("r",), action="act('restart')", text="restart it (asks)", group="Engine",
            hint="restart", mutates=True),
        Key(keys=("d",), action="act('drain')", text="drain it (asks)", group="Engine", mutates=True),
        Key(keys=("s",), action="act('start')", text="start it (asks)", group="Engine", mutates=True),
        Key(keys=("enter",), action="engine('overview')", text="its engine", group="Engine", hint="engine"),
        Key(keys=("l",), action="engine('log')", text="its engine's log", group="Engine", hint="log"),
        Key(keys=("z",), action="silence", text="silence it", group="Incident", hint="mute", mutates=True),
        Key(keys=("y",), action="copy", text="copy its uid", group="Incident"),
        *(
            Key(keys=(str(n),), action=f"look('{look}')", text=look, group="Look at")
            for n, look in enumerate(LOOKS, start=1)
        ),
        Key(keys=("tab",), action="next_look(1)", text="next", group="Look at"),
        Key(keys=("shift+tab",), action="next_look(-1)", text="previous", group="Look at"),
        Key(keys=("right_square_bracket", "right"), action="go(1)", text="next incident", group="Move", hint="next"),
        Key(keys=("left_square_bracket", "left"), action="go(-1)", text="previous incident", group="Move"),
        Key(keys=("i",), action="all", text="all, past ones too", group="Move", hint="all"),
        Key(keys=("j", "down"), action="scroll(1)", text="down", group="Move"),
        Key(keys=("k", "up"), action="scroll(-1)", text="up", group="Move"),
        Key(keys=("pagedown", "ctrl+d"), action="page(1)", text="a page down", group="Move"),
        Key(keys=("pageup", "ctrl+u"), action="page(-1)", text="a page up", group="Move"),
        Key(keys=("g", "home"), action="scroll(-99999)", text="top", group="Move"),
        Key(keys=("G", "end"), action="scroll(99999)", text="end", group="Move"),
        *COMMON,
    )  # fmt: skip

    def __init__(self, number: int, among: Sequence[int] = ()) -> None:
        """Open incident ``number``; ``among`` those that are next to it (none: those that are open)."""
        super().__init__()
        self._fixed = tuple(among)
        self.own = IncidentView(id=number)
        self._asked_at: float | None = None
        self._asking = False
        self._room = Size(80, 20)

    def on_mount(self) -> None:
        """Ask for all of it at once."""
        self._ask_again()
        super().on_mount()

    # --- drawing ----------------------------------------------------------------------------------------------------

    def draw(self, size: Size) -> list[Line]:
        """Return the incident's screen."""
        view = with_changes(self.session.view(), prompt=self.prompt)
        return framed(view, size, self.footer_keys(), self._body)

    def _body(self, view: View, room: Size) -> list[Line]:
        self._room = room
        among = self._fixed or tuple(one.id for one in open_ones(view.status))
        return incident_screen(view, msgspec.structs.replace(self.own, among=among), room)

    def _change(self, **changes: object) -> None:
        self.own = msgspec.structs.replace(self.own, **changes)
        self.redraw()

    # --- facts ------------------------------------------------------------------------------------------------------

    @property
    def shown(self) -> Incident | None:
        """The incident as far as it is known."""
        return current(self.session.view(), self.own)

    def news(self) -> None:
        """Ask for what a state of the board does not tell: at once when its state changed, else now and then."""
        one, told = self.shown, self.own.detail
        moved = one is not None and told is not None and _told(one) != _told(told.incident)
        late = self._asked_at is None or self.board.clock.now().mono - self._asked_at >= AGAIN_S
        over = told is not None and told.incident.resolved is not None and not moved
        if not self.session.paused and (moved or (late and not over)):
            self._ask_again()

    def _ask_again(self) -> None:
        if not self._asking:
            self._asking = True
            self._asked_at = self.board.clock.now().mono
            self.run_worker(self._fetch(self.own.id), exit_on_error=True)

    async def _fetch(self, number: int) -> None:
        try:
            detail = await self.board.feed.incident(number)
            if number == self.own.id:
                self.own = msgspec.structs.replace(self.own, detail=detail, problem=None)
                self.redraw()
                await self._fetch_past(number, detail.incident)
        except ControlError as error:
            self.own = msgspec.structs.replace(self.own, problem=error.message)
        finally:
            self._asking = False
        if number != self.own.id:
            self._ask_again()
        elif not self.session.paused:
            self.redraw()

    async def _fetch_past(self, number: int, one: Incident) -> None:
        """Ask for what is remembered of its series; of one that is over what was kept with it is enough."""
        view = self.session.view()
        now = view.status.time if view.status is not None else one.opened
        if one.resolved is not None:
            return
        start = max(began(one) - BEFORE_S, now - LONGEST_S)
        names = dict.fromkeys(name for picture in shown_pictures(one, view) for name in picture.all_series)
        past = await self.board.feed.history(list(names), start, now, max(1.0, (now - start) / BUCKETS))
        if number == self.own.id:
            self.own = msgspec.structs.replace(self.own, past=tuple(past))

    # --- moving -----------------------------------------------------------------------------------------------------

    def action_back(self) -> None:
        """Return to where we came from."""
        self.app.pop_screen()

    def action_all(self) -> None:
        """Show the list of them."""
        self.board.show_incidents()

    def action_go(self, by: int) -> None:
        """Show the next one."""
        among = self._fixed or tuple(one.id for one in open_ones(self.session.status))
        others = [number for number in among if number != self.own.id]
        if not others:
            self.board.say("there is no other incident here; i lists all")
            return
        at = among.index(self.own.id) + by if self.own.id in among else 0
        self.own = IncidentView(id=among[at % len(among)], look=self.own.look)
        self._ask_again()
        self.redraw()

    def action_look(self, look: str) -> None:
        """Show another side; a timeline at its end."""
        self._change(look=look, top=None if look == "timeline" else 0)

    def action_next_look(self, by: int) -> None:
        """Show the next side."""
        self.action_look(LOOKS[(LOOKS.index(self.own.look) + by) % len(LOOKS)])

    def action_scroll(self, by: int) -> None:
        """Scroll what is longer than the screen; from the overview into the timeline."""
        if self.own.look == "overview":
            self.action_look("timeline")
        else:
            self._change(top=moved_top(self.session.view(), self.own, self._room, by))

    def action_page(self, by: int) -> None:
        """Scroll by about what is seen at once."""
        self.action_scroll(by * max(1, self._room.height // 2))

    def wheel(self, by: int) -> None:
        """Scroll."""
        self.action_scroll(by)

    # --- what people do ---------------------------------------------------------------------------------------------

    def _may(self, verb: str) -> bool:
        one = self.shown
        if self.session.readonly:
            self.board.say(f"read-only: incidents cannot be touched from here ({verb})")
        elif self.session.view().stale:
            self.board.say(f"the daemon does not answer: {verb} is not possible now")
        elif one is None:
            self.board.say("nothing is known of it yet")
        elif verb != "note" and one.resolved is not None:
            self.board.say(f"incident {one.id} is resolved already; a note can still be written")
        else:
            return True
        return False

    def action_ack(self) -> None:
        """Say that somebody works on it."""
        one = self.shown
        if self._may("ack") and one is not None:
            if one.acknowledged is not None:
                self.board.say(f"taken on already by {sanitise(one.acknowledged_by or 'somebody')}; n writes a note")
            else:
                self._tell_soon("ack", None)

    def action_note(self) -> None:
        """Type a line for its timeline."""
        if self._may("note"):
            self.ask("note", "")

    def prompt_done(self, mark: str, text: str) -> None:
        """Hand over what was typed."""
        if mark not in {"note", "silence"}:
            super().prompt_done(mark, text)
        elif text.strip():
            self._tell_soon(mark, text.strip())

    def action_silence(self) -> None:
        """Type for how long nobody is to hear of it, and why."""
        if self._may("silence"):
            self.ask("silence", QUIET_FOR)

    def action_resolve(self) -> None:
        """Ask before it is closed."""
        one = self.shown
        if self._may("resolve") and one is not None:
            question = Closing(number=one.id, lasts=one.ended is None)
            self.app.push_screen(ConfirmPage(question, self, lambda: self._tell_soon("resolve", None)))

    def _tell_soon(self, verb: str, text: str | None) -> None:
        self.run_worker(self._tell(self.own.id, verb, text), exit_on_error=True)

    async def _tell(self, number: int, verb: str, text: str | None) -> None:
        try:
            await self.board.feed.tell(number, verb, text)
        except ControlError as error:
            self.board.say(f"{verb}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        else:
            self.board.say(f"incident {number} {_DONE[verb]}")
            if number == self.own.id:
                self._ask_again()

    def action_act(self, kind: str) -> None:
        """Ask before its engine is touched."""
        name = self._engine()
        if name is not None:
            self.board.propose(kind, name)

    def action_engine(self, look: str) -> None:
        """Open its engine."""
        name = self._engine()
        if name is not None:
            self.board.open_engine(name, look)

    def _engine(self) -> str | None:
        one = self.shown
        if one is None or not one.subject.startswith("engine/"):
            self.board.say("it is of no engine")
            return None
        return one.subject.removeprefix("engine/")

    def action_copy(self) -> None:
        """Copy what names it for ever."""
        one = self.shown
        if one is not None:
            self.board.copy(one.uid)


def _told(one: Incident) -> tuple[object, ...]:
    """Return what changes with a line of its timeline."""
    return (
        one.state, one.severity, one.confirmed, one.flapping, one.ended, one.acknowledged, one.related, one.actions,
        one.cause, one.silenced,
    )  # fmt: skip
