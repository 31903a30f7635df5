"""The bounded fetch against servers that keep no promise."""

from __future__ import annotations

import asyncio
import errno
import gzip
import re
import socket
import ssl
import subprocess
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collectors.canary import outcome_of
from collectors.exposition import Parser
from opsboard.core.errors import FetchError
from opsboard.core.model import CanaryOutcome
from opsboard.httpc.connection import Limits
from opsboard.httpc.fetch import Body, Fetcher
from tests.support.loopback import Loopback, Script, answer, full_queue, says, serving

if TYPE_CHECKING:
    from collections.abc import Mapping

SMALL = Limits(body_bytes=10_000, header_bytes=4_096, connect_s=1.0, total_s=5.0)
HASTY = Limits(body_bytes=10_000, header_bytes=4_096, connect_s=0.2, total_s=0.2)
PAGE = b'a{x="1"} 1\nb 2\n'


async def fetch(
    script: Script, limits: Limits = SMALL, times: int = 1, headers: Mapping[str, str] | None = None
) -> tuple[list[Body], Loopback]:
    async with serving(script) as server:
        fetcher = Fetcher(limits)
        try:
            return [await fetcher.get(f"{server.url}/metrics?x=1", headers=headers) for _ in range(times)], server
        finally:
            await fetcher.close()


def refused(script: Script, limits: Limits = SMALL) -> FetchError:
    with pytest.raises(FetchError) as caught:
        asyncio.run(fetch(script, limits))
    return caught.value


def test_a_page_is_fetched_whole_and_connections_are_kept() -> None:
    bodies, server = asyncio.run(fetch(says(answer(PAGE, "Content-Type: text/plain; version=0.0.4")), times=3))
    assert [(body.body, body.status, body.wire_bytes, body.delimited) for body in bodies] == [
        (PAGE, 200, len(PAGE), True)
    ] * 3
    assert bodies[0].content_type == "text/plain; version=0.0.4"
    assert bodies[0].connect_s is not None
    assert bodies[1].connect_s is None
    assert bodies[0].duration_s >= bodies[0].connect_s
    assert server.connections == 1
    assert server.requests[0].startswith(b"GET /metrics?x=1 HTTP/1.1\r\n")
    assert b"\r\nAccept-Encoding: identity\r\n" in server.requests[0]


def test_headers_of_the_caller_are_sent() -> None:
    _, server = asyncio.run(fetch(says(answer(b"")), headers={"Authorization": "Bearer k"}))
    assert b"\r\nAuthorization: Bearer k\r\n" in server.requests[0]


def test_a_header_that_would_forge_a_line_is_refused() -> None:
    with pytest.raises(FetchError, match="not a request"):
        asyncio.run(fetch(says(answer(b"")), headers={"Authorization": "k\r\nX-Evil: 1"}))


def test_chunks_and_early_hints_are_read() -> None:
    raw = (
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\na 1\nb\r\n4;ext=1\r\n 22\n\r\n0\r\n\r\n"
    )
    bodies, server = asyncio.run(fetch(says(raw), times=2))
    assert [body.body for body in bodies] == [b"a 1\nb 22\n"] * 2
    assert server.connections == 1


