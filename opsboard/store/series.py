"""Samples on their way to ``series.db``: catalogue, open blocks, and what waits for the next write.

Every second the samples that came are written as one raw row of ``recent``; when a minute ends its summaries are
written; when a subject's quarter of an hour ends its block becomes a chunk and the raw rows that nobody needs any more
go. All that belongs together is one transaction, and two numbers make it exact after a crash: ``seq`` of a chunk says
which raw rows are in it, ``rolled_seq`` which are in the minutes. What the disk refuses waits in bounded memory; what
falls out of it is counted.
"""

from __future__ import annotations

import sqlite3
import struct
import threading
import zlib
from array import array
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from opsboard.core.model import Sample
from opsboard.core.series import FIELDS, Field, split_series
from opsboard.store.block import MAX_ROWS, Block, Chunk, Column
from opsboard.store.database import transaction
from opsboard.store.rollups import HOUR_S, MINUTE_S, Rollup, write_hour, write_minutes

MAX_SERIES = 20_000
INBOX_SAMPLES = 60_000
WAITING_CHUNK_BYTES = 8 << 20
WAITING_RECENT_BYTES = 4 << 20
WAITING_ROLLUPS = 60_000
_HEAD = struct.Struct("<dI")
CatalogueRow = tuple[int, str, str, str, str | None, int]
_FIELDS: dict[tuple[str, str], Field] = {
    (kind, field.name): field for kind, fields in FIELDS.items() for field in fields
}


class Snapshot(NamedTuple):
    """What memory holds of one series at one moment; where the file may hold the same, the numbers of writes tell."""

    series_id: int
    subject: str
    chunk_seq: int
    """Chunks of the file up to this write count; later ones are in ``chunks`` or in ``values``."""
    rolled_seq: int
    """A file that has rolled up later writes than this has all of ``values`` in its minutes."""
    chunks: list[Chunk]
    rollups: list[tuple[int, Rollup]]
    """Summaries that waited for the disk, with the last write that is in them."""
    times: list[int]
    """Unix milliseconds of ``values``."""
    values: array[float]
    rolled: int
    """How many of ``values`` are in the minutes."""


