"""Is the port of an engine free, and is it the engine that answers there?

The one is asked before the start, because the engine would find out minutes later; the other before it is called ready,
because a server that took the port meanwhile answers as well.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from collectors.sockets import Listener, holders, listeners, rows
from opsboard.core.errors import NoRoom
from opsboard.core.model import FatalVerdict
from opsboard.supervise.processes import Process, look
from opsboard.supervise.who import who

_DEFAULT = {"http": 80, "https": 443}
_HERE = frozenset(map(ip_address, ("0.0.0.0", "::", "127.0.0.1", "::1")))  # noqa: S104  compared with, not bound to
_HANDS_ON = frozenset(
    {
        *("docker", "docker-compose", "docker-proxy", "podman", "nerdctl", "conmon", "rootlesskit", "rootlessport"),
        *("slirp4netns", "pasta", "passt", "gvproxy", "kubectl", "ssh", "sshd", "srun", "systemd", "systemd-run"),
    }
)
"""Programs by whom something else listens for an engine than the processes that we know of it."""
_LOCAL = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}  # noqa: S104  compared with, not bound to


def check(url: str, ours: Mapping[str, Collection[int]] | None = None) -> None:
    """Raise NoRoom when the port of ``url`` is on this machine and taken. Costs what :func:`taken_by` does."""
    port = port_of(url)
    holder = None if port is None else taken_by(port, ours)
    if holder is not None:
        hint = "stop it, or give the engine another port"
        raise NoRoom(f"port {port} is taken by {holder}", verdict=FatalVerdict.WAIT, hint=hint)


def stranger_at(url: str, life: Callable[[], Collection[Process]]) -> str | None:
    """Return who answers at ``url`` and is not of an engine's life, in words; None: it does, or it cannot be told.

    ``life`` tells its living processes, asked when it is known who listens. Costs a look at every process.
    """
    port = port_of(url)
    listening = [] if port is None else [one for one in _listening(port) if _answers_here(one)]
    known = life() if listening else ()
    held = holders([one.inode for one in listening]) if known else {}
    ours = {process.pid for process in known}
    strangers = {pid for pids in held.values() if not pids & ours for pid in pids}
    if not strangers or not all(held.values()) or _HANDS_ON.intersection(process.name for process in known):
        return None
    here = next((space for process in known if (space := _space(process.pid)) is not None), None)
    if here is None or any(_space(pid) != here or who(pid).name in _HANDS_ON for pid in strangers):
        return None
    return f"port {port} is answered by {who(min(strangers))}, not ours"


def _answers_here(listening: Listener) -> bool:
    address = listening.address
    return (getattr(address, "ipv4_mapped", None) or address) in _HERE


def _space(pid: int) -> str | None:
    """Return which PID namespace a process lives in, None where that cannot be told."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115  a link that leads to no file
    except OSError:
        return None


def port_of(url: str) -> int | None:
    """Return the port of ``url`` when it is on this machine, else None."""
    parts = urlsplit(url)
    return (parts.port or _DEFAULT.get(parts.scheme)) if (parts.hostname or "") in _LOCAL else None


def taken_by(port: int, ours: Mapping[str, Collection[int]] | None = None) -> str | None:
    """Return who has ``port``, in words; None when it is free. Costs a look at every process that is ours to see.

    ``ours`` are the pids of engines by name; None leaves open whose the holder is.
    vLLM binds its port minutes before it listens, and the kernel lists no socket that is only bound: that one shows by
    refusing to be bound a second time.
    """
    if listening := _listening(port):
        pids = _all_holders(listening)
        return _named(min(pids), ours) if pids else "a process of another user"
    if not _in_use(port) and _refuses(port):
        return "a process that has bound it and does not listen yet (another server that is starting?)"
    return None


def listener(url: str) -> Process | None:
    """Return the oldest process that listens on the port of ``url``; None when none of this machine is to be seen.

    Further API servers of one engine share its socket and are its children. Costs what :func:`taken_by` does.
    """
    port = port_of(url)
    pids = set() if port is None else _all_holders(_listening(port))
    living = [process for pid in pids if (process := look(pid)) is not None]
    return min(living, key=lambda process: (process.start_ticks, process.pid), default=None)


def _listening(port: int) -> list[Listener]:
    return [one for one in listeners() if one.port == port]


def _all_holders(listening: Iterable[Listener]) -> set[int]:
    return set().union(*holders([one.inode for one in listening]).values())


def _in_use(port: int) -> bool:
    """Tell whether the kernel knows a connection of this port, be it one that only waits for its end."""
    end = b":%04X" % port
    return any(local.endswith(end) for local, *_ in rows())


def _named(pid: int, ours: Mapping[str, Collection[int]] | None) -> str:
    if ours is None:
        return str(who(pid))
    engine = next((name for name, pids in ours.items() if pid in pids), None)
    return f"{who(pid)}, {'not ours' if engine is None else f'engine {engine}'}"


def _refuses(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
