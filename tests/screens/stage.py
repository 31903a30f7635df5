"""A board on a stage: the real application without a terminal, a scripted feed, a clock that tests move."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from typing import NamedTuple

from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from opsboard.core.clock import ManualClock
from opsboard.tui.feed import News
from opsboard.tui.glyphs import ASCII, UNICODE
from opsboard.tui.program import BoardApp
from opsboard.tui.session import Session
from opsboard.tui.spans import line_text
from opsboard.tui.theme import COLOUR
from tests.screens.scripted import ScriptedFeed
from tests.support.waiting import wait_until_async

_CHARACTERS = {"space": " ", "minus": "-", "slash": "/", "colon": ":"}


class Stage(NamedTuple):
    """What a test plays with."""

    app: BoardApp
    pilot: Pilot[int]
    feed: ScriptedFeed
    clock: ManualClock

    @property
    def text(self) -> str:
        """What the screen says."""
        canvas = self.app.page.canvas
        return "\n".join(line_text(line) for line in canvas.lines) if canvas is not None else ""

    @property
    def footer(self) -> str:
        """Its last line."""
        return self.text.splitlines()[-1]

    async def press(self, *keys: str) -> None:
        """Press keys faster than anyone could, as a slow line delivers them: names as Textual's, or characters."""
        for key in keys:
            name = _character_to_key(key) if len(key) == 1 else key
            character = key if len(key) == 1 else _CHARACTERS.get(key)
            self.app.post_message(events.Key(name, character))
        await self.pilot.pause()

    async def shows(self, text: str) -> None:
        """Wait until the screen says ``text``."""
        await wait_until_async(lambda: text in self.text, what=f"{text!r} on\n{self.text}")

    async def hides(self, text: str) -> None:
        """Wait until it no longer does."""
        await wait_until_async(lambda: text not in self.text, what=f"no {text!r} on\n{self.text}")


@contextlib.asynccontextmanager
async def staged(
    *news: News, size: tuple[int, int] = (80, 24), readonly: bool = False, ascii_only: bool = False
) -> AsyncIterator[Stage]:
    """Run a board that has heard ``news``."""
    clock = ManualClock()
    feed = ScriptedFeed(*news)
    session = Session(clock, ASCII if ascii_only else UNICODE, dt.UTC, readonly=readonly)
    app = BoardApp(feed, session, clock, COLOUR, on_terminal=False)
    async with app.run_test(size=size, notifications=False) as pilot:
        await pilot.pause()
        yield Stage(app, pilot, feed, clock)