def test_a_kept_connection_that_the_server_closed_is_opened_again() -> None:
    calls = 0

    async def once(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.write(answer(b"%d" % calls))
        await writer.drain()
        raise ConnectionError

    bodies, server = asyncio.run(fetch(once, times=3))
    assert [body.body for body in bodies] == [b"1", b"2", b"3"]
    assert server.connections == 3


def test_a_connection_is_not_kept_against_the_server_s_will() -> None:
    bodies, server = asyncio.run(fetch(says(answer(PAGE, "Connection: close"), then_close=True), times=2))
    assert [body.body for body in bodies] == [PAGE, PAGE]
    assert server.connections == 2


def test_an_end_by_closing_is_told() -> None:
    bodies, _ = asyncio.run(fetch(says(b"HTTP/1.0 200 OK\r\n\r\n" + PAGE, then_close=True)))
    assert (bodies[0].body, bodies[0].delimited) == (PAGE, False)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
def test_compressed_bodies_are_inflated_though_nobody_asked(encoding: str) -> None:
    packed = zlib.compress(PAGE) if encoding == "deflate" else gzip.compress(PAGE)
    bodies, _ = asyncio.run(fetch(says(answer(packed, f"Content-Encoding: {encoding}"))))
    assert (bodies[0].body, bodies[0].wire_bytes) == (PAGE, len(packed))


def test_a_gzip_bomb_is_refused_before_it_unfolds() -> None:
    bomb = gzip.compress(bytes(9_000_000))
    assert len(bomb) < SMALL.body_bytes
    assert refused(says(answer(bomb, "Content-Encoding: gzip"))).reason == "too_large"


def test_broken_and_foreign_encodings_are_refused() -> None:
    packed = gzip.compress(PAGE)
    assert refused(says(answer(packed[:-9], "Content-Encoding: gzip"))).reason == "truncated"
    assert refused(says(answer(packed + b"more", "Content-Encoding: gzip"))).reason == "truncated"
    assert refused(says(answer(PAGE, "Content-Encoding: gzip"))).reason == "encoding"
    assert refused(says(answer(PAGE, "Content-Encoding: br"))).reason == "encoding"


async def endless(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1600):
        writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        await writer.drain()


async def endless_headers(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(200_000):
        writer.write(b"X-%d: 1\r\n" % number)
        await writer.drain()


async def endless_hints(head: bytes, writer: asyncio.StreamWriter) -> None:
    for _ in range(200_000):
        writer.write(b"HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n")
        await writer.drain()


async def drip(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")
    for _ in range(9000):
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.01)


async def echo(head: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer with the length that the head announces."""
    found = re.search(rb"content-length: (\d+)", head.lower())
    writer.write(answer(found[1] if found else b""))


async def never(head: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("script", "reason", "says_"),
    [
        (says(answer(PAGE, length=100_000_000)), "too_large", "100000000 bytes"),
        (endless, "too_large", "10000 bytes that are allowed"),
        (endless_headers, "too_large", "headers beyond 4096 bytes"),
        (endless_hints, "too_large", "allowed"),
        (says(answer(PAGE, length=len(PAGE) + 1), then_close=True), "truncated", "cut"),
        (says(answer(PAGE, length=len(PAGE) - 4)), "protocol", "more than it announced"),
        (
            says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na 1\n\r\n", then_close=True),
            "truncated",
            "",
        ),
        (says(b"HTTP/1.1 200 OK\r\nContent-Le", then_close=True), "truncated", "cut"),
        (says(b"", then_close=True), "unreachable", "without an answer"),
        (says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "protocol", "does not speak HTTP"),
        (says(answer(b"", "Content-Length: 5")), "protocol", "does not speak HTTP"),
        (says(answer(PAGE, "Location: http://evil/", status="302 Found")), "status", "not followed: to http://evil/"),
        (says(answer(b"<h1>\x1b[31mboom</h1>\n\n", status="500 Oops")), "status", "500: <h1>\ufffd[31mboom</h1>"),
        (says(answer(b"x" * 100_000, status="503 Busy")), "status", "answered 503: xxx"),
        (says(answer(gzip.compress(PAGE), "Content-Encoding: gzip", status="404 No")), "status", "answered 404"),
    ],
)
def test_what_cannot_be_trusted_is_refused(script: Script, reason: str, says_: str) -> None:
    error = refused(script)
    assert (error.reason, says_ in error.message) == (reason, True), error.message
    assert "\x1b" not in error.message
    assert "x=1" not in error.message
    assert len(error.message) < 400


@pytest.mark.parametrize(("script", "got"), [(never, "nothing came"), (drip, "bytes came")])
def test_slow_answers_end_at_the_deadline(script: Script, got: str) -> None:
    error = refused(script, HASTY)
    assert error.reason == "timeout"
    assert got in error.message


def test_the_status_of_a_refusal_is_told_and_its_connection_kept() -> None:
    async def main() -> None:
        async with serving(says(answer(b"dead", status="503 Service Unavailable"))) as server:
            fetcher = Fetcher(SMALL)
            for _ in range(3):
                with pytest.raises(FetchError) as caught:
                    await fetcher.get(server.url)
                assert caught.value.status == 503
            await fetcher.close()
            assert server.connections == 1

    asyncio.run(main())


def test_json_is_posted_once_and_on_a_connection_of_its_own() -> None:
    async def main() -> None:
        async with serving(echo) as server:
            fetcher = Fetcher(SMALL)
            assert (await fetcher.get(server.url)).body == b""
            for data in (b'{"a": 1}', b"{" + b" " * 100_000 + b"}"):
                body = await fetcher.post(f"{server.url}/v1/x?y=1", data, headers={"Authorization": "Bearer k"})
                assert (body.body, body.connect_s is None) == (b"%d" % len(data), False)
            await fetcher.close()
            assert server.connections == 3
            head = server.requests[1]
            assert head.startswith(b"POST /v1/x?y=1 HTTP/1.1\r\n")
            for line in (b"Content-Type: application/json", b"Content-Length: 8", b"Connection: close"):
                assert b"\r\n" + line + b"\r\n" in head
            assert b"\r\nAuthorization: Bearer k\r\n" in head

    asyncio.run(main())


def test_what_was_posted_is_not_sent_again_when_no_answer_comes() -> None:
    async def main() -> None:
        async with serving(says(b"", then_close=True)) as server:
            with pytest.raises(FetchError) as caught:
                await Fetcher(SMALL).post(server.url, b"{}")
            assert (caught.value.reason, len(server.requests)) == ("unreachable", 1)

    asyncio.run(main())


def test_a_deadline_of_the_call_replaces_the_limit() -> None:
    async def main() -> None:
        async with serving(never) as server:
            for ask in (
                Fetcher(SMALL).get(server.url, deadline_s=0.1),
                Fetcher(SMALL).post(server.url, b"{}", deadline_s=0.1),
            ):
                with pytest.raises(FetchError, match=r"nothing came within 0\.1 s") as caught:
                    await ask
                assert caught.value.reason == "timeout"

    asyncio.run(main())


@pytest.mark.parametrize("deadline_s", [None, 0.1])
def test_no_connection_in_time_is_told_apart_from_no_answer_in_time(deadline_s: float | None) -> None:
    async def main() -> None:
        with full_queue() as port:
            fetcher = Fetcher(HASTY)
            with pytest.raises(FetchError, match="no connection within") as caught:
                await fetcher.post(f"http://127.0.0.1:{port}/", b"{}", deadline_s=deadline_s)
            assert caught.value.reason == "connect_timeout"

    asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_there_is_refused(host: str) -> None:
    async def main() -> None:
        async with serving(never) as server:
            port = server.url.rpartition(":")[2]
        await Fetcher(SMALL).get(f"http://{host}:{port}/")

    with pytest.raises(FetchError, match="nothing listens there") as caught:
        asyncio.run(main())
    assert caught.value.reason == "refused"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EADDRNOTAVAIL, socket.EAI_AGAIN])
def test_what_we_lack_ourselves_says_nothing_of_the_other_side(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lacking(*_args: object, **_named: object) -> None:
        raise OSError(number, "not enough")

    monkeypatch.setattr(asyncio, "open_connection", lacking)
    with pytest.raises(FetchError, match="1:1 cannot be asked from here: ") as caught:
        asyncio.run(Fetcher(SMALL).get("http://127.0.0.1:1/"))
    assert caught.value.reason == "here"
    assert outcome_of(caught.value) is CanaryOutcome.UNABLE


def test_a_name_that_does_not_exist_is_unreachable() -> None:
    with pytest.raises(FetchError) as caught:
        asyncio.run(Fetcher(SMALL).get("http://" + "a" * 64 + "/"))
    assert caught.value.reason == "unreachable"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http:///x", "http://h:99999/", "http://user:pw@h/", "x", ""])
def test_what_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(FetchError) as caught:
        asyncio.run(Fetcher(SMALL).get(url))
    assert caught.value.reason == "protocol"
    assert "pw" not in caught.value.message.replace("password", "")


def test_a_cancelled_read_leaves_nothing_open() -> None:
    async def main() -> None:
        async with serving(never) as server:
            fetcher = Fetcher(SMALL)
            task = asyncio.create_task(fetcher.get(server.url))
            while not server.requests:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert fetcher._idle == {}

    asyncio.run(main())


def test_a_page_cut_at_any_byte_on_the_way_is_never_fewer_samples() -> None:
    async def main() -> None:
        cut = 0

        async def partly(head: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(PAGE[:cut], length=len(PAGE)))
            await writer.drain()
            raise ConnectionError

        async with serving(partly) as server:
            fetcher = Fetcher(SMALL)
            for length in range(len(PAGE)):
                cut = length
                with pytest.raises(FetchError) as caught:
                    await fetcher.get(server.url)
                assert caught.value.reason == "truncated"
            cut = len(PAGE)
            body = await fetcher.get(server.url)
            assert len(Parser().parse(body.body).samples) == 2
            await fetcher.close()

    asyncio.run(main())


def certificate(folder: Path) -> tuple[Path, Path]:
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    return key, cert


def test_https_is_read_when_its_certificate_is_known_and_refused_when_not(tmp_path: Path) -> None:
    try:
        key, cert = certificate(tmp_path)
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(cert, key)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(PAGE, "Connection: close"))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=served)
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/metrics"
        try:
            known = Fetcher(SMALL, tls=ssl.create_default_context(cafile=str(cert)))
            assert (await known.get(url)).body == PAGE
            await known.close()
            with pytest.raises(FetchError, match="TLS") as caught:
                await Fetcher(SMALL).get(url)
            assert caught.value.reason == "protocol"
        finally:
            server.close()

    asyncio.run(main())
