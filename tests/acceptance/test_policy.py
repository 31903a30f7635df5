"""Policies as people meet them: a real daemon, simulated engines, a leak of KV blocks that a restart cures."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from opsboard.core.errors import NotReachable
from tests.support.herd import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen

    from opsboard.core.incidents import IncidentAction
    from opsboard.core.wire import Incident
    from tests.support.house import House

DEADLINE_S = 60.0
POLICY = '[[policy]]\nname = "{name}"\non = "kv_leak"\ndo = ["reroute", "drain", "restart"]\nafter = "1s"\n'
REST = """
[detector.kv_leak]
again = "1s"
[[route]]
model = "chat"
targets = ["a", "b"]
"""


class Leaking:
    """Two engines of one route; on one of them blocks get lost until its next life."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.ports = {name: free_port() for name in "ab"}

    def write(self, policy: str) -> None:
        self.house.write(*map(self._engine, self.ports), rest=REST + policy)

    def start(self, how: str | None = None) -> Popen[bytes]:
        """Start a daemon, or one that tests/support/mortal_daemon.py makes."""
        program = ("opsboard",) if how is None else ("tests.support.mortal_daemon", how)
        daemon = self.house.start(program=program)
        for name in self.ports:
            self.wait_for(name, "ready")
        return daemon

    def wait_for(self, name: str, state: str) -> None:
        wait_until(lambda: self.house.engine(name).state == state, DEADLINE_S, f"{name} is {state}")

    def leak(self, name: str) -> None:
        """Lose a block with each request; ask until that is proven."""
        self._post(name, "/sim/faults", {"name": "leak", "value": 1.0})

        def proven() -> bool:
            self._post(name, "/v1/completions", {"model": "sim-7b", "prompt": "hello", "max_tokens": 2})
            return any(one.confirmed for one in self.incidents())

        wait_until(proven, DEADLINE_S, "the leak is proven")

    def incidents(self) -> list[Incident]:
        return [one for one in self.house.client.incidents(every=True) if one.detector == "kv_leak"]

    def actions(self) -> list[IncidentAction]:
        return [action for one in self.incidents() for action in one.actions if action.kind != "start"]

    def timeline(self) -> list[str]:
        return [entry.text for entry in self.house.client.incident("1").timeline]

    def told(self, words: str) -> bool:
        return any(event.text.startswith(words) for event in self.house.client.status().events)

    def kept(self, policy: str, outcome: str) -> None:
        """Wait until that is the only decision of ``state.db``."""
        query = "SELECT policy, outcome FROM policy_runs"
        wait_until(lambda: self.rows(query) == [(policy, outcome)], DEADLINE_S, f"{policy} is kept as {outcome}")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(f"file:{self.house.state / 'state.db'}?mode=ro", uri=True) as connection:
            return connection.execute(query).fetchall()

    def pid(self, name: str) -> int | None:
        return self.house.engine(name).pid

    def _engine(self, name: str) -> str:
        port = self.ports[name]
        command = [sys.executable, "-m", "opsboard", "sim", "--port", str(port), "--startup-seconds", "0"]
        lines = {
            "name": name,
            "kind": "vllm",
            "command": [*command, "--step-ms", "5"],
            "url": f"http://127.0.0.1:{port}",
            "autostart": True,
            "drain_timeout": "10s",
            "stop_timeout": "5s",
        }
        return "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())

    def _post(self, name: str, path: str, body: dict[str, Any]) -> None:
        url = f"http://127.0.0.1:{self.ports[name]}{path}"
        asked = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=DEADLINE_S) as reply:
            reply.read()


@pytest.fixture
def leaking(house: House) -> Iterator[Leaking]:
    one = Leaking(house)
    yield one
    for name in one.ports:
        house.client.action(name, "stop", now=False)
        one.wait_for(name, "stopped")


