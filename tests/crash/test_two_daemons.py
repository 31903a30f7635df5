"""Two real daemons for one state directory: one engine, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsboard.client.sync import Client
from opsboard.core.errors import NotReachable
from tests.support.herd import Herd, free_port
from tests.support.house import House
from tests.support.page_engine import ROOT
from tests.support.waiting import NeverHappened, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 20.0


class Pair:
    """A configuration with one engine, and daemons with sockets of their own beside one state directory."""

    def __init__(self, house: House) -> None:
        self.house = house
        house.state.mkdir(mode=0o700)
        self.herd = Herd(house.state, house.root / "run")
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        spec = self.herd.spec("a", "three_deep", free_port())
        lines = {"name": "a", "kind": "vllm", "command": spec.command, "url": spec.url}
        house.write("\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items()) + "\nautostart = true")

    def begin(self, name: str) -> None:
        words = ["--config", str(self.house.config), "--state-dir", str(self.house.state)]
        with (self.house.root / f"{name}.log").open("wb") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "opsboard", *words, "--socket", str(self.socket(name)), "daemon"],
                stderr=log,
                cwd=self.herd.work("a"),
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        self.house.daemons.append(daemon)
        self.daemons[name] = daemon

    def socket(self, name: str) -> Path:
        return self.house.root / "run" / f"{name}.sock"

    def said(self, name: str) -> str:
        return (self.house.root / f"{name}.log").read_text()

    def reigns(self, name: str) -> bool:
        try:
            return Client(self.socket(name)).status().daemon.pid == self.daemons[name].pid
        except NotReachable:
            return False


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair(House(Path(os.environ["XDG_RUNTIME_DIR"])))
    yield pair
    for daemon in pair.daemons.values():
        daemon.kill()
        daemon.wait()
    pair.herd.end()


@pytest.mark.timeout(90)
def test_two_daemons_at_once(pair: Pair) -> None:
    for name in ("one", "two"):
        pair.begin(name)
    try:
        wait_until(lambda: any(map(pair.reigns, pair.daemons)), DEADLINE_S, "one of them reigns")
    except NeverHappened:
        pytest.fail("\n".join(map(pair.said, pair.daemons)))
    wait_until(lambda: len(pair.herd.births("a")) == 1, DEADLINE_S, "the engine")
    (loser,) = [name for name in pair.daemons if not pair.reigns(name)]
    (winner,) = [name for name in pair.daemons if pair.reigns(name)]
    assert pair.daemons[loser].wait(DEADLINE_S) != 0
    assert "another" in pair.said(loser), pair.said(loser)
    assert "Traceback" not in pair.said(loser)

    pair.daemons[winner].send_signal(signal.SIGKILL)
    pair.daemons[winner].wait()
    pair.begin(loser)
    wait_until(lambda: pair.reigns(loser), DEADLINE_S, "the other one follows")
    engine = next(iter(Client(pair.socket(loser)).status().engines))
    assert engine.pid == pair.herd.births("a")[0]
    assert len(pair.herd.births("a")) == 1
    assert not pair.herd.doubles("a")
