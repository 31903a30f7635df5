"""Standby engines as an operator sees them: a real daemon, real shims, simulated engines, the real command line."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support.herd import free_port
from tests.support.house import House
from tests.support.waiting import wait_until

DEADLINE_S = 40.0
ROUTE = '[[route]]\nmodel = "chat"\ntargets = ["a", "s"]\n'


class Board:
    """``a`` serves; ``s`` is its standby; ``c`` is one that cannot sleep. All start with the daemon."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.ports = {name: free_port() for name in "asc"}
        engines = (self._engine("a"), self._engine("s", standby=True), self._engine("c", standby=True, dev=False))
        house.write(*engines, rest=ROUTE)
        self.daemon = house.start()
        for name, state in {"a": "ready", "s": "asleep", "c": "stopped"}.items():
            self.wait_for(name, state)

    def _engine(self, name: str, *, standby: bool = False, dev: bool = True) -> str:
        port = self.ports[name]
        command = [sys.executable, "-m", "opsboard", "sim", "--port", str(port), "--startup-seconds", "0.2"]
        lines = {
            "name": name,
            "kind": "vllm",
            "command": command,
            "url": f"http://127.0.0.1:{port}",
            "autostart": True,
            "standby": standby,
            "drain_timeout": "20s",
            "stop_timeout": "5s",
        }
        env = 'env = { VLLM_SERVER_DEV_MODE = "1" }' if dev else ""
        return "\n".join([*(f"{key} = {json.dumps(value)}" for key, value in lines.items()), env])

    def state(self, name: str) -> str:
        return self.house.engine(name).state

    def wait_for(self, name: str, state: str) -> None:
        wait_until(lambda: self.state(name) == state, DEADLINE_S, f"{name} is {state}, not {self.state(name)}")

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "opsboard", "--socket", str(self.house.socket), "engine", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def good(self, *words: str) -> str:
        done = self.verb(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def told(self, name: str, kind: str) -> list[str]:
        return [event.text for event in self.house.client.engine(name).events if event.kind == kind]


@pytest.fixture
def board(house: House) -> Iterator[Board]:
    board = Board(house)
    yield board
    board.verb("stop", "--all", "--wait")


def test_a_standby_sleeps_until_it_is_woken_and_the_wish_outlives_the_daemon(board: Board) -> None:
    house = board.house
    sleeper = house.engine("s")
    assert sleeper.standby
    assert sleeper.message == "`opsboard engine wake s` brings it back"
    assert len(board.told("s", "slept")) == 1
    (route,) = house.client.status().routes
    assert [target.state for target in route.targets] == ["ready", "asleep"]

    refused = board.verb("sleep", "a", "--wait")
    assert refused.returncode == 1
    assert "a is the last healthy target of route chat" in refused.stderr
    assert "opsboard engine sleep a --now" in refused.stderr

    assert board.good("wake", "s", "--wait") == "s: ready\n"
    (woke,) = wait_until(lambda: board.told("s", "woke"), DEADLINE_S, "what it took is told") or []
    assert woke.startswith("woke in ")
    assert "canary" in woke
    wait_until(lambda: house.engine("s").wake_s is not None, DEADLINE_S, "its time is on the board")
    awake = house.engine("s")
    assert not awake.standby
    assert awake.pid == sleeper.pid

    house.end(board.daemon, signal.SIGKILL)
    board.daemon = house.start()
    board.wait_for("s", "ready")
    wait_until(lambda: house.engine("s").wake_s == awake.wake_s, DEADLINE_S, "its last waking is known")
    assert board.good("sleep", "a", "--wait", "--reason", "quiet night") == "a: asleep\n"

    house.end(board.daemon, signal.SIGKILL)
    board.daemon = house.start()
    board.wait_for("a", "asleep")
    assert board.state("s") == "ready"
    assert board.good("sleep", "s", "--now", "--wait") == "s: asleep\n"
    kept = sqlite3.connect(f"file:{house.state / 'state.db'}?mode=ro", uri=True)
    kinds = [kind for (kind,) in kept.execute("SELECT kind FROM actions WHERE engine = 's' ORDER BY t")]
    kept.close()
    assert kinds[:3] == ["start", "sleep", "wake"]


def test_what_is_under_way_ends_before_it_sleeps_and_one_that_dies_asleep_sleeps_again(board: Board) -> None:
    assert board.good("wake", "s", "--wait") == "s: ready\n"
    tokens: list[int] = []
    body = json.dumps({"model": "sim-7b", "prompt": "hello", "max_tokens": 150, "ignore_eos": True}).encode()
    url = f"http://127.0.0.1:{board.ports['s']}/v1/completions"

    def ask() -> None:
        asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=DEADLINE_S) as reply:
            tokens.append(json.load(reply)["usage"]["completion_tokens"])

    request = threading.Thread(target=ask, daemon=True)
    request.start()
    wait_until(lambda: (board.house.engine("s").running or 0) > 0, DEADLINE_S, "the request is under way")
    assert board.good("sleep", "s", "--wait") == "s: asleep\n"
    request.join(DEADLINE_S)
    assert tokens == [150], "nothing was cut off"
    before = board.house.engine("s")
    assert before.running == 0
    kinds = {event.kind for event in board.house.client.engine("s").events}
    assert not kinds & {"stall", "engine_down", "action_failed"}
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_until(
        lambda: board.house.engine("s").pid not in {before.pid, None} and board.state("s") == "asleep",
        DEADLINE_S,
        "it sleeps again in another life",
    )
    assert board.good("restart", "s", "c", "a", "--rolling", "--now", "--wait").splitlines() == [
        "s: asleep",
        "c: stopped",
        "a: ready",
    ]


def test_one_that_cannot_sleep_is_stopped_and_woken_by_a_start(board: Board) -> None:
    (text,) = board.told("c", "cannot_sleep")
    assert "cannot be put to sleep: it has no /is_sleeping; so this standby is stopped" in text
    assert "VLLM_SERVER_DEV_MODE=1" in text
    refused = board.verb("sleep", "c")
    assert "c is stopped: only an engine that serves can be put to sleep" in refused.stderr
    assert board.good("wake", "c", "--wait") == "c: ready\n"
    wait_until(lambda: any("(start " in text for text in board.told("c", "woke")), DEADLINE_S, "what it took is told")
    assert board.good("stop", "c", "--wait") == "c: stopped\n"
    assert board.good("start", "c", "--wait") == "c: stopped\n"
    assert len(board.told("c", "cannot_sleep")) == 1
