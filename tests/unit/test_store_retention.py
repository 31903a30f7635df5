"""Ages and sizes."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsboard.core.clock import Now
from opsboard.core.model import Sample
from opsboard.store import retention
from opsboard.store.database import open_writer
from opsboard.store.retention import StoreLimits
from opsboard.store.series import SeriesLog
from opsboard.store.series_file import KIND
from tests.support.store import WALL

HOURS = 6


@pytest.fixture
def full(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Six hours of ten noisy series, a sample every five seconds."""
    connection = open_writer(tmp_path / "series.db", KIND)
    log = SeriesLog()
    log.load(connection)
    rnd = random.Random(7)
    for at in range(0, HOURS * 3600, 5):
        log.offer(WALL + at, [Sample(f"engine/e{name}/running", rnd.random()) for name in range(10)])
        if at % 600 == 0:
            log.flush(connection)
    log.ending = True
    log.flush(connection)
    yield connection
    connection.close()


def tidy_all(connection: sqlite3.Connection, limits: StoreLimits, wall: float) -> int:
    for bites in range(1, 2000):
        if not retention.tidy(connection, limits, wall):
            return bites
    pytest.fail("tidy never ends")


def pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def one(connection: sqlite3.Connection, query: str) -> float | None:
    value: float | None = connection.execute(query).fetchone()[0]
    return value


def test_each_table_has_its_age(full: sqlite3.Connection) -> None:
    now = WALL + HOURS * 3600
    limits = StoreLimits(raw_s=3600, minute_s=2 * 3600, hour_s=3 * 3600)
    assert tidy_all(full, limits, now) > 3
    assert one(full, "SELECT min(end_ms) FROM chunks") == pytest.approx((now - 3600) * 1000, abs=900_000)
    assert one(full, "SELECT min(t) FROM minute") == now - 7200
    assert one(full, "SELECT min(t) FROM hour") == now - 3 * 3600
    assert one(full, "SELECT count(*) FROM columns WHERE chunk_id NOT IN (SELECT id FROM chunks)") == 0


def test_nothing_goes_that_is_young(full: sqlite3.Connection) -> None:
    counts = "SELECT (SELECT count(*) FROM chunks) + (SELECT count(*) FROM minute) + (SELECT count(*) FROM hour)"
    before = one(full, counts)
    assert tidy_all(full, StoreLimits(), WALL + HOURS * 3600) == 1
    assert one(full, counts) == before


def test_size_wins_over_age_and_raw_goes_first(full: sqlite3.Connection) -> None:
    whole = (pragma(full, "page_count") - pragma(full, "freelist_count")) * pragma(full, "page_size")
    minutes = one(full, "SELECT count(*) FROM minute")
    newest = one(full, "SELECT max(end_ms) FROM chunks")
    tidy_all(full, StoreLimits(max_bytes=whole // 2), WALL)
    assert pragma(full, "page_count") * pragma(full, "page_size") <= whole // 2
    assert one(full, "SELECT count(*) FROM minute") == minutes
    assert one(full, "SELECT max(end_ms) FROM chunks") == newest
    tidy_all(full, StoreLimits(max_bytes=200_000), WALL)
    assert one(full, "SELECT count(*) FROM chunks") == 0
    assert one(full, "SELECT count(*) FROM hour") == (HOURS - 1) * 10 or HOURS * 10
    assert pragma(full, "page_count") * pragma(full, "page_size") <= 200_000


def test_shrinking_gives_pages_back_many_at_a_time(full: sqlite3.Connection) -> None:
    while retention.thin(full):
        pass
    before = pragma(full, "page_count")
    retention.shrink(full, 100)
    assert before - pragma(full, "page_count") >= 100


def test_a_bite_is_small(full: sqlite3.Connection) -> None:
    before = one(full, "SELECT count(*) FROM chunks")
    assert before is not None
    assert retention.thin(full)
    assert one(full, "SELECT count(*) FROM chunks") == before - retention.CHUNKS_A_BITE


def test_a_clock_that_jumps_ahead_ages_nothing() -> None:
    opened = Now(wall=WALL, mono=100.0)
    assert retention.aging_wall(opened, Now(wall=WALL + 1e9, mono=160.0)) == WALL + 60
    assert retention.aging_wall(opened, Now(wall=WALL - 500, mono=160.0)) == WALL - 500
