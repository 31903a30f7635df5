"""A pseudo terminal with the real board in it: counts bytes, sends keys, resizes, hangs up, or simply stops reading."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.support.waiting import wait_until

BOARD = "import sys; from pathlib import Path; from opsboard.tui.app import run; sys.exit(run(Path(sys.argv[1])))"
DEADLINE_S = 15.0


class Terminal:
    """One board in one terminal. ``said`` is all it wrote so far."""

    def __init__(
        self,
        socket: Path,
        *,
        columns: int = 80,
        lines: int = 24,
        env: Mapping[str, str | None] | None = None,
        code: str = BOARD,
    ) -> None:
        self.said = bytearray()
        self.code: int | None = None
        self.started = time.monotonic()
        changes = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(env or {})}
        whole = {**os.environ, **changes}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            _resize(0, columns, lines)
            kept = {key: value for key, value in whole.items() if value is not None}
            os.execve(sys.executable, [sys.executable, "-c", code, str(socket)], kept)
        os.set_blocking(self.fd, False)

    def read(self, seconds: float = 0.0) -> None:
        """Take in all that comes within ``seconds``."""
        end = time.monotonic() + seconds
        while self._chunk(max(0.0, end - time.monotonic())):
            pass

    def _chunk(self, seconds: float) -> bool:
        """Take in one piece; False when none came in time, or the board has hung up."""
        ready, _, _ = select.select([self.fd], [], [], seconds)
        chunk = b""
        with contextlib.suppress(OSError):
            chunk = os.read(self.fd, 65536) if ready else b""
        self.said += chunk
        return bool(chunk)

    def until(self, condition: Callable[[bytes], bool] | str, since: int = 0, deadline: float = DEADLINE_S) -> float:
        """Read until the text is there (or the condition holds for what was said after ``since``); return when."""
        wanted = (lambda said: condition.encode() in said) if isinstance(condition, str) else condition
        end = time.monotonic() + deadline
        while not wanted(bytes(self.said[since:])):
            assert time.monotonic() < end, (
                f"not shown within {deadline:g} s: {condition!r}\n{bytes(self.said[-2000:])!r}"
            )
            self._chunk(0.05)
        return time.monotonic()

    def press(self, keys: str) -> int:
        """Send keys and return how much was said before them."""
        before = len(self.said)
        os.write(self.fd, keys.encode())
        return before

    def resize(self, columns: int, lines: int) -> None:
        _resize(self.fd, columns, lines)

    def ended(self) -> bool:
        """Return whether the board is gone (and take in its last words)."""
        if self.code is None:
            with contextlib.suppress(OSError, ValueError):
                self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self, deadline: float = DEADLINE_S) -> int:
        """Wait until the board has ended and return its exit code."""
        wait_until(self.ended, deadline, "the board ends")
        with contextlib.suppress(OSError):
            self.read(0.05)
        assert self.code is not None
        return self.code

    def close(self) -> None:
        """End it whatever it does."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            wait_until(self.ended)
        with contextlib.suppress(OSError):
            os.close(self.fd)


def _resize(fd: int, columns: int, lines: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@contextlib.contextmanager
def daemon(board: str = "steady", socket: Path | None = None) -> Iterator[Path]:
    """Play a board on a control socket; yields the socket."""
    with tempfile.TemporaryDirectory(prefix="ob-") as root:
        path = socket or Path(root) / "s.sock"
        argv = [sys.executable, "-m", "tests.screens.socket_daemon", str(path), board]
        process = subprocess.Popen(argv, cwd=Path(__file__).parents[2])
        try:
            wait_until(lambda: path.exists() or process.poll() is not None, 10.0, "the played daemon listens")
            yield path
        finally:
            process.kill()
            process.wait(5)