class SeriesLog:
    """The memory of ``series.db``.

    ``offer`` belongs to the event loop, ``flush`` to the writer thread, ``snapshot`` to readers.
    """

    def __init__(self) -> None:
        self.refused = 0
        """Samples that came while too many others waited."""
        self.dropped = 0
        """Samples given up later: malformed names, or a disk that refused for too long."""
        self._inbox: deque[tuple[float, Sequence[Sample]]] = deque()
        self._offered = self._taken = self._written = 0
        """Samples put in by the event loop, taken out under the lock, committed: so the loop needs no lock."""
        self._lock = threading.Lock()
        self.ending = False
        """The next flush is the last: it ends the minute that has begun."""
        self._loaded = False
        self._forget()

    @property
    def count(self) -> int:
        """Number of series."""
        return len(self._by_name)

    def _forget(self) -> None:
        self._by_name: dict[str, tuple[Block, Column]] = {}
        self._blocks: dict[str, Block] = {}
        self._next_id = 1
        self._seq = 0
        self._rolled_seq = 0
        self._minute: int | None = None
        self._batch = 0
        self._raw: list[bytes] = []
        self._known: list[CatalogueRow] = []
        self._catalogue: list[CatalogueRow] = []
        self._recent: list[tuple[int, bytes]] = []
        self._chunks: list[Chunk] = []
        self._rollups: list[tuple[int, Rollup]] = []
        self._open_hours: set[int] = set()
        self._due_hours: set[int] = set()

    # --- event loop ---------------------------------------------------------------------------------------------------

    def offer(self, wall: float, samples: Sequence[Sample]) -> None:
        """Queue one batch; drops it (counted) when the writer is too far behind."""
        if self._offered - self._taken + len(samples) > INBOX_SAMPLES:
            self.refused += len(samples)
            return
        self._offered += len(samples)
        self._inbox.append((wall, samples))

    # --- writer thread ------------------------------------------------------------------------------------------------

    def load(self, connection: sqlite3.Connection) -> None:
        """Take up where the file ends: catalogue, what counters stood at, and the raw rows that no chunk holds yet."""
        with self._lock:
            self._forget()
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            self._rolled_seq = int(meta.get("rolled_seq", 0))
            self._open_hours = {int(hour) for hour in str(meta.get("open_hours", "")).split(",") if hour}
            folded = dict(connection.execute("SELECT subject, max(seq) FROM chunks GROUP BY subject"))
            columns: dict[int, tuple[Block, Column]] = {}
            self._known = connection.execute("SELECT id, kind, subject, field, unit, counter FROM series").fetchall()
            for row in self._known:
                columns[row[0]] = self._add(row)
            for name, block in self._blocks.items():
                block.folded_seq = folded.get(name, 0)
            self._next_id = max(columns, default=0) + 1
            self._seq = max([self._rolled_seq, *folded.values()])
            for series_id, last in _lasts(connection):
                columns[series_id][1].before = last
            for seq, block in connection.execute("SELECT seq, block FROM recent ORDER BY seq"):
                self._seq = max(self._seq, seq)
                self._replay(seq, zlib.decompress(block), columns)
            self._loaded = True

    def begin_afresh(self) -> None:
        """The file was replaced by an empty one: its catalogue is written again, and what memory holds goes on."""
        with self._lock:
            self._catalogue = list(self._known)

    def _replay(self, seq: int, data: bytes, columns: dict[int, tuple[Block, Column]]) -> None:
        offset = 0
        while offset < len(data):
            wall, count = _HEAD.unpack_from(data, offset)
            offset += _HEAD.size
            ids, values = array("I"), array("d")
            ids.frombytes(data[offset : offset + 4 * count])
            offset += 4 * count
            values.frombytes(data[offset : offset + 8 * count])
            offset += 8 * count
            self._batch += 1
            if seq > self._rolled_seq:
                self._minute = _minute(wall)
            for series_id, value in zip(ids, values, strict=True):
                if series_id not in columns:
                    continue
                block, column = columns[series_id]
                if seq > block.folded_seq:
                    self._put(block, column, round(wall * 1000), seq, value)
                    if seq <= self._rolled_seq:
                        column.rolled = len(column.values)

    def flush(self, connection: sqlite3.Connection) -> None:
        """Take in what was offered and write what waits.

        Raises sqlite3.Error; then all of it waits for the next time.
        """
        with self._lock:
            self._absorb()
            if self.ending and self._minute is not None:
                self._seal(None)
            self._trim()
            rows = (list(self._catalogue), list(self._recent), list(self._rollups), list(self._chunks))
            hours, rolled_seq = set(self._due_hours), self._rolled_seq
            taken = self._taken
            open_hours = ",".join(map(str, sorted(self._open_hours)))
            keep = min((block.first_seq for block in self._blocks.values() if block.times), default=self._seq + 1)
        if not any(rows):
            self._written = taken
            return
        with transaction(connection):
            self._write(connection, *rows)
            for hour in sorted(hours):
                write_hour(connection, hour)
            if rows[2] or rows[3]:
                connection.executemany(
                    "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                    (("rolled_seq", rolled_seq), ("open_hours", open_hours)),
                )
                connection.execute("DELETE FROM recent WHERE seq < ?", (keep,))
        with self._lock:
            del self._catalogue[: len(rows[0])], self._recent[: len(rows[1])]
            del self._rollups[: len(rows[2])], self._chunks[: len(rows[3])]
            self._due_hours -= hours
            self._written = taken

    @staticmethod
    def _write(
        connection: sqlite3.Connection,
        catalogue: list[CatalogueRow],
        recent: list[tuple[int, bytes]],
        rollups: list[tuple[int, Rollup]],
        chunks: list[Chunk],
    ) -> None:
        connection.executemany(
            "INSERT OR IGNORE INTO series VALUES (?, ?, ?, ?, ?, ?)",
            catalogue,
        )
        connection.executemany("INSERT OR REPLACE INTO recent (seq, block) VALUES (?, ?)", recent)
        write_minutes(connection, [row for _, row in rollups])
        for chunk in chunks:
            chunk_id = connection.execute(
                "INSERT INTO chunks (subject, start_ms, end_ms, seq, rows, times) VALUES (?, ?, ?, ?, ?, ?)", chunk[:6]
            ).lastrowid
            connection.executemany(
                "INSERT INTO columns (chunk_id, series_id, count, rows, data) VALUES (?, ?, ?, ?, ?)",
                [(chunk_id, *column) for column in chunk.columns],
            )

    def waiting(self) -> int:
        """Number of samples offered that are not on disk yet (any thread)."""
        return self._offered - self._written

    # --- any thread ---------------------------------------------------------------------------------------------------

    def snapshot(self, series: str) -> Snapshot | None:
        """Copy what memory holds of a series; None when it is not known."""
        with self._lock:
            self._absorb()
            entry = self._by_name.get(series)
            if entry is None:
                return None
            block, column = entry
            chunks = [chunk for chunk in self._chunks if chunk.subject == block.subject]
            return Snapshot(
                series_id=column.series_id,
                subject=block.subject,
                chunk_seq=chunks[0].seq - 1 if chunks else block.folded_seq,
                rolled_seq=self._rolled_seq,
                chunks=chunks,
                rollups=[row for row in self._rollups if row[1].series_id == column.series_id],
                times=[block.times[row] for row in column.rows],
                values=column.values[:],
                rolled=column.rolled,
            )

    def names(self) -> list[str]:
        """All series ever recorded, sorted."""
        with self._lock:
            self._absorb()
            return sorted(self._by_name)

    # --- under the lock -----------------------------------------------------------------------------------------------

    def _absorb(self) -> None:
        """Move what was offered into the blocks and into one raw row; before the file is read it waits."""
        while self._inbox and self._loaded:
            wall, samples = self._inbox.popleft()
            self._taken += len(samples)
            minute = _minute(wall)
            if self._minute is not None and minute != self._minute:
                self._seal(wall)
            self._minute = minute
            self._take(wall, samples)
        self._cut()

    def _take(self, wall: float, samples: Sequence[Sample]) -> None:
        self._batch += 1
        at_ms = round(wall * 1000)
        seq = self._seq + 1
        ids, values, full = array("I"), array("d"), False
        for sample in samples:
            entry = self._by_name.get(sample.series) or self._register(sample.series)
            if entry is None:
                self.dropped += 1
                continue
            block, column = entry
            self._put(block, column, at_ms, seq, sample.value)
            full = full or len(block.times) >= MAX_ROWS
            ids.append(column.series_id)
            values.append(sample.value)
        if ids:
            self._raw.append(_HEAD.pack(wall, len(ids)) + ids.tobytes() + values.tobytes())
        if full:
            self._seal(wall)

    def _put(self, block: Block, column: Column, at_ms: int, seq: int, value: float) -> None:
        if block.batch != self._batch:
            if not block.times:
                block.first_seq = seq
            block.batch = self._batch
            block.times.append(at_ms)
        column.rows.append(len(block.times) - 1)
        column.values.append(value)

    def _register(self, series: str) -> tuple[Block, Column] | None:
        """Give a new series its number; None when the name is malformed or there are too many."""
        try:
            kind, subject, field = split_series(series)
        except ValueError:
            return None
        if len(self._by_name) >= MAX_SERIES:
            return None
        known = _FIELDS.get((kind, field))
        counter, unit = (known.counter, known.unit) if known else (False, None)
        row = (self._next_id, kind, subject, field, unit, int(counter))
        self._next_id += 1
        self._known.append(row)
        self._catalogue.append(row)
        return self._add(row)

    def _add(self, row: CatalogueRow) -> tuple[Block, Column]:
        series_id, kind, subject, field, _, counter = row
        name = f"{kind}/{subject}"
        block = self._blocks.setdefault(name, Block(name))
        column = Column(series_id, counter=bool(counter))
        block.columns.append(column)
        self._by_name[f"{name}/{field}"] = (block, column)
        return block, column

    def _cut(self) -> None:
        """End the raw row that is being gathered."""
        if self._raw:
            self._seq += 1
            self._recent.append((self._seq, zlib.compress(b"".join(self._raw), 1)))
            self._raw = []

    def _seal(self, wall: float | None) -> None:
        """End the minute: summarise it, and close the blocks whose time is over at ``wall`` (None: only summarise)."""
        self._cut()
        minute = self._minute or 0
        for block in self._blocks.values():
            for column in block.columns:
                if column.rolled < len(column.values):
                    row = column.roll(minute)
                    if row is not None:
                        self._rollups.append((self._seq, row))
        self._rolled_seq = self._seq
        self._open_hours.add(minute // HOUR_S * HOUR_S)
        if wall is None:
            return
        over = self._open_hours - {int(wall // HOUR_S) * HOUR_S}
        self._due_hours |= over
        self._open_hours -= over
        for block in self._blocks.values():
            if block.due(round(wall * 1000)) or len(block.times) >= MAX_ROWS:
                self._chunks.append(block.encode(self._seq))
                block.folded_seq = self._seq
                block.clear()

    def _trim(self) -> None:
        """Keep what waits for the disk within its bounds, giving up the oldest."""
        while sum(chunk.size for chunk in self._chunks) > WAITING_CHUNK_BYTES:
            self.dropped += self._chunks.pop(0).samples
        while sum(len(block) for _, block in self._recent) > WAITING_RECENT_BYTES:
            del self._recent[0]  # only the insurance against kill -9: the samples themselves are in a block
        del self._rollups[: max(0, len(self._rollups) - WAITING_ROLLUPS)]


def _minute(wall: float) -> int:
    return int(wall // MINUTE_S) * MINUTE_S


def _lasts(connection: sqlite3.Connection) -> list[tuple[int, float]]:
    """What each series stood at in the last hour that was recorded."""
    rows = connection.execute(
        "SELECT series_id, last, max(t) FROM minute WHERE t >= (SELECT max(t) FROM minute) - 3600 GROUP BY series_id"
    )
    return [(series_id, last) for series_id, last, _ in rows]
