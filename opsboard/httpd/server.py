"""Listening: who may connect where, and how serving ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from opsboard.core.errors import StateDirLocked
from opsboard.httpd.connection import Connection
from opsboard.httpd.messages import Handler, Limits


class Server:
    """A running server; made by :func:`serve`."""

    def __init__(self, handler: Handler, limits: Limits, unix: Path | None) -> None:
        """Remember what to call and within what limits; nothing listens yet."""
        self.handler = handler
        self.limits = limits
        self.closing = False
        self.connections: set[Connection] = set()
        self._unix = unix
        self._inode: int | None = None
        self._listener: asyncio.Server

    async def listen(self, sock: socket.socket) -> None:
        """Accept connections on a bound socket."""
        if self._unix is not None:
            self._inode = self._unix.stat().st_ino
        loop = asyncio.get_running_loop()
        backlog = max(self.limits.connections, 16)
        if sock.family == socket.AF_UNIX:
            self._listener = await loop.create_unix_server(lambda: Connection(self), sock=sock, backlog=backlog)
        else:
            self._listener = await loop.create_server(lambda: Connection(self), sock=sock, backlog=backlog)

    @property
    def port(self) -> int | None:
        """The TCP port in use, None on a unix socket."""
        name = self._listener.sockets[0].getsockname() if self._listener.sockets else None
        return name[1] if isinstance(name, tuple) else None

    def stop_accepting(self) -> socket.socket:
        """Take no more connections and return the socket they queue up in; :meth:`listen` on it goes on."""
        sock = self._listener.sockets[0].dup()
        self._listener.close()
        return sock

    async def close(self, grace: float = 0.5) -> None:
        """Stop listening, give requests in flight ``grace`` seconds, then drop every client. Idempotent."""
        self.closing = True
        self._listener.close()
        for connection in [c for c in self.connections if not c.busy]:
            connection.cancel()
        await self._ended(grace)
        for connection in list(self.connections):
            connection.cancel()
        await self._ended(1.0)
        if self._unix is not None:
            with contextlib.suppress(FileNotFoundError):
                if self._unix.stat().st_ino == self._inode:
                    self._unix.unlink()

    async def _ended(self, seconds: float) -> None:
        tasks = [connection.task for connection in self.connections if connection.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)


async def serve(
    handler: Handler,
    *,
    unix: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    mode: int = 0o600,
    gid: int | None = None,
    sock: socket.socket | None = None,
    limits: Limits | None = None,
) -> Server:
    """Serve ``handler`` on a unix socket (with ``mode``, ``gid``), a TCP port (0: any free one) or a bound ``sock``.

    Raises StateDirLocked when another server answers on the unix socket (a dead one's leftover is replaced) and OSError
    when the address cannot be had.
    """
    server = Server(handler, limits or Limits(), unix)
    if sock is None:
        sock = bind_unix(unix, mode, gid) if unix is not None else bind_tcp(host, port)
    try:
        await server.listen(sock)
    except BaseException:
        sock.close()
        raise
    return server


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a socket bound to ``host:port`` that does not listen yet. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, address = found[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def refuse_served(path: Path) -> None:
    """Raise StateDirLocked when another process serves the unix socket ``path``."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise StateDirLocked(f"{path} is in use: {error}") from error
    raise StateDirLocked(f"another process serves {path}", hint="stop it, or choose another socket")


def bind_unix(path: Path, mode: int, gid: int | None = None) -> socket.socket:
    """Return a socket bound to ``path``. Its rights are set before it listens, so nobody can slip in between."""
    refuse_served(path)
    if path.is_socket():
        path.unlink()
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(mode)
    except BaseException:
        sock.close()
        raise
    return sock
