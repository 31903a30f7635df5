"""`kill -9` of the daemon and of the shim while a real vLLM serves clients: they notice nothing."""

from __future__ import annotations

import signal
import time
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.real.client import Traffic
from tests.real.house import ANSWERS_WITHIN_S, INTERVAL_S, NAME, House, alive
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsboard.core.wire import EngineDetail
    from tests.real.conftest import Measured
    from tests.real.vllm_env import Installation

CLIENTS = 6
KILLS, FULL_KILLS = 2, 10
ADOPTED_WITHIN_S = 2.0
"""From a daemon's own start, always; from its spawn, which is the interpreter's start too, as a median."""
STEP_S = 0.2
"""Resolution at which history is looked at: finer than the interval of the readings."""


@pytest.fixture(scope="module")
def house(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(installation, tmp_path_factory.mktemp("survival")) as house:
        house.opsboard("engine", "start", "--wait", NAME)
        yield house


@pytest.fixture
def traffic(house: House) -> Iterator[Traffic]:
    with Traffic(house.port) as traffic:
        traffic.begin_load(CLIENTS, prompt_tokens=(20, 120), max_tokens=(100, 400))
        flowing(traffic)
        yield traffic


def flowing(traffic: Traffic) -> None:
    """Return when every client has got some more tokens."""
    before = traffic.tokens
    wait_until(lambda: traffic.tokens > before + 20 * CLIENTS, ANSWERS_WITHIN_S, what="tokens flow")


def all_answered(traffic: Traffic) -> int:
    """End the load, fail unless every request got its whole answer, and return how many there were."""
    traffic.end_load()
    assert traffic.failed() == []
    assert all(request.ok for request in traffic.requests)
    return len(traffic.requests)


def test_a_killed_daemon_is_missed_by_nobody(house: House, traffic: Traffic, full: bool, measured: Measured) -> None:
    kills = FULL_KILLS if full else KILLS
    began, pid = time.time(), house.engine().engine.pid
    assert pid is not None
    life = psutil.Process(pid).create_time()
    house.fresh(time.monotonic() + 2 * INTERVAL_S)  # samples are written once a second: some are on disk now
    absences: list[float] = []
    adopted: list[float] = []
    for number in (*[signal.SIGKILL] * kills, signal.SIGTERM):
        house.settle()
        flowing(traffic)  # not in step with the readings
        in_flight = traffic.in_flight()
        killed = time.monotonic()
        house.end_daemon(number)
        flowing(traffic)
        started = house.start_daemon()
        shown, read = _back(house, started)
        absences.append(read - killed)
        assert in_flight
        assert shown.engine.pid == pid
        event = next(event for event in reversed(shown.events) if event.kind == "adopted")
        adopted.append(event.t - (time.time() - time.monotonic()) - started)
        measured(f"adopted {adopted[-1]:.2f} s after the new daemon's spawn, read {read - started:.2f} s after it")
        assert event.t - house.client.status().daemon.started <= ADOPTED_WITHIN_S
    assert median(adopted) <= ADOPTED_WITHIN_S
    flowing(traffic)
    house.fresh(time.monotonic())
    assert psutil.Process(pid).create_time() == life
    assert house.engine().engine.restarts == 0
    measured(f"{kills} x kill -9 of the daemon and one stop, {all_answered(traffic)} requests, none failed")

    points = house.client.history(f"engine/{NAME}/generation_tokens", start=began, step=STEP_S).points
    assert points[0].t - began <= 2 * INTERVAL_S, "what was recorded before the first kill is lost"
    gap = max(after.t - before.t for before, after in pairwise(points))
    measured(f"longest gap in the history {gap:.1f} s; longest absence {max(absences):.1f} s")
    assert max(absences) - STEP_S <= gap <= max(absences) + 2 * INTERVAL_S + STEP_S
    assert all(before.max <= after.min for before, after in pairwise(points)), "a counter went back"


def _back(house: House, started: float) -> tuple[EngineDetail, float]:
    """Return the first reading of the new daemon, which shows the engine as ready, and when it was made."""

    def ready() -> tuple[EngineDetail, float] | None:
        shown, read = house.fresh(started)
        return (shown, read) if shown.engine.state == "ready" else None

    found = wait_until(ready, ANSWERS_WITHIN_S, what="the new daemon shows the engine as ready")
    assert found is not None
    return found


def test_an_engine_outlives_its_shim_and_is_still_stopped_whole(
    house: House, traffic: Traffic, measured: Measured
) -> None:
    pid = house.engine().engine.pid
    family = house.processes()
    in_flight = traffic.in_flight()
    assert in_flight
    psutil.Process(house.shim_pid()).kill()
    flowing(traffic)
    shown, _ = house.fresh(time.monotonic())
    assert (shown.engine.state, shown.engine.pid) == ("ready", pid)
    measured(f"kill -9 of the shim, {all_answered(traffic)} requests, none failed")

    house.end_daemon(signal.SIGKILL)
    shown, _ = _back(house, house.start_daemon())
    assert shown.engine.pid == pid

    house.opsboard("engine", "stop", "--wait", NAME)
    assert [process for process in family if alive(process)] == []
    assert house.processes() == []
    assert house.port_is_free()
    assert house.engine().engine.state == "stopped"
