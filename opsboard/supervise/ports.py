"""Is the port of an engine free, and is it the engine that answers there?

The one is asked before the start, because the engine would find out minutes later; the other before it is called ready,
because a server that took the port meanwhile answers as well.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

import psutil

from opsboard.core.errors import NoRoom
from opsboard.core.model import FatalVerdict
from opsboard.supervise.processes import Process, look
from opsboard.supervise.who import who

_DEFAULT = {"http": 80, "https": 443}
_LOOPBACK = {"0.0.0.0", "::", "127.0.0.1", "::1", "::ffff:127.0.0.1"}  # noqa: S104  compared with, not bound to
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
    listening = [] if port is None else [one for one in _users(port) if one.status == psutil.CONN_LISTEN]
    pids = {one.pid for one in listening if one.laddr.ip in _LOOPBACK}
    known = life() if pids else ()
    strangers = {pid for pid in pids if pid is not None} - {process.pid for process in known}
    if not known or not strangers or None in pids or _HANDS_ON.intersection(process.name for process in known):
        return None
    here = next((space for process in known if (space := _space(process.pid)) is not None), None)
    if here is None or any(_space(pid) != here or who(pid).name in _HANDS_ON for pid in strangers):
        return None
    return f"port {port} is answered by {who(min(strangers))}, not ours"


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
    users = _users(port)
    listening = [found for found in users if found.status == psutil.CONN_LISTEN]
    if listening:
        pids = sorted({found.pid for found in listening if found.pid})
        return _named(pids[0], ours) if pids else "a process of another user"
    if not users and _refuses(port):
        return "a process that has bound it and does not listen yet (another server that is starting?)"
    return None


def _users(port: int) -> list[Any]:
    return [found for found in psutil.net_connections("tcp") if found.laddr and found.laddr.port == port]


def listener(url: str) -> Process | None:
    """Return the oldest process that listens on the port of ``url``; None when none of this machine is to be seen.

    Further API servers of one engine share its socket and are its children. Costs what :func:`taken_by` does.
    """
    port = port_of(url)
    if port is None:
        return None
    users = [found for found in psutil.net_connections("tcp") if found.laddr and found.laddr.port == port]
    pids = {found.pid for found in users if found.status == psutil.CONN_LISTEN and found.pid}
    living = [process for pid in pids if (process := look(pid)) is not None]
    return min(living, key=lambda process: (process.start_ticks, process.pid), default=None)


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
