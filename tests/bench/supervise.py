"""Supervision: how soon a death, a hang and what runs already are known. Real daemons, shims and simulated engines."""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from opsboard.core.errors import NotReachable
from opsboard.supervise.processes import look
from opsboard.supervise.watching import ended
from tests.acceptance.test_verdict import ask_for_tokens, post, steps
from tests.bench import Row
from tests.proving import healthy_week
from tests.support.account import AS_ME
from tests.support.herd import free_port
from tests.support.house import House
from tests.support.waiting import wait_until

ENGINES = 16
ROUNDS = 5
START_S, HANG_S = 120.0, 60.0


def run() -> list[Row]:
    """Measure all."""
    return [asyncio.run(_noticed()), *_with_a_daemon(), _week()]


async def _noticed() -> Row:
    """Measure from a process's death to the end of the wait for it."""
    delays = []
    for _ in range(50):
        with subprocess.Popen(["sleep", "100"]) as child:
            process = look(child.pid)
            assert process is not None
            watch = asyncio.create_task(ended(process))
            await asyncio.sleep(0.005)
            began = time.perf_counter()
            child.kill()
            await watch
            delays.append(time.perf_counter() - began)
    worst = max(delays)
    return Row("a process's end is noticed (pidfd)", "<= 50 ms", f"{worst * 1e3:.1f} ms (worst of 50)", worst <= 0.05)


def _with_a_daemon() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="ob-") as root:
        house = House(Path(root))
        ports = [free_port() for _ in range(ENGINES)]
        house.config.write_text("".join(_engine(f"e{n}", port) for n, port in enumerate(ports)))
        with _daemons(house):
            house.start()
            wait_until(lambda: _all_ready(house), START_S, "all engines are ready")
            rows = [_adopted(house)]
            rows.append(_death(house, "an engine's main process dies (kill -9)", lambda main: main))
            rows.append(_death(house, "its EngineCore dies (kill -9)", lambda main: main.children()[0]))
            rows.append(_hang(house, ports[0]))
            return rows


def _engine(name: str, port: int) -> str:
    command = [sys.executable, "-m", "opsboard", "sim", "--port", str(port), "--startup-seconds", "0.5"]
    return (
        f'[[engine]]\nname = "{name}"\nkind = "vllm"\ncommand = {json.dumps(command)}\n'
        f'url = "http://127.0.0.1:{port}"\nautostart = true\nstop_timeout = "5s"\nrestart = "never"\n{AS_ME}\n'
    )


@contextmanager
def _daemons(house: House) -> Iterator[None]:
    try:
        yield
    finally:
        daemon = house.daemons[-1]
        if daemon.poll() is None:
            house.end(daemon)
        last = house.spawn("--stop-engines")
        with suppress(NotReachable, AssertionError):
            wait_until(lambda: house.answers(last), START_S, "the last daemon answers")
        last.send_signal(signal.SIGTERM)
        last.wait(START_S)


def _all_ready(house: House) -> bool:
    return all(engine.state == "ready" for engine in house.client.status().engines)


def _adopted(house: House) -> Row:
    """Kill the daemon; measure from the next one's spawn until it has all engines again."""
    took = []
    for _ in range(ROUNDS):
        house.end(house.daemons[-1], signal.SIGKILL)
        began = time.time()
        house.start()
        wait_until(lambda: _all_ready(house), START_S, "all engines are ready again")
        engines = [house.client.engine(f"e{n}") for n in range(ENGINES)]
        adopted = [max(event.t for event in engine.events if event.kind == "adopted") for engine in engines]
        took.append(max(adopted) - began)
    worst = max(took)
    what = f"daemon's spawn to {ENGINES} engines re-adopted after kill -9"
    return Row(what, "<= 2 s", f"{statistics.median(took):.2f} s (worst of {ROUNDS}: {worst:.2f} s)", worst <= 2.0)


def _death(house: House, what: str, whom: Callable[[psutil.Process], psutil.Process]) -> Row:
    """Kill a process of the first engine; measure until its state says so."""
    took = []
    for _ in range(ROUNDS):
        wait_until(lambda: "engine_core" in _roles(house), START_S, "its processes have been seen")
        pid = house.engine("e0").pid
        assert pid is not None
        victim = whom(psutil.Process(pid))
        began, since = time.perf_counter(), time.time()
        victim.kill()
        while not _known(house, since):
            time.sleep(0.002)
        took.append(time.perf_counter() - began)
        wait_until(lambda: house.engine("e0").state == "failed", START_S, "its end is complete")
        house.client.action("e0", "start", reason="bench")
        wait_until(lambda: house.engine("e0").state == "ready", START_S, "it serves again")
        wait_until(lambda: house.engine("e0").reading.outcome == "OK", START_S, "it is read again")
    worst = max(took)
    return Row(
        f"{what}: to the verdict",
        "<= 1.5 s",
        f"{statistics.median(took):.2f} s (worst of {ROUNDS}: {worst:.2f} s)",
        worst <= 1.5,
    )


def _roles(house: House) -> set[str]:
    return {process.role for process in house.client.engine("e0").processes}


def _known(house: House, since: float) -> bool:
    """Tell whether its state says that it is down, or a confirmed finding does."""
    detail = house.client.engine("e0")
    told = [event for event in detail.events if event.kind == "engine_down" and event.t >= since]
    return detail.engine.state != "ready" or any(event.severity == "error" for event in told)


def _hang(house: House, port: int) -> Row:
    """Hang the first engine under traffic; measure until the confirmed finding is on its timeline."""
    took = []
    for _ in range(3):
        request = ask_for_tokens(port)
        wait_until(lambda: steps(port) > 150, START_S, "it is warm")
        began = time.time()
        post(port, "/sim/faults", {"name": "hang"})
        told = wait_until(lambda began=began: _stalls(house, began), HANG_S, "the hang is found")  # type: ignore[misc]
        took.append(min(told) - began)
        pid = house.engine("e0").pid
        house.client.action("e0", "restart", reason="bench", now=True)
        wait_until(lambda pid=pid: _another(house, pid), START_S, "it serves again")  # type: ignore[misc]
        request.join(START_S)
    worst = max(took)
    return Row("a hang under traffic: to the verdict", "<= 15 s", f"{worst:.1f} s (worst of 3)", worst <= 15.0)


def _stalls(house: House, after: float) -> list[float]:
    events = house.client.engine("e0").events
    return [event.t for event in events if event.kind == "stall" and event.severity == "error" and event.t > after]


def _another(house: House, pid: int | None) -> bool:
    engine = house.engine("e0")
    return engine.state == "ready" and engine.pid != pid and engine.reading.outcome == "OK"


def _week() -> Row:
    """Live through a simulated week of health, with canaries and without."""
    claims = sum(len(healthy_week.run(7 * 86_400, seed=1, canaries=canaries).claims) for canaries in (True, False))
    return Row(
        "stalls claimed in a simulated week of healthy traffic",
        "0",
        f"{claims} (with canaries and without)",
        claims == 0,
    )
