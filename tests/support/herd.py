"""Small engines under real shims, in one place per test; whatever runs at the end is ended by pid."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsboard.core.clock import SystemClock
from opsboard.core.model import Event, LifeView
from opsboard.supervise.adopt import Remains, examine
from opsboard.supervise.launch import Launched, LaunchSpec, launch
from opsboard.supervise.processes import look, send
from opsboard.supervise.supervisor import Supervisor, Wish
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINE = Path(__file__).with_name("small_engine.py")
THREE_DEEP = Path(__file__).with_name("three_deep.py")
# Up once its output says so; it serves nothing.
NOWHERE = "http://192.0.2.1:1"


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def connects(port: object) -> bool:
    """Tell whether something accepts connections at this loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(str(port))), timeout=1.0):
        return True
    return False


async def answers(url: str) -> bool:
    """Tell whether something accepts connections at ``http://127.0.0.1:PORT``."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


class Herd:
    """A state directory, a runtime directory, and the engines in them."""

    def __init__(self, state_dir: Path, runtime_dir: Path) -> None:
        self.state_dir = state_dir
        self.runtime_dir = runtime_dir
        self.lives: list[LifeView] = []
        self.events: list[Event] = []
        self.wishes: dict[str, Wish] = {}

    def work(self, name: str) -> Path:
        """Return an engine's working directory."""
        place = self.state_dir / "work" / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def bundle(self, name: str) -> Path:
        """Return an engine's bundle."""
        return self.state_dir / "engines" / name

    def spec(self, name: str, mode: str, value: object = "", **changes: Any) -> LaunchSpec:
        """Return a small engine in ``mode``; a serving one takes its port as ``value``.

        ``three_deep`` takes a port and, after a space, perhaps the most bytes of its log.
        Supervised by hand: nothing restarts it by itself, and no restart waits for requests.
        """
        url = f"http://127.0.0.1:{value}" if mode.startswith("serve") else NOWHERE
        command: tuple[str, ...] = (sys.executable, "-S", str(ENGINE), mode, str(value))
        if mode == "three_deep":
            port, *limit = str(value).split()
            url = f"http://127.0.0.1:{port}"
            command = (sys.executable, "-S", str(THREE_DEEP), port, str(self.state_dir / "hold"), *limit)
        settings: dict[str, Any] = {
            "command": command,
            "url": url,
            "restart": "never",
            "drain_timeout_s": 0.0,
        } | changes
        return LaunchSpec(name=name, cwd=str(self.work(name)), **settings)

    async def launch(self, spec: LaunchSpec) -> Launched:
        """Start an engine under a shim, without a supervisor."""
        return await launch(spec, self.bundle(spec.name), self.runtime_dir, instance=str(uuid.uuid4()), life=1)

    def supervisor(
        self,
        *specs: LaunchSpec,
        on_life: Callable[[LifeView], None] | None = None,
        on_wish: Callable[[str, Wish], None] | None = None,
        **options: Any,
    ) -> Supervisor:
        """Return a supervisor that writes what it says into this herd."""
        return Supervisor(
            self.state_dir,
            self.runtime_dir,
            SystemClock(),
            specs,
            ready_probe=answers,
            on_life=on_life or self.lives.append,
            on_event=self.events.append,
            phase_seconds=no_phases,
            on_wish=on_wish or self.wishes.__setitem__,
            wishes=dict(self.wishes),
            **options,
        )

    def remains(self, name: str) -> Remains:
        """Return what is there of an engine that was launched once."""
        found = examine(self.bundle(name))
        assert found is not None
        return found

    def record(self, name: str, file: str) -> dict[str, Any]:
        """Return one file of a bundle."""
        found: dict[str, Any] = json.loads((self.bundle(name) / file).read_text())
        return found

    def log(self, name: str) -> str:
        """Return what an engine has written."""
        path = self.bundle(name) / "engine.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_up(self, name: str, word: str = "up\n") -> None:
        """Wait for a word in the log."""
        wait_until(lambda: word in self.log(name), what=f"{word!r} in the log of {name}")

    def births(self, name: str) -> list[int]:
        """Return the pids of all lives so far."""
        path = self.work(name) / "births"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def doubles(self, name: str) -> bool:
        """Tell whether two lives were ever there at once."""
        return (self.work(name) / "doubles").exists()

    def end(self) -> None:
        """End every process of every bundle, by pid and start time; shims first, as they would start nothing anyway."""
        for folder in sorted((self.state_dir / "engines").glob("*")):
            for _ in range(100):
                remains = examine(folder)
                processes = [] if remains is None else [remains.shim, remains.main, *remains.others]
                living = [process for process in processes if process is not None]
                if not living:
                    break
                for process in living:
                    send(process, signal.SIGKILL)
                wait_until(lambda: not any(one.same_as(look(one.pid)) for one in living), what="the kill")  # noqa: B023


async def no_phases(_name: str) -> dict[str, float]:
    """Know nothing of earlier starts."""
    return {}


def kill(pid: int) -> None:
    """Kill -9 one process that a test knows, and wait until it is gone."""
    process = look(pid)
    assert process is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not process.same_as(look(pid)), what=f"the end of {pid}")
