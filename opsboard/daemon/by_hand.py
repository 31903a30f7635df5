"""Which engine is meant that somebody started by hand, what it is called, and who may have it taken over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from collectors import sockets
from collectors.discover import FoundEngine, find_engines
from opsboard.config.check import ENGINE_NAME
from opsboard.config.schema import Config
from opsboard.core.errors import Conflict, Denied, SuperviseError, UsageError
from opsboard.core.text import sanitise
from opsboard.daemon.observed import local_port
from opsboard.daemon.rights import ROOT
from opsboard.daemon.taken import place
from opsboard.httpc.fetch import Fetcher
from opsboard.httpd import Peer
from opsboard.supervise.processes import below, everybody
from opsboard.supervise.takeover.find import Finder, find
from opsboard.supervise.takeover.kept import Kept
from opsboard.supervise.takeover.reproduction import Reproduction, reproduce
from opsboard.supervise.who import who

LOOK_S = 10.0
"""Reading /proc takes milliseconds, on a busy host with many processes a second."""


def check_words(target: str, name: str | None) -> None:
    """Raise UsageError for what can be no target and no name."""
    if not target.isdecimal() and not target.startswith(("http://", "https://")):
        raise UsageError(f"expected an address or a pid, found {target!r}", hint="http://127.0.0.1:8000, or a number")
    if name is not None and not ENGINE_NAME.fullmatch(name):
        allowed = "letters, digits, `.`, `_`, `-`, not beginning with `.` or `-`, at most 64"
        raise UsageError(f"a name has {allowed}, found {sanitise(name, 80)!r}")
    try:
        local_port(target)
    except ValueError:
        raise UsageError(f"{target!r} is no address") from None


async def look_at(target: str) -> tuple[int, Reproduction]:
    """Return the main process that ``target`` means, and all that a copy of it needs.

    Raises SuperviseError, and Conflict when that takes too long.
    """
    try:
        async with asyncio.timeout(LOOK_S):
            pid = await asyncio.to_thread(find, target)
            return pid, await asyncio.to_thread(reproduce, pid)
    except TimeoutError:
        raise Conflict(f"who serves {target} was not found out within {LOOK_S:g} s", permanent=False) from None


def check_peer(seen: Reproduction, peer: Peer | None) -> None:
    """Raise Denied unless the process is the peer's own, or the peer is root.

    Who may operate engines may not for that reason have a root daemon end and run what belongs to others.
    """
    if peer is None or peer.uid not in {ROOT, seen.uid}:
        asker = "a stranger" if peer is None else f"uid {peer.uid}"
        whose = "somebody else" if seen.uid is None else f"uid {seen.uid}"
        raise Denied(
            f"pid {seen.pid} belongs to {whose}: {asker} may not have it taken over", hint="its owner and root may"
        )


async def recognise(fetcher: Fetcher, pid: int, target: str) -> FoundEngine:
    """Return what kind of engine a process is and where it serves: by its process or by its page. Takes two seconds.

    Raises Conflict when it is none, or serves at several places.
    """
    ports = await asyncio.to_thread(_ports_of, pid)
    found = await find_engines(fetcher, ports=ports)
    mine = [engine for engine in found if _belongs(engine, pid, ports)]
    if not target.isdigit():
        mine = [engine for engine in mine if local_port(engine.url) == local_port(target)]
    answering = [engine for engine in mine if engine.answers] or mine
    if not answering:
        raise Conflict(
            f"{who(pid)} is no engine that opsboard knows",
            hint="it takes over what it recognises by its process or by its metrics page",
        )
    if len(answering) > 1:
        places = ", ".join(engine.url for engine in answering)
        raise Conflict(f"pid {pid} serves at {places}", hint="name one of these instead of the pid")
    return answering[0]


def named(engine: FoundEngine, wanted: str | None, config: Config, taken: Mapping[str, Kept]) -> tuple[str, str]:
    """Return name and address: those of the configuration where it observes this engine already.

    ``taken`` is what was taken over before. Raises Conflict.
    """
    for name, known in taken.items():
        if place(known.url) == place(engine.url):
            raise Conflict(
                f"{engine.url} is the address of {name}, which was taken over as another process",
                hint=f"opsboard engine stop {name}, then opsboard engine forget {name}",
            )
    for other in config.engine:
        if other.url and place(other.url) == place(engine.url):
            if other.supervised:
                raise Conflict(
                    f"{engine.url} is the address of {other.name}, which is in the configuration with a command",
                    hint=f"stop what runs there, then: opsboard engine start {other.name}",
                )
            if other.restart_command:
                raise Conflict(
                    f"{engine.url} is the address of {other.name}, which `restart_command` restarts",
                    hint=f"opsboard engine restart {other.name}; or take `restart_command` out and reload",
                )
            if wanted not in {None, other.name}:
                raise Conflict(f"the configuration calls it {other.name}", hint="leave --name out")
            return other.name, other.url
    used = {*taken, *(other.name for other in config.engine)}
    name = wanted or engine.name
    if wanted is None and name in used:
        name = f"{name}-{local_port(engine.url)}"
    if not ENGINE_NAME.fullmatch(name):
        raise Conflict(f"{name!r} is no name for an engine", hint="give it one with --name")
    if name in used:
        raise Conflict(f"there is an engine called {name}", hint="give this one another name with --name")
    return name, engine.url


def _belongs(engine: FoundEngine, pid: int, ports: set[int]) -> bool:
    if engine.pid is None:
        return local_port(engine.url) in ports
    try:
        return Finder().main_of(engine.pid) == pid
    except SuperviseError:
        return False


def _ports_of(pid: int) -> set[int]:
    """Return where a process and all below it listen."""
    family = [pid, *(process.pid for process in below({pid}, everybody()))]
    held = set[int]().union(*(sockets.inodes_of(one) or () for one in family))
    return {listener.port for listener in sockets.listeners() if listener.inode in held}
