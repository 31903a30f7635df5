"""``opsboard engine adopt`` as an operator sees it: a real daemon, simulated engines that somebody started by hand."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opsboard.supervise.processes import below, everybody, send
from tests.support.account import AS_ME
from tests.support.herd import free_port, kill
from tests.support.house import House
from tests.support.waiting import wait_until

DEADLINE_S = 40.0
SIM = (sys.executable, "-m", "opsboard", "sim", "--startup-seconds", "0.2", "--port")


class ByHand:
    """An engine under the test's own process, with a key in its environment and the variables of a login."""

    def __init__(self, port: int, *before: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.argv = (*SIM, str(port))
        environment = {"PATH": "/usr/bin:/bin", "VLLM_API_KEY": "sesame", "SSH_TTY": "/dev/pts/9"}
        quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        self.process = subprocess.Popen([*before, *self.argv], env=environment, **quiet)
        wait_until(self.serves, DEADLINE_S, f"{self.url} serves")

    @property
    def pid(self) -> int:
        return self.process.pid

    def serves(self) -> bool:
        return self.asks("/health") == 200

    def asks(self, path: str) -> int | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as reply:
                status: int = reply.status
                return status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return None

    def end(self) -> None:
        family = below({self.pid}, everybody())
        self.process.kill()
        self.process.wait()
        for one in family:
            send(one, signal.SIGKILL)


@contextlib.contextmanager
def by_hand(*before: str) -> Iterator[ByHand]:
    engine = ByHand(free_port(), *before)
    try:
        yield engine
    finally:
        engine.end()


class Board:
    """A daemon and the verbs."""

    def __init__(self, house: House) -> None:
        self.house = house

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "opsboard", "--socket", str(self.house.socket), "engine", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def good(self, *words: str) -> str:
        done = self.verb(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def bad(self, *words: str) -> str:
        done = self.verb(*words)
        assert done.returncode == 1, done.stdout
        return done.stderr

    def wait_for(self, name: str, state: str) -> None:
        wait_until(lambda: self.house.engine(name).state == state, DEADLINE_S, f"{name} is {state}")

    def timeline(self, name: str) -> list[str]:
        return [event.text for event in self.house.client.engine(name).events]

    def kept(self, name: str) -> Path:
        return self.house.state / "engines" / name / "taken_over.json"


@pytest.fixture
def board(house: House) -> Iterator[Board]:
    board = Board(house)
    yield board
    if board.verb("list").returncode == 0:
        board.verb("stop", "--all", "--wait")


def test_taken_over_found_again_and_restarted_as_a_copy(board: Board) -> None:
    house = board.house
    house.write()
    daemon = house.start()
    with by_hand() as engine:
        said = board.good("adopt", engine.url, "--name", "mine", "--reason", "ours now")
        assert f"mine: pid {engine.pid} at {engine.url} is supervised from now on" in said
        assert "variables left out: SSH_TTY" in said
        listed = house.engine("mine")
        assert (listed.supervised, listed.state, listed.pid, listed.kind) == (True, "ready", engine.pid, "vllm")
        assert listed.message == "started by hand: its log is not known until it is restarted"
        asked, *told = board.timeline("mine")
        assert asked.startswith("adopt asked by uid")
        assert asked.endswith(": ours now")
        assert "after a restart without these variables: SSH_TTY" in told
        assert "sesame" not in said + " ".join(told)

        again = json.loads(board.good("adopt", str(engine.pid), "--json"))
        assert (again["engine"], again["pid"], again["again"]) == ("mine", engine.pid, True)
        assert "is supervised already: it is mine" in board.bad("adopt", engine.url, "--name", "other")
        assert [one.name for one in house.client.engines()] == ["mine"]

        house.end(daemon, signal.SIGKILL)
        house.start()
        listed = house.engine("mine")
        assert (listed.supervised, listed.state, listed.pid) == (True, "ready", engine.pid)
        house.client.reload()
        assert house.engine("mine").pid == engine.pid

        board.good("restart", "mine", "--now", "--wait")
        assert engine.process.wait(DEADLINE_S) == 0
        copy = house.engine("mine")
        assert copy.message is None
        assert Path(f"/proc/{copy.pid}/cmdline").read_bytes().decode() == "\0".join((*engine.argv, ""))
        assert board.bad("forget", "mine").startswith("opsboard: mine runs, and opsboard started it")
        board.good("stop", "mine", "--wait")
        assert board.kept("mine").stat().st_mode & 0o777 == 0o600
        board.good("forget", "mine")
        assert not board.kept("mine").exists()
        assert house.client.engines() == []
        assert "was taken over" in board.bad("forget", "mine")


def test_what_dies_is_replaced_by_a_copy(board: Board) -> None:
    board.house.write()
    board.house.start()
    with by_hand() as engine:
        board.good("adopt", str(engine.pid), "--name", "mine")
        kill(engine.pid)
        wait_until(lambda: board.house.engine("mine").pid not in {None, engine.pid}, DEADLINE_S, "a copy")
        board.wait_for("mine", "ready")
        assert engine.asks("/v1/models") == 401, "it has its key"
        board.good("stop", "mine", "--wait")


def test_one_that_is_observed_keeps_its_name_and_can_be_let_go_while_it_runs(board: Board) -> None:
    with by_hand() as engine:
        seen = f'[[engine]]\nname = "seen"\nurl = "{engine.url}"\n'
        board.house.config.write_text(seen)
        daemon = board.house.start()
        assert not board.house.engine("seen").supervised
        assert "cannot stop it" in board.bad("stop", "seen")
        assert "the configuration calls it seen" in board.bad("adopt", str(engine.pid), "--name", "else")
        board.good("adopt", str(engine.pid))
        assert (board.house.engine("seen").supervised, board.house.engine("seen").pid) == (True, engine.pid)

        assert board.good("forget", "seen") == "seen: not supervised any more; it runs on\n"
        assert not board.house.engine("seen").supervised
        assert engine.serves()
        board.house.end(daemon, signal.SIGKILL)
        board.house.start()
        assert not board.house.engine("seen").supervised
        assert "not_configured" not in {kind for _, kind in board.house.events()}
        board.good("adopt", engine.url)
        assert board.house.engine("seen").pid == engine.pid

        board.house.config.write_text(f"{seen}command = {json.dumps(engine.argv)}\n{AS_ME}\n")
        board.house.client.reload()
        assert board.house.engine("seen").pid == engine.pid
        assert board.good("forget", "seen").startswith("seen: supervised as the configuration says")
        assert (board.house.engine("seen").supervised, board.house.engine("seen").pid) == (True, engine.pid)
        board.good("restart", "seen", "--now", "--wait")
        assert engine.process.wait(DEADLINE_S) == 0
        board.good("stop", "seen", "--wait")


def test_what_is_refused_and_why(board: Board, tmp_path: Path) -> None:
    board.house.write()
    daemon = board.house.start()
    assert "is no engine that opsboard knows" in board.bad("adopt", str(daemon.pid))
    assert "nobody listens on port" in board.bad("adopt", f"http://127.0.0.1:{free_port()}")
    assert "is not on this machine" in board.bad("adopt", "http://192.0.2.1:8000")
    assert board.verb("adopt", "llama").returncode == 2
    script = tmp_path / "for-ever.sh"
    script.write_text('while "$@"; do :; done\n')
    with by_hand("/bin/sh", str(script)) as engine:
        said = board.bad("adopt", engine.url)
        assert "runs a script with a loop" in said
        assert "put its command into the configuration" in said
        assert "restart_command" not in said
        assert board.house.client.engines() == []
        assert engine.serves()
