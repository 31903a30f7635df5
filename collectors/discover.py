"""Engines that run on this machine without anybody having told us: their processes, their ports, their pages.

An engine process is shown even when its page does not answer (it may be starting, or be the one that hangs). A port
without an engine process is asked only when it is one of a few that engines use, and is shown only when its page is
recognised: what else listens on this machine is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import msgspec

from collectors import procfs, sockets
from collectors.base import Dialect, Page
from collectors.engine_scrape import OFF_LOOP_BYTES
from collectors.exposition import Parser
from opsboard.core.errors import ExpositionError, FetchError
from opsboard.core.model import Record
from opsboard.core.registry import dialects as registered_dialects
from opsboard.httpc.fetch import Fetcher

log = logging.getLogger("opsboard.discover")

WELL_KNOWN_PORTS = frozenset({*range(8000, 8011), 8080, *range(9000, 9011), 30000})
"""Ports that are asked for a metrics page besides the default port of every dialect."""
_PAGE_S = 1.5
_ALL_S = 2.0
_SERVING = "api_server"
_AT_ONCE = 16


class FoundEngine(Record, frozen=True, kw_only=True):
    """An engine that runs here. ``model`` is None while its page is silent, ``pid`` where we see no process."""

    name: str
    """Unique among those found: the model's short name, with the port where two serve the same."""
    url: str
    kind: str | None = None
    model: str | None = None
    pid: int | None = None
    role: str | None = None
    answers: bool = False


class _Candidate(Record, frozen=True, kw_only=True):
    """A place to ask; ``dialect`` and ``pid`` when an engine process stands behind it."""

    url: str
    port: int
    dialect: Dialect | None = None
    pid: int | None = None
    holds: bool = False
    """True when the process was seen to hold the listening socket, not only to name its port (a wrapper does too)."""


class _Process(Record, frozen=True):
    """A serving process of an engine."""

    pid: int
    start_ticks: int
    argv: tuple[str, ...]
    dialect: Dialect


async def find_engines(
    fetcher: Fetcher,
    *,
    ports: Collection[int] | None = None,
    dialects: Iterable[Dialect] | None = None,
    proc_root: str = procfs.PROC,
) -> list[FoundEngine]:
    """Return the engines of this machine by port, within about two seconds. Never raises for foreign reasons.

    ``ports`` are those asked without an engine process behind them (default: :data:`WELL_KNOWN_PORTS` and the default
    port of each dialect); ``dialects`` default to the registered ones.
    """
    known = tuple(registered_dialects().found.values()) if dialects is None else tuple(dialects)
    asked = WELL_KNOWN_PORTS.union(dialect.default_port for dialect in known) if ports is None else ports
    candidates = await asyncio.to_thread(_candidates, known, frozenset(asked), proc_root)
    limit = asyncio.Semaphore(_AT_ONCE)

    async def ask(candidate: _Candidate) -> FoundEngine | None:
        async with limit:
            return await _ask(fetcher, candidate, known)

    tasks = [asyncio.create_task(ask(candidate)) for candidate in candidates]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_ALL_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    found = []
    for candidate, task in zip(candidates, tasks, strict=True):
        engine = _silent(candidate) if task.cancelled() else task.result()
        if engine is not None:
            found.append((candidate.port, engine))
    return _named(found)


# --- what runs ----------------------------------------------------------------------------------------------------


def _candidates(dialects: Sequence[Dialect], ports: frozenset[int], proc_root: str) -> list[_Candidate]:
    listening = sockets.listeners(proc_root)
    candidates: dict[int, _Candidate] = {}
    for process in _serving(dialects, proc_root):
        scheme = "https" if any(word.startswith("--ssl-keyfile") for word in process.argv) else "http"
        for port, host, holds in _ports_of(process, listening, proc_root):
            place = _Candidate(
                url=f"{scheme}://{host}:{port}", port=port, dialect=process.dialect, pid=process.pid, holds=holds
            )
            if port not in candidates or (holds and not candidates[port].holds):
                candidates[port] = place
    for listener in listening:
        if listener.port in ports and (listener.address.is_unspecified or listener.address.is_loopback):
            place = _Candidate(url=f"http://{listener.host}:{listener.port}", port=listener.port)
            candidates.setdefault(listener.port, place)
    return sorted(candidates.values(), key=lambda candidate: candidate.port)


