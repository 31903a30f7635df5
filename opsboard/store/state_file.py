"""``state.db`` as a whole: its writer thread, its daily copies, and its restoring from one of them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from opsboard.core.clock import Clock
from opsboard.core.errors import DiskFull, StoreError
from opsboard.store import migrations
from opsboard.store.database import Corrupt, Kind, Writer, mapped, open_writer, reading, transaction
from opsboard.store.retention import aging_wall
from opsboard.store.statedir import Ballast, set_aside

T = TypeVar("T")

KIND = Kind("state.db", 0x6F707302, "FULL", migrations.STATE)
BACKUP_S = 86400.0
TABLES_WITH_AGE = ("events", "transitions", "audit", "restarts", "actions", "rolling", "keys", "outbox")
FORGET_AT_ONCE = 500
"""Rows of a table deleted at most in one minute."""


class StateFile:
    """Decisions and timelines: nothing here is told as done before it is on disk."""

    def __init__(self, path: Path, clock: Clock, *, keep_s: float) -> None:
        """Open the file, restoring it from a copy when it is damaged. Raises NewerSchema, DiskFull, StoreError."""
        self.path = path
        self.keep_s = keep_s
        self.notice: str | None = None
        """What happened to the file at this start, when it was damaged."""
        self.warning: str | None = None
        """Why the last daily copy failed; None when it did not."""
        self.unclean = False
        """The run before this one did not end by closing the file."""
        self._clock = clock
        self._opened = clock.now()
        self._ballast = Ballast(path.with_name("state.ballast"))
        self._next_upkeep = 0.0
        try:
            connection = self._open()
        except Corrupt as error:
            connection = self._restore(error)
        self._run = self._begin_run(connection)
        self.writer = Writer(connection, path, on_tick=self._tick, on_trouble=self._on_trouble)
        self.writer.start()

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Queue a change; the future is done when it is on disk."""
        return self.writer.submit(work)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read in one snapshot (any thread). Raises StoreError."""
        with reading(self.path) as connection:
            return work(connection)

    def close(self, timeout_s: float) -> bool:
        """Note the clean end and close; False when the disk did not answer in time."""
        ended = self._clock.now().wall
        self.submit(lambda connection: connection.execute("UPDATE runs SET ended = ? WHERE id = ?", (ended, self._run)))
        return self.writer.close(timeout_s)

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        connection = open_writer(self.path, KIND)
        try:
            last = connection.execute("SELECT ended FROM runs ORDER BY id DESC LIMIT 1").fetchone()
            self.unclean = last is not None and last[0] is None
            if self.unclean:
                answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if answer != "ok":
                    raise Corrupt(f"{self.path}: the file is damaged ({answer})")
        except sqlite3.Error as error:
            connection.close()
            raise mapped(error, self.path) from error
        except Corrupt:
            connection.close()
            raise
        return connection

    def _begin_run(self, connection: sqlite3.Connection) -> int:
        try:
            with transaction(connection):
                row = connection.execute(
                    "INSERT INTO runs (started, pid) VALUES (?, ?) RETURNING id", (self._clock.now().wall, os.getpid())
                ).fetchone()
        except sqlite3.Error as error:
            connection.close()
            raise mapped(error, self.path) from error
        run: int = row[0]
        return run

    def _restore(self, error: Corrupt) -> sqlite3.Connection:
        """Set the damaged file aside and go on with the newest copy that is whole, or with an empty one."""
        try:
            aside = set_aside(self.path, self._clock.now().wall)
            for copy in self._copies():
                if is_whole(copy):
                    self.path.write_bytes(copy.read_bytes())
                    self.path.chmod(0o600)
                    when = "restored from its last copy"
                    break
            else:
                when = "there was no whole copy: begun anew, events and wishes are lost"
        except OSError as problem:
            raise mapped(problem, self.path) from problem
        self.notice = f"{self.path.name} was damaged ({error.message}); it is kept as {aside.name}; {when}"
        self.unclean = True
        return open_writer(self.path, KIND)

    def _copies(self) -> list[Path]:
        """The places of the copies, newest first."""
        return [self.path.with_name(f"{self.path.name}.backup-{number}") for number in (1, 2)]

    # --- writer thread ------------------------------------------------------------------------------------------------

    def _tick(self, connection: sqlite3.Connection) -> None:
        now = self._clock.now()
        if now.mono < self._next_upkeep:
            return
        self._next_upkeep = now.mono + 60
        for table in TABLES_WITH_AGE:
            connection.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE t < ? ORDER BY t LIMIT ?)",  # noqa: S608  constants
                (aging_wall(self._opened, now) - self.keep_s, FORGET_AT_ONCE),
            )
        self._ballast.keep()
        newest = self._copies()[0]
        if not newest.exists() or now.wall - newest.stat().st_mtime >= BACKUP_S:
            try:
                self._back_up(connection)
            except (sqlite3.Error, OSError) as error:
                self.warning = f"{self.path}: the daily copy failed ({error})"
            else:
                self.warning = None

    def _back_up(self, connection: sqlite3.Connection) -> None:
        """Copy the file by SQLite's backup API; two copies are kept, and none is ever half there."""
        first, second = self._copies()
        fresh = first.with_name(first.name + ".new")
        fresh.unlink(missing_ok=True)
        fd = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.closing(sqlite3.connect(fresh)) as copy:
                connection.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
            os.fsync(fd)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            first.rename(second)
        fresh.rename(first)

    def _on_trouble(self, _connection: sqlite3.Connection, error: StoreError) -> None:
        if isinstance(error, DiskFull):
            self._ballast.release()


def is_whole(path: Path) -> bool:
    """True when the file is a database that passes quick_check."""
    try:
        with reading(path) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except StoreError:
        return False
