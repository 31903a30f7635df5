"""Messages handed to services that hang, drip, redirect, lie, talk without end, or are not there at all."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from alerts import transport
from alerts.answers import by_status
from alerts.notifier import Answer, Http, Later, Refused, Sent
from alerts.transport import Transport, refused_address
from opsboard.core.clock import SystemClock
from opsboard.core.errors import FetchError
from opsboard.core.secret import Secret
from opsboard.httpc.fetch import Fetcher
from tests.support.loopback import Loopback, Script, answer, says, serving
from tests.unit.test_fetch import certificate, drip, never

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
TOKEN = "s3cret-token"
MEGABYTES = b"x" * 10_000_000


async def sent(url: str, deadline_s: float = 5.0) -> Answer:
    patch = pytest.MonkeyPatch()
    patch.setattr(transport, "DEADLINE_S", deadline_s)
    one = Transport(SystemClock())
    patch.undo()
    try:
        return await one.send(Http(url=Secret(url), body=b"{}", secret_headers={"Authorization": Secret(TOKEN)}))
    finally:
        await one.close()


def ask(script: Script, deadline_s: float = 5.0) -> tuple[Answer, Loopback]:
    async def main() -> tuple[Answer, Loopback]:
        async with serving(script) as server:
            return await sent(f"{server.url}/{TOKEN}", deadline_s), server

    return asyncio.run(main())


@contextlib.asynccontextmanager
async def listening(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Yield the port of a server; whoever it talks to is gone afterwards."""
    going: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(talk(reader, writer))
        going.add(task)
        await asyncio.wait([task])
        writer.transport.abort()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        await asyncio.sleep(0.01)  # lets the transports go


@pytest.mark.parametrize("script", [never, drip])
def test_who_hangs_or_drips_is_left_at_the_deadline(script: Script) -> None:
    found, server = ask(script, 0.2)
    assert isinstance(by_status(found), Later)
    assert found.error is not None
    assert "within 0.2 s" in found.error
    assert TOKEN not in found.error
    assert len(server.requests) == 1


def test_a_redirect_is_not_followed_and_breaks_the_channel() -> None:
    found, server = ask(says(answer(b"", "Location: http://169.254.169.254/latest", status="302 Found")))
    assert by_status(found) == Refused("HTTP 302: redirects are not followed", channel=True)
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", [len(MEGABYTES), 70_000])
def test_who_takes_a_message_and_answers_with_megabytes_has_taken_it(size: int) -> None:
    found, _ = ask(says(answer(MEGABYTES[:size])))
    assert by_status(found) == Sent()
    assert len(found.body) <= 2 * transport.ANSWER_BYTES


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(says(answer(b"ok", length=99), then_close=True), id="an answer that is cut"),
        pytest.param(says(b"SSH-2.0-OpenSSH_9.2\r\n"), id="another protocol"),
        pytest.param(says(b"", then_close=True), id="silence"),
        pytest.param(says(answer(b"", status="503 Busy")), id="busy"),
    ],
)
def test_what_says_nothing_of_the_message_is_tried_again(script: Script) -> None:
    outcome = by_status(ask(script, 0.5)[0])
    assert isinstance(outcome, Later)
    assert TOKEN not in outcome.why


def test_a_name_that_nobody_knows_is_tried_again() -> None:
    found = asyncio.run(sent("http://no-such-host.invalid/x"))
    assert isinstance(by_status(found), Later)
    assert found.error is not None
    assert "no-such-host.invalid" in found.error


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "0.0.0.0", "224.0.0.1"])
def test_metadata_is_never_asked(host: str) -> None:
    found = asyncio.run(sent(f"http://{host}/latest"))
    assert found.permanent
    assert isinstance(by_status(found), Refused)


def test_a_name_that_leads_to_metadata_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> Answer:
        async def rebound(*_arguments: object, **_named: object) -> list[tuple[object, ...]]:
            return [(2, 1, 6, "", ("169.254.169.254", 80))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebound)
        return await sent("http://rebound.example.com/")

    assert asyncio.run(main()).permanent


def test_a_certificate_that_is_wrong_may_be_mended(tmp_path: Path) -> None:
    try:
        key, cert = certificate(tmp_path)
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(cert, key)

    async def talk(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        raise AssertionError("it was trusted")

    async def main() -> Answer:
        async with listening(talk, served) as port:
            return await sent(f"https://localhost:{port}/{TOKEN}")

    found = asyncio.run(main())
    outcome = by_status(found)
    assert isinstance(outcome, Later)
    assert "certificate" in outcome.why
    assert TOKEN not in outcome.why


async def through(proxy: str, url: str, tls: ssl.SSLContext | None = None) -> int:
    fetcher = Fetcher(tls=tls, refused=refused_address, environment={"https_proxy": proxy, "http_proxy": proxy})
    try:
        return (await fetcher.send("POST", url, b"{}")).status
    finally:
        await fetcher.close()


def test_a_proxy_is_asked_for_a_way_and_sees_nothing_of_what_goes_there(tmp_path: Path) -> None:
    try:
        key, cert = certificate(tmp_path)
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(cert, key)
    trusted = ssl.create_default_context(cafile=str(cert))
    trusted.check_hostname = False
    asked: list[bytes] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"", status="202 Accepted"))
        await writer.drain()

    async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)

    async def main() -> int:
        async with listening(service, served) as port:

            async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                there, back = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                try:
                    await asyncio.gather(pipe(reader, back), pipe(there, writer))
                finally:
                    back.transport.abort()

            async with listening(relay) as own:
                return await through(f"http://ann:p%40ss@127.0.0.1:{own}", "https://api.example.com/x", trusted)

    assert asyncio.run(main()) == 202
    (head,) = asked
    assert head.startswith(b"CONNECT api.example.com:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic YW5uOnBAc3M=\r\n" in head
    assert b"/x" not in head


def test_a_proxy_gets_plain_requests_whole_and_may_say_no() -> None:
    async def main() -> None:
        async with serving(says(answer(b"", status="407 Proxy Authentication Required"))) as server:
            assert await through(server.url, "http://example.com/x?y=1") == 407
            assert server.requests[0].startswith(b"POST http://example.com:80/x?y=1 HTTP/1.1\r\n")
            with pytest.raises(FetchError, match=r"makes no way to example\.com:443: HTTP/1\.1 407") as no:
                await through(server.url, "https://example.com/")
            assert no.value.reason == "unreachable"
            with pytest.raises(FetchError, match="metadata"):
                await through(server.url, "https://169.254.169.254/")
        with pytest.raises(FetchError, match=r"the proxy 127\.0\.0\.1:9 of the environment"):
            await through("http://127.0.0.1:9", "https://example.com/")
        with pytest.raises(FetchError, match="no http"):
            await through("socks5://127.0.0.1:9", "https://example.com/")

    asyncio.run(main())
