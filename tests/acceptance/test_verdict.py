"""From a hang to a serving engine without a person: a real daemon, a real shim, a simulated engine under traffic."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support.herd import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.house import House

DEADLINE_S = 40.0


def post(port: int, path: str, body: object) -> None:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=DEADLINE_S) as reply:
        reply.read()


def ask_for_tokens(port: int) -> threading.Thread:
    """Ask in the background; how it ends is the engine's business."""

    def run() -> None:
        with contextlib.suppress(OSError):
            post(
                port, "/v1/completions", {"model": "sim-7b", "prompt": "hello", "max_tokens": 4000, "ignore_eos": True}
            )

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def steps(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as page:
        lines = page.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("vllm:iteration_tokens_total_count"))


@pytest.fixture
def port(house: House, request: pytest.FixtureRequest) -> Iterator[int]:
    """Start a daemon that supervises an engine ``a``; it is stopped at the end. A parameter is more configuration."""
    port = free_port()
    command = [sys.executable, "-m", "opsboard", "sim", "--port", str(port), "--startup-seconds", "0.2"]
    house.write(
        f'name = "a"\nkind = "vllm"\ncommand = {json.dumps(command)}\nurl = "http://127.0.0.1:{port}"\n'
        'autostart = true\nstop_timeout = "5s"',
        rest=getattr(request, "param", ""),
    )
    house.start()
    yield port
    house.client.action("a", "stop", reason="the test ends")
    wait_until(lambda: house.engine("a").state == "stopped", DEADLINE_S, "a has stopped")


@pytest.mark.timeout(90)
def test_an_engine_that_hangs_is_found_and_restarted(house: House, port: int) -> None:
    wait_until(lambda: house.engine("a").state == "ready", DEADLINE_S, "a is ready")
    request = ask_for_tokens(port)
    wait_until(lambda: steps(port) > 150, DEADLINE_S, "it is warm")
    before = house.engine("a").pid
    post(port, "/sim/faults", {"name": "hang"})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=DEADLINE_S) as health:
        assert health.status == 200
    wait_until(lambda: ("engine/a", "stall") in house.events(), DEADLINE_S, "the hang is found")
    told = next(event for event in house.client.status().events if event.kind == "stall")
    assert told.severity == "error"
    assert "requests run and no step ends" in told.text
    assert "a one-token request got no answer within 5.0 s" in told.text
    wait_until(
        lambda: house.engine("a").state == "ready" and house.engine("a").pid != before, DEADLINE_S, "a serves again"
    )
    request.join(DEADLINE_S)
    (one,) = house.client.incidents()
    assert (one.detector, one.severity, one.summary) == ("stall", "page", told.text)
    wait_until(lambda: house.client.incidents()[0].actions[0].outcome == "ok", DEADLINE_S, "its restart is told")
    again = ask_for_tokens(port)
    wait_until(lambda: steps(port) > 0, DEADLINE_S, "tokens flow")
    post(port, "/sim/faults", {"name": "engine_death"})
    wait_until(lambda: ("engine/a", "engine_down") in house.events(), DEADLINE_S, "its end is found")
    wait_until(lambda: house.engine("a").state == "ready", DEADLINE_S, "a serves again")
    again.join(DEADLINE_S)
    assert [other.id for other in house.client.incidents(every=True)] == [one.id], "so soon after, it is one trouble"
    lines = [entry.text for entry in house.client.incident(one.uid).timeline if entry.kind == "caused"]
    assert any(line.startswith("engine_down: ") for line in lines)


IMPATIENT = """
[detector.stall]
suspect = "1s"
connected = "1s"
confirm = "2s"
warm_steps = 0
"""


@pytest.mark.parametrize("port", [IMPATIENT], indirect=True)
@pytest.mark.timeout(90)
def test_an_engine_that_began_to_hang_while_idle_is_found_by_who_waits(house: House, port: int) -> None:
    wait_until(lambda: house.engine("a").state == "ready", DEADLINE_S, "a is ready")
    before = house.engine("a").pid
    post(port, "/sim/faults", {"name": "hang"})
    request = ask_for_tokens(port)
    wait_until(lambda: ("engine/a", "stall") in house.events(), DEADLINE_S, "the hang is found")
    told = next(event for event in house.client.status().events if event.kind == "stall")
    assert told.text.startswith("somebody is connected and no step begins")
    assert "0 running and 0 waiting; a one-token request got no answer within 5.0 s" in told.text
    wait_until(
        lambda: house.engine("a").state == "ready" and house.engine("a").pid != before, DEADLINE_S, "a serves again"
    )
    assert ("engine/a", "engine_down") not in house.events(), "it did not end by itself"
    request.join(DEADLINE_S)
