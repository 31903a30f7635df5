"""Decisions of policies on disk: with their incident or not at all, and what the next daemon goes on with."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from opsboard.core.errors import StoreError
from opsboard.core.policy_runs import PolicyRun
from tests.support.in_loop import in_loop
from tests.support.policed import incident
from tests.support.store import WALL, opened

if TYPE_CHECKING:
    from pathlib import Path

RUN = PolicyRun(
    id="r1",
    policy="leaks",
    engine="a",
    incident=1,
    uid="u1",
    t=WALL,
    do=("drain", "restart"),
    reason="policy leaks, incident 1, kv_leak of a: lost 9",
    evidence={"lost_blocks": 9.0, "by": "idle", "rank": None},
    life=WALL - 3600,
    before="t0",
)


@in_loop
async def test_a_decision_and_its_incident_are_kept_together(tmp_path: Path) -> None:
    one = incident()
    async with opened(tmp_path / "state") as store:
        await asyncio.wrap_future(store.policy_run(RUN, one))
        assert (await store.policy_runs(WALL), await store.one_incident(1)) == ([RUN], one)
        with pytest.raises(StoreError):  # a number is never given twice
            await asyncio.wrap_future(store.policy_run(replace(RUN, id="r2"), replace(one, uid="other")))
        assert await store.policy_runs(WALL) == [RUN]


@in_loop
async def test_the_next_daemon_gets_what_is_under_way_and_what_is_recent(tmp_path: Path) -> None:
    old = replace(RUN, id="r0", t=WALL - 90, ended=WALL - 80, outcome="ok")
    later = replace(RUN, id="r3", t=WALL + 90, ended=WALL + 90, outcome="dry_run")
    async with opened(tmp_path / "state") as store:
        for run in (later, RUN, old):
            await asyncio.wrap_future(store.policy_run(run, None))
        assert await store.policy_runs(WALL + 1) == [RUN, later]
        await asyncio.wrap_future(store.policy_run(replace(RUN, ended=WALL + 9, outcome="failed"), None))
    with sqlite3.connect(tmp_path / "state/state.db") as connection:
        connection.execute("UPDATE policy_runs SET record = '{}' WHERE id = 'r3'")
    connection.close()
    async with opened(tmp_path / "state") as store:
        assert [run.outcome for run in await store.policy_runs(0)] == ["ok", "failed"], "not what cannot be read"
