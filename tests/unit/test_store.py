"""The store through its face."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.errors import NewerSchema, StateDirLocked, StoreError
from opsboard.core.model import (
    EngineState,
    Event,
    LifeView,
    Phase,
    Restart,
    Sample,
    Severity,
    Step,
    Transaction,
)
from opsboard.store.state import AuditEntry
from opsboard.store.store import Store
from tests.support.in_loop import in_loop
from tests.support.store import RUNNING, WALL, fill, opened, stored


def life(state: EngineState, since: float, **more: object) -> LifeView:
    fields = {"engine": "a", "supervised": True, "started": 100.0, "pid": 7, **more}
    return LifeView(state=state, since=since, **fields)  # type: ignore[arg-type]  # tests name the fields they mean


def sql(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


@in_loop
async def test_samples_are_read_back_at_once_and_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        fill(store, 2000)
        now = await store.history(RUNNING, WALL, WALL + 2000, 1)
        assert [(p.t, p.mean) for p in now.points[:8]] == [(WALL + at, at % 7) for at in range(8)]
        assert len(now.points) == 2000
        minutes = await store.history("engine/a/generation_tokens", WALL, WALL + 2000, 60)
        assert sum(p.count for p in minutes.points) == 2000
        assert await store.series() == ["engine/a/generation_tokens", RUNNING]
    async with opened(tmp_path / "state") as store:
        assert await store.history(RUNNING, WALL, WALL + 2000, 1) == now
        assert await store.history("engine/a/generation_tokens", WALL, WALL + 2000, 60) == minutes
        # The minute that the restart fell into goes on, and the counter from where it stood.
        store.append(WALL + 2000, [Sample("engine/a/generation_tokens", 20_000.0)])
    rows = sql(tmp_path / "state/series.db", "SELECT unix - 1699999200, generation_tokens FROM engine_minute")
    assert rows == [(60 * at, 600.0 if at else 590.0) for at in range(33)] + [(33 * 60, 210.0)]
    assert sql(tmp_path / "state/series.db", "SELECT sum(count) FROM minute") == [(4001,)]


@in_loop
async def test_an_unknown_series_and_an_empty_span_have_no_points(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        assert (await store.history("engine/nobody/running", 0, 1e10, 60)).points == ()
        fill(store, 3)
        assert (await store.history(RUNNING, WALL + 100, WALL + 50, 1)).points == ()
        assert (await store.history(RUNNING, WALL + 100, WALL + 200, 1)).points == ()


@in_loop
async def test_the_step_grows_until_the_points_are_few_enough(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        store.append(WALL, [Sample(RUNNING, 1.0)])
        store.append(WALL + 86_400, [Sample(RUNNING, 3.0)])
        found = await store.history(RUNNING, 0, WALL + 86_401, 1)
        assert 4.3 < found.step < 4.4
        assert [p.mean for p in found.points] == [1.0, 3.0]
        assert (await store.history(RUNNING, WALL, WALL + 86_401, 61)).step == 120
        assert (await store.history(RUNNING, WALL, WALL + 86_401, 22_000)).step == 7 * 3600


@in_loop
async def test_malformed_names_are_counted_and_hurt_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        store.append(WALL, [Sample("nonsense", 1.0), Sample(RUNNING, 2.0)])
        assert await store.series() == [RUNNING]
        assert store.health().dropped == 1
        assert store.health().recorded


@in_loop
async def test_a_clock_that_steps_back_loses_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        for wall in (WALL, WALL + 1, WALL - 3600, WALL - 3599, WALL + 2):
            store.append(wall, [Sample(RUNNING, wall - WALL)])
        found = await store.history(RUNNING, WALL - 7200, WALL + 60, 1)
        assert [p.mean for p in found.points] == [-3600.0, -3599.0, 0.0, 1.0, 2.0]


@in_loop
async def test_values_that_are_no_numbers_are_kept_raw_and_left_out_of_means(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        for at, value in enumerate((float("nan"), 4.0, float("inf"), -0.0)):
            store.append(WALL + at, [Sample(RUNNING, value)])
        store.append(WALL + 60, [Sample(RUNNING, 1.0)])
        (first, _) = (await store.history(RUNNING, WALL, WALL + 120, 60)).points
        assert (first.count, first.mean, first.min, first.max) == (2, 2.0, 0.0, 4.0)


@in_loop
async def test_events_come_back_oldest_first(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        written = [
            Event(t=WALL + at, subject=f"engine/{'ab'[at % 2]}", kind="k", text=f"n{at}", severity=Severity.WARNING)
            for at in range(6)
        ]
        for event in written:
            await asyncio.wrap_future(store.event(event))
        assert await store.events() == written
        assert await store.events("engine/b", limit=2) == [written[3], written[5]]
    async with opened(tmp_path / "state") as store:
        assert await store.events() == written


@in_loop
async def test_a_read_sees_the_writes_asked_for_before_it(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        for at in range(20):
            store.wish("a", "down" if at % 2 else "up")
            assert await store.wishes() == {"a": "down" if at % 2 else "up"}


@in_loop
async def test_lives_phases_and_transitions(tmp_path: Path) -> None:
    load, graph = Phase(name="load", started=100.0, seconds=8.0), Phase(name="graph", started=108.0, seconds=2.5)
    async with opened(tmp_path / "state") as store:
        assert await store.phase_seconds("a") == {}
        store.life(life(EngineState.STARTING, 100.0, phase="load", phases=(Phase(name="load", started=100.0),)))
        store.life(life(EngineState.STARTING, 100.0, phase="graph", phases=(load, Phase(name="graph", started=108.0))))
        assert await store.phase_seconds("a") == {}
        store.life(life(EngineState.READY, 110.5, phases=(load, graph)))
        store.life(life(EngineState.READY, 110.5, phases=(load, graph), progress=1.0))
        store.life(life(EngineState.FAILED, 200.0, started=None, pid=None, exit_code=-9, message="killed"))
        # A start that fails does not take the place of the one that became ready.
        store.life(life(EngineState.STARTING, 300.0, started=300.0, pid=8, phases=(Phase(name="load", started=300.0),)))
        # It is called failed while it runs, and ends later.
        store.life(life(EngineState.FAILED, 301.0, started=300.0, pid=8))
        assert await store.phase_seconds("a") == {"load": 8.0, "graph": 2.5}
        still = "SELECT state, ended FROM lives WHERE started = 300.0"
        assert sql(tmp_path / "state/state.db", still) == [("failed", None)]
        store.life(life(EngineState.FAILED, 301.0, started=None, pid=None, exit_code=1))
        # A life that was not seen to end.
        store.life(life(EngineState.STARTING, 400.0, started=400.0, pid=9))
        store.life(life(EngineState.STARTING, 500.0, started=500.0, pid=10))
        assert await store.phase_seconds("a") == {"load": 8.0, "graph": 2.5}
    path = tmp_path / "state/state.db"
    assert sql(path, "SELECT started, ready, ended, state, pid, exit_code FROM lives ORDER BY started") == [
        (100.0, 110.5, 200.0, "failed", 7, -9),
        (300.0, None, WALL, "failed", 8, 1),
        (400.0, None, None, "lost", 9, None),
        (500.0, None, None, "starting", 10, None),
    ]
    states = [row[0] for row in sql(path, "SELECT state FROM transitions ORDER BY id")]
    assert states == ["starting", "ready", "failed", "starting", "failed", "starting"]


@in_loop
async def test_audit(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        entry = AuditEntry(t=5.0, uid=1000, pid=77, action="restart", subject="engine/a", reason="stuck")
        await asyncio.wrap_future(store.audit(entry))
        assert await store.audits() == [entry]


@in_loop
async def test_a_second_daemon_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from opsboard.core.clock import SystemClock;"
        "from opsboard.store.store import Store; Store.open(Path(sys.argv[1]), SystemClock());"
        "print('held', flush=True); sys.stdin.read()"
    )
    state = tmp_path / "state"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StateDirLocked, match=rf"pid {holder.pid}\b"):
            Store.open(state, ManualClock())
    finally:
        holder.kill()
        holder.communicate()
    async with opened(state):
        pass


@pytest.mark.parametrize("name", ["state.db", "series.db"])
def test_a_newer_file_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    state = tmp_path / "state"
    asyncio.run(_once(state))
    connection = sqlite3.connect(state / name)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (state / name).read_bytes()
    with pytest.raises(NewerSchema, match=name) as caught:
        Store.open(state, ManualClock())
    assert caught.value.hint
    assert (state / name).read_bytes() == before


async def _once(state: Path) -> None:
    async with opened(state) as store:
        fill(store, 1)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    connection = sqlite3.connect(state / "state.db")
    connection.executescript("PRAGMA application_id = 12345; CREATE TABLE t (a);")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        Store.open(state, ManualClock())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file/state"):
        Store.open(tmp_path / "file/state", ManualClock())


def test_files_are_private(tmp_path: Path) -> None:
    asyncio.run(_once(tmp_path / "state"))
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir() if path.is_file()} == {
        path.name: 0o600 for path in (tmp_path / "state").iterdir()
    }


@in_loop
async def test_settings_of_the_files(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        fill(store, 1)
        await stored(store)
        wanted = {"journal_mode": "wal", "auto_vacuum": 2, "foreign_keys": 1, "temp_store": 2}

        def ask(connection: sqlite3.Connection) -> dict[str, object]:
            names = (*wanted, "synchronous")
            return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

        assert store._series.writer.submit(ask).result(timeout=5) == {**wanted, "synchronous": 1}
        assert store._state.writer.submit(ask).result(timeout=5) == {**wanted, "synchronous": 2}


@in_loop
async def test_restarts_by_ourselves_are_counted_over_runs(tmp_path: Path) -> None:
    counted = [
        Restart(engine=name, t=WALL + at, cause="killed", gpus=("0",), served_s=at) for at, name in enumerate("aba")
    ]
    async with opened(tmp_path / "state") as store:
        assert not store.unclean
        for restart in counted:
            await store.restart(restart)
        await asyncio.wrap_future(store.forgive("b"))
    async with opened(tmp_path / "state") as store:
        found = await store.restarts(WALL + 1)
        assert found == [msgspec.structs.replace(counted[1], forgiven=True), counted[2]]


@in_loop
async def test_transactions_and_transitions_are_read_back(tmp_path: Path) -> None:
    step = Step(name="drain", started=WALL, seconds=3.0, outcome="ok", text="2 requests under way")
    done = Transaction(
        id="x", engine="a", kind="restart", began=WALL, ended=WALL + 9, cause="flags", steps=(step,), outcome="ok"
    )
    async with opened(tmp_path / "state") as store:
        store.transaction(done)
        store.transaction(msgspec.structs.replace(done, id="y", engine="b"))
        store.life(life(EngineState.READY, 1.0, cause="it serves"))
        store.life(life(EngineState.BACKING_OFF, 2.0, cause="stall: no step", message="stall: no step; restart 1"))
        store.life(life(EngineState.STOPPED, 3.0, started=None, pid=None))
        assert await store.transactions("a") == [done]
        timeline = await store.transitions("a")
        assert [(one.state.value, one.reason) for one in timeline] == [
            ("ready", "it serves"),
            ("backing_off", "stall: no step"),
            ("stopped", None),
        ]
        assert [one.state.value for one in await store.transitions("a", limit=1)] == ["stopped"]
    ends = sql(tmp_path / "state/state.db", "SELECT ended, state FROM lives")
    assert ends == [(3.0, "stopped")], "what hangs until it is restarted lives"
