"""What a person waits for: `opsboard status --json`, and the demo from command to a live board."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from opsboard.cli.private import child_daemon
from tests.bench import Row

RUNS = 15
STATUS_BUDGET_S = 0.15
DEMO_BUDGET_S = 10.0
ENGINE = "llama-70b"


def run() -> list[Row]:
    """Measure both."""
    return [status_row(), demo_row()]


def median_seconds(argv: Sequence[str]) -> float:
    """Return the median wall time of ``argv`` in seconds."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def status_row() -> Row:
    """Hold `status --json` against a bare interpreter, in turn on the same machine."""
    opsboard = str(Path(sys.executable).parent / "opsboard")
    with tempfile.TemporaryDirectory() as root, child_daemon(Path(root), []) as socket:
        bare = median_seconds([sys.executable, "-c", "pass"])
        status = median_seconds([opsboard, "--socket", str(socket), "status", "--json"])
    return Row(
        "`opsboard status --json`",
        "<= a bare `python -c pass` + 0.15 s",
        f"{status:.3f} s; bare {bare:.3f} s: + {status - bare:.3f} s",
        status - bare <= STATUS_BUDGET_S,
    )


def demo_row() -> Row:
    """Start the demo in a pseudo terminal and wait until its board shows a ready engine with tokens flowing."""
    opsboard = str(Path(sys.executable).parent / "opsboard")
    began = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="80", LINES="24")
        os.execv(opsboard, [opsboard, "demo"])
    seen, live = b"", None
    try:
        while live is None and time.perf_counter() - began < 3 * DEMO_BUDGET_S:
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 65536)
            if ENGINE.encode() in seen and b"ready" in seen:
                live = time.perf_counter() - began
    finally:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and os.waitpid(pid, os.WNOHANG) == (0, 0):
            with contextlib.suppress(OSError):
                if select.select([terminal], [], [], 0.1)[0]:
                    os.read(terminal, 65536)
        os.close(terminal)
    measured = "never" if live is None else f"{live:.1f} s"
    return Row("demo: from command to a live board", "<= 10 s after set-up", measured, (live or 99) <= DEMO_BUDGET_S)
