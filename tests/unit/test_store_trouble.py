"""Full disks, damaged files, unclean ends: nothing acknowledged is lost, and a person is told."""

from __future__ import annotations

import asyncio
import math
import os
import resource
import shutil
import sqlite3
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.errors import DiskFull, StoreError
from opsboard.core.model import Event, Sample
from opsboard.store import history, retention, series, series_file
from opsboard.store import store as store_face
from opsboard.store.database import Kind, Writer, mapped, open_writer, reading
from opsboard.store.series import SeriesLog
from opsboard.store.series_file import KIND, damaged
from opsboard.store.statedir import Ballast, set_aside
from opsboard.store.store import READERS, Store
from tests.support.in_loop import in_loop
from tests.support.store import RUNNING, WALL, fill, opened, stored
from tests.support.waiting import wait_until, wait_until_async


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush ten times a second."""
    monkeypatch.setattr(series_file, "FLUSH_S", 0.1)


def limit_pages(writer: Writer, pages: int) -> None:
    """Let the file grow no further: SQLite answers SQLITE_FULL, as on a full disk."""
    writer.submit(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone()).result(timeout=5)


def pages_of(writer: Writer) -> int:
    count: int = writer.submit(lambda c: c.execute("PRAGMA page_count").fetchone()[0]).result(timeout=5)
    return count


def crash(store: Store) -> None:
    """End as kill -9 does: no last flush, no clean mark (the threads stop without writing)."""
    store._series.writer._on_tick = None
    assert store._series.writer.close()
    assert store._state.writer.close()
    store._lock.release()


def flush_with_room(log: SeriesLog, connection: sqlite3.Connection) -> bool:
    """Flush as the writer does; True when room had to be made."""
    try:
        log.flush(connection)
    except sqlite3.OperationalError as problem:
        error = mapped(problem, Path("series.db"))
    else:
        return False
    assert isinstance(error, DiskFull)
    assert retention.make_room(connection)
    log.flush(connection)
    return True


def test_a_full_disk_costs_old_samples_first(tmp_path: Path) -> None:
    connection = open_writer(tmp_path / "series.db", KIND)
    log = SeriesLog()
    log.load(connection)
    for at in range(0, 40_000, 2):
        log.offer(WALL + at, [Sample(RUNNING, math.sin(at)), Sample("engine/a/waiting", math.cos(at))])
        if at % 1000 == 0:
            log.flush(connection)
    log.flush(connection)
    minutes = connection.execute("SELECT count(*) FROM minute").fetchone()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    thinned = 0
    for at in range(40_000, 80_000, 2):
        log.offer(WALL + at, [Sample(RUNNING, math.sin(at)), Sample("engine/a/waiting", math.cos(at))])
        if at % 1000 == 0:
            thinned += flush_with_room(log, connection)
    assert thinned
    assert connection.execute("SELECT count(*) FROM minute").fetchone() > minutes
    snap = log.snapshot(RUNNING)
    assert snap is not None
    assert snap.values[-1] == math.sin(79_998)
    assert log.dropped == 0
    connection.close()


@in_loop
async def test_while_nothing_can_be_written_it_is_said_and_afterwards_it_is_there(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        fill(store, 10)
        await stored(store)
        limit_pages(store._series.writer, pages_of(store._series.writer))
        subjects = [f"engine/e{at}/running" for at in range(2000)]
        store.append(WALL + 10, [Sample(name, 1.0) for name in subjects])
        await wait_until_async(lambda: not store.health().recorded, what="NOT RECORDED")
        health = store.health()
        assert health.message is not None
        assert "series.db: no room left" in health.message
        # The live board goes on: what waits can be read.
        assert len((await store.history(subjects[7], WALL, WALL + 60, 1)).points) == 1
        # Timelines have a file of their own.
        await asyncio.wrap_future(store.event(Event(t=WALL, subject="host", kind="k", text="t")))
        limit_pages(store._series.writer, 1 << 30)
        await wait_until_async(lambda: store.health().recorded, what="recorded again")
        await stored(store)
        assert store.health().dropped == 0
    async with opened(tmp_path / "state") as store:
        assert len((await store.history(subjects[7], WALL, WALL + 60, 1)).points) == 1


@in_loop
async def test_an_event_is_acknowledged_only_when_it_is_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        limit_pages(store._state.writer, pages_of(store._state.writer))
        waiting: list[Future[None]] = []
        while not (waiting and store._state.writer.trouble):
            waiting.append(store.event(Event(t=WALL, subject="host", kind="k", text="x" * 3000)))
            await asyncio.sleep(0.005)
            assert len(waiting) < 1000
        assert not waiting[-1].done()
        assert not store.health().recorded
        store._state.writer._connection.execute("PRAGMA max_page_count = 1000000000").fetchone()
        await wait_until_async(lambda: all(future.done() for future in waiting), what="acknowledged")
        assert [future.exception() for future in waiting] == [None] * len(waiting)
        assert len(await store.events(limit=5000)) == len(waiting)
        assert store.health().recorded


def test_what_waits_for_the_disk_is_bounded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "WAITING_CHUNK_BYTES", 20_000)
    monkeypatch.setattr(series, "WAITING_RECENT_BYTES", 20_000)
    monkeypatch.setattr(series, "WAITING_ROLLUPS", 50)
    connection = open_writer(tmp_path / "series.db", KIND)
    log = SeriesLog()
    log.load(connection)
    connection.execute("PRAGMA query_only = ON")
    for at in range(12 * 3600):
        log.offer(WALL + at, [Sample(RUNNING, math.sin(at))])
        if at % 60 == 0:
            with pytest.raises(sqlite3.OperationalError):
                log.flush(connection)
    assert sum(chunk.size for chunk in log._chunks) <= 20_000
    assert len(log._rollups) <= 50
    assert 0 < log.dropped < 12 * 3600
    connection.execute("PRAGMA query_only = OFF")
    log.flush(connection)
    kept = connection.execute("SELECT sum(count) FROM columns").fetchone()[0]
    snap = log.snapshot(RUNNING)
    assert snap is not None
    assert kept + len(snap.values) + log.dropped == 12 * 3600
    connection.close()


def test_the_inbox_is_bounded(tmp_path: Path) -> None:
    log = SeriesLog()
    for at in range(series.INBOX_SAMPLES + 7):
        log.offer(WALL + at, [Sample(RUNNING, 1.0)])
    assert log.refused == 7


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "no room left"),
        (OSError(30, "Read-only file system"), "cannot be written"),
        (PermissionError(13, "Permission denied"), "cannot be written"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_errors_name_the_file_and_what_to_do(tmp_path: Path, error: OSError, words: str) -> None:
    said = mapped(error, tmp_path / "series.db")
    assert str(tmp_path / "series.db") in said.message
    assert words in said.message
    assert said.hint or words == "Input/output error"


@in_loop
async def test_a_disk_that_answers_with_errors_is_waited_for(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        fill(store, 10)
        await stored(store)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # SQLite says: disk I/O error
        try:
            store.append(WALL + 10, [Sample(f"engine/e{at}/running", math.sin(at)) for at in range(9000)])
            await wait_until_async(lambda: not store.health().recorded, what="NOT RECORDED")
            assert "series.db: disk I/O error" in (store.health().message or "")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await stored(store)
        assert store.health().recorded
        assert store.health().dropped == 0
        assert len((await store.history("engine/e8999/running", WALL, WALL + 60, 1)).points) == 1


@in_loop
async def test_a_fault_of_our_own_is_said_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path / "state") as store:
        fill(store, 10)
        await stored(store)

        def bug(*rows: object) -> None:
            raise KeyError(len(rows))

        with monkeypatch.context() as broken:
            broken.setattr(store._series.log, "_write", bug)
            fill(store, 10, WALL + 10)
            await wait_until_async(lambda: not store.health().recorded, what="NOT RECORDED")
            assert "KeyError" in (store.health().message or "")
        await stored(store)
        await wait_until_async(lambda: store.health().recorded, what="recorded again")
        assert len((await store.history(RUNNING, WALL, WALL + 60, 1)).points) == 20


@pytest.mark.parametrize("nth", range(1, 12))
@in_loop
async def test_a_write_that_fails_at_any_statement_leaves_nothing_half_done(tmp_path: Path, nth: int) -> None:
    """SQLite refuses the nth statement of a flush that ends minutes, an hour and chunks."""
    connection = open_writer(tmp_path / "series.db", KIND)
    log = SeriesLog()
    log.load(connection)
    for at in range(4000):
        log.offer(WALL + at, [Sample(RUNNING, math.sin(at)), Sample("host/h/load1", 1.0)])
    left = nth

    def refuse(action: int, *names: str | None) -> int:
        nonlocal left
        counts = action in {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_UPDATE}
        left -= counts
        return sqlite3.SQLITE_DENY if counts and left == 0 else sqlite3.SQLITE_OK

    connection.set_authorizer(refuse)
    failed = False
    try:
        log.flush(connection)
    except sqlite3.DatabaseError:
        failed = True
        assert connection.execute("SELECT count(*) FROM recent").fetchone() == (0,)
    connection.set_authorizer(None)
    log.flush(connection)
    log = SeriesLog()
    log.load(connection)
    for step in (1.0, 60.0, 6 * 3600.0):
        snap = log.snapshot(RUNNING)
        assert snap is not None
        found = history.read(connection, snap, RUNNING, WALL, WALL + 4000, step)
        assert sum(point.count for point in found.points) == 4000
    assert failed or nth > 8
    connection.close()


@in_loop
async def test_jobs_that_are_wrong_fail_alone(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        wrong = store._state.submit(lambda c: c.execute("INSERT INTO wishes VALUES ('a', 'sideways', 1)"))
        right = store.wish("b", "up")
        await asyncio.wrap_future(right)
        assert isinstance(wrong.exception(timeout=5), StoreError)
        assert await store.wishes() == {"b": "up"}
        assert store.health().recorded


def test_a_write_that_nobody_waits_for_any_more_ends_no_writer(tmp_path: Path) -> None:
    """One taken back in time is not done; one that is being done is, and all after it are told."""
    writer = Writer(open_writer(tmp_path / "state.db", KIND), tmp_path / "state.db")
    doing, go, done = threading.Event(), threading.Event(), []

    def work(_connection: sqlite3.Connection) -> None:
        doing.set()
        go.wait(10)
        done.append("first")

    writer.start()
    first = writer.submit(work)
    assert doing.wait(10)
    second = writer.submit(lambda _connection: done.append("second"))
    third = writer.submit(lambda _connection: done.append("third"))
    assert (first.cancel(), second.cancel()) == (False, True)
    go.set()
    third.result(10)
    assert (done, writer.trouble) == (["first", "third"], None)
    assert writer.close()


def test_a_writer_that_is_closed_or_overrun_says_no(tmp_path: Path) -> None:
    connection = open_writer(tmp_path / "state.db", KIND)
    writer = Writer(connection, tmp_path / "state.db", bound=2)
    futures = [writer.submit(lambda c: None) for _ in range(3)]
    assert isinstance(futures[2].exception(timeout=1), StoreError)
    assert writer.dropped == 1
    writer.start()
    assert futures[0].result(timeout=5) is None
    assert writer.close()
    assert isinstance(writer.submit(lambda c: None).exception(timeout=1), StoreError)


@in_loop
async def test_after_an_unclean_end_nothing_is_missing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state", ManualClock(wall=WALL), host="h")
    fill(store, 1000)
    await stored(store)
    before = await store.history(RUNNING, WALL, WALL + 1000, 1)
    crash(store)
    async with opened(tmp_path / "state") as store:
        assert store._state.unclean
        assert store.health().message is None
        assert await store.history(RUNNING, WALL, WALL + 1000, 1) == before
    async with opened(tmp_path / "state") as store:
        assert not store._state.unclean


def damage(path: Path) -> None:
    """Overwrite the pages behind the first with noise."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * max(4096, size - 4096))