@pytest.mark.timeout(90)
def test_a_proven_leak_is_cured_by_a_restart_that_carries_its_evidence(leaking: Leaking) -> None:
    leaking.write(POLICY.format(name="cure"))
    leaking.start()
    before, other = leaking.pid("a"), leaking.pid("b")
    leaking.leak("a")
    wait_until(lambda: [one.outcome for one in leaking.actions()] == ["ok"], DEADLINE_S, "the restart is done")
    assert (leaking.pid("a") != before, leaking.pid("b")) == (True, other)
    (action,) = leaking.actions()
    assert action.kind == "restart"
    assert (action.reason or "").startswith("policy cure, incident 1, kv_leak of a: ")
    assert "has leaked" in (action.reason or "")
    wait_until(lambda: leaking.told("kv_leak is over after"), DEADLINE_S, "the new life leaks nothing")
    told = leaking.timeline()
    assert "policy cure decides: drain, restart" in told
    assert f"restart began: {action.reason}" in told
    assert "restart ok" in told
    leaking.kept("cure", "ok")
    ((policy, outcome, reason, record),) = leaking.rows("SELECT policy, outcome, reason, record FROM policy_runs")
    assert (policy, outcome, reason) == ("cure", "ok", action.reason)
    assert json.loads(record)["evidence"]["lost_blocks"] >= 1
    assert leaking.rows("SELECT action, subject, uid FROM audit WHERE action LIKE 'policy%'") == [
        ("policy cure: drain, restart", "engine/a", None)
    ]
    assert [cause for (cause,) in leaking.rows("SELECT cause FROM restarts")] == [action.reason], "the budget counts it"
    assert [one.detector for one in leaking.house.client.incidents(every=True)] == ["kv_leak"], "nothing else is told"


@pytest.mark.timeout(90)
def test_a_dry_run_tells_and_touches_nothing_and_the_route_keeps_its_last(leaking: Leaking) -> None:
    """What is dry keeps its pace; a reload makes it earnest, and then the last that serves is left."""
    leaking.write(POLICY.format(name="dry") + "dry_run = true\n")
    leaking.start()
    before = leaking.pid("a")
    leaking.leak("a")
    wait_until(lambda: [one.outcome for one in leaking.actions()] == ["dry_run"], DEADLINE_S, "it is told")
    assert "policy dry would drain and restart it now (dry run)" in leaking.timeline()
    assert leaking.rows("SELECT outcome, ended IS NOT NULL FROM policy_runs") == [("dry_run", 1)]
    leaking.house.client.action("b", "stop", now=False)
    leaking.wait_for("b", "stopped")
    leaking.write(POLICY.format(name="real"))
    leaking.house.client.reload()
    wait_until(lambda: len(leaking.actions()) == 2, DEADLINE_S, "it is told why not")
    last = leaking.actions()[-1]
    assert (last.kind, last.outcome) == ("restart", "skipped")
    assert (last.reason or "").startswith("policy real: not done: a is the last healthy target of route chat")
    assert leaking.pid("a") == before
    assert leaking.rows("SELECT count(*) FROM restarts") == [(0,)]


@pytest.mark.parametrize("moment", ["before", "after", "ended"])
@pytest.mark.timeout(90)
def test_a_daemon_killed_between_decision_and_act_neither_repeats_nor_loses_it(leaking: Leaking, moment: str) -> None:
    """It dies when the decision is on disk: before supervision has done anything, then, or between two lives."""
    leaking.write(POLICY.format(name="cure"))
    daemon = leaking.start(moment)
    before = leaking.pid("a")
    with contextlib.suppress(NotReachable):
        leaking.leak("a")
    assert daemon.wait(DEADLINE_S) == -signal.SIGKILL
    assert leaking.rows("SELECT policy, outcome FROM policy_runs") == [("cure", None)]
    assert leaking.rows("SELECT count(*) FROM restarts") == [(int(moment != "before"),)]
    leaking.start("impatient")
    wait_until(lambda: [one.outcome for one in leaking.actions()] == ["ok"], DEADLINE_S, "it is done")
    assert leaking.pid("a") != before
    leaking.kept("cure", "ok")
    # Between two lives the budget is asked again, for what crashes daemons must not crash engines.
    assert leaking.rows("SELECT count(*) FROM restarts") == [(2 if moment == "ended" else 1,)]
    assert len(leaking.rows("SELECT id FROM lives WHERE engine = 'a'")) == 2, "once"
