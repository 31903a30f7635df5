"""Round trips and oracles of what is recorded."""

from __future__ import annotations

import math
import zlib
from array import array
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsboard.core.model import Sample
from opsboard.store import codec, history
from opsboard.store.database import open_writer, reading
from opsboard.store.rollups import Rollup, increase, merge, summarise
from opsboard.store.series import SeriesLog
from opsboard.store.series_file import KIND

any_float = st.floats(width=64, allow_nan=True, allow_infinity=True)
short_float = st.floats(width=32)
whole = st.integers(-(2**60), 2**60).map(float)
decimal = st.integers(-(10**7), 10**7).flatmap(lambda n: st.sampled_from((10.0, 100.0, 1e3, 1e6)).map(lambda f: n / f))
odd = st.sampled_from((0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7e308, 2.0**53, 2.0**63, -(2.0**63)))
columns = st.one_of(
    *(st.lists(kind, max_size=300) for kind in (any_float, short_float, whole, decimal, odd, st.just(7.5)))
)
NAN_WITH_PAYLOAD = array("d")
NAN_WITH_PAYLOAD.frombytes(bytes((1, 2, 3, 4, 5, 6, 0xF8, 0xFF)) * 3)


@given(columns)
def test_a_column_comes_back_bit_by_bit(values: list[float]) -> None:
    column = array("d", values)
    assert codec.decode(codec.encode(column), len(column)).tobytes() == column.tobytes()


@pytest.mark.parametrize("mixed", [NAN_WITH_PAYLOAD, NAN_WITH_PAYLOAD + array("d", [1.0, -0.0] * 50)])
def test_the_bits_of_a_nan_survive(mixed: array[float]) -> None:
    assert codec.decode(codec.encode(mixed), len(mixed)).tobytes() == mixed.tobytes()


@given(st.lists(st.integers(-(2**62), 2**62), max_size=300), st.integers(0, len(codec.SCALES) - 1))
def test_times_come_back(numbers: list[int], scale: int) -> None:
    try:
        packed = codec.encode_whole(numbers, scale)
    except OverflowError:
        pytest.fail("62 bits always fit")
    assert codec.decode_whole(packed) == (numbers, scale)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=900))
def test_a_regular_grid_costs_next_to_nothing(jitter: list[int]) -> None:
    regular = [1_700_000_000_000 + 1000 * at for at in range(len(jitter))]
    gappy = [t + (86_400_000 * 400 if at > len(jitter) // 2 else 0) for at, t in enumerate(regular)]
    assert len(codec.encode_whole(regular)) < 40
    assert codec.decode_whole(codec.encode_whole(gappy))[0] == gappy
    ragged = [t + j for t, j in zip(regular, jitter, strict=True)]
    assert codec.decode_whole(codec.encode_whole(ragged))[0] == ragged


@pytest.mark.parametrize("broken", [b"\x07\x00abcdefgh", b"\x00\x00short", b"\x01\x00" + b"\xff" * 9])
def test_bytes_that_were_not_written_are_refused(broken: bytes) -> None:
    with pytest.raises((ValueError, zlib.error)):
        codec.decode(broken, 5)


finite = st.integers(-1000, 1000).map(float)


@given(st.lists(finite, min_size=3, max_size=60), st.data())
def test_summaries_merge_in_any_grouping(values: list[float], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(1, len(values) - 1), min_size=2, max_size=2, unique=True)))
    parts = [array("d", values[a:b]) for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True)]
    before: float | None = None
    rows: list[Rollup] = []
    for part in parts:
        row = summarise(60, 1, part, counter=True, before=before)
        assert row is not None
        rows.append(row)
        before = row.last
    first, second, third = rows
    everything = summarise(60, 1, array("d", values), counter=True, before=None)
    assert merge(merge(first, second), third) == merge(first, merge(second, third)) == everything


@given(st.lists(st.integers(0, 10), min_size=1, max_size=50), st.sets(st.integers(0, 49)))
def test_increase_counts_over_resets(steps: list[int], resets: set[int]) -> None:
    value, counted, values = 0.0, 0.0, []
    for at, step in enumerate(steps):
        if at in resets:
            value = 0.0
        value += step
        values.append(value)
        counted += step
    fell = any(b < a for a, b in pairwise(values))
    grown = increase(array("d", values), 0.0)
    # A reset is seen by a fall only; one that has already grown past the old value hides, in any counter.
    assert grown <= counted
    if not resets or not fell:
        assert grown == values[-1]


@st.composite
def _streams(draw: st.DrawFn) -> list[tuple[float, str, float]]:
    """Batches of two series of one subject, with gaps, minute and chunk borders, and a clock that steps back."""
    wall = 1_700_000_000.0 + draw(st.integers(0, 3600))
    stream = []
    for _ in range(draw(st.integers(1, 60))):
        wall += draw(st.sampled_from((0.25, 1.0, 1.0, 1.004, 17.0, 61.0, 950.0, 4000.0, -30.0, -3700.0)))
        name = draw(st.sampled_from(("engine/a/running", "engine/a/generation_tokens")))
        stream.append((wall, name, draw(st.one_of(finite, st.just(math.nan)))))
    return stream


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_streams(), st.lists(st.integers(0, 59), max_size=4), st.sampled_from((1.0, 7.0, 60.0, 300.0, 6 * 3600.0)))
def test_history_says_what_a_naive_reader_would(
    stream: list[tuple[float, str, float]], restarts: list[int], step: float
) -> None:
    """Flushes and restarts fall anywhere; no sample is lost, none counts twice, whichever table answers."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "series.db"
        connection = open_writer(path, KIND)
        log = SeriesLog()
        log.load(connection)
        for at, (wall, name, value) in enumerate(stream):
            log.offer(wall, [Sample(name, value)])
            if at % 3 == 0 or at in restarts:
                log.flush(connection)
            if at in restarts:
                log = SeriesLog()
                log.load(connection)
        walls = [wall for wall, _, _ in stream]
        start, end = min(walls) - 7200, max(walls) + 7200
        for name in {name for _, name, _ in stream}:
            wanted: dict[float, list[float]] = {}
            snap = log.snapshot(name)
            assert snap is not None
            with reading(path) as reader:
                found = history.read(reader, snap, name, start, end, step)
            for wall, series, value in stream:
                if series == name and not math.isnan(value):
                    slot = round(wall * 1000) // round(found.step * 1000)
                    wanted.setdefault(slot * round(found.step * 1000) / 1000, []).append(value)
            assert [(p.t, p.count, p.min, p.max) for p in found.points] == [
                (t, len(values), min(values), max(values)) for t, values in sorted(wanted.items())
            ]
            for point in found.points:
                assert point.mean == pytest.approx(math.fsum(wanted[point.t]) / point.count, abs=1e-9)
        connection.close()
