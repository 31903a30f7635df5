"""``series.db`` as a whole: its log in memory, its writer thread, its upkeep.

And what is done when it is full or damaged.
"""

from __future__ import annotations

import sqlite3
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from opsboard.core.clock import Clock
from opsboard.core.errors import DiskFull, StoreError
from opsboard.core.model import Sample
from opsboard.core.wire import History
from opsboard.store import history, migrations, retention, views
from opsboard.store.database import Corrupt, Kind, Writer, mapped, open_writer, reading
from opsboard.store.retention import StoreLimits
from opsboard.store.series import SeriesLog
from opsboard.store.statedir import Ballast, set_aside

KIND = Kind("series.db", 0x6F707301, "NORMAL", migrations.SERIES)
FLUSH_S = 1.0
"""Most of what a kill -9 can cost."""
TIDY_EVERY = 10
"""Flushes between two looks at ages and sizes, when there is nothing left over."""


class SeriesFile:
    """Samples in, histories out. ``say(kind, text)`` is told of what people must know."""

    def __init__(
        self, path: Path, clock: Clock, limits: StoreLimits, *, host: str, check: bool, say: Callable[[str, str], None]
    ) -> None:
        """Open the file; a damaged one is set aside. ``check``: the last run did not end cleanly. Raises StoreError."""
        self.path = path
        self.limits = limits
        self.notice: str | None = None
        """What happened to the file in this run, when it was damaged."""
        self.log = SeriesLog()
        self.ready = threading.Event()
        """Set when the file has been checked and read; until then samples wait."""
        self._clock = clock
        self._host = host
        self._check = check
        self._say = say
        self._ballast = Ballast(path.with_name("series.ballast"))
        self._opened = clock.now()
        self._written = self._opened.mono
        self._until_tidy = 0
        self._homeless = self._cleared = False
        """The damaged file was let go, and set aside, and no new one stands in its place yet."""
        try:
            connection = open_writer(path, KIND)
        except Corrupt as error:
            connection = self._begin_afresh(error)
        self.writer = Writer(connection, path, tick_s=FLUSH_S, on_tick=self._tick, on_trouble=self._on_trouble)
        self.writer.start()

    def append(self, wall: float, samples: Sequence[Sample]) -> None:
        """Queue one batch of samples; never blocks."""
        self.log.offer(wall, samples)

    def history(self, series: str, start: float, end: float, step: float) -> History:
        """Read a series (any thread). Raises StoreError."""
        snap = self.log.snapshot(series)
        if snap is None:
            return History(series=series, step=step)
        with reading(self.path) as connection:
            return history.read(connection, snap, series, start, end, step)

    def lag_s(self) -> float:
        """Seconds since all that was offered had been written; 0 while nothing waits longer than it must."""
        return max(0.0, self._clock.now().mono - self._written - FLUSH_S) if self.log.waiting() else 0.0

    def close(self, timeout_s: float) -> bool:
        """Write what is there and close; False when the disk did not answer in time."""
        self.log.ending = True
        return self.writer.close(timeout_s)

    # --- writer thread ------------------------------------------------------------------------------------------------

    def _tick(self, connection: sqlite3.Connection) -> None:
        if not self.ready.is_set():
            self._begin(connection)
            self.ready.set()
        self.log.flush(connection)
        self._written = self._clock.now().mono
        self._until_tidy -= 1
        if self._until_tidy <= 0:
            wall = retention.aging_wall(self._opened, self._clock.now())
            more = retention.tidy(connection, self.limits, wall)
            self._until_tidy = 1 if more else TIDY_EVERY
            self._ballast.keep()

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Check the file where the last run did not close it, and take up where it ends."""
        if self._check:
            self._check = False
            quick_check(connection)
        try:
            self.log.load(connection)
        except (zlib.error, struct.error, ValueError, EOFError) as error:
            raise damaged(f"a block cannot be read: {error}") from error
        self._describe(connection)

    def _on_trouble(self, connection: sqlite3.Connection, error: StoreError) -> None:
        if isinstance(error, Corrupt) or self._homeless:
            self._homeless = True
            connection.close()
            self.writer.use(self._begin_afresh(error))
            self.log.begin_afresh()
        elif isinstance(error, DiskFull):
            self._ballast.release()
            retention.make_room(connection)

    def _begin_afresh(self, error: StoreError) -> sqlite3.Connection:
        """Set the damaged file aside, once, and open a new one, as often as it takes. Raises StoreError."""
        try:
            if not self._cleared:
                aside = set_aside(self.path, self._clock.now().wall)
                self._cleared = True
                self.notice = f"{self.path.name} was damaged; it is kept as {aside.name} and a new one was begun"
                self._say("series_damaged", f"{self.notice} ({error.message})")
            connection = open_writer(self.path, KIND)
            self._describe(connection)
        except (sqlite3.Error, OSError) as problem:
            raise mapped(problem, self.path) from problem
        except DiskFull:
            self._ballast.release()
            raise
        self._homeless = self._cleared = False
        return connection

    def _describe(self, connection: sqlite3.Connection) -> None:
        """Put in what people find in the file besides numbers: the views, and whose numbers they are."""
        views.refresh(connection)
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('host', ?)", (self._host,))


def quick_check(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError (as corrupt) when SQLite finds the file damaged."""
    answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if answer != "ok":
        raise damaged(answer)


def damaged(reason: str) -> sqlite3.DatabaseError:
    """An error that is handled as SQLite's own report of a damaged file."""
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
