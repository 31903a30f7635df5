"""Recordings through the detectors: how much faster than it was, reading and unpacking included."""

from __future__ import annotations

import time
from pathlib import Path

from opsboard.daemon.backtest import Judge
from opsboard.recording.reader import Reader
from tests.bench import Row

RECORDINGS = Path(__file__).parents[1] / "fixtures/recordings"
TIMES_REAL = 500.0
ROUNDS = 5


def run() -> list[Row]:
    """Judge all fixtures of one engine each; the best of some rounds."""
    paths = sorted(RECORDINGS.glob("*.xz"))
    _judged(paths[0])
    seconds = readings = 0.0
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        readers = [_judged(path) for path in paths]
        best = min(best, time.process_time() - began)
        seconds, readings = sum(one.seconds for one in readers), sum(one.lines for one in readers)
    return [
        Row(
            f"backtest: one engine of real-size pages in .xz, {readings:.0f} readings",
            f">= {TIMES_REAL:.0f} x real time on one core",
            f"{seconds / best:,.0f} x ({best / readings * 1e3:.2f} ms of CPU a reading)",
            seconds >= TIMES_REAL * best,
        )
    ]


def _judged(path: Path) -> Reader:
    reader = Reader(path)
    list(Judge().changes(reader))
    return reader
