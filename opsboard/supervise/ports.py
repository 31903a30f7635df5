"""Is the port of an engine free? Asked before the start, because the engine would find out minutes later."""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit

import psutil

from opsboard.core.text import sanitise

_DEFAULT = {"http": 80, "https": 443}
_LOCAL = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}  # noqa: S104  compared with, not bound to


def port_of(url: str) -> int | None:
    """Return the port of ``url`` when it is on this machine, else None."""
    parts = urlsplit(url)
    return (parts.port or _DEFAULT.get(parts.scheme)) if (parts.hostname or "") in _LOCAL else None


def taken_by(port: int) -> str | None:
    """Return who has ``port``, in words; None when it is free. Costs a look at every process that is ours to see.

    vLLM binds its port minutes before it listens, and the kernel lists no socket that is only bound: that one shows by
    refusing to be bound a second time.
    """
    users = [found for found in psutil.net_connections("tcp") if found.laddr and found.laddr.port == port]
    listening = [found for found in users if found.status == psutil.CONN_LISTEN]
    if listening:
        pids = sorted({found.pid for found in listening if found.pid})
        return _named(pids[0]) if pids else "a process of another user"
    if not users and _refuses(port):
        return "a process that has bound it and does not listen yet (another server that is starting?)"
    return None


def _refuses(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _named(pid: int) -> str:
    try:
        return f"pid {pid} ({sanitise(psutil.Process(pid).name(), 80)})"
    except psutil.Error:
        return f"pid {pid}"
