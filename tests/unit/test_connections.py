"""Who is connected to a port, with real sockets; and when the daemon looks."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from collectors.connections import KEPT, ConnectionReader
from opsboard.core.clock import ManualClock
from opsboard.core.connections import ConnectionReading
from opsboard.core.model import EngineReading, EngineView, Outcome
from opsboard.daemon import connected
from opsboard.daemon.connected import Connected
from opsboard.daemon.engine_track import CONNECTED_S
from opsboard.daemon.pipeline import EngineSpec, PipelineState, Reading, feed
from opsboard.recording.lines import line
from tests.support.herd import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

# argv: host, port, how many connections; a line on its standard input ends it.
CLIENT = """
import socket, sys
held = [socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) for _ in range(int(sys.argv[3]))]
print("connected", flush=True)
sys.stdin.readline()
"""


@contextmanager
def clients(port: int, count: int = 1, host: str = "127.0.0.1") -> Iterator[None]:
    """Connect from another process."""
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, host, str(port), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"connected\n"
        yield
        process.kill()


@pytest.fixture
def port() -> Iterator[int]:
    """Listen, and accept nobody: the kernel connects without that."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


def test_connections_of_others_are_told_with_when_they_were_first_seen(port: int) -> None:
    reader = ConnectionReader()
    with ExitStack() as stack:
        ours = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert reader.read([port], 100.0) == {port: ()}, "our own do not count"
        stack.enter_context(clients(port))
        assert reader.read([port], 100.0) == {port: (100.0,)}
        stack.enter_context(clients(port))
        assert reader.read([port], 105.0) == {port: (105.0, 100.0)}
        ours.close()
    wait_until(lambda: reader.read([port], 110.0) == {port: ()}, what="they left")


def test_a_server_on_all_addresses_has_its_ipv4_clients_among_ipv6_sockets() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        reader = ConnectionReader()
        with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("::1", port)):
            assert reader.read([port], 100.0) == {port: ()}
            with clients(port):
                assert reader.read([port], 100.0) == {port: (100.0,)}


def test_very_many_are_told_by_the_latest(port: int) -> None:
    with clients(port, KEPT + 20):
        (found,) = ConnectionReader().read([port], 0.0).values()
    assert len(found) == KEPT


def test_of_a_port_that_nobody_listens_on_nothing_is_known(tmp_path: Path) -> None:
    assert ConnectionReader().read([free_port()], 0.0) == {}
    assert ConnectionReader(str(tmp_path)).read([80], 0.0) == {}, "no /proc"


class Looking:
    """The daemon's looks at an engine ``a``."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.clock = ManualClock()
        self.state = PipelineState("h", [EngineSpec(name="a", url=f"http://{host}:{port}")])
        self.seen: list[Reading] = []
        self.connected = Connected(self.state, self.clock, self.seen.append)

    def page(self, **gauges: float | bool | None) -> None:
        fields = {"running": 0.0, "waiting": 0.0, **gauges}
        view = EngineView(kind="vllm", **fields)  # type: ignore[arg-type]
        feed(self.state, EngineReading(engine="a", outcome=Outcome.OK, view=view), self.clock.now())

    def look(self) -> list[Reading]:
        self.seen.clear()
        asyncio.run(self.connected.look())
        return list(self.seen)


def test_only_an_engine_that_shows_no_request_is_looked_at(port: int) -> None:
    looking = Looking(port)
    assert looking.look() == [], "no page yet"
    for gauges in ({"running": 1.0}, {"waiting": 1.0}, {"running": None}, {"asleep": True}):
        looking.page(**gauges)
        looking.clock.advance(10.0)
        assert looking.look() == []
    looking.page()
    assert looking.look() == [], "it may have ended its last one just now"
    looking.clock.advance(2.0)
    assert looking.look() == [ConnectionReading(engine="a", looked=looking.clock.now().mono, since=())]


def test_what_cannot_be_seen_is_unknown(port: int) -> None:
    elsewhere, nobody = Looking(port, "10.1.2.3"), Looking(free_port())
    for looking in (elsewhere, nobody):
        looking.page()
        looking.clock.advance(2.0)
    assert elsewhere.look() == []
    assert nobody.look() == [ConnectionReading(engine="a", looked=nobody.clock.now().mono)]


def test_a_look_that_hangs_is_told_once_and_fails_no_task(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that fails again and again would end the daemon."""
    go = threading.Event()
    monkeypatch.setattr(connected, "WITHIN_S", 0.01)
    looking = Looking(port)
    monkeypatch.setattr(looking.connected, "_read", lambda _ports, _mono: (go.wait(10), 0.0))
    looking.page()
    looking.clock.advance(2.0)

    async def looks() -> None:
        for _ in range(3):
            await looking.connected.look()

    asyncio.run(looks())
    go.set()
    assert (looking.seen, len(caplog.messages)) == ([], 1)


def test_who_came_lately_is_looked_at_every_tick_and_looks_that_are_dear_are_rare(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = Looking(port)
    looking.page()
    looking.clock.advance(2.0)
    began, took = looking.clock.now().mono, 0.0
    seen: tuple[float, ...] = ()

    monkeypatch.setattr(looking.connected, "_read", lambda _ports, _mono: ({port: seen}, took))

    def looks(seconds: int) -> int:
        return sum(looking.clock.advance(1.0) is not None and bool(looking.look()) for _ in range(seconds))

    assert looks(20) == 10
    seen = (began + 20.0,)
    assert looks(10) == 10
    assert looks(20) == 10
    took = 0.2
    looks(10)
    assert 10 <= looks(110) <= 11, "at most 2 % of a core"


def test_a_track_forgets_who_was_connected() -> None:
    looking = Looking(1)
    track, now = looking.state.engines["a"], looking.clock.now()
    assert track.connections(now) is None
    reading = ConnectionReading(engine="a", looked=now.mono, since=(now.mono - 2.0, now.mono - 7.0))
    feed(looking.state, reading, now)
    assert track.connections(looking.clock.advance(1.0)) == reading
    assert track.connections(looking.clock.advance(CONNECTED_S)) is None
    feed(looking.state, ConnectionReading(engine="stranger", looked=0.0, since=()), now)
    feed(looking.state, ConnectionReading(engine="a", looked=looking.clock.now().mono), looking.clock.now())
    assert track.connections(looking.clock.now()) is None
    page = EngineReading(engine="a", outcome=Outcome.OK, page=b"")
    assert line(page, now.wall, connections=reading).connections == (2.0, 7.0)
