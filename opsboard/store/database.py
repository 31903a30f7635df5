"""One writer thread for one SQLite file: closures in, futures out; readers open the file for the moment they need it.

SQLite 3.7.0 to 3.51.2 can corrupt a WAL when two connections write and checkpoint at the same instant. So one
connection does all writes and all checkpoints, and readers never checkpoint (https://sqlite.org/wal.html, "the WAL-
reset bug").
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from opsboard.core.errors import DiskFull, NewerSchema, StoreError
from opsboard.store.migrations import migrate

T = TypeVar("T")

BUSY_MS = 5000
JOURNAL_LIMIT = 16 << 20
_FULL = (sqlite3.SQLITE_FULL,)
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_DENIED = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_OUTSIDE = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, *_FULL)


class Corrupt(StoreError):
    """The file is damaged. Stays inside the store: it is set aside or restored."""

    code = "corrupt"


class Kind(NamedTuple):
    """What a file is: ``application_id`` marks it as ours, ``steps`` are its migrations."""

    name: str
    application_id: int
    synchronous: str
    steps: tuple[str, ...]


def mapped(error: Exception, path: Path) -> StoreError:
    """Say a foreign error in our words, naming the file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    number = getattr(error, "errno", None)
    if code in _FULL or number in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(
            f"{path}: no room left on the disk ({error})",
            hint="free space, or lower [store] max_bytes",
            permanent=False,
        )
    if code in _CORRUPT:
        return Corrupt(f"{path}: the file is damaged ({error})")
    if code in _DENIED or number in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return StoreError(f"{path}: cannot be written ({error})", hint=f"check the owner and rights of {path.parent}")
    if isinstance(error, sqlite3.Error | OSError):
        return StoreError(f"{path}: {error}", permanent=code not in _OUTSIDE)
    return StoreError(f"{path}: {type(error).__name__}: {error}")


def open_writer(path: Path, kind: Kind) -> sqlite3.Connection:
    """Open (or create, 0600) and migrate. Raises NewerSchema (file untouched), DiskFull, Corrupt, StoreError."""
    try:
        _check_header(path, kind)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
        try:
            _prepare(connection, path, kind)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise mapped(error, path) from error
    return connection


