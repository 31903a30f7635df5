"""Finding engines: real processes that listen on loopback, and dialects of the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import msgspec
import pytest

from collectors import sockets
from collectors.base import Dialect, Page
from collectors.discover import FoundEngine, find_engines
from collectors.process import descendants
from opsboard.core.model import EngineView
from opsboard.httpc.connection import Limits
from opsboard.httpc.fetch import Fetcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# argv: what it says on /metrics, then what only the dialect looks at.
SERVER = r"""
import http.server, os, sys, time
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if sys.argv[1] == "hang": time.sleep(60)
        self.send_response(200 if self.path == "/metrics" else 404)
        self.send_header("Content-Length", str(len(sys.argv[1])))
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
os.write(1, b"%d\n" % server.server_port)
server.serve_forever()
"""
TOY_PAGE = '# TYPE toy_running gauge\ntoy_running{model="meta/Toy-1B"} 1\n'
SERVE = f"serve-toy-{os.getpid()}"  # tests that run beside us in another worker have toys of their own


def toy_model(page: Page) -> EngineView:
    return EngineView(kind="toy", model=page.samples["toy_running"][0][0].get("model"))


def toy_role(name: str, arguments: Sequence[str]) -> str | None:
    return "api_server" if SERVE in arguments else None


TOY = Dialect(
    kind="toy",
    recognise=lambda page: "toy_running" in page.samples,
    read=toy_model,
    process_role=toy_role,
    default_port=1,
)


@contextmanager
def server(page: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """Run a server with ``page`` on its metrics path; give its pid and port."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, page, *arguments], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate(timeout=10)


def find(*ports: int, proc_root: str = "/proc", dialect: Dialect = TOY) -> list[FoundEngine]:
    async def look() -> list[FoundEngine]:
        fetcher = Fetcher(Limits(total_s=1.0))
        try:
            return await find_engines(fetcher, ports=ports, dialects=[dialect], proc_root=proc_root)
        finally:
            await fetcher.close()

    return asyncio.run(look())


def test_an_engine_process_is_found_with_its_port_and_model() -> None:
    with server(TOY_PAGE, SERVE) as (pid, port):
        found = find()

    assert found == [
        FoundEngine(
            name="toy-1b",
            url=f"http://127.0.0.1:{port}",
            kind="toy",
            model="meta/Toy-1B",
            pid=pid,
            role="api_server",
            answers=True,
        )
    ]


def test_two_of_one_model_are_told_apart_by_port() -> None:
    with server(TOY_PAGE, SERVE) as (_, one), server(TOY_PAGE, SERVE) as (_, two):
        found = find()

    assert [engine.name for engine in found] == [f"toy-1b-{port}" for port in sorted((one, two))]


def test_a_well_known_port_is_shown_only_when_its_page_is_recognised() -> None:
    with server(TOY_PAGE) as (_, engine), server("other_metric 1\n") as (_, other), server(TOY_PAGE) as (_, unasked):
        found = find(engine, other)

    assert [(one.url, one.kind, one.pid) for one in found] == [(f"http://127.0.0.1:{engine}", "toy", None)]
    assert str(unasked) not in str(found)


def test_an_engine_that_hangs_or_says_nothing_of_itself_is_shown_too_and_soon() -> None:
    with server("hang", SERVE) as (_, hung), server("", SERVE) as (_, empty):
        before = time.monotonic()
        found = find()
        took = time.monotonic() - before

    assert [(engine.name, engine.model, engine.answers) for engine in found] == [
        (f"toy-{port}", None, False) for port in sorted((hung, empty))
    ]
    assert took < 10  # two seconds, and room for a busy machine


def test_an_engine_whose_dialect_cannot_read_its_page_is_shown_all_the_same() -> None:
    with server("toy_running 1\ntoy_other 1\n", SERVE) as (_, port):
        broken = msgspec.structs.replace(TOY, read=lambda page: toy_model(Page(columns={}, types=page.types)))
        found = find(dialect=broken)

    assert [(engine.name, engine.answers) for engine in found] == [(f"toy-{port}", False)]


def test_a_model_name_from_a_stranger_becomes_a_plain_name() -> None:
    page = TOY_PAGE.replace("meta/Toy-1B", "x/../../Evil Name;rm -rf")
    with server(page, SERVE) as (_, port):
        (engine,) = find()

    assert engine.name == "evil-name-rm-rf"
    assert engine.url == f"http://127.0.0.1:{port}"


def test_a_process_that_has_not_bound_its_port_yet_is_shown_where_it_will_serve() -> None:
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()", SERVE, "--port", "45671", "--ssl-keyfile=k"]
    process = subprocess.Popen(waiting, stdin=subprocess.PIPE)
    try:
        found = find()
    finally:
        process.communicate(timeout=10)

    assert [(engine.name, engine.url, engine.pid) for engine in found] == [
        ("toy-45671", "https://127.0.0.1:45671", process.pid)
    ]


def test_the_process_that_holds_the_port_counts_not_the_one_around_it() -> None:
    around = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    inner = [sys.executable, "-c", SERVER, TOY_PAGE, SERVE]
    # The wrapper carries the words of the command it runs, as `uv run vllm serve ...` does.
    process = subprocess.Popen([sys.executable, "-c", around, *inner], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        found = [engine for engine in find() if str(port) in engine.url]
        assert [engine.pid for engine in found] == descendants(process.pid)
    finally:
        for pid in descendants(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate(timeout=10)


# --- sockets ---

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000 100 0 0 10 0
   1: 00000000:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0000 100 0 0 10 0
   2: 0100007F:1F40 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0000 100 0 0 10 0
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000001000000:1F41 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 444 1
   1: 00000000000000000000000000000000:1F42 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 555 1
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the tables below were written by a little-endian kernel")
def test_listening_sockets_are_read_from_the_tables_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP)
    (tmp_path / "net" / "tcp6").write_text(TCP6)

    found = sockets.listeners(str(tmp_path))

    assert [(one.address, one.port, one.inode, one.host) for one in found] == [
        (IPv4Address("127.0.0.1"), 8000, 111, "127.0.0.1"),
        (IPv4Address("0.0.0.0"), 9000, 222, "127.0.0.1"),
        (IPv6Address("::1"), 8001, 444, "[::1]"),
        (IPv6Address("::"), 8002, 555, "127.0.0.1"),
    ]


def test_without_proc_nothing_is_found(tmp_path: Path) -> None:
    assert sockets.listeners(str(tmp_path)) == []
    assert find(8000, proc_root=str(tmp_path)) == []
