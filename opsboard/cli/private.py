"""Child daemons of a verb: the private read-only one of a first look, and the demo's.

They end with the verb, always.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from opsboard.client.sync import Client
from opsboard.core.errors import ControlError, NotReachable

_START_S = 10.0
_END_S = 60.0
_POLL_S = 0.05
_LOG_TAIL = 400
_SHORT = 40
"""A longer temporary directory leaves no room for socket names (107 bytes, unix(7))."""


def opsboard_argv(*words: str) -> list[str]:
    """Return the argv that runs this very opsboard with ``words``."""
    return [sys.executable, "-m", "opsboard", *words]


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """Yield a private directory that is gone afterwards."""
    usual = tempfile.gettempdir()
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=usual if len(usual) <= _SHORT else "/tmp"))  # noqa: S108  mkdtemp
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def child_daemon(root: Path, arguments: Sequence[str], config: Path | None = None) -> Iterator[Path]:
    """Run a daemon with its state, socket and log under ``root`` and yield its socket; it is ended afterwards.

    Raises ControlError, with the end of its log, when it does not answer.
    """
    socket = root / "opsboard.sock"
    log = root / "daemon.log"
    before = ["--state-dir", str(root / "state"), "--socket", str(socket)]
    if config is not None:
        before += ["--config", str(config)]
    argv = opsboard_argv(*before, "daemon", "--parent-pid", str(os.getpid()), *arguments)
    environment = {key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")}
    environment["RUNTIME_DIRECTORY"] = str(root)
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        _wait_until_it_answers(process, socket, log)
        yield socket
    finally:
        end(process, _END_S)


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask ``process`` to end, and insist after ``seconds``."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    client = Client([socket], timeout=2.0)
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(NotReachable):
            client.status()
            return
        time.sleep(_POLL_S)
    said = log.read_text(errors="replace")[-_LOG_TAIL:].strip()
    raise ControlError(f"the daemon of this command did not start: {said or 'it said nothing'}")