def _check_header(path: Path, kind: Kind) -> None:
    """Look at the file's header without opening it as a database, so that a foreign or newer one stays as it is."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        return  # empty: created now; anything else: SQLite says that it is no database
    version, application = (struct.unpack_from(">I", header, offset)[0] for offset in (60, 68))
    if application not in (kind.application_id, 0):
        raise StoreError(f"{path}: is a database of another program", hint="choose another state directory")
    _check_version(path, kind, version)


def _check_version(path: Path, kind: Kind, version: int) -> None:
    if version > len(kind.steps):
        raise NewerSchema(
            f"{path}: written by a newer opsboard (schema {version}, this one knows {len(kind.steps)})",
            hint="run the newer opsboard, or choose another state directory",
        )


def _prepare(connection: sqlite3.Connection, path: Path, kind: Kind) -> None:
    run = connection.execute
    run("PRAGMA auto_vacuum = INCREMENTAL")  # counts only before WAL and the first table
    version = run("PRAGMA user_version").fetchone()[0]  # may be in the WAL, newer than the header
    _check_version(path, kind, version)
    run("PRAGMA journal_mode = WAL")
    run(f"PRAGMA synchronous = {kind.synchronous}")
    run("PRAGMA foreign_keys = ON")
    run("PRAGMA temp_store = MEMORY")
    run("PRAGMA cache_size = -1024")
    run(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT}")
    if version == 0:
        run(f"PRAGMA application_id = {kind.application_id}")
    migrate(connection, kind.steps)


@contextlib.contextmanager
def reading(path: Path, limit_s: float = 10.0) -> Iterator[sqlite3.Connection]:
    """Open for reading, in one snapshot, for at most ``limit_s`` seconds of work. Raises StoreError."""
    end = time.monotonic() + limit_s
    try:
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_MS / 1000
        )
        try:
            connection.set_progress_handler(lambda: time.monotonic() > end, 50_000)
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise mapped(error, path) from error


class Job(NamedTuple):
    """One closure, the future that waits for its commit, and when it came (monotonic seconds)."""

    work: Callable[[sqlite3.Connection], Any]
    future: Future[Any]
    since: float


class Writer:
    """The thread that owns a file's only writing connection.

    Jobs that wait together are committed together; a future is done only after the commit. While the disk refuses
    (full, unreadable, read-only) jobs stay queued and are tried again each ``tick_s``; a job that is wrong in itself
    fails alone.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        tick_s: float = 1.0,
        on_tick: Callable[[sqlite3.Connection], None] | None = None,
        on_trouble: Callable[[sqlite3.Connection, StoreError], None] | None = None,
        bound: int = 4096,
    ) -> None:
        """``on_tick`` runs each ``tick_s`` outside a transaction; ``on_trouble`` may make room after a failed write.

        It may raise StoreError, sqlite3.Error and OSError: then the write waits for the next tick.
        """
        self.path = path
        self.trouble: StoreError | None = None
        """Why the last write failed; None while writes succeed."""
        self.dropped = 0
        """Jobs refused because ``bound`` others were waiting."""
        self._connection = connection
        self._tick_s = tick_s
        self._on_tick = on_tick
        self._on_trouble = on_trouble
        self._queue: queue.Queue[Job | None] = queue.Queue(bound)
        self._waiting: list[Job] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"write:{path.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Queue a closure; never blocks.

        The future fails with StoreError when the queue is full or the writer is closed. Cancelling it takes the write
        back where it was not begun: who only stops waiting shields it.
        """
        future: Future[T] = Future()
        try:
            if self._stop.is_set():
                raise queue.Full
            self._queue.put_nowait(Job(work, future, time.monotonic()))
        except queue.Full:
            self.dropped += 1
            future.set_exception(
                StoreError(f"{self.path}: the write was refused, too many are waiting", permanent=False)
            )
        return future

    def use(self, connection: sqlite3.Connection) -> None:
        """Go on with another connection; only for ``on_trouble``, on the writer's own thread."""
        self._connection = connection

    def lag_s(self) -> float:
        """Seconds the oldest job has waited for its commit; 0 when none waits."""
        waiting = self._waiting
        return time.monotonic() - waiting[0].since if waiting else 0.0

    def close(self, timeout_s: float = 10.0) -> bool:
        """Commit what is queued, checkpoint, close. False when the thread did not end in time."""
        self._stop.set()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        next_tick = time.monotonic()
        while True:
            last = self._stop.is_set()
            self._take(0.0 if last else max(0.0, next_tick - time.monotonic()))
            due = last or time.monotonic() >= next_tick
            if self._waiting and (due or self.trouble is None):
                self._commit()
            if due:
                next_tick = time.monotonic() + self._tick_s
                self._tick()
            if last:
                break
        for job in self._waiting:
            job.future.set_exception(self.trouble or StoreError(f"{self.path}: closed before the write"))
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    def _take(self, wait_s: float) -> None:
        """Move what is queued to the waiting list, sleeping up to ``wait_s`` for the first; not what was cancelled."""
        with contextlib.suppress(queue.Empty):
            job = self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()
            while True:
                if job is not None and job.future.set_running_or_notify_cancel():  # from here on it cannot be
                    self._waiting.append(job)
                if len(self._waiting) >= self._queue.maxsize:
                    break
                job = self._queue.get_nowait()

    def _tick(self) -> None:
        if self._on_tick is not None:
            self._guard(lambda: self._on_tick(self._connection) if self._on_tick else None)

    def _commit(self) -> None:
        """Run all waiting jobs in one transaction, each in a savepoint, and tell their futures after the commit."""
        done: list[tuple[Job, Any, BaseException | None]] = []

        def group() -> None:
            done.clear()
            with transaction(self._connection):
                for job in self._waiting:
                    self._connection.execute("SAVEPOINT job")
                    try:
                        done.append((job, job.work(self._connection), None))
                    except Exception as error:  # the job's own fault stays with the job
                        if isinstance(error, sqlite3.Error) and _is_outside(error):
                            raise
                        self._connection.execute("ROLLBACK TO job")
                        done.append((job, None, error))
                    self._connection.execute("RELEASE job")

        if not self._guard(group):
            return
        self._waiting = []
        for job, result, error in done:
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(mapped(error, self.path) if isinstance(error, sqlite3.Error) else error)

    def _guard(self, work: Callable[[], None]) -> bool:
        """Run ``work``; on a failure of disk or file remember it, let ``on_trouble`` help, and try once more."""
        for attempt in range(2):
            try:
                work()
            except Exception as error:  # noqa: BLE001  whatever it is: a writer that dies in silence records nothing
                self.trouble = mapped(error, self.path)
                if attempt == 0 and self._helped(self.trouble):
                    continue
                return False
            self.trouble = None
            return True
        return False

    def _helped(self, trouble: StoreError) -> bool:
        """Let ``on_trouble`` do what it can; False when there is none, or it failed too."""
        if self._on_trouble is None:
            return False
        try:
            self._on_trouble(self._connection, trouble)
        except StoreError as worse:
            self.trouble = worse
            return False
        except (sqlite3.Error, OSError):
            return False
        return True


def _is_outside(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in _OUTSIDE or code in _CORRUPT


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE .. COMMIT; rolled back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
