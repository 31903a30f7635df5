"""Hands requests to services: over HTTP, SMTP or to a command. Bounded in time and bytes; no redirects, no shell.

Nothing of a request ever appears in an error: addresses and headers may hold secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import subprocess
from typing import assert_never

from alerts.notifier import Answer, Http, Mail, Request, Run
from opsboard.core.aside import Aside
from opsboard.core.clock import Clock
from opsboard.core.errors import FetchError
from opsboard.core.text import sanitise
from opsboard.httpc.fetch import Fetcher
from opsboard.httpc.fetch import Limits as FetchLimits

ANSWER_BYTES = 64 * 1024
DEADLINE_S = 15.0
COMMAND_S = 30.0
MAIL_S, MAILS = 30.0, 4
OUTPUT_BYTES = 4096
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""What a command of the user's inherits."""
_METADATA = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::254/128"),
)
"""Where clouds tell secrets of a machine to whoever asks from it."""


def refused_address(address: str) -> str | None:
    """Return why an address must not be connected to; None: it may."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "it is no address"
    found = getattr(found, "ipv4_mapped", None) or found
    if any(found in network for network in _METADATA):
        return "a link-local or metadata address is never told anything"
    return "it is no address of a machine" if found.is_multicast or found.is_unspecified else None


class Transport:
    """Sends what notifiers render. Close it when done."""

    def __init__(self, clock: Clock) -> None:
        """Open nothing yet."""
        self._clock = clock
        limits = FetchLimits(
            body_bytes=ANSWER_BYTES,
            error_bytes=ANSWER_BYTES,
            cut=True,  # who says 200 and then too much has taken the message
            connect_s=5.0,
            total_s=DEADLINE_S,
            idle_connections=0,
        )
        self._fetcher = Fetcher(limits, refused=refused_address, environment=os.environ)
        self._mailing = Aside("mail", MAILS)

    async def send(self, request: Request) -> Answer:
        """Return what came back; never raises for what the network or the service does."""
        match request:
            case Http():
                answer = await self._http(request)
            case Mail():
                answer = await self._mail(request)
            case Run():
                answer = await _run(request)
            case _:
                assert_never(request)
        return answer._replace(at=self._clock.now().wall)

    async def close(self) -> None:
        """Let go of what is open."""
        await self._fetcher.close()

    async def _http(self, request: Http) -> Answer:
        secret = {name: value.reveal() for name, value in request.secret_headers.items()}
        try:
            reply = await self._fetcher.send(
                request.method, request.url.reveal(), request.body, headers={**request.headers, **secret}
            )
        except FetchError as error:
            # The message names host and port, nothing more of the address.
            # A certificate or a proxy that is wrong now may be mended before the message is too old.
            return Answer(status=None, error=error.message, permanent=error.reason == "refused_address")
        return Answer(status=reply.status, headers=reply.headers, body=reply.body)

    async def _mail(self, request: Mail) -> Answer:
        from alerts.mailing import hand_over  # noqa: PLC0415  costs memory that daemons without mail can save

        try:
            return await self._mailing.do(lambda: hand_over(request), MAIL_S)
        except TimeoutError:
            return Answer(status=None, error=f"{request.host}: it was not handed over within {MAIL_S:g} s")


async def _run(request: Run) -> Answer:
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *request.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return Answer(status=None, error=f"it cannot be run: {error.strerror}", permanent=True)
    try:
        async with asyncio.timeout(COMMAND_S):
            said = await _talk(process, request.stdin)
            status = await process.wait()
    except TimeoutError:
        return Answer(status=None, error=f"it did not end within {COMMAND_S:g} s and was killed")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Answer(status=status, body=said)


async def _talk(process: asyncio.subprocess.Process, data: bytes) -> bytes:
    """Hand ``data`` over and return the first of what it says on standard error."""
    takes, says = process.stdin, process.stderr
    if takes is None or says is None:
        return b""
    with contextlib.suppress(OSError):  # one that reads nothing has ended or closed it
        takes.write(data)
        await takes.drain()
    takes.close()
    kept = b""
    while part := await says.read(OUTPUT_BYTES):
        kept = (kept + part)[:OUTPUT_BYTES]
    return sanitise(kept.decode("utf-8", "replace")).encode()
