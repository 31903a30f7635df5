"""The board in a real pseudo terminal: 80x24, 1 Hz, eight engines and eight GPUs through the real client."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from opsboard.tui.glyphs import UNICODE
from tests.bench import Row
from tests.screens.terminal import Terminal, daemon

SECONDS = 20.0
KEYS = 60
CURSOR = UNICODE.cursor
CPU, BYTES, MEMORY, FIRST, KEY = 0.02, 2200.0, 60.0, 0.8, 0.020
"""Budgets: parts of one core, bytes/s, MB, s, s."""


def run() -> list[Row]:
    """Measure one board."""
    with daemon() as socket:
        firsts = sorted(first_frame(socket) for _ in range(5))
        board = Terminal(socket)
        try:
            board.until("llama-a")
            board.read(4.0)
            said, used, began = len(board.said), cpu_seconds(board.pid), time.monotonic()
            board.read(SECONDS)
            elapsed = time.monotonic() - began
            rate = (len(board.said) - said) / elapsed
            cpu = (cpu_seconds(board.pid) - used) / elapsed
            memory = rss_mb(board.pid)
            keys = sorted(key_to_paint(board, "jk"[i % 2]) for i in range(KEYS))
            worst = keys[int(len(keys) * 0.95)]
        finally:
            board.close()
    first = statistics.median(firsts)
    return [
        Row("TUI: CPU", f"<= {CPU:.0%} of one core", f"{cpu:.1%}", cpu <= CPU),
        Row("TUI: to the terminal", f"<= {BYTES / 1000:.1f} kB/s", f"{rate / 1000:.2f} kB/s", rate <= BYTES),
        Row("TUI: memory", f"<= {MEMORY:.0f} MB", f"{memory:.0f} MB RSS", memory <= MEMORY),
        Row("TUI: first frame", f"<= {FIRST} s", f"{first:.2f} s (worst of 5: {firsts[-1]:.2f} s)", first <= FIRST),
        Row("TUI: key to paint, p95", f"<= {KEY * 1000:.0f} ms", f"{worst * 1000:.1f} ms", worst <= KEY),
    ]


def first_frame(socket: Path) -> float:
    """Return the seconds from the start of the process to engines on the screen."""
    board = Terminal(socket)
    try:
        return board.until("llama-a") - board.started
    finally:
        board.close()


def key_to_paint(board: Terminal, key: str) -> float:
    """Press a key that moves the cursor, each time at another moment of the second; return when it has moved."""
    board.read(0.17)
    since, pressed = board.press(key), time.perf_counter()
    board.until(CURSOR, since)
    return time.perf_counter() - pressed


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6
