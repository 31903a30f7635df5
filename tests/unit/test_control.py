"""The control socket: what it says, to whom, and its streams."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from collectors.logs import tail
from opsboard.client.stream import AsyncClient, Disconnected, watch
from opsboard.client.sync import Client
from opsboard.core.errors import Denied, StoreError
from opsboard.core.model import Event, Severity
from opsboard.daemon import control
from opsboard.daemon.rights import Right
from opsboard.daemon.subscribers import Newest
from opsboard.httpd import Peer
from tests.support.control_daemon import (
    ALL,
    DEADLINE_S,
    FakeDaemon,
    FakePast,
    in_thread,
    plain,
    running,
    socket_path,
    with_daemon,
)


@pytest.fixture
def path() -> Path:
    return socket_path()


# --- what it says -----------------------------------------------------------------------------------------------------


def test_the_board_the_detail_the_history(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        daemon.read(3)
        client = Client(path)
        assert await in_thread(client.status) == daemon.status()
        assert await AsyncClient(path).status() == daemon.status()
        assert [engine.name for engine in await in_thread(client.engines)] == ["a", "b", "a2"]
        assert (await in_thread(lambda: client.engine("a"))).engine.running == 3
        assert (await AsyncClient(path).engine("a")).log_path == str(daemon.log)
        other = await in_thread(lambda: client.engine("b"))
        assert other.engine.name == "b"
        assert [(one.state, one.reason) for one in other.timeline] == [("ready", "asked by hand")]
        assert [step.name for step in other.transaction] == ["launch"], "of the last start, while none is under way"
        history = await in_thread(lambda: client.history("engine/a/running", 0, 60, 5))
        assert (history.series, history.step, history.points[0].t) == ("engine/a/running", 5.0, 0.0)
        hour = await AsyncClient(path).history("engine/a/running")
        assert hour.step == 12.0
        assert await in_thread(client.series) == ["engine/a/running"]

    with_daemon(path, test)


@pytest.mark.parametrize("trouble", [StoreError("the disk is gone"), None], ids=["fails", "hangs"])
def test_an_engine_is_shown_from_memory_while_the_disk_does_not_answer(
    path: Path, trouble: StoreError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "DETAIL_S", 0.05)

    class SilentPast(FakePast):
        async def events(self, subject: str | None = None, limit: int = 100) -> list[Event]:
            if trouble is not None:
                raise trouble
            await asyncio.Event().wait()
            return []

    async def test(daemon: FakeDaemon) -> None:
        daemon.control._past = SilentPast()
        daemon.state.events.append(Event(t=1.0, subject="engine/a", kind="ready", text="stopped → ready"))
        found = await in_thread(lambda: Client(path).engine("a"))
        assert [event.text for event in found.events] == ["stopped → ready"]

    with_daemon(path, test)


def test_a_timeline_holds_what_the_disk_has_and_what_it_could_not_take(path: Path) -> None:
    def told(t: float) -> Event:
        return Event(t=t, subject="engine/a", kind="action", text=f"at {t}", severity=Severity.INFO)

    class FullPast(FakePast):
        async def events(self, subject: str | None = None, limit: int = 100) -> list[Event]:
            return [told(1.0), told(2.0)]

    async def test(daemon: FakeDaemon) -> None:
        daemon.control._past = FullPast()
        daemon.state.events.extend([told(2.0), told(3.0)])
        detail = await in_thread(lambda: Client(path).engine("a"))
        assert [event.t for event in detail.events] == [1.0, 2.0, 3.0]

    with_daemon(path, test)


def test_the_socket_is_for_its_owner_only(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> int:
        return path.stat().st_mode & 0o777

    assert with_daemon(path, test) == 0o600
    assert not path.exists()


def test_the_kernel_tells_who_asks_with_all_their_groups(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> Peer | None:
        await AsyncClient(path).status()
        return daemon.peer

    assert with_daemon(path, test) == Peer(
        pid=os.getpid(), uid=os.getuid(), gid=os.getgid(), groups=tuple(os.getgroups())
    )


@pytest.mark.parametrize(
    ("right", "looks", "operates"), [(Right.NONE, False, False), (Right.READ, True, False), (ALL, True, True)]
)
def test_rights(path: Path, right: Right, looks: bool, operates: bool) -> None:
    async def test(daemon: FakeDaemon) -> tuple[bool, bool]:
        async def may(call: Callable[[], object]) -> bool:
            try:
                await in_thread(call)
            except Denied:
                return False
            return True

        client = Client(path)
        return await may(client.status), await may(lambda: client.action("a", "start"))

    assert with_daemon(path, test, right=right) == (looks, operates)


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("GET /v1/nothing", "404", "not_found"),
        ("GET /v1/engines/c", "404", "not_found"),
        ("GET /v1/engines/a/x", "404", "not_found"),
        ("DELETE /v1/engines/a", "404", "not_found"),
        ("POST /v1/status", "404", "not_found"),
        ("GET /v1/engines/b/logs", "409", "conflict"),
        ("GET /v1/engines/c/logs", "404", "not_found"),
        ("GET /v1/engines/a/logs?lines=many", "400", "usage"),
        ("GET /v1/engines/a/logs?lines=-1", "400", "usage"),
        ("GET /v1/history", "400", "usage"),
        ("GET /v1/history?series=x&from=nan", "400", "usage"),
        ("GET /v1/history?series=x&from=2&to=1", "400", "usage"),
        ("GET /v1/history?series=x&from=0&to=1000000&step=1", "400", "usage"),
        ("GET /v1/history?series=x&step=0", "400", "usage"),
    ],
)
def test_refusals(path: Path, target: str, status: str, code: str) -> None:
    async def test(daemon: FakeDaemon) -> None:
        first, headers, body = await plain(path, f"{target} HTTP/1.1\nHost: x\nConnection: close\n\n")
        assert first.split()[1] == status
        assert headers["opsboard-protocol"] == "1"
        assert body["error"]["code"] == code
        assert body["error"]["message"]

    with_daemon(path, test)


def test_curl_needs_no_version_but_another_version_is_refused(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        first, _, body = await plain(path, "GET /healthz HTTP/1.1\nHost: x\nConnection: close\n\n")
        assert (first.split()[1], body) == ("200", {"status": "ok"})
        first, headers, nothing = await plain(path, "HEAD /healthz HTTP/1.1\nHost: x\nConnection: close\n\n")
        assert (first.split()[1], int(headers["content-length"]) > 0, nothing) == ("200", True, None)
        first, _, _ = await plain(path, "HEAD /v1/events HTTP/1.1\nHost: x\nConnection: close\n\n")
        assert first.split()[1] == "200", "a stream has a head, too"
        strange = "GET /v1/status HTTP/1.1\nHost: x\nConnection: close\nOpsboard-Protocol: 2\n\n"
        first, _, body = await plain(path, strange)
        assert first.split()[1] == "400"
        assert "protocol 2" in body["error"]["message"]

    with_daemon(path, test)


# --- the stream -------------------------------------------------------------------------------------------------------


def test_subscribers_get_the_newest_state_and_no_backlog(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        stream = AsyncClient(path).events()
        assert (await anext(stream)).engines[0].running is None
        for n in range(100):
            daemon.read(n)
        assert (await anext(stream)).engines[0].running == 99
        later = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert not later.done()
        daemon.read(7)
        assert (await later).engines[0].running == 7
        await stream.aclose()
        while daemon.newest.count:
            await asyncio.sleep(0.01)

    with_daemon(path, test)


def test_a_stalled_subscriber_is_dropped_and_delays_nobody(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        with closing(socket.socket(socket.AF_UNIX)) as stalled:
            stalled.connect(str(path))
            stalled.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            stream = AsyncClient(path).events()
            await anext(stream)
            while daemon.newest.count < 2:
                await asyncio.sleep(0.01)
            seen, n = -1.0, 0
            while daemon.newest.count == 2:
                n += 1
                daemon.read(n)
                seen = (await anext(stream)).engines[0].running or 0
                assert seen == n
            assert daemon.newest.count == 1
            await stream.aclose()

    with_daemon(path, test)


def test_a_state_that_comes_during_a_slow_first_write_is_not_missed() -> None:
    async def main() -> None:
        states = iter([b"old\n", b"new\n"])
        newest = Newest(lambda: next(states))
        stream = newest.stream()
        assert await anext(stream) == b"old\n"
        newest.publish()
        async with asyncio.timeout(DEADLINE_S):
            assert await anext(stream) == b"new\n"
        await stream.aclose()

    asyncio.run(main())


def test_no_line_of_a_followed_log_is_sent_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = path.with_name("engine.log")
    log.write_text("one\n")

    def late(where: Path, lines: int, *, end: int | None = None) -> list[str]:
        with log.open("a") as file:
            file.write("two\n")
        return tail(where, lines, end=end)

    monkeypatch.setattr(control, "tail", late)

    async def main() -> None:
        stream = control.log_stream(log, 10, follow=True)
        assert [await anext(stream), await anext(stream)] == [b"one\n", b"two\n"]
        await stream.aclose()

    asyncio.run(main())


def test_no_state_is_made_while_nobody_listens() -> None:
    made = 0

    def make() -> bytes:
        nonlocal made
        made += 1
        return b"x\n"

    async def main() -> None:
        newest = Newest(make)
        newest.publish()
        newest.publish_soon()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert made == 0


def test_watch_reconnects_by_itself(path: Path) -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            states = watch(path)
            first = await anext(states)
            assert isinstance(first, Disconnected)
            assert "no such socket" in first.message
            assert not first.denied
            for _ in range(2):
                async with running(path) as daemon:
                    while isinstance(await anext(states), Disconnected):
                        pass
                    seen.append(f"{daemon.newest.count} connected")
                while not isinstance(gone := await anext(states), Disconnected):
                    pass
                seen.append(gone.message)
            await states.aclose()
        return seen

    seen = asyncio.run(main())
    assert [line for line in seen if line.endswith("connected")] == ["1 connected"] * 2