@pytest.mark.parametrize("how", ["pages", "header"])
@in_loop
async def test_a_damaged_series_file_is_set_aside(tmp_path: Path, how: str) -> None:
    state = tmp_path / "state"
    store = Store.open(state, ManualClock(wall=WALL), host="h")
    fill(store, 3000)
    await stored(store)
    crash(store)
    if how == "pages":
        damage(state / "series.db")
    else:
        (state / "series.db").write_bytes(b"no database at all" * 300)
    async with opened(state) as store:
        fill(store, 5, WALL + 5000)
        await stored(store)
        aside = list(state.glob("series.db.corrupt.*"))
        assert len(aside) == 1
        health = store.health()
        assert health.recorded
        assert health.message is not None
        assert aside[0].name in health.message
        assert [event.kind for event in await store.events("host")] == ["series_damaged"]
        assert len((await store.history(RUNNING, WALL, WALL + 6000, 1)).points) == 5


@in_loop
async def test_a_file_that_breaks_while_running_is_replaced_and_the_open_chunk_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    async with opened(state) as store:
        fill(store, 100)
        await stored(store)
        flush = store._series.log.flush

        def broken(connection: sqlite3.Connection) -> None:
            monkeypatch.setattr(store._series.log, "flush", flush)
            raise damaged("page 7 is never used")

        monkeypatch.setattr(store._series.log, "flush", broken)
        store.append(WALL + 100, [Sample(RUNNING, 1.0)])
        await wait_until_async(lambda: store.health().message is not None, what="the damage was noticed")
        store.append(WALL + 101, [Sample(RUNNING, 2.0)])
        await wait_until_async(lambda: not store._series.log.waiting() and store.health().recorded, what="recorded")
        assert len((await store.history(RUNNING, WALL, WALL + 200, 1)).points) == 102
        assert list(state.glob("series.db.corrupt.*"))


