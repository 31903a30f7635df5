"""The page that asks before an engine is touched. Cancel has the focus; Enter is deaf for the first moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from textual import events

from opsboard.tui.dialog import Closing, Question, box, overlaid
from opsboard.tui.keys import Key
from opsboard.tui.lineedit import edited, pasted
from opsboard.tui.screens.page import Page
from opsboard.tui.spans import Line, plain_ascii
from opsboard.tui.view import FLOOR, Size

DEBOUNCE_S = 0.3
"""A key that was meant for the page below must not answer."""


class ConfirmPage(Page):
    """Draws its question over the page that asked."""

    KEYS = (
        Key(keys=("ctrl+z",), action="app.suspend_process", text="suspend to the shell", group="Everywhere"),
        Key(keys=("ctrl+c", "ctrl+q"), action="app.quit", text="quit", group="Everywhere"),
    )

    def __init__(self, question: Question | Closing, under: Page, go: Callable[[], None]) -> None:
        """``go`` is called when, and only when, the question is answered with yes."""
        super().__init__()
        self.question = question
        self._under = under
        self._go = go
        self._opened = 0.0

    def on_mount(self) -> None:
        """Note when the question came up."""
        self._opened = self.board.clock.now().mono
        super().on_mount()

    def draw(self, size: Size) -> list[Line]:
        """Return the page below, dimmed, with the box over it."""
        under: Sequence[Line] = self._under.draw(size)
        if size.width < FLOOR.width or size.height < FLOOR.height:
            return list(under)
        glyphs = self.session.glyphs
        lines = overlaid(under, box(self.question, min(64, size.width), glyphs), size)
        return [plain_ascii(line) for line in lines] if glyphs.ascii else lines

    async def pressed(self, event: events.Key) -> None:
        """Type the name, change the focus, answer."""
        key = event.key
        if key.startswith("ctrl+") and key not in ("ctrl+u", "ctrl+w", "ctrl+h"):
            await super().pressed(event)
            return
        question = self.question
        if key == "escape":
            self._leave("nothing was done")
        elif key == "enter":
            self._answer()
        elif key in ("tab", "shift+tab", "left", "right"):
            self.question = msgspec.structs.replace(question, on_action=question.allowed and not question.on_action)
        elif question.needs_name:
            typed = edited(question.typed, key, event.character)
            if typed is not None:
                self._take(typed)
        elif event.character == "q":
            self._leave("nothing was done")
        if self.on_top:
            self.redraw()

    def on_paste(self, event: events.Paste) -> None:
        """A pasted name is a typed name."""
        if self.question.needs_name:
            event.stop()
            self._take(pasted(self.question.typed, event.text))
            self.redraw()

    def _take(self, text: str) -> None:
        """Take the name as typed; once it is whole, typing it was the decision and the button gets the focus."""
        question = msgspec.structs.replace(self.question, typed=text)
        self.question = msgspec.structs.replace(question, on_action=question.allowed)

    def _answer(self) -> None:
        if self.board.clock.now().mono - self._opened < DEBOUNCE_S:
            return
        if self.question.on_action and self.question.allowed:
            self._leave(None)
            self._go()
        else:
            self._leave("nothing was done")

    def _leave(self, said: str | None) -> None:
        if said:
            self.session.say(said)
        self.app.pop_screen()
