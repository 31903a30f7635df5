"""The daemon: 8 engines with real-size pages and the host, read and stored once a second; measured from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from opsboard.client.sync import Client
from opsboard.core.errors import NotReachable
from opsboard.core.wire import Status
from opsboard.daemon.judging import Judged, Judging
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from tests.bench import Row
from tests.golden.test_recording import NAME, RECORDING
from tests.support.page_engine import ROOT, page_engines
from tests.support.replay import replay
from tests.support.waiting import wait_until

ENGINES = 8
WARM_S, MEASURED_S = 10.0, 30.0
FEED_BUDGET_S, DETECTORS_BUDGET_S = 0.25e-3, 0.3e-3
CPU_BUDGET, RSS_BUDGET, GAP_BUDGET_S = 0.02, 80 * 2**20, 0.1
_TICKS = os.sysconf("SC_CLK_TCK")


def run() -> list[Row]:
    """Start engines and a daemon, let it settle, measure."""
    with tempfile.TemporaryDirectory(prefix="ob-") as name, page_engines(ENGINES) as ports:
        root = Path(name)
        config = root / "opsboard.toml"
        engines = (
            f'[[engine]]\nname = "engine-{n}"\nurl = "http://127.0.0.1:{port}"\n' for n, port in enumerate(ports)
        )
        config.write_text("".join(engines))
        socket = root / "run" / "s.sock"
        command = [sys.executable, "-m", "opsboard", "--config", str(config), "--state-dir", str(root / "state")]
        daemon = subprocess.Popen([*command, "--socket", str(socket), "daemon"], cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            return [*_feed(), *_measure(daemon.pid, Client(socket))]
        finally:
            daemon.terminate()
            daemon.wait(20)


def _feed() -> list[Row]:
    """Measure one reading of a real page through the pipeline, a minute of a recorded overload again and again."""
    whole = list(replay(RECORDING))
    spent, judged, count = 0.0, 0.0, 0
    for _ in range(20):
        state = PipelineState("gpu-a", [EngineSpec(name=NAME)])
        timed = state.judging = _TimedJudging()
        began = time.process_time()
        for now, reading, _ in whole:
            feed(state, reading, now)
        spent += time.process_time() - began
        judged += timed.spent_s
        count += len(whole)
    own, detectors = (spent - judged) / count, judged / count
    return [
        Row("pipeline: one reading, without detectors", "<= 0.25 ms of CPU", _ms(own), own <= FEED_BUDGET_S),
        Row("all detectors: one reading", "<= 0.3 ms of CPU", _ms(detectors), detectors <= DETECTORS_BUDGET_S),
    ]


class _TimedJudging(Judging):
    """Counts the processor time that detectors take."""

    spent_s = 0.0

    def judge(self, *seen: Any, **more: Any) -> Judged:
        began = time.process_time()
        judged = super().judge(*seen, **more)
        self.spent_s += time.process_time() - began
        return judged


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"


def _measure(pid: int, client: Client) -> list[Row]:
    wait_until(lambda: _all_read(client), 20.0, "all engines read")
    time.sleep(WARM_S)
    before, began = _cpu_s(pid), time.monotonic()
    time.sleep(MEASURED_S)
    cpu = (_cpu_s(pid) - before) / (time.monotonic() - began)
    rss = _rss(pid)
    status = client.status()
    gap = _gap_s(client)
    assert status.daemon.recorded
    assert status.daemon.dropped == 0
    what = f"daemon, {ENGINES} engines x 1 Hz real-size pages + host, all stored"
    return [
        Row(f"{what}: CPU over {MEASURED_S:.0f} s", "<= 2 % of one core", f"{cpu:.2%}", cpu <= CPU_BUDGET),
        Row(f"{what}: resident memory", "<= 80 MB", f"{rss / 1e6:.1f} MB", rss <= RSS_BUDGET),
        Row(f"{what}: longest gap of the loop", "<= 100 ms", f"{gap * 1e3:.0f} ms", gap <= GAP_BUDGET_S),
    ]


def _all_read(client: Client) -> bool:
    try:
        status: Status = client.status()
    except NotReachable:
        return False
    return all(engine.reading.outcome == "OK" for engine in status.engines)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _gap_s(client: Client) -> float:
    gap = client.status().daemon.loop_gap_s
    assert gap is not None
    return gap
