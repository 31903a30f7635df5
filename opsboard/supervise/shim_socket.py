"""The shim's socket: one JSON object a line in, one out. Never blocks, never grows. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable
from typing import Any

Answer = Callable[[dict[str, Any]], dict[str, Any]]

LINE_BYTES = 4096
CONNECTIONS = 16
PATH_BYTES = 107  # sun_path holds 108 bytes with its NUL (unix(7))


class ShimSocket:
    """Listens on a Unix socket (0600) and answers. The caller's selector tells it when to :meth:`work`."""

    def __init__(self, path: str, selector: selectors.BaseSelector, answer: Answer) -> None:
        """Listen on ``path``, replacing a stale socket file. Raises OSError."""
        self._path = path
        self._selector = selector
        self._answer = answer
        self._waiting: dict[socket.socket, bytes] = {}
        self._listener: socket.socket | None = None
        self._inode = 0
        self._listen()

    def ensure(self) -> None:
        """Listen again when the socket file is gone: service managers empty runtime directories while shims live on."""
        with contextlib.suppress(OSError):
            if not self._is_ours():
                self._listen()

    def work(self, key: selectors.SelectorKey) -> None:
        """Do what a ready socket asks for."""
        sock = key.fileobj
        if sock is self._listener:
            self._accept()
        elif isinstance(sock, socket.socket) and sock in self._waiting:
            self._read(sock)

    def close(self) -> None:
        """Let everybody go and remove the socket file."""
        for sock in list(self._waiting):
            self._drop(sock)
        if self._listener is not None:
            with contextlib.suppress(OSError):
                if self._is_ours():
                    os.unlink(self._path)  # noqa: PTH108  pathlib costs the shim 1 MB
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _is_ours(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self._inode  # noqa: PTH116  see close
        except FileNotFoundError:
            return False

    def _listen(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108  see close
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)
        try:
            listener.bind(self._path)
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(mask)
        listener.listen(CONNECTIONS)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
        self._listener = listener
        self._inode = os.stat(self._path).st_ino  # noqa: PTH116  see close
        self._selector.register(listener, selectors.EVENT_READ)

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101  only a listener becomes readable
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._waiting) >= CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        self._waiting[sock] = b""
        self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, rest = (self._waiting[sock] + data).split(b"\n")
        self._waiting[sock] = rest
        try:
            for line in lines:
                reply = json.dumps(self._reply(line)).encode() + b"\n"
                if sock.send(reply) != len(reply):  # a peer that does not read is not waited for
                    self._drop(sock)
                    return
        except OSError:
            data = b""
        if not data or len(rest) > LINE_BYTES:
            self._drop(sock)

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return self._answer(request) if isinstance(request, dict) else {"ok": False, "error": "not an object"}
        except (ValueError, RecursionError) as error:
            return {"ok": False, "error": f"bad request: {error}"}

    def _drop(self, sock: socket.socket) -> None:
        del self._waiting[sock]
        self._selector.unregister(sock)
        sock.close()
