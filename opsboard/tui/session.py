"""What the board knows right now, whichever page is shown: the newest state, the link, the past, the last message."""

from __future__ import annotations

from datetime import tzinfo

import msgspec

from opsboard.client.stream import Disconnected
from opsboard.core.clock import Clock
from opsboard.core.wire import EventInfo, Status
from opsboard.tui.feed import News
from opsboard.tui.glyphs import Glyphs
from opsboard.tui.history import Trails
from opsboard.tui.timeline import merged
from opsboard.tui.view import Link, View

MESSAGE_S = 6.0
"""How long the footer says what the last key did."""


class Session:
    """Takes in news and tells them as a :class:`View`; pausing freezes what is told, never what is taken in."""

    def __init__(self, clock: Clock, glyphs: Glyphs, zone: tzinfo | None, *, readonly: bool) -> None:
        """Start with nothing known."""
        self.trails = Trails()
        self.glyphs = glyphs
        self._clock = clock
        self._zone = zone
        self._readonly = readonly
        self._newest: Status | None = None
        self._frozen: Status | None = None
        self._events: tuple[EventInfo, ...] = ()
        self._lost: Disconnected | None = None
        self._heard = clock.now().mono
        self._message: tuple[str, float] | None = None

    @property
    def status(self) -> Status | None:
        """The state that is shown."""
        return self._frozen or self._newest

    @property
    def events(self) -> tuple[EventInfo, ...]:
        """The timeline so far, oldest first."""
        return self._events

    @property
    def paused(self) -> bool:
        """True while the display stands still."""
        return self._frozen is not None

    @property
    def readonly(self) -> bool:
        """True when no engine may be touched from here."""
        return self._readonly or (self._newest is not None and self._newest.daemon.read_only)

    def take(self, news: News) -> None:
        """Take in what the feed says."""
        if isinstance(news, Disconnected):
            self._lost = news
            return
        self._lost = None
        self._heard = self._clock.now().mono
        self._newest = news
        self._events = merged(self._events, news.events)
        self.trails.take(news)

    def pause(self) -> None:
        """Freeze what is shown, or let it go on."""
        self._frozen = None if self._frozen else self._newest

    def say(self, text: str) -> None:
        """Show ``text`` in the footer for :data:`MESSAGE_S`."""
        self._message = (text, self._clock.now().mono)

    def hush(self) -> None:
        """Drop the message: the next key was pressed, and the footer tells of that one."""
        self._message = None

    @property
    def moving(self) -> bool:
        """True while something on the screen changes without news: ages of silence, a message that will go."""
        quiet = self._clock.now().mono - self._heard
        return self._lost is not None or self.paused or self._message is not None or quiet > 3.0

    def view(self) -> View:
        """Return the part of the view that all pages share."""
        mono = self._clock.now().mono
        if self._message and mono - self._message[1] > MESSAGE_S:
            self._message = None
        silent = mono - self._heard
        link = Link(silent_s=silent)
        if self._lost is not None:
            link = Link(connected=False, silent_s=silent, message=self._lost.message, hint=self._lost.hint)
        paused = None
        if self._frozen is not None and self._newest is not None:
            paused = max(0.0, self._newest.time - self._frozen.time) + silent
        return View(
            status=self.status,
            link=link,
            trails=self.trails,
            glyphs=self.glyphs,
            zone=self._zone,
            events=self._events,
            paused_s=paused,
            readonly=self.readonly,
            message=self._message[0] if self._message else None,
        )


def with_changes(view: View, **changes: object) -> View:
    """Return ``view`` with a page's own part put in."""
    return msgspec.structs.replace(view, **changes)
