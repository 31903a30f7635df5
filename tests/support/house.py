"""A state directory, a socket, and the real daemons that live there one after another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from opsboard.client.sync import Client
from opsboard.core.errors import NotReachable
from opsboard.core.wire import Engine
from tests.support.account import AS_ME
from tests.support.page_engine import ROOT
from tests.support.waiting import wait_until

START_S = 15.0


class House:
    """``root`` must be short: a socket's path has 107 bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "opsboard.toml"
        self.socket = root / "run" / "s.sock"
        self.state = root / "state"
        self.log = root / "daemon.log"
        self.client = Client(self.socket)
        self.daemons: list[subprocess.Popen[bytes]] = []

    def write(self, *engines: str, rest: str = "") -> None:
        text = '[host]\nname = "house"\n[collect]\ninterval = "200ms"\n' + rest
        self.config.write_text(text + "".join(f"[[engine]]\n{engine}\n{AS_ME}\n" for engine in engines))

    def spawn(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        config: bool = True,
        program: tuple[str, ...] = ("opsboard",),
    ) -> subprocess.Popen[bytes]:
        where = ["--state-dir", str(self.state), "--socket", str(self.socket)]
        named = ["--config", str(self.config)] if config else []
        with self.log.open("ab") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", *program, *named, *where, "daemon", *arguments],
                stderr=log, cwd=ROOT, env={**os.environ, **(env or {})},
            )  # fmt: skip
        self.daemons.append(daemon)
        return daemon

    def start(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        config: bool = True,
        program: tuple[str, ...] = ("opsboard",),
    ) -> subprocess.Popen[bytes]:
        daemon = self.spawn(*arguments, env=env, config=config, program=program)
        wait_until(lambda: self.answers(daemon), START_S, "the daemon answers")
        return daemon

    def answers(self, daemon: subprocess.Popen[bytes]) -> bool:
        assert daemon.poll() is None, self.log.read_text()
        try:
            return self.client.status().daemon.pid == daemon.pid
        except NotReachable:
            return False

    def engine(self, name: str) -> Engine:
        return next(engine for engine in self.client.status().engines if engine.name == name)

    def is_ready(self, name: str) -> bool:
        return self.engine(name).reading.outcome == "OK"

    def events(self) -> list[tuple[str, str]]:
        return [(event.subject, event.kind) for event in self.client.status().events]

    def end(self, daemon: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        daemon.send_signal(number)
        return daemon.wait(START_S)
