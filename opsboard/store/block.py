"""The open chunk of one subject, in memory: all series of an engine, a GPU or a host share its rows and their times."""

from __future__ import annotations

import zlib
from array import array
from typing import NamedTuple

from opsboard.store import codec
from opsboard.store.rollups import Rollup, summarise

CHUNK_MS = 900_000
"""Length of a chunk: 120, 900 and 3600 s gave 2.4, 2.0 and 1.7 bytes a sample; memory and replay grow with it."""
MAX_ROWS = 8192


class ColumnData(NamedTuple):
    """A stored column: ``rows`` are the numbers of the chunk's rows it has values for, None when all."""

    series_id: int
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs of a column
    rows: bytes | None
    data: bytes


class Chunk(NamedTuple):
    """A closed chunk as it is stored. ``seq`` is the last write whose samples it holds; times are Unix milliseconds."""

    subject: str
    start_ms: int
    end_ms: int
    seq: int
    rows: int
    times: bytes
    columns: list[ColumnData]

    @property
    def size(self) -> int:
        """Bytes it takes, near enough for a bound."""
        return len(self.times) + sum(64 + len(column.data) + len(column.rows or b"") for column in self.columns)

    @property
    def samples(self) -> int:
        """Number of samples in it."""
        return sum(column.count for column in self.columns)


class Column:
    """Samples of one series since the chunk began; ``rolled`` of them are in the minutes already."""

    __slots__ = ("before", "counter", "rolled", "rows", "series_id", "values")

    def __init__(self, series_id: int, *, counter: bool) -> None:
        self.series_id = series_id
        self.counter = counter
        self.before: float | None = None
        """The last value in the minutes; None before the first."""
        self.clear()

    def clear(self) -> None:
        """Begin anew, keeping what a counter stood at."""
        self.values = array("d")
        self.rows = array("H")
        self.rolled = 0

    def roll(self, minute: int) -> Rollup | None:
        """Summarise what is not in the minutes yet."""
        fresh = self.values[self.rolled :]
        self.rolled = len(self.values)
        row = summarise(minute, self.series_id, fresh, counter=self.counter, before=self.before)
        if row is not None:
            self.before = row.last
        return row

    def encode(self, rows: int) -> ColumnData:
        """Compress it; ``rows`` is how many the chunk has."""
        dense = len(self.rows) == rows and self.rows == array("H", range(rows))
        return ColumnData(
            self.series_id,
            len(self.values),
            None if dense else codec.encode_whole(self.rows.tolist()),
            codec.encode(self.values),
        )


class Block:
    """Rows of one subject (``kind/name``) that no chunk on disk holds yet."""

    __slots__ = ("batch", "columns", "first_seq", "folded_seq", "phase_ms", "subject", "times")

    def __init__(self, subject: str, folded_seq: int = 0) -> None:
        self.subject = subject
        self.columns: list[Column] = []
        self.folded_seq = folded_seq
        """The last write whose samples are in chunks."""
        self.phase_ms = zlib.crc32(subject.encode()) % CHUNK_MS
        """Where on the clock its chunks end: spread, so that not all subjects are compressed in the same second."""
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.times = array("q")
        self.first_seq = 0
        self.batch = -1
        for column in self.columns:
            column.clear()

    def due(self, now_ms: int) -> bool:
        """True when the chunk's time is over (or the clock has gone before its start)."""
        return bool(self.times) and (self.times[0] + self.phase_ms) // CHUNK_MS != (now_ms + self.phase_ms) // CHUNK_MS

    def encode(self, seq: int) -> Chunk:
        """Compress all rows; ``seq`` is the last write that is in them."""
        times = self.times.tolist()
        columns = [column.encode(len(times)) for column in self.columns if column.values]
        return Chunk(self.subject, min(times), max(times), seq, len(times), codec.encode_whole(times), columns)
