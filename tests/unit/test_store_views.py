"""The views, as a person with the sqlite3 shell sees them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineReading, EngineState, EngineView, LifeView, Outcome, Sample
from opsboard.core.series import FIELDS
from opsboard.daemon.flow import Flow
from opsboard.daemon.pipeline import EngineSpec, PipelineState
from opsboard.daemon.subscribers import Newest
from opsboard.store import views
from tests.support.in_loop import in_loop
from tests.support.store import WALL, opened, stored

SPEC = EngineSpec(name="a", url="http://127.0.0.1:8001", supervised=True, command=("serve",))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    state = tmp_path_factory.mktemp("views")

    @in_loop
    async def record() -> None:
        async with opened(state) as store:
            for at in range(0, 7300, 10):
                store.append(
                    WALL + at,
                    [
                        Sample("engine/a/running", float(at % 60)),
                        Sample("engine/a/generation_tokens", float(at if at < 3600 else at - 3600)),
                        Sample("engine/org/b/running", 2.0),
                        Sample("gpu/GPU-1/power_w", 300.5),
                        Sample("host/gpu-a/load1", 1.25),
                        Sample("process/a:engine_core/rss_anon_bytes", 4096.0),
                    ],
                )

    record()
    connection = sqlite3.connect(f"file:{state}/series.db?mode=ro", uri=True)
    yield connection
    connection.close()


def test_every_field_has_its_column(database: sqlite3.Connection) -> None:
    for kind, fields in FIELDS.items():
        for table in ("minute", "hour"):
            names = [column[0] for column in database.execute(f"SELECT * FROM {kind}_{table}").description]
            assert names[:2] == ["time", "unix"]
            assert "host" in names
            assert set(names) >= {field.name for field in fields}


def test_gauges_are_means_and_counters_what_they_grew_by(database: sqlite3.Connection) -> None:
    rows = database.execute(
        "SELECT time, unix, host, engine, running, generation_tokens, waiting FROM engine_minute "
        "WHERE engine = 'a' AND unix BETWEEN ? AND ?",
        (WALL + 3540, WALL + 3660),
    ).fetchall()
    assert rows == [
        ("2023-11-14T22:59:00Z", 1700002740, "gpu-a", "a", 25.0, 60.0, None),
        ("2023-11-14T23:00:00Z", 1700002800, "gpu-a", "a", 25.0, 50.0, None),  # the counter began anew
        ("2023-11-14T23:01:00Z", 1700002860, "gpu-a", "a", 25.0, 60.0, None),
    ]


def test_hours_are_the_sum_of_their_minutes(database: sqlite3.Connection) -> None:
    hours = database.execute("SELECT unix, running, generation_tokens FROM engine_hour WHERE engine = 'a'").fetchall()
    minutes = database.execute(
        "SELECT unix / 3600 * 3600 AS h, avg(running), sum(generation_tokens) FROM engine_minute WHERE engine = 'a' "
        "AND unix < ? GROUP BY h",
        (WALL + 7200,),
    ).fetchall()
    assert hours == minutes
    assert hours == [(WALL, 25.0, 3590.0), (WALL + 3600, 25.0, 3590.0)]


def test_subjects_with_slashes_and_roles(database: sqlite3.Connection) -> None:
    assert database.execute("SELECT DISTINCT engine FROM engine_minute").fetchall() == [("a",), ("org/b",)]
    assert database.execute("SELECT DISTINCT engine, role, rss_anon_bytes FROM process_minute").fetchall() == [
        ("a", "engine_core", 4096.0)
    ]
    assert database.execute("SELECT DISTINCT host, gpu, power_w FROM gpu_minute").fetchall() == [
        ("gpu-a", "GPU-1", 300.5)
    ]
    assert database.execute("SELECT DISTINCT host, load1 FROM host_hour").fetchall() == [("gpu-a", 1.25)]


def test_a_span_of_time_is_found_by_the_index(database: sqlite3.Connection) -> None:
    plan = database.execute("EXPLAIN QUERY PLAN SELECT * FROM engine_minute WHERE unix >= 5").fetchall()
    assert any("PRIMARY KEY (t>?)" in row[3] for row in plan)


def test_views_follow_the_fields() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "CREATE TABLE meta (key, value); CREATE TABLE series (id, kind, subject, field);"
        "CREATE TABLE minute (t, series_id, count, total, increase);"
        "CREATE TABLE hour (t, series_id, count, total, increase);"
        "CREATE VIEW engine_minute AS SELECT 1 AS old_column"
    )
    views.refresh(connection)
    views.refresh(connection)
    names = [column[0] for column in connection.execute("SELECT * FROM engine_minute").description]
    connection.close()
    assert "old_column" not in names
    assert "kv_usage" in names


@in_loop
async def test_two_lives_that_count_the_same_are_two(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        flow = Flow(ManualClock(wall=WALL), PipelineState("gpu-a", [SPEC]), store, Newest(bytes))
        for started in (1.0, 2.0):
            flow.reading(life(EngineState.STARTING, started))
            flow.reading(life(EngineState.READY, started))
            for tokens in (40.0, 40.0):
                flow.reading(page(tokens))
        await stored(store)
    with closing(sqlite3.connect(f"file:{tmp_path}/series.db?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT sum(generation_tokens) FROM engine_minute").fetchone() == (80.0,)


def life(state: EngineState, started: float) -> LifeView:
    return LifeView(engine="a", state=state, since=WALL, supervised=True, started=started, pid=7)


def page(tokens: float) -> EngineReading:
    view = EngineView(kind="vllm", counters={"generation_tokens": tokens})
    return EngineReading(engine="a", outcome=Outcome.OK, view=view)
