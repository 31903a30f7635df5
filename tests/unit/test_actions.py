"""Actions over the control socket."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from collectors.sleeping import CannotSleep
from opsboard.client.stream import AsyncClient
from opsboard.client.sync import Client
from opsboard.core.errors import BadRequest, Conflict, ControlError, Denied, NotFound, OpsboardError, SuperviseError
from tests.support.control_daemon import FakeDaemon, in_thread, plain, socket_path, with_daemon
from tests.support.waiting import wait_until_async


@pytest.fixture
def path() -> Path:
    return socket_path()


# --- actions ----------------------------------------------------------------------------------------------------------


def test_an_action_is_taken_on_carried_out_and_told(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = Client(path)
        accepted = await in_thread(lambda: client.action("a", "restart", "leak\x1b[31m"))
        assert (accepted.kind, accepted.engine) == ("restart", "a")
        while not daemon.hands.done:
            await asyncio.sleep(0.01)
        assert daemon.hands.done == [("restart", "a", "leak\N{REPLACEMENT CHARACTER}[31m")]
        (asked,) = daemon.asked
        assert (asked.action, asked.subject, asked.uid, asked.pid) == ("restart", "engine/a", os.getuid(), os.getpid())
        (event,) = daemon.events
        assert event.subject == "engine/a"
        assert event.text.startswith(f"restart asked by uid {os.getuid()} (pid {os.getpid()}): leak")

    with_daemon(path, test)


def test_the_same_key_does_it_once(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = AsyncClient(path)
        first = await client.action("a", "stop", idempotency_key="k1")
        assert await client.action("a", "stop", idempotency_key="k1") == first
        with pytest.raises(Conflict, match="idempotency key"):
            await client.action("a", "start", idempotency_key="k1")
        assert (await client.action("a", "stop")).id != first.id
        while len(daemon.hands.done) < 2:
            await asyncio.sleep(0.01)
        assert len(daemon.hands.done) == len(daemon.asked) == 2

    with_daemon(path, test)


def test_a_key_is_remembered_by_the_next_daemon(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = AsyncClient(path)
        first = await client.action("a", "restart", "weekly", "k1", then=["a2"])
        daemon.actions = daemon.new_actions()
        assert await client.action("a", "restart", "another reason", "k1", then=["a2"]) == first
        for now, then in ((True, ["a2"]), (False, [])):
            with pytest.raises(Conflict, match="used for another request: restart of a"):
                await client.action("a", "restart", "weekly", "k1", now=now, then=then)
        assert len(daemon.asked) == 2, "one line for each of its engines"

    with_daemon(path, test)


def test_a_key_that_is_not_understood_any_more_is_passed_over(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        daemon.keys["old"] = "{}"
        daemon.actions = daemon.new_actions()
        await AsyncClient(path).action("a", "stop", idempotency_key="old")
        with pytest.raises(ControlError, match="at most 200 characters"):
            await AsyncClient(path).action("a", "stop", idempotency_key="k" * 201)

    with_daemon(path, test)


def test_two_with_one_key_at_once_are_one(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = AsyncClient(path)
        one, two = await asyncio.gather(*(client.action("a", "stop", idempotency_key="k") for _ in range(2)))
        assert one == two
        assert len(daemon.asked) == 1

    with_daemon(path, test)


REFUSALS = [
    Conflict("a is the last healthy target of route chat", hint="opsboard engine restart a --now"),
    SuperviseError("left running, it could not be started again: vllm cannot be found", hint="correct its `command`"),
    CannotSleep("it has no /is_sleeping"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_is_refused_is_answered_and_leaves_no_trace(path: Path, refusal: OpsboardError) -> None:
    async def test(daemon: FakeDaemon) -> None:
        daemon.hands.refusal = refusal
        with pytest.raises(Conflict) as caught:
            await AsyncClient(path).action("a", "restart", idempotency_key="k")
        assert (caught.value.message, caught.value.hint) == (refusal.message, refusal.hint)
        assert (daemon.events, daemon.asked, daemon.keys) == ([], [], {})
        daemon.hands.refusal = None
        await AsyncClient(path).action("a", "restart", idempotency_key="k")
        assert len(daemon.asked) == 1

    with_daemon(path, test)


def test_what_cannot_be_found_out_soon_is_taken_on_and_told_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsboard.daemon.actions.ASK_S", 0.05)

    async def test(daemon: FakeDaemon) -> None:
        slow = asyncio.Event()

        async def restart(_name: str, _reason: str, **_more: object) -> None:
            await slow.wait()
            raise SuperviseError("its disk does not answer")

        monkeypatch.setattr(daemon.hands, "restart", restart)
        await AsyncClient(path).action("a", "restart")
        slow.set()
        await wait_until_async(lambda: len(daemon.events) == 2)
        assert daemon.events[1].text == "restart failed: its disk does not answer"

    with_daemon(path, test)


def test_a_rolling_restart_is_called_off_by_who_may(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        assert await in_thread(Client(path).rolling) is None
        roll = await in_thread(Client(path).cancel_rolling)
        assert roll.error == f"uid {os.getuid()} (pid {os.getpid()})"
        assert [(entry.action, entry.subject) for entry in daemon.asked] == [("cancel rolling restart", "host")]

    with_daemon(path, test)


def test_what_an_action_may_not_be(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = AsyncClient(path)
        with pytest.raises(NotFound, match="no engine is called 'c'") as caught:
            await client.action("c", "start")
        assert caught.value.hint == "engines here: a, b, a2"
        with pytest.raises(NotFound) as caught:
            await client.action("a22", "start")
        assert caught.value.hint == "did you mean 'a2'?"
        with pytest.raises(Conflict, match="did not start it"):
            await client.action("b", "stop")
        with pytest.raises(ControlError, match="no action is called 'explode'"):
            await client.action("a", "explode")
        assert daemon.asked == []

    with_daemon(path, test)


def test_now_drain_and_rolling_reach_the_supervisor(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = AsyncClient(path)
        await client.action("a", "restart", now=True)
        await client.action("a", "drain")
        await client.action("a", "undrain")
        await client.action("a", "restart", then=["a2"])
        await client.action("a", "restart", now=True, then=["a2"])
        await client.action("a", "sleep")
        await client.action("a", "sleep", now=True)
        await client.action("a", "wake")
        while len(daemon.hands.done) < 8:
            await asyncio.sleep(0.01)
        assert [done[:2] for done in daemon.hands.done] == [
            ("restart now", "a"),
            ("drain", "a"),
            ("undrain", "a"),
            ("rolling", "a a2"),
            ("rolling now", "a a2"),
            ("sleep", "a"),
            ("sleep now", "a"),
            ("wake", "a"),
        ]
        assert [(entry.action, entry.subject) for entry in daemon.asked] == [
            ("restart now", "engine/a"),
            ("drain", "engine/a"),
            ("undrain", "engine/a"),
            ("restart", "engine/a"),
            ("restart", "engine/a2"),
            ("restart now", "engine/a"),
            ("restart now", "engine/a2"),
            ("sleep", "engine/a"),
            ("sleep now", "engine/a"),
            ("wake", "engine/a"),
        ]
        assert daemon.events[0].text.startswith("restart now asked by uid")

    with_daemon(path, test)


def test_what_makes_no_sense_together_is_refused(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = AsyncClient(path)
        with pytest.raises(ControlError, match="`now` says nothing about stop"):
            await client.action("a", "stop", now=True)
        with pytest.raises(ControlError, match="`then` is of a rolling restart"):
            await client.action("a", "start", then=["a2"])
        with pytest.raises(NotFound, match="no engine is called 'c'"):
            await client.action("a", "restart", then=["c"])
        with pytest.raises(BadRequest, match="named twice"):
            await client.action("a", "restart", then=["a2", "a"])
        assert daemon.asked == []

    with_daemon(path, test)


def test_a_body_that_makes_no_sense(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        for body in ("{}", '{"kind": 5}', '{"kind": "stop", "force": true}', "not json"):
            head = f"POST /v1/engines/a/actions HTTP/1.1\nHost: x\nConnection: close\nContent-Length: {len(body)}\n\n"
            first, _, reply = await plain(path, head + body)
            assert first.split()[1] == "400", body
            assert reply["error"]["code"] == "usage"

    with_daemon(path, test)


def test_a_daemon_that_only_looks(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        with pytest.raises(Denied, match="only looks"):
            await AsyncClient(path).action("a", "stop")

    with_daemon(path, test, looks_only=True)


@pytest.mark.parametrize("error", [ControlError("port 1 is taken", hint="by pid 5"), ValueError("boom")])
def test_an_action_that_fails_is_told(path: Path, error: Exception) -> None:
    async def test(daemon: FakeDaemon) -> None:
        daemon.hands.error = error
        await AsyncClient(path).action("a", "start")
        while len(daemon.events) < 2:
            await asyncio.sleep(0.01)
        assert daemon.events[1].severity == "error"
        assert str(error) in daemon.events[1].text

    with_daemon(path, test)


def test_a_slow_action_delays_nobody(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        daemon.hands.hold.clear()
        client = AsyncClient(path)
        await client.action("a", "stop")
        await client.status()
        assert daemon.hands.done == []

    with_daemon(path, test)


def test_a_reload_that_is_refused(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        await in_thread(Client(path).reload)
        assert [(one.action, one.uid) for one in daemon.asked] == [("reload", os.getuid())]
        for error in (Conflict, SuperviseError):
            daemon.reload_error = error("engine a runs", hint="stop it first")
            with pytest.raises(Conflict, match="engine a runs") as caught:
                await in_thread(Client(path).reload)
            assert caught.value.hint == "stop it first"

    with_daemon(path, test)
