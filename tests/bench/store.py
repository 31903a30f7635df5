"""The store: bytes a sample, a day's query, and what it costs at the rate of a full host."""

from __future__ import annotations

import contextlib
import random
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from opsboard.core.model import Sample
from opsboard.core.series import FIELDS
from opsboard.store import history, retention
from opsboard.store.database import open_writer, reading
from opsboard.store.rollups import MINUTE_S
from opsboard.store.series import SeriesLog
from opsboard.store.series_file import KIND
from tests.bench import Row

START = 1_699_999_200
DAY_S = 86_400
MIX = ("counter", "gauge", "noise", "constant", "bytes", "decimal")
"""As on a host: tokens and requests; requests running; latencies; sizes; memory of processes; watts and degrees."""


def _walks(seed: int) -> dict[str, Callable[[], float]]:
    rnd = random.Random(seed)
    state = {"counter": 0.0, "gauge": 8.0, "bytes": 620_347_392.0}

    def counter() -> float:
        state["counter"] += rnd.randint(0, 900)
        return state["counter"]

    def gauge() -> float:
        state["gauge"] = max(0.0, state["gauge"] + rnd.choice((-1, 0, 0, 0, 1)))
        return state["gauge"]

    def memory() -> float:
        state["bytes"] += rnd.choice((0,) * 12 + (4096, 65536, -65536, 2 << 20))
        return state["bytes"]

    return {
        "counter": counter,
        "gauge": gauge,
        "noise": lambda: rnd.gauss(0.02, 0.003),
        "constant": lambda: 22_400.0,
        "bytes": memory,
        "decimal": lambda: round(300 + rnd.gauss(0, 5), 1),
    }


def _subject(kind: str, name: str, fields: int, seed: int) -> list[tuple[str, Callable[[], float]]]:
    walks = _walks(seed)
    return [(f"{kind}/{name}/f{at}", walks[MIX[at % len(MIX)]]) for at in range(fields)]


def _small() -> list[list[tuple[str, Callable[[], float]]]]:
    """60 series of 3 subjects, the mix that the layouts were compared with."""
    return [_subject("engine", f"e{at}", 20, at) for at in range(3)]


def _full() -> list[list[tuple[str, Callable[[], float]]]]:
    """A full host: 8 engines of 5 processes each, 8 GPUs, itself."""
    engines = [_subject("engine", f"e{at}", len(FIELDS["engine"]), at) for at in range(8)]
    processes = [
        [series for role in range(5) for series in _subject("process", f"e{at}:{role}", len(FIELDS["process"]), role)]
        for at in range(8)
    ]
    gpus = [[series for at in range(8) for series in _subject("gpu", f"g{at}", len(FIELDS["gpu"]), at)]]
    return [*engines, *processes, *gpus, _subject("host", "h", len(FIELDS["host"]), 99)]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[sqlite3.Connection, SeriesLog]]:
    connection = open_writer(path, KIND)
    log = SeriesLog()
    log.load(connection)
    yield connection, log
    connection.close()


def _second(at: int, subjects: list[list[tuple[str, Callable[[], float]]]]) -> Iterator[tuple[float, list[Sample]]]:
    for number, subject in enumerate(subjects):
        # A phase of its own for each target, and the jitter of a real timer.
        wall = START + at + number / len(subjects) + random.random() * 0.002
        yield wall, [Sample(name, value()) for name, value in subject]


def _size_and_query(directory: Path) -> list[Row]:
    path = directory / "series.db"
    subjects = _small()
    with _opened(path) as (connection, log):
        for at in range(DAY_S):
            for wall, samples in _second(at, subjects):
                log.offer(wall, samples)
            if at % 10 == 9:
                log.flush(connection)
        log.ending = True
        log.flush(connection)
        connection.execute("DELETE FROM recent")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        retention.shrink(connection, 1 << 20)
        count, data = connection.execute("SELECT sum(count), sum(length(data)) FROM columns").fetchone()
        other = connection.execute(
            "SELECT (SELECT sum(length(times)) FROM chunks) + (SELECT coalesce(sum(length(rows)), 0) FROM columns)"
        ).fetchone()[0]
        minutes = connection.execute("SELECT count(*) FROM minute").fetchone()[0]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        whole = path.stat().st_size
        connection.executescript("DELETE FROM minute; DELETE FROM hour; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
        raw = path.stat().st_size
        rows = [
            Row(
                "store: bytes a sample, raw chunks, as the file grows",
                "<= 3",
                f"{raw / count:.2f} (columns {(data + other) / count:.2f}; with rollups {whole / count:.2f},"
                f" {(whole - raw) / minutes:.0f} bytes a rollup row; {count:,} samples)",
                raw / count <= 3,
            )
        ]
        rows += [_query(path, log, step) for step in (10.0, 30.0)]
    return rows


def _query(path: Path, log: SeriesLog, step: float) -> Row:
    best = float("inf")
    points = 0
    for _ in range(5):
        began = time.perf_counter()
        snap = log.snapshot("engine/e1/f2")
        assert snap is not None
        with reading(path) as connection:
            found = history.read(connection, snap, "engine/e1/f2", START, START + DAY_S, step)
        best = min(best, time.perf_counter() - began)
        points = sum(point.count for point in found.points)
    return Row(
        f"store: 24 h of one 1 Hz series, step {step:g} s, from raw samples",
        "<= 50 ms",
        f"{best * 1000:.0f} ms (best of 5, {points:,} samples)",
        best <= 0.050 and points >= DAY_S - MINUTE_S,
    )


def _cost(directory: Path) -> list[Row]:
    subjects = _full()
    count = sum(map(len, subjects))
    seconds = 2000
    with _opened(directory / "series.db"):
        pass  # made now: what the migration takes (19 MB, at a first start only) is in the daemon's row
    before = _rss()
    with _opened(directory / "series.db") as (connection, log):
        cpu = 0.0
        for at in range(seconds):
            batches = list(_second(at, subjects))
            began = time.process_time()
            for wall, samples in batches:
                log.offer(wall, samples)
            log.flush(connection)
            cpu += time.process_time() - began
    grown = (_rss() - before) / 1e6
    share = cpu / seconds
    return [
        Row(
            f"store: CPU, {count} series at 1 Hz, flushed each second",
            "<= 0.3 % of a core",
            f"{share:.2%} ({cpu / seconds / count * 1e6:.1f} us a sample)",
            share <= 0.003,
        ),
        Row(f"store: memory, {count} series", "<= 12 MB", f"{grown:.1f} MB (peak RSS above the start)", grown <= 12),
    ]


def _rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run() -> list[Row]:
    """Measure; about half a minute."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        rows = _cost(Path(first))  # first: peak memory only grows
        return [*rows, *_size_and_query(Path(second))]


if __name__ == "__main__":
    for row in run():
        print(row)
