"""The outbox on disk: in the incident's transaction, newest first of an incident, pages first of all."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from opsboard.core.clock import ManualClock
from opsboard.store.store import Store
from tests.support.in_loop import in_loop
from tests.support.messages import LEAK, OVER, T, new, told
from tests.support.store import opened

OTHER = replace(LEAK, id=43, uid="f" * 32, severity="ticket")


async def done(*futures: Future[Any]) -> list[Any]:
    return await asyncio.gather(*(asyncio.wrap_future(one) for one in futures))


async def waiting(store: Store, channel: str = "chat", now: float = T) -> list[tuple[int, int, str]]:
    found = await store.outbox.due(channel, now, 10)
    return [(one.message.number, one.seq, one.message.step) for one in found]


@in_loop
async def test_of_an_incident_the_newest_waits_and_pages_come_first(tmp_path: Path) -> None:
    async with opened(tmp_path / "state", ManualClock(wall=T)) as store:
        ticket = told(OTHER)
        await done(store.incident(OTHER, [new("chat", ticket)]), store.incident(LEAK, [new("chat"), new("oncall")]))
        assert await waiting(store) == [(42, 1, "trigger"), (43, 1, "trigger")]
        await done(store.incident(OVER, [new("chat", told(OVER, "resolve"))]))
        assert await waiting(store) == [(42, 2, "resolve"), (43, 1, "trigger")]
        end, opening = await store.outbox.due("chat", T, 10)
        assert (end.told, end.before) == (False, None), "nobody heard of its beginning"
        await done(store.outbox.delivered(end, "ts-1"))
        assert await waiting(store) == [(43, 1, "trigger")], "what was older is superseded"
        await done(store.outbox.delivered(opening, "ts-2"))
        await done(store.incident(OTHER, [new("chat", told(OTHER, "update"))]))
        (update,) = await store.outbox.due("chat", T, 10)
        assert (update.told, update.before) == (True, "ts-2")
        states = [one.state for one in await store.outbox.listed(("sent", "superseded", "due"), 10)]
        assert sorted(states) == ["due", "due", "sent", "sent", "superseded"]
        assert await waiting(store, "oncall") == [(42, 1, "trigger")], "channels do not wait for each other"


@in_loop
async def test_what_waits_is_tried_again_when_it_is_time(tmp_path: Path) -> None:
    async with opened(tmp_path / "state", ManualClock(wall=T)) as store:
        await done(store.incident(LEAK, [new("chat")]))
        (one,) = await store.outbox.due("chat", T, 10)
        await done(store.outbox.delayed(one, "HTTP 503", T + 5))
        assert await waiting(store, now=T + 4) == []
        assert await store.outbox.next_due("chat") == T + 5
        (again,) = await store.outbox.due("chat", T + 5, 10)
        assert (again.attempts, again.error) == (1, "HTTP 503")
        assert (await store.outbox.counts())["chat"] == (1, T, 0)


@in_loop
async def test_a_clock_that_was_set_back_does_not_hide_what_came_before(tmp_path: Path) -> None:
    async with opened(tmp_path / "state", ManualClock(wall=T)) as store:
        await done(store.incident(LEAK, [new("chat")]))
        assert await waiting(store, now=T - 86_400) == [(42, 1, "trigger")]


@in_loop
async def test_dead_letters_wait_for_somebody(tmp_path: Path) -> None:
    async with opened(tmp_path / "state", ManualClock(wall=T)) as store:
        await done(store.incident(LEAK, [new("chat")]))
        (one,) = await store.outbox.due("chat", T, 10)
        await done(store.outbox.given_up(one, "HTTP 400: no"))
        assert await waiting(store) == []
        assert (await store.outbox.counts())["chat"] == (0, None, 1)
        assert await done(store.outbox.put_back(one.id), store.outbox.put_back(99)) == [True, False]
        (again,) = await store.outbox.due("chat", T, 10)
        assert (again.attempts, again.state) == (0, "due")
        assert await done(store.outbox.drop(one.id), store.outbox.drop(one.id)) == [True, False]
        assert await waiting(store) == []
        assert await store.outbox.next_due("chat") is None
        await done(store.incident(OVER, [new("chat", told(OVER, "resolve"))]))
        assert await store.outbox.overtaken(one.id) is False, "it was not sent yet"
        (end,) = await store.outbox.listed(("due",), 10, "chat", LEAK.uid)
        await done(store.outbox.delivered(end, None))
        assert await store.outbox.overtaken(one.id) is True
        assert await store.outbox.overtaken(end.id) is False
        assert await store.outbox.last_sent() == {"chat": T}
        assert await store.outbox.listed(("sent",), 10, "oncall") == []
        assert await store.outbox.one(end.id) == replace(end, state="sent", done=T)
        assert await store.outbox.one(99) is None


@in_loop
async def test_what_was_sent_from_memory_is_not_due_once_it_is_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path / "state", ManualClock(wall=T)) as store:
        early = new("chat", told(step="update"))
        await done(
            store.incident(LEAK, [new("chat"), new("oncall")]),
            store.incident(LEAK, [early]),
            store.outbox.sent_early(early, "ts-9"),
            store.outbox.sent_early(new("chat", told(step="resolve")), None),
        )
        assert await waiting(store) == []
        assert await waiting(store, "oncall") == [(42, 1, "trigger")]
        states = {one.seq: (one.state, one.ref) for one in await store.outbox.listed(("sent", "superseded"), 10)}
        assert states == {1: ("superseded", None), 2: ("sent", "ts-9")}


@in_loop
async def test_the_next_daemon_finds_what_waits_and_what_was_told(tmp_path: Path) -> None:
    async with opened(tmp_path / "state", ManualClock(wall=T)) as store:
        await done(
            store.incident(LEAK, [new("chat"), new("oncall")]), store.incident(OTHER, [new("chat", told(OTHER))])
        )
        await done(store.incident(replace(OTHER, resolved=T + 1)))
    async with opened(tmp_path / "state", ManualClock(wall=T)) as store:
        assert await waiting(store) == [(42, 1, "trigger"), (43, 1, "trigger")]
        last = await store.outbox.last_told()
        assert sorted((channel, message.number) for channel, message in last) == [("chat", 42), ("oncall", 42)]
