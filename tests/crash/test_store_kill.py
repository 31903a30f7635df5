"""kill -9 of the process that writes, again and again: what it acknowledged is there, once, and both files are whole.

``OPSBOARD_CRASH_ROUNDS`` asks for more rounds.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opsboard.core.clock import SystemClock
from opsboard.store.store import Store
from tests.support.in_loop import in_loop

ROUNDS = int(os.environ.get("OPSBOARD_CRASH_ROUNDS", "20"))
START = int(time.time()) // 3600 * 3600 - 3600
COUNT, GAUGE = "engine/a/generation_tokens", "host/h/load1"

WRITER = """
import asyncio, sys
from pathlib import Path
from opsboard.core.clock import SystemClock
from opsboard.core.model import Event, Sample
from opsboard.store import series_file
from opsboard.store.store import Store

series_file.FLUSH_S = 0.02  # more commits to be killed in

async def main(state, start, n):
    store = Store.open(Path(state), SystemClock())
    print("begin", flush=True)
    while True:
        for _ in range(50):  # a sample a second of recorded time: minutes, hours and chunks end all the while
            store.append(start + n, [Sample("engine/a/generation_tokens", float(n))])
            store.append(start + n, [Sample("host/h/load1", float(n))])  # its chunks end at other times
            n += 1
        await asyncio.wrap_future(store.event(Event(t=start + n, subject="host", kind="count", text=str(n))))
        print("event", n, flush=True)
        if not store._series.log.waiting():
            print("samples", n, flush=True)
        await asyncio.sleep(0.001)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def one_life(state: Path, first: int, seconds: float) -> dict[str, int]:
    """Write from ``first`` on until killed; return what was acknowledged last."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(state), str(START), str(first)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begin\n"
        time.sleep(seconds)  # not to wait for something: where it dies is left to chance
    finally:
        writer.send_signal(signal.SIGKILL)
        said, _ = writer.communicate()
    lines = [line.split() for line in said.split("\n")[:-1]]  # a half-written line acknowledges nothing
    return {what: int(number) for what, number in lines}


@pytest.mark.timeout(60 + 3 * ROUNDS)
@in_loop
async def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    rnd = random.Random(os.urandom(8))
    first, events, samples = 0, 0, 0
    for _ in range(ROUNDS):
        said = one_life(tmp_path, first, rnd.uniform(0.0, 0.25))
        store = Store.open(tmp_path, SystemClock())
        try:
            assert store.health().recorded
            assert store.health().message is None
            written = {int(event.text) for event in await store.events(limit=100_000)}
            assert said.get("event", 0) == 0 or said["event"] in written
            last = first
            counts, gauges = [
                await store.history(name, START + first, START + first + 15_000, 1) for name in (COUNT, GAUGE)
            ]
            assert counts.points == gauges.points
            for point in counts.points:
                assert (point.t, point.mean, point.count) == (START + last, last, 1)
                last += 1
            assert last >= said.get("samples", first)
            for name in (COUNT, GAUGE):
                minutes = await store.history(name, START, START + last, 60)
                assert sum(point.count for point in minutes.points) == last
        finally:
            await store.close()
        first = last
        events, samples = events + ("event" in said), samples + ("samples" in said)
    assert events
    assert samples
    for name in ("state.db", "series.db"):
        connection = sqlite3.connect(tmp_path / name)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if name == "series.db":
            grown = connection.execute("SELECT sum(generation_tokens) FROM engine_minute").fetchone()[0]
            assert grown == first - 1
        connection.close()