@in_loop
async def test_a_file_that_breaks_on_a_disk_that_takes_no_new_one_is_replaced_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    async with opened(state) as store:
        fill(store, 100)
        await stored(store)
        flush = store._series.log.flush
        tries: list[Path] = []

        def broken(connection: sqlite3.Connection) -> None:
            monkeypatch.setattr(store._series.log, "flush", flush)
            raise damaged("page 7 is never used")

        def full(path: Path, kind: Kind) -> sqlite3.Connection:
            tries.append(path)
            raise DiskFull(f"{path}: no room left on the disk", permanent=False)

        monkeypatch.setattr(series_file, "open_writer", full)
        monkeypatch.setattr(store._series.log, "flush", broken)
        store.append(WALL + 100, [Sample(RUNNING, 1.0)])
        await wait_until_async(lambda: len(tries) >= 3, what="it is tried again and again")
        assert "no room left" in str(store.health().message)
        monkeypatch.setattr(series_file, "open_writer", open_writer)
        await wait_until_async(lambda: not store._series.log.waiting() and store.health().recorded, what="recorded")
        assert (
            len([path for path in state.glob("series.db.corrupt.*") if not path.name.endswith(("-wal", "-shm"))]) == 1
        )
        assert [event.kind for event in await store.events("host")] == ["series_damaged"]
        assert len((await store.history(RUNNING, WALL, WALL + 200, 1)).points) == 101
        with reading(state / "series.db") as connection:  # what is documented is there, too
            assert connection.execute("SELECT count(*) FROM engine_minute").fetchone() is not None
            assert connection.execute("SELECT value FROM meta WHERE key = 'host'").fetchone() == ("gpu-a",)


