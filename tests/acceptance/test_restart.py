"""Restarts as an operator sees them: a real daemon, real shims, simulated engines, the real command line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.herd import free_port
from tests.support.house import House
from tests.support.waiting import wait_until

DEADLINE_S = 40.0
WORDS = 60


class Board:
    """Two engines of one route, and the verbs."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.ports = {name: free_port() for name in "ab"}
        house.write(*map(self._engine, self.ports), rest='[[route]]\nmodel = "chat"\ntargets = ["a", "b"]\n')
        self.daemon = house.start()
        for name in self.ports:
            self.wait_for(name, "ready")

    def _engine(self, name: str) -> str:
        port = self.ports[name]
        command = [sys.executable, "-m", "opsboard", "sim", "--port", str(port), "--startup-seconds", "0.2"]
        lines = {
            "name": name,
            "kind": "vllm",
            "command": [*command, "--step-ms", "25"],
            "url": f"http://127.0.0.1:{port}",
            "autostart": True,
            "drain_timeout": "20s",
            "stop_timeout": "5s",
        }
        return "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())

    def state(self, name: str) -> str:
        return self.house.engine(name).state

    def wait_for(self, name: str, state: str) -> None:
        wait_until(lambda: self.state(name) == state, DEADLINE_S, f"{name} is {state}")

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "opsboard", "--socket", str(self.house.socket), "engine", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def good(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self.verb(*words)
        assert done.returncode == 0, done.stderr
        return done

    def listed(self, name: str) -> dict[str, Any]:
        engines: list[dict[str, Any]] = json.loads(self.good("list", "--json").stdout)
        return next(engine for engine in engines if engine["name"] == name)


@pytest.fixture
def board(house: House) -> Iterator[Board]:
    board = Board(house)
    yield board
    board.verb("stop", "--all", "--wait")


class Request(threading.Thread):
    """One completion of so many tokens, asked for in the background."""

    def __init__(self, port: int, words: int = WORDS) -> None:
        super().__init__(daemon=True)
        self._words = words
        self._url = f"http://127.0.0.1:{port}/v1/completions"
        self.tokens = 0

    def run(self) -> None:
        wanted = {"model": "sim-7b", "prompt": "hello", "max_tokens": self._words, "ignore_eos": True}
        asked = urllib.request.Request(self._url, json.dumps(wanted).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=DEADLINE_S) as reply:
            self.tokens = json.load(reply)["usage"]["completion_tokens"]


def test_a_restart_lets_requests_finish_and_tells_each_step(board: Board) -> None:
    before = board.house.engine("a").pid
    request = Request(board.ports["a"])
    request.start()
    wait_until(lambda: (board.house.engine("a").running or 0) > 0, DEADLINE_S, "the request is under way")
    done = board.good("restart", "a", "--wait", "--reason", "new weights")
    request.join(DEADLINE_S)
    assert request.tokens == WORDS, "nothing was cut off"
    assert done.stdout == "a: ready\n"
    told = [line.split()[1] for line in done.stderr.splitlines() if line.endswith("s") or "  " in line]
    assert [word for word in told if word in {"drain", "end", "launch", "start", "serving"}] == [
        "drain", "end", "launch", "start", "serving",
    ]  # fmt: skip
    listed = board.listed("a")
    assert listed["pid"] != before
    states = [one["state"] for one in listed["timeline"]]
    assert states[-4:] == ["draining", "stopping", "starting", "ready"]
    assert "new weights" in [one["reason"] for one in listed["timeline"]]
    assert all(step["seconds"] is not None and step["outcome"] for step in listed["transaction"])


def test_the_last_target_stays_until_it_is_said_and_a_drained_one_comes_back(board: Board) -> None:
    assert board.good("drain", "a", "--wait").stdout == "a: draining\n"
    (route,) = board.house.client.status().routes
    assert [target.state for target in route.targets] == ["draining", "ready"]
    for words in (("restart", "b"), ("drain", "b"), ("restart", "b", "a", "--rolling", "--wait")):
        refused = board.verb(*words)
        assert refused.returncode == 1
        assert refused.stderr.startswith("opsboard: b is the last healthy target of route chat")
    for verb, code, said in (
        ("restart aa", 1, "did you mean 'a'?"),
        ("logs a -n -1", 2, "expected `lines` between"),
        ("restart --cancel", 1, "no rolling restart is under way"),
    ):
        refused = board.verb(*verb.split())
        assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr
    before = board.house.engine("b").pid
    assert board.good("restart", "b", "--now", "--wait").stdout == "b: ready\n"
    assert board.house.engine("b").pid != before
    assert board.state("a") == "draining", "a drained engine stays out until somebody brings it back"
    assert board.good("undrain", "a", "--wait").stdout == "a: ready\n"


def test_a_rolling_restart_outlives_its_daemon_and_the_verb_waits_on(board: Board) -> None:
    pids = {name: board.house.engine(name).pid for name in "ab"}
    asked = board.house.client.action("b", "undrain", idempotency_key="once")
    request = Request(board.ports["a"], words=3 * WORDS)
    request.start()
    wait_until(lambda: (board.house.engine("a").running or 0) > 0, DEADLINE_S, "the request is under way")
    rolls: list[subprocess.CompletedProcess[str]] = []
    words = ("restart", "a", "b", "--rolling", "--wait", "--reason", "weekly")
    roll = threading.Thread(target=lambda: rolls.append(board.verb(*words)))
    roll.start()
    board.wait_for("a", "draining")
    again = board.verb("restart", "b", "a", "--rolling")
    assert again.returncode == 1
    assert "another is under way: rolling restart: 0 of 2 done, now a, next: b" in again.stderr
    board.house.end(board.daemon)
    board.daemon = board.house.start()
    assert "rolling restart: 0 of 2 done, now a, next: b (weekly" in board.good("list").stdout
    assert board.house.client.action("b", "undrain", idempotency_key="once") == asked
    request.join(DEADLINE_S)
    roll.join(DEADLINE_S)
    assert (rolls[0].returncode, rolls[0].stdout.splitlines()) == (0, ["a: ready", "b: ready"]), rolls[0].stderr
    assert request.tokens == 3 * WORDS, "nothing was cut off"
    engines = {name: board.house.engine(name) for name in "ab"}
    assert all(engines[name].pid != pid for name, pid in pids.items())
    assert [engine.restarts for engine in engines.values()] == [1, 1]
    last = board.house.client.rolling()
    assert last is not None
    assert (last.outcome, last.done, board.house.client.status().rolling) == ("ok", 2, None)


def test_a_rolling_restart_leaves_one_serving_at_any_time(board: Board) -> None:
    pids = {name: board.house.engine(name).pid for name in "ab"}
    serving: list[bool] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            serving.append(board.house.client.status().routes[0].serving)
            over.wait(0.02)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    done = board.good("restart", "--all", "--rolling", "--wait")
    over.set()
    watcher.join(DEADLINE_S)
    assert done.stdout.splitlines() == ["a: ready", "b: ready"]
    assert all(board.house.engine(name).pid != pid for name, pid in pids.items())
    assert serving
    assert all(serving)
