"""One opsboard with the real vLLMs that it supervises: a daemon of its own, the verbs, and a way to end all of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from opsboard.cli.private import opsboard_argv
from opsboard.client.sync import Client
from opsboard.core.errors import NotReachable
from tests.real.vllm_env import HEALTHY_WITHIN_S, SERVED_NAME, STOPPED_WITHIN_S, Installation, free_port
from tests.support.account import AS_ME
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opsboard.core.wire import EngineDetail

NAME = "tiny-a"
MAX_RUNNING = 8
"""Small, so that a queue forms with few requests."""
INTERVAL_S = 1.0
ANSWERS_WITHIN_S = 60.0
OWN = {"prompt_tokens": 23, "generation_tokens": 16}
"""What opsboard itself asks once a life, the golden question: the engine counts it like any other request."""
VERB_S = 2 * HEALTHY_WITHIN_S
"""A rolling restart of two is the longest."""
HERE = Path(__file__).parent


class House:
    """A context manager: the daemon runs inside, and nothing of it is left outside."""

    def __init__(
        self,
        installation: Installation,
        directory: Path,
        more: Mapping[str, Sequence[str]] | None = None,
        route: Sequence[str] = (),
        stop_timeout_s: float = STOPPED_WITHIN_S,
    ) -> None:
        """``more``: engines beside ``NAME``, with options that win; ``route``: those that stand in for each other."""
        engines = {NAME: ()} | dict(more or {})
        self.directory = directory
        self.ports = {name: free_port() for name in engines}
        self.port = self.ports[NAME]
        self.hang = directory / "hang"
        """Made by a test, it hangs the next step of an engine, which removes it."""
        self.served = 0
        """Answers that a test had from the engine, over all its lives."""
        self.state_dir = directory / "state"
        self.config = directory / "opsboard.toml"
        self._runtime = Path(tempfile.mkdtemp(prefix="opsboard-real-"))  # short: socket paths have 107 bytes
        self._socket = self._runtime / "opsboard.sock"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._began = time.time()
        self.client = Client(self._socket, timeout=ANSWERS_WITHIN_S)
        tables = [_engine(installation, self, name, options, stop_timeout_s) for name, options in engines.items()]
        if route:
            tables.append(f'[[route]]\nmodel = "{SERVED_NAME}"\ntargets = {json.dumps(list(route))}\n')
        self.config.write_text(f'[collect]\ninterval = "{INTERVAL_S:g}s"\n' + "".join(tables))

    def __enter__(self) -> Self:
        self.start_daemon()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.end_daemon(signal.SIGTERM)
        for process in self.everything():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: not self.everything(), STOPPED_WITHIN_S, what="every process of the test is gone")
        for left in self._runtime.iterdir():
            left.unlink()
        self._runtime.rmdir()

    # --- the daemon -------------------------------------------------------------------------------------------------

    def start_daemon(self) -> float:
        """Start a daemon and return when it answers; the value is when it was started (monotonic seconds)."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LC_ALL": "C.UTF-8"}
        with (self.directory / "daemon.log").open("ab") as log:
            began = time.monotonic()
            self._daemon = subprocess.Popen(
                [*self._argv(), "daemon"],
                env=environment | {"RUNTIME_DIRECTORY": str(self._runtime)},
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, ANSWERS_WITHIN_S, what=f"the daemon answers (log: {self.directory}/daemon.log)")
        return began

    def end_daemon(self, number: signal.Signals) -> None:
        """Send a signal to the daemon and return when it is gone."""
        if self._daemon is not None:
            self._daemon.send_signal(number)
            self._daemon.wait(STOPPED_WITHIN_S)
            self._daemon = None

    def settle(self) -> None:
        """Return when the daemon has lived for some intervals: what it read in its last second may not be written."""

        def old_enough() -> bool:
            status = self.client.status()
            return status.time - status.daemon.started > 3 * INTERVAL_S

        wait_until(old_enough, ANSWERS_WITHIN_S, what="the daemon has been there for some intervals")

    def opsboard(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb against the daemon; fail with what it said unless it exits 0."""
        result = subprocess.run([*self._argv(), *words], capture_output=True, text=True, timeout=VERB_S, check=False)
        log = self.engine_log()
        assert result.returncode == 0, f"opsboard {' '.join(words)}: {result.stdout}{result.stderr}\n{log}"
        return result

    def _argv(self) -> list[str]:
        where = ["--config", str(self.config), "--state-dir", str(self.state_dir), "--socket", str(self._socket)]
        return opsboard_argv(*where)

    def _answers(self) -> bool:
        assert self._daemon is not None, "start_daemon() comes first"
        code = self._daemon.poll()
        assert code is None, f"the daemon ended with {code}:\n{(self.directory / 'daemon.log').read_text()[-3000:]}"
        with contextlib.suppress(NotReachable):
            self.client.status()
            return True
        return False

    # --- the engine -------------------------------------------------------------------------------------------------

    def engine(self, name: str = NAME) -> EngineDetail:
        """Return what the daemon says of an engine."""
        return self.client.engine(name)

    def fresh(self, after: float) -> tuple[EngineDetail, float]:
        """Return what the daemon says of the engine from a reading made after ``after``, and when that was.

        Both are monotonic seconds.
        """

        def look() -> tuple[EngineDetail, float] | None:
            asked = time.monotonic()
            found = self.engine()
            age = found.engine.reading.age_s
            return (found, asked - age) if age is not None and asked - age > after else None

        found = wait_until(look, ANSWERS_WITHIN_S, what="the engine is read again")
        assert found is not None
        return found

    def ask(self, method: str, path: str) -> bytes:
        """Send one request to the engine itself; it must answer 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWERS_WITHIN_S)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        assert response.status == 200, f"{method} {path}: {response.status}: {body[:300]!r}"
        return body

    def engine_log(self, lines: int = 20, name: str = NAME) -> str:
        """Return the end of an engine's log."""
        try:
            text = (self.state_dir / "engines" / name / "engine.log").read_text(errors="replace")
        except FileNotFoundError:
            return "no engine log"
        return "\n".join(text.splitlines()[-lines:])

    def identity(self) -> dict[str, dict[str, int] | None]:
        """Return the bundle's record of the life: ``shim`` and ``process`` with their ``pid``."""
        try:
            text = (self.state_dir / "engines" / NAME / "identity.json").read_text()
        except FileNotFoundError:
            return {}
        found: dict[str, dict[str, int] | None] = json.loads(text)
        return found

    def shim_pid(self) -> int:
        """Return the shim's pid."""
        shim = self.identity()["shim"]
        assert shim is not None
        return shim["pid"]

    def processes(self) -> list[psutil.Process]:
        """Return the living processes of the engine's last life, shim included, as the kernel tells without opsboard.

        The engine leads a process group, and everything vLLM starts stays in it.
        """
        life = self.identity()
        shim, main = (life.get(who) or {} for who in ("shim", "process"))
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                ours = process.pid == shim.get("pid") or os.getpgid(process.pid) == main.get("pid")
                if ours and process.create_time() >= self._began - 1 and alive(process):
                    found.append(process)
        return found

    def everything(self) -> list[psutil.Process]:
        """Return what lives of the daemon and of all lives of all engines: they work in the test's directory."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if Path(process.cwd()) == self.directory and alive(process):
                    found.append(process)
        return found

    def port_is_free(self) -> bool:
        """Tell whether nobody listens where the engine did."""
        return not any(
            connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (self.port,)
            for connection in psutil.net_connections("tcp")
        )


def alive(process: psutil.Process) -> bool:
    """Tell whether exactly this process lives; one that only waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _engine(installation: Installation, house: House, name: str, options: Sequence[str], stop_timeout_s: float) -> str:
    paced = ("--max-num-seqs", str(MAX_RUNNING), "--scheduler-cls", "paced.PacedScheduler")
    command = installation.command(house.ports[name], *paced, *options)
    # The development endpoints are for /pause, which freezes a moment so that it can be compared exactly.
    environment = installation.variables() | {
        "HOME": str(house.directory),
        "PYTHONPATH": str(HERE),
        "PACED_HANG": str(house.hang),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else all workers share the first core, and one may starve
        "VLLM_SERVER_DEV_MODE": "1",
    }
    return f"""
[[engine]]
name = "{name}"
kind = "vllm"
command = {json.dumps(command)}
{AS_ME}
url = "http://127.0.0.1:{house.ports[name]}"
ready_timeout = "{HEALTHY_WITHIN_S:g}s"
stop_timeout = "{stop_timeout_s:g}s"
[engine.env]
{"".join(f"{name} = {json.dumps(value)}{chr(10)}" for name, value in environment.items())}"""
