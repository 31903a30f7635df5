"""All that decides what the board shows, in one record: pure functions turn it into lines."""

from __future__ import annotations

from datetime import tzinfo
from typing import NamedTuple

from opsboard.core.model import Record
from opsboard.core.wire import Engine, EventInfo, Status
from opsboard.tui.glyphs import UNICODE, Glyphs
from opsboard.tui.history import Trails


class Size(NamedTuple):
    """Cells of the terminal."""

    width: int
    height: int


FLOOR = Size(40, 8)
"""The smallest terminal that a board makes sense on."""


class Link(Record, frozen=True, kw_only=True):
    """The connection to the daemon. ``silent_s`` is the time since the last news; ``message`` why there is none."""

    connected: bool = True
    silent_s: float = 0.0
    message: str | None = None
    hint: str | None = None


class Order(Record, frozen=True, kw_only=True):
    """How the engines are sorted: by a column's key (None: as configured)."""

    column: str | None = None
    reverse: bool = False


class Prompt(Record, frozen=True, kw_only=True):
    """A line that is being typed at the foot: ``mark`` is ``/`` or ``:``."""

    mark: str
    text: str = ""
    choices: tuple[str, ...] = ()


class View(Record, frozen=True, kw_only=True):
    """The state of the board's screen.

    ``status`` is None before the first news; ``rows`` are the names of the engines that pass the filter, in order.
    """

    status: Status | None = None
    link: Link = Link()
    trails: Trails
    glyphs: Glyphs = UNICODE
    zone: tzinfo | None = None
    rows: tuple[str, ...] = ()
    cursor: str | None = None
    order: Order = Order()
    filter: str = ""
    paused_s: float | None = None
    """Age of what is shown while the display is paused, else None."""
    readonly: bool = False
    message: str | None = None
    """What the last key did, for some seconds."""
    prompt: Prompt | None = None
    events: tuple[EventInfo, ...] = ()
    """The timeline as far as this client knows it, oldest first."""

    @property
    def stale(self) -> bool:
        """True when what is shown is no longer true: the link is down or the daemon has gone quiet."""
        return not self.link.connected or self.silent

    @property
    def silent(self) -> bool:
        """True when the link is up and yet no news come."""
        if self.status is None or not self.link.connected:
            return False
        return self.link.silent_s > max(5.0, 3 * self.status.daemon.interval_s)

    @property
    def selected(self) -> Engine | None:
        """The engine under the cursor."""
        engines = self.status.engines if self.status else ()
        return next((engine for engine in engines if engine.name == self.cursor), None)


def reading_is_old(engine: Engine, interval_s: float) -> bool:
    """Return True when the numbers of ``engine`` are its last good ones, not those of now."""
    age = engine.reading.age_s
    if age is None:
        return False
    return age > max(3.0 * interval_s, 3.0)