def _serving(dialects: Sequence[Dialect], proc_root: str) -> list[_Process]:
    """Return the serving processes of engines, oldest first: further API servers share the sockets of the first one."""
    found = []
    for pid in procfs.pids(proc_root):
        try:
            arguments = procfs.argv(pid, proc_root)
            line = procfs.stat(pid, proc_root) if arguments else None
        except OSError:
            continue
        if line is None or line.ended:
            continue
        for dialect in dialects:
            if dialect.process_role(line.comm, arguments) == _SERVING:
                found.append(_Process(pid, line.start_ticks, arguments, dialect))
                break
    return sorted(found, key=lambda process: (process.start_ticks, process.pid))


def _ports_of(process: _Process, listening: Sequence[sockets.Listener], proc_root: str) -> list[tuple[int, str, bool]]:
    """Return ``(port, host, holds)`` where a process serves, or will serve once it has started."""
    network = sockets.network_of(process.pid, proc_root)
    if network is not None and network != sockets.network_of("self", proc_root):
        return []  # in a container of its own: only its published port can be reached
    inodes = sockets.inodes_of(process.pid, proc_root)
    held = {listener.port: listener.host for listener in reversed(listening) if listener.inode in (inodes or ())}
    others = {listener.port: listener.host for listener in reversed(listening)}  # IPv4 wins
    said = _port_argument(process.argv)
    port = said if said is not None else process.dialect.default_port
    starting = not held and port not in others
    if said is not None or port in held or inodes is None or starting:
        return [(port, held.get(port) or others.get(port) or "127.0.0.1", port in held)]
    return [(port, host, True) for port, host in held.items()]  # the port came from a file or the environment


def _port_argument(arguments: Sequence[str]) -> int | None:
    for place, word in enumerate(arguments):
        name, _, value = word.partition("=")
        if name == "--port":
            value = value or (arguments[place + 1] if place + 1 < len(arguments) else "")
            return int(value) if value.isdigit() and 0 < int(value) < 65536 else None
    return None


# --- what answers -------------------------------------------------------------------------------------------------


async def _ask(fetcher: Fetcher, candidate: _Candidate, dialects: Sequence[Dialect]) -> FoundEngine | None:
    """Fetch the page of a place; None when nothing says that an engine is there."""
    tried = (candidate.dialect,) if candidate.dialect is not None else dialects
    for path in dict.fromkeys(dialect.metrics_path for dialect in tried):
        page = await _page(fetcher, candidate.url + path)
        if page is None:
            continue
        for dialect in tried:
            try:
                if dialect.metrics_path == path and dialect.recognise(page):
                    return _engine(candidate, dialect, dialect.read(page).model)
            except Exception as error:  # noqa: BLE001  a dialect may come from another package
                log.debug("the dialect %r cannot read the page of port %d: %r", dialect.kind, candidate.port, error)
    return _silent(candidate)


async def _page(fetcher: Fetcher, url: str) -> Page | None:
    try:
        async with asyncio.timeout(_PAGE_S):
            body = await fetcher.get(url)
        if len(body.body) > OFF_LOOP_BYTES:
            return await asyncio.to_thread(Parser().parse, body.body, body.content_type)
        return Parser().parse(body.body, body.content_type)
    except (FetchError, ExpositionError, TimeoutError):
        return None


def _engine(candidate: _Candidate, dialect: Dialect, model: str | None) -> FoundEngine:
    return FoundEngine(
        name="",
        url=candidate.url,
        kind=dialect.kind,
        model=model,
        pid=candidate.pid,
        role=_SERVING if candidate.pid is not None else None,
        answers=True,
    )


def _silent(candidate: _Candidate) -> FoundEngine | None:
    """An engine process whose page does not answer, or says nothing of the engine."""
    if candidate.dialect is None:
        return None
    return FoundEngine(name="", url=candidate.url, kind=candidate.dialect.kind, pid=candidate.pid, role=_SERVING)


def _named(found: Sequence[tuple[int, FoundEngine]]) -> list[FoundEngine]:
    wished = [_short_name(engine) for _, engine in found]
    often = Counter(wished)
    named = []
    for (port, engine), wish in zip(found, wished, strict=True):
        unique = wish if engine.model is not None and often[wish] == 1 else f"{wish}-{port}"
        named.append(msgspec.structs.replace(engine, name=unique))
    return named


def _short_name(engine: FoundEngine) -> str:
    """Return the last part of the model's name, as a name of an engine may be written."""
    last = (engine.model or "").rstrip("/").rpartition("/")[2]
    return re.sub(r"[^a-z0-9._]+", "-", last.lower()).strip(".-")[:60] or engine.kind or "engine"
