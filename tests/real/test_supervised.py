"""One life of a real vLLM under opsboard, from its start to the last trace of it: start, restart, stop."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest

from collectors.phases import PHASES
from tests.real.client import Traffic
from tests.real.house import ANSWERS_WITHIN_S, NAME, OWN, House, alive
from tests.real.vllm_env import HEALTHY_WITHIN_S, SERVED_NAME
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsboard.core.wire import Engine
    from tests.real.conftest import Measured
    from tests.real.vllm_env import Installation

SEEN = {"start", "configure", "engine", "distributed", "load", "kv_cache", "serve"}
"""Phases that vLLM 0.32 on a CPU logs. Profiling, compiling and graphs are a GPU's: it says nothing of them."""
ROLES = {"api_server", "engine_core", "worker"}
TOKENS = 40


@pytest.fixture(scope="module")
def house(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(installation, tmp_path_factory.mktemp("supervised")) as house:
        yield house


@pytest.fixture(scope="module")
def started(house: House) -> tuple[list[Engine], str]:
    """Start the engine; return what the board showed meanwhile, and what the verb said."""
    return watched(house, "engine", "start", "--wait", "--reason", "a test", NAME)


def watched(house: House, *words: str) -> tuple[list[Engine], str]:
    """Run a verb and return every different line of the board until it ended, and what it said."""
    seen: list[Engine] = []
    said: list[str] = []
    verb = threading.Thread(target=lambda: said.append(house.opsboard(*words).stderr), name="verb")

    def over() -> bool:
        seen.append(house.engine().engine)
        return not verb.is_alive()

    verb.start()
    try:
        wait_until(over, HEALTHY_WITHIN_S, what=f"opsboard {' '.join(words)} ends")
    finally:
        verb.join(HEALTHY_WITHIN_S)
    assert said, f"opsboard {' '.join(words)} failed: {seen[-1]}"
    return seen, said[0]


def test_a_start_is_told_phase_by_phase(house: House, started: tuple[list[Engine], str], measured: Measured) -> None:
    seen, said = started
    assert [line.state for line in seen if line.state not in {"stopped", "starting", "ready"}] == []
    assert seen[-1].state == "ready"
    *shown, last = dict.fromkeys(line.phase for line in spawned(seen))
    if last != "canary":  # asked of what already serves, and answered within one look or two
        shown.append(last)
    assert len(shown) >= 3
    assert shown == sorted(shown, key=lambda phase: PHASES.index(phase or ""))
    assert f"{NAME}: starting: {shown[-1]}" in said
    only_forward(seen)

    phases = house.engine().phases
    assert {phase.name for phase in phases} >= SEEN
    seconds = {phase.name: phase.seconds for phase in phases}
    assert None not in seconds.values()
    assert seen[-1].started is not None
    took = sum(part or 0.0 for part in seconds.values())
    assert took == pytest.approx((seen[-1].state_since or 0.0) - seen[-1].started, abs=2.0)
    measured(f"start {took:.1f} s: " + ", ".join(f"{name} {part or 0.0:.1f}" for name, part in seconds.items()))


@pytest.mark.usefixtures("started")
def test_its_processes_are_known_by_role_with_their_memory(house: House, measured: Measured) -> None:
    def all_there() -> bool:
        return {process.role for process in house.engine().processes} >= ROLES

    wait_until(all_there, ANSWERS_WITHIN_S, what=f"processes of the roles {ROLES}")
    detail = house.engine()
    truth = {process.pid: process.memory_info().rss for process in house.processes() if process.pid != house.shim_pid()}
    assert {process.pid for process in detail.processes} == truth.keys()
    for process in detail.processes:
        assert process.rss_bytes == pytest.approx(truth[process.pid], rel=0.05)
    assert detail.engine.rss_bytes == sum(process.rss_bytes or 0 for process in detail.processes)
    shown = ", ".join(f"{process.role} {(process.rss_bytes or 0) / 1e6:.0f}" for process in detail.processes)
    measured(f"resident MB by role: {shown}; shim {psutil.Process(house.shim_pid()).memory_info().rss / 1e6:.1f}")


@pytest.mark.usefixtures("started")
def test_it_is_known_by_its_page(house: House) -> None:
    detail, _ = house.fresh(time.monotonic())
    engine = detail.engine
    assert (engine.kind, engine.model, engine.reading.outcome) == ("vllm", SERVED_NAME, "OK")
    assert engine.version is not None
    assert engine.version.startswith("0.")
    assert detail.aliases["kv_usage"] == "vllm:kv_cache_usage_perc"


@pytest.mark.usefixtures("started")
def test_the_verbs_tell_of_it(house: House) -> None:
    (line,) = json.loads(house.opsboard("status", "--json").stdout)["engines"]
    assert (line["name"], line["state"], line["running"], line["kv_usage"]) == (NAME, "ready", 0, 0)
    assert "Application startup complete" in house.opsboard("engine", "logs", NAME, "--lines", "1000").stdout
    assert NAME in house.opsboard("engine", "list").stdout


@pytest.mark.usefixtures("started")
def test_a_restart_is_a_new_life(house: House, measured: Measured) -> None:
    serve(house)
    before = house.engine().engine
    family = house.processes()
    seen, _ = watched(house, "engine", "restart", "--wait", NAME)
    after, detail = seen[-1], house.engine()
    assert after.state == "ready"
    assert after.pid != before.pid
    assert after.restarts == before.restarts + 1
    assert [process for process in family if alive(process)] == []
    assert {phase.name for phase in detail.phases if phase.last_seconds is not None} >= SEEN
    only_forward(seen)

    def tokens_per_s() -> float | None:
        return house.engine().engine.generation_tokens_per_s

    # A rate is over what was read: what came before the first page of a life is in the history, not in its rate.
    wait_until(lambda: tokens_per_s() is not None, ANSWERS_WITHIN_S, what="the new life was read twice")
    serve(house)
    wait_until(tokens_per_s, ANSWERS_WITHIN_S, what="the new life has a token rate")
    measured(f"restart: pid {before.pid} -> {after.pid}, restarts {after.restarts}")


@pytest.mark.usefixtures("started")
def test_a_daemon_killed_during_a_start_goes_on_with_it(house: House, measured: Measured) -> None:
    before = house.engine().engine
    house.client.action(NAME, "restart")

    def under_way() -> bool:
        now = house.engine().engine
        return now.state == "starting" and now.pid not in {None, before.pid} and now.phase != PHASES[0]

    wait_until(under_way, ANSWERS_WITHIN_S, what="the new life has left its first phase")
    pid = house.engine().engine.pid
    house.end_daemon(signal.SIGKILL)
    house.start_daemon()
    found = house.engine().engine
    assert (found.state, found.pid) == ("starting", pid)
    wait_until(lambda: house.engine().engine.state != "starting", HEALTHY_WITHIN_S, what="the start is over")
    detail = house.engine()
    assert (detail.engine.state, detail.engine.pid) == ("ready", pid)
    assert {phase.name for phase in detail.phases} >= SEEN
    serve(house)
    measured(f"kill -9 of the daemon in phase {found.phase}: pid {pid} became ready under the next one")


@pytest.mark.usefixtures("started")
def test_a_stop_leaves_nothing_and_lasts(house: House, measured: Measured) -> None:
    family = house.processes()
    assert len(family) >= 4
    house.fresh(time.monotonic())
    began = time.monotonic()
    house.opsboard("engine", "stop", "--wait", NAME)
    measured(f"stop: {len(family)} processes gone {time.monotonic() - began:.1f} s after it was asked")
    assert [process for process in family if alive(process)] == []
    assert house.processes() == []
    assert house.port_is_free()
    assert house.engine().engine.state == "stopped"

    house.end_daemon(signal.SIGTERM)
    assert recorded_tokens(house) == house.served * (TOKENS + OWN["generation_tokens"])  # one request a life
    house.config.write_text(house.config.read_text().replace('kind = "vllm"', 'kind = "vllm"\nautostart = true'))
    house.start_daemon()
    house.settle()
    assert house.engine().engine.state == "stopped"
    assert house.processes() == []


def spawned(seen: list[Engine]) -> list[Engine]:
    """Return the lines of a start from its first phase on: before it there is no process yet."""
    starting = [line for line in seen if line.state == "starting"]
    first = next(n for n, line in enumerate(starting) if line.phase is not None)
    return starting[first:]


def only_forward(seen: list[Engine]) -> None:
    """Fail unless the progress of a start was known all the time and never went back."""
    parts = [line.progress for line in spawned(seen)]
    known = [part for part in parts if part is not None]
    assert known == parts == sorted(known)
    assert 0.0 <= known[0] <= known[-1] < 1.0


def serve(house: House) -> None:
    """Let the engine generate TOKENS tokens, and return when they were read."""
    with Traffic(house.port) as traffic:
        request = traffic.send(prompt_tokens=20, max_tokens=TOKENS)
        wait_until(lambda: request.ended, ANSWERS_WITHIN_S, what="the answer is there")
        assert request.ok, request.error
    house.served += 1
    house.fresh(time.monotonic())


def recorded_tokens(house: House) -> float:
    """Return the generated tokens that any SQLite tool finds, over all lives and minutes."""
    with closing(sqlite3.connect(f"file:{house.state_dir}/series.db?mode=ro", uri=True)) as connection:
        query = "SELECT sum(generation_tokens) FROM engine_minute WHERE engine = ?"
        (tokens,) = connection.execute(query, [NAME]).fetchone()
    return float(tokens)
