"""The proxy that the environment names for a request, and the tunnel through it. Never used for engines.

``https_proxy``, ``http_proxy``, ``all_proxy`` and ``no_proxy`` in either case, the lower one first, as curl reads them
(https://everything.curl.dev/usingproxies/env); ``no_proxy`` has names, addresses and networks. Nothing of this machine
goes through a proxy.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from opsboard.core.errors import FetchError
from opsboard.core.secret import Secret
from opsboard.core.text import sanitise
from opsboard.httpc.connection import Place

_PORT = 1080
"""Where none is given, as curl has it."""


class Proxy(NamedTuple):
    """Where it is, and what it asks for."""

    place: Place
    authorization: Secret | None

    @property
    def headers(self) -> dict[str, str]:
        """Return what a request to it needs."""
        return {} if self.authorization is None else {"Proxy-Authorization": self.authorization.reveal()}


def proxy_for(place: Place, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a place; None: straight. Raises FetchError (protocol) for a proxy that is not HTTP."""
    if _passed_by(place, _value(environment, "no_proxy")):
        return None
    address = _value(environment, "https_proxy" if place.tls else "http_proxy") or _value(environment, "all_proxy")
    if not address:
        return None
    parts = urlsplit(address if "://" in address else f"http://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "http" or not host:
        raise FetchError("the proxy of the environment is no http:// address", reason="protocol")
    known = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        known = Secret("Basic " + base64.b64encode(pair.encode()).decode())
    return Proxy(Place(host, port or _PORT, tls=False), known)


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, proxy: Proxy, place: Place) -> None:
    """Ask for a way through. Raises FetchError (unreachable) when the proxy makes none."""
    fields = {"Host": str(place), **proxy.headers}
    lines = [f"CONNECT {place} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise FetchError(f"the proxy {proxy.place} gave no answer for {place}", reason="unreachable") from None
    said = head.partition(b"\r\n")[0].decode("latin-1")
    version, _, status = said.partition(" ")
    if not version.startswith("HTTP/1.") or not status.startswith("2"):
        message = f"the proxy {proxy.place} makes no way to {place}: {sanitise(said, 100)}"
        raise FetchError(message, reason="unreachable")


def _value(environment: Mapping[str, str], name: str) -> str:
    return (environment.get(name) or environment.get(name.upper()) or "").strip()


def _passed_by(place: Place, listed: str) -> bool:
    host = place.host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for word in listed.lower().replace(",", " ").split():
        name, _, port = word.rpartition(":") if word.count(":") == 1 else (word, "", "")
        if port and port != str(place.port):
            continue
        if name == "*" or host == name.lstrip(".") or (address is None and host.endswith("." + name.lstrip("*."))):
            return True
        if address is not None and _within(address, name):
            return True
    return False


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, name: str) -> bool:
    try:
        return address in ipaddress.ip_network(name.strip("[]"), strict=False)
    except ValueError:
        return False
