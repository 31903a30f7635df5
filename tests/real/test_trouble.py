"""What restarts a real vLLM for bad reasons elsewhere, or not at all: killed servers and engines, hangs, bad commands.

One house for all of it: each test leaves the engine serving for the next one.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import pytest

from opsboard.core.model import Transition
from tests.real.client import Traffic
from tests.real.house import ANSWERS_WITHIN_S, INTERVAL_S, NAME, House, alive
from tests.real.vllm_env import HEALTHY_WITHIN_S
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsboard.core.model import Step
    from opsboard.core.wire import EventInfo
    from tests.real.conftest import Measured
    from tests.real.vllm_env import Installation

BAD_FLAG, NO_MODEL = "bad-flag", "no-model"
VERDICT_S = 15.0
"""From a hang to its verdict, under traffic."""
IDLE_VERDICT_S = 20.0
"""The same of an idle one, from the first request: 14 s on a free machine; looks at connections are paced by load."""
GIVES_UP_S = 5.0
"""vLLM itself looks every 5 s whether its EngineCore lives, and then exits with 0."""
STOP_S = 10.0
"""A hung engine ends no sooner: it hears no TERM."""
WARM_TOKENS = 1200
"""8 requests at once: 150 steps and more. Before 100 a life may be compiling, and gets more patience."""
RESTARTED = ["end", "clear", "launch", "start", "canary", "serving"]


@pytest.fixture(scope="module")
def house(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    wrong = {BAD_FLAG: ["--no-such-flag"], NO_MODEL: ["--model", "/no/such/model"]}
    with House(installation, tmp_path_factory.mktemp("trouble"), wrong, stop_timeout_s=STOP_S) as house:
        yield house


@pytest.fixture(scope="module")
def serving(house: House) -> None:
    house.opsboard("engine", "start", "--wait", NAME)


@pytest.fixture
def traffic(house: House, serving: None) -> Iterator[Traffic]:
    with Traffic(house.port) as traffic:
        traffic.begin_arrivals(prompt_tokens=40, max_tokens=300)
        wait_until(lambda: traffic.tokens > WARM_TOKENS, ANSWERS_WITHIN_S, what="tokens flow")
        yield traffic


@pytest.mark.parametrize(
    ("name", "quoted"),
    [(BAD_FLAG, "unrecognized arguments: --no-such-flag"), (NO_MODEL, "/no/such/model")],
)
def test_a_command_that_cannot_work_is_parked_at_once(house: House, name: str, quoted: str, measured: Measured) -> None:
    asked = time.time()
    house.client.action(name, "start")
    wait_until(lambda: house.engine(name).engine.state != "stopped", ANSWERS_WITHIN_S, what=f"{name} starts")
    wait_until(lambda: house.engine(name).engine.state != "starting", HEALTHY_WITHIN_S, what=f"{name} gives up")
    engine = house.engine(name).engine
    assert engine.state == "parked", house.engine_log(name=name)
    assert engine.message is not None
    assert "“" in engine.message
    assert quoted in engine.message
    assert f"`opsboard engine start {engine.name}` un-parks it" in (engine.hint or "")
    measured(f"{name}: parked {(engine.state_since or 0.0) - asked:.1f} s after the start: {engine.message}")

    again = house.client.status().time + 3 * INTERVAL_S
    wait_until(lambda: house.client.status().time > again, ANSWERS_WITHIN_S, what="some more seconds")
    after = house.engine(name).engine
    assert (after.state, after.until, after.restarts, after.pid) == ("parked", None, 0, None)
    assert [one.state for one in told(house, name, since=asked)] == ["starting", "parked"]


def test_a_killed_api_server_takes_its_orphans_with_it(house: House, traffic: Traffic, measured: Measured) -> None:
    family = house.processes()
    server, core = (psutil.Process(pid_of(house, role)) for role in ("api_server", "engine_core"))
    killed = time.time()
    server.kill()
    steps = restarted(house, server.pid, killed)
    assert [process for process in family if alive(process) and process.pid != core.pid] == []
    assert not alive(core), "the orphan still holds what it held"
    death, *_ = timeline = told(house, NAME, since=killed)
    assert [one.state for one in timeline] == ["backing_off", "stopping", "starting", "ready"]
    assert "killed by SIGKILL; still running: " in (death.reason or "")
    assert f"pid {core.pid}" in (death.reason or "")
    measured(f"kill -9 of the API server: known after {death.t - killed:.2f} s, {spell(steps)}")
    serves(house, traffic)


def test_a_killed_engine_core_is_half_a_death(house: House, traffic: Traffic, measured: Measured) -> None:
    before = house.engine().engine.pid
    core = psutil.Process(pid_of(house, "engine_core"))
    killed = time.time()
    core.kill()
    steps = restarted(house, before, killed)
    verdict = confirmed(house, "engine_down", killed)
    assert verdict is not None
    assert verdict.text == "its EngineCore is gone while the API server lives"
    assert verdict.t - killed <= GIVES_UP_S
    timeline = told(house, NAME, since=killed)
    # Without `stopping` when the API server has gone by itself before anybody could end it.
    assert [one.state for one in timeline if one.state != "stopping"] == ["backing_off", "starting", "ready"]
    measured(f"kill -9 of EngineCore: verdict after {verdict.t - killed:.2f} s ({verdict.text}), {spell(steps)}")
    serves(house, traffic)


def test_a_hang_is_found_by_its_progress(house: House, traffic: Traffic, measured: Measured) -> None:
    before, family = house.engine().engine.pid, house.processes()
    house.hang.touch()
    wait_until(lambda: not house.hang.exists(), ANSWERS_WITHIN_S, what="the engine hangs")
    hung = time.time()

    def healthy_until_found() -> EventInfo | None:
        house.ask("GET", "/health")  # 200
        return confirmed(house, "stall", hung)

    verdict = wait_until(healthy_until_found, HEALTHY_WITHIN_S, what="the hang is found")
    assert verdict is not None
    steps = restarted(house, before, hung)
    assert verdict.t - hung <= VERDICT_S
    assert "requests run and no step ends" in verdict.text
    assert "a one-token request got no answer" in verdict.text
    assert [process for process in family if alive(process) and process.pid != house.shim_pid()] == []
    timeline = told(house, NAME, since=hung)
    assert [one.state for one in timeline] == ["backing_off", "stopping", "starting", "ready"]
    measured(f"hang, /health 200 all the time: verdict after {verdict.t - hung:.1f} s ({verdict.text}), {spell(steps)}")
    serves(house, traffic)


def test_a_hang_of_an_idle_engine_is_found_when_somebody_asks(
    house: House, traffic: Traffic, measured: Measured
) -> None:
    traffic.end_load()
    wait_until(lambda: house.engine().engine.running == 0, ANSWERS_WITHIN_S, what="it is idle")
    before = house.engine().engine.pid
    house.hang.touch()
    request = traffic.send(prompt_tokens=20, max_tokens=40)  # the first step it asks for never ends
    wait_until(lambda: not house.hang.exists(), ANSWERS_WITHIN_S, what="the engine hangs")
    hung = time.time()
    verdict = wait_until(lambda: confirmed(house, "stall", hung), HEALTHY_WITHIN_S, what="the hang is found")
    assert verdict is not None
    steps = restarted(house, before, hung)
    assert verdict.t - hung <= IDLE_VERDICT_S
    assert "0 running and 0 waiting" in verdict.text
    assert not request.ok
    measured(
        f"hang while idle, one request then: verdict after {verdict.t - hung:.1f} s ({verdict.text}), {spell(steps)}"
    )
    serves(house, traffic)


# --- what the daemon says ---


def pid_of(house: House, role: str) -> int:
    def found() -> int | None:
        return next((process.pid for process in house.engine().processes if process.role == role), None)

    pid = wait_until(found, ANSWERS_WITHIN_S, what=f"a process of the role {role}")
    assert pid is not None
    return pid


def restarted(house: House, before: int | None, since: float) -> tuple[Step, ...]:
    """Return the steps of the restart by itself that began after ``since`` (Unix s), when it serves again."""

    def over() -> bool:
        now = house.engine()
        assert now.engine.state != "parked", f"{now.engine.message}\n{house.engine_log()}"
        return now.engine.state == "ready" and now.engine.pid != before

    wait_until(over, HEALTHY_WITHIN_S, what="it serves again")
    steps = house.engine().transaction
    # Nobody is left to end when the API server has gone by itself in time.
    assert [step.name for step in steps] in (RESTARTED, RESTARTED[2:])
    assert {step.outcome for step in steps} == {"ok"}
    assert steps[0].started >= since
    canary = next(step for step in steps if step.name == "canary")
    assert (canary.text or "").startswith("its answer is the golden one")
    return steps


def told(house: House, name: str, since: float) -> list[Transition]:
    """Return what `engine list --json` tells of an engine since then (Unix s); every line has a reason."""
    shown: list[dict[str, Any]] = json.loads(house.opsboard("engine", "list", "--json").stdout)
    (engine,) = (one for one in shown if one["name"] == name)
    timeline = msgspec.convert([one for one in engine["timeline"] if one["t"] >= since], list[Transition])
    assert all(one.reason or one.message for one in timeline), timeline
    return timeline


def confirmed(house: House, kind: str, since: float) -> EventInfo | None:
    """Return the line that told a certain finding, which is an error; a suspicion is a warning."""
    events = house.engine().events
    return next((one for one in events if one.kind == kind and one.t >= since and one.severity == "error"), None)


def serves(house: House, traffic: Traffic) -> None:
    """Return when the new life has answered a whole request."""
    traffic.end_load()
    request = traffic.send(prompt_tokens=20, max_tokens=40)
    wait_until(lambda: request.ended, ANSWERS_WITHIN_S, what="the answer is there")
    assert request.ok, request.error


def spell(steps: tuple[Step, ...]) -> str:
    took = ", ".join(f"{step.name} {step.seconds or 0.0:.1f}" for step in steps)
    whole = sum(step.seconds or 0.0 for step in steps)
    return f"restart {whole:.1f} s: {took}"
