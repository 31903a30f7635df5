"""Incidents on disk: kept for ever, written whole, gone on with."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import msgspec
import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.errors import StoreError
from opsboard.core.incidents import Curve, Entry, Incident
from opsboard.core.model import Event
from opsboard.daemon.freezing import Freezer, wanted
from opsboard.store.retention import StoreLimits
from opsboard.store.store import Store
from tests.support.in_loop import in_loop
from tests.support.store import RUNNING, WALL, fill, opened, stored
from tests.support.waiting import wait_until_async

ONE = Incident(
    id=1,
    uid="u1",
    detector="stall",
    subject="engine/a",
    severity="page",
    since=WALL,
    opened=WALL + 5,
    summary="12 running, no step for 9 s",
    first_summary="12 running, no step for 5 s",
    evidence={"gap_s": 9.0, "canary": "timeout", "sure": True, "known": None},
    timeline=(Entry(t=WALL + 5, kind="opened", text="é"),),
)
OVER = msgspec.structs.replace(ONE, ended=WALL + 50, resolved=WALL + 110)
BY_HAND = msgspec.structs.replace(
    ONE, id=2, uid="u2", subject="engine/b", resolved=WALL + 7, resolved_by="ann", opened=WALL + 6
)


async def put(store: Store, *incidents: Incident) -> None:
    await asyncio.gather(*(asyncio.wrap_future(store.incident(one)) for one in incidents))


@in_loop
async def test_an_incident_is_kept_whole_and_as_it_is_now(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        await put(store, ONE, BY_HAND)
        assert await store.one_incident(1) == await store.one_incident("u1") == ONE
        assert await store.incidents() == [BY_HAND, ONE]
        assert await store.incidents(only_open=True) == [ONE]
        assert await store.incidents(subject="engine/b") == [BY_HAND]
        assert await store.incidents(limit=1) == [BY_HAND]
        assert await store.one_incident(3) is None
        kept = await store.kept_incidents()
        assert kept.going == (ONE, BY_HAND), "what is open, and what was closed by hand before it was over"
        await put(store, OVER)
    async with opened(tmp_path / "state") as store:
        assert await store.one_incident(1) == OVER
        kept = await store.kept_incidents()
        assert (kept.going, kept.next_id) == ((BY_HAND,), 3)
        assert kept.last == {("stall", "engine/a"): (1, WALL + 5), ("stall", "engine/b"): (2, WALL + 6)}


@in_loop
async def test_a_number_is_never_given_twice(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        await put(store, ONE)
        with pytest.raises(StoreError):
            await put(store, msgspec.structs.replace(BY_HAND, id=1))
        assert await store.incidents() == [ONE]


@in_loop
async def test_incidents_stay_when_everything_else_has_aged(tmp_path: Path) -> None:
    clock = ManualClock(wall=WALL)
    async with opened(tmp_path / "state", clock, StoreLimits(raw_s=1, minute_s=1, hour_s=1)) as store:
        await put(store, OVER)
        await asyncio.wrap_future(store.curves("u1", [Curve(moment="opened", series=RUNNING, step=1.0)]))
        await asyncio.wrap_future(store.event(Event(t=WALL, subject="host", kind="x", text="x")))
        clock.advance(1e8)

        async def aged() -> bool:
            return not await store.events()

        for _ in range(100):
            if await aged():
                break
            await asyncio.sleep(0.05)
        assert await store.events() == []
        assert await store.incidents() == [OVER]
        assert len(await store.curves_of("u1")) == 1


@in_loop
async def test_a_record_of_another_version_is_passed_over(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as store:
        await put(store, ONE, BY_HAND)
    with sqlite3.connect(tmp_path / "state/state.db") as connection:
        connection.execute("""UPDATE incidents SET record = '{"id": "x"}' WHERE id = 1""")
    connection.close()
    async with opened(tmp_path / "state") as store:
        assert await store.incidents() == [BY_HAND]
        assert (await store.kept_incidents()).next_id == 3


@in_loop
async def test_the_series_around_an_incident_are_kept_with_it(tmp_path: Path) -> None:
    clock = ManualClock(wall=WALL + 600)
    async with opened(tmp_path / "state", clock) as store:
        fill(store, 600)
        await stored(store)
        await put(store, ONE)
        freezer = Freezer(clock, store, "gpu-a")
        freezer.hear(ONE)
        freezer.hear(msgspec.structs.replace(ONE, summary="newer"))
        await wait_until_async(lambda: not freezer._tasks, what="frozen as it opened")
        (curve,) = await store.curves_of("u1")
        assert (curve.moment, curve.series) == ("opened", RUNNING)
        assert curve.points[0][0] == WALL
        assert len(curve.points) == 96, "240 steps from 15 min before it began"
        next_daemon = Freezer(clock, store, "gpu-a")
        next_daemon.hear(ONE)
        next_daemon.hear(OVER)
        await wait_until_async(lambda: not next_daemon._tasks, what="frozen as it was resolved")
        assert [one.moment for one in await store.curves_of("u1")] == ["opened", "resolved"]
        await freezer.close()


def test_what_is_kept_follows_what_it_is_about() -> None:
    known = [
        "engine/a/kv_usage",
        "engine/a/rss_bytes",
        "engine/b/kv_usage",
        "process/a:engine_core/rss_anon_bytes",
        "process/ab:engine_core/rss_anon_bytes",
        "host/h/disk_free_bytes",
        "gpu/GPU-1/xid",
        "gpu/GPU-2/xid",
    ]
    assert wanted(msgspec.structs.replace(ONE, detector="kv_leak"), "h", known) == ["engine/a/kv_usage"]
    leak = msgspec.structs.replace(ONE, detector="memory_leak")
    assert wanted(leak, "h", known) == ["engine/a/rss_bytes", "process/a:engine_core/rss_anon_bytes"]
    card = msgspec.structs.replace(ONE, detector="gpu_fault", evidence={"gpu": "GPU-2"})
    assert wanted(card, "h", known) == ["engine/a/kv_usage", "gpu/GPU-2/xid"]
    assert wanted(msgspec.structs.replace(ONE, subject="host"), "h", known) == ["host/h/disk_free_bytes"]
    assert wanted(msgspec.structs.replace(ONE, subject="gpu/GPU-1"), "h", known) == ["gpu/GPU-1/xid"]