@in_loop
async def test_a_damaged_state_file_is_restored_from_its_copy(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with opened(state) as store:
        store.wish("a", "down")
    (state / "state.db.backup-1").unlink()
    async with opened(state):  # copies what is there at its start
        wait_until((state / "state.db.backup-1").exists, what="the copy was made")
    (state / "state.db").write_bytes(b"\xa5" * 9000)
    async with opened(state) as store:
        assert await store.wishes() == {"a": "down"}
        message = store.health().message
        assert message is not None
        assert "restored from its last copy" in message
        assert [event.kind for event in await store.events()] == ["state_damaged"]
    for name in ("state.db", "state.db.backup-1", "state.db.backup-2"):
        (state / name).write_bytes(b"\xa5" * 9000)
    async with opened(state) as store:
        assert await store.wishes() == {}
        assert "begun anew" in (store.health().message or "")


@in_loop
async def test_two_copies_are_kept_a_day_apart(tmp_path: Path) -> None:
    state, clock = tmp_path / "state", ManualClock(wall=WALL)
    async with opened(state, clock) as store:
        first, second = state / "state.db.backup-1", state / "state.db.backup-2"
        await wait_until_async(first.exists, what="the first copy")
        assert not second.exists()
        os.utime(first, (WALL - 90_000, WALL - 90_000))
        clock.advance(61)
        await wait_until_async(second.exists, what="the second copy")
        await wait_until_async(first.exists, what="the newer copy")
        assert store.health().recorded
        assert not list(state.glob("*.new"))


def test_the_ballast_is_kept_only_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ballast = Ballast(tmp_path / "ballast")
    assert ballast.keep()
    assert ballast.keep()
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= 1 << 20
    ballast.release()
    ballast.release()
    place = os.statvfs(tmp_path)
    little = os.statvfs_result((place[0], place[1], place[2], place[3], 10, *place[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: little)
    assert not ballast.keep()
    assert not (tmp_path / "ballast").exists()


def test_files_set_aside_in_the_same_second_keep_apart(tmp_path: Path) -> None:
    for _ in range(3):
        (tmp_path / "series.db").write_bytes(b"x")
        (tmp_path / "series.db-wal").write_bytes(b"y")
        set_aside(tmp_path / "series.db", WALL)
    assert len(list(tmp_path.glob("series.db.corrupt.2023-11-14T*"))) == 6
    shutil.rmtree(tmp_path)


@in_loop
async def test_reads_that_hang_keep_nobody_else_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_face, "READ_S", 0.02)
    answer, hanging = threading.Event(), []

    def hang() -> list[str]:
        hanging.append(1)
        answer.wait(10)
        return []

    async with opened(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store._series.log, "names", hang)
            for _ in range(READERS * 3):
                with pytest.raises(StoreError, match="did not answer"):
                    await store.series()
        assert len(hanging) == READERS
        async with asyncio.timeout(10):
            await asyncio.to_thread(answer.set)
        monkeypatch.setattr(store_face, "READ_S", 10.0)
        assert await store.series() == []
