"""A simulated engine as a real process, for tests: started, spoken with, and surely ended with all it left behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.support.waiting import wait_until

READY_S = 20.0


class SimProcess:
    """One ``opsboard sim`` on a port of its own choice."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        profile: str = "vllm-0.32",
        startup_seconds: float = 0.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log = directory / "sim.log"
        self.errors = directory / "sim.err"
        argv = [sys.executable, "-m", "opsboard", "sim", "--port", "0", "--profile", profile]
        argv += ["--startup-seconds", str(startup_seconds), *options]
        with self.log.open("wb") as out, self.errors.open("wb") as err:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=directory, env={**os.environ, **(env or {})}
            )
        self._core: psutil.Process | None = None

    @property
    def port(self) -> int:
        """The port, once the log has told it."""
        found = wait_until(lambda: re.search(r"on http://127\.0\.0\.1:(\d+)", self.text()), READY_S, "the port")
        assert found is not None
        return int(found[1])

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def core(self) -> psutil.Process:
        """The EngineCore process; it is remembered, so that an orphan is found too."""

        def find() -> psutil.Process | None:
            with contextlib.suppress(psutil.Error):
                return next(iter(psutil.Process(self.process.pid).children()), None)
            return None

        if self._core is None:
            self._core = wait_until(find, what="EngineCore")
        assert self._core is not None
        return self._core

    def wait_ready(self) -> SimProcess:
        port = self.port
        assert self.core.is_running()

        def healthy() -> bool:
            assert self.process.poll() is None, self.errors.read_text()
            with contextlib.suppress(OSError):
                return self.request("GET", "/health", port=port)[0] == 200
            return False

        wait_until(healthy, READY_S, "the engine is healthy")
        return self

    def request(self, method: str, path: str, body: object = None, *, port: int | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=20)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def complete(self, prompt: object, max_tokens: int = 4, **more: object) -> dict[str, Any]:
        status, body = self.request("POST", "/v1/completions", {"prompt": prompt, "max_tokens": max_tokens, **more})
        assert status == 200, body
        answer = json.loads(body)
        assert isinstance(answer, dict)
        return answer

    def set_fault(self, name: str, value: float | None = None) -> None:
        status, body = self.request("POST", "/sim/faults", {"name": name, "value": value})
        assert status == 200, body

    def clear_faults(self) -> None:
        assert self.request("DELETE", "/sim/faults")[0] == 200

    def page(self) -> str:
        status, body = self.request("GET", "/metrics")
        assert status == 200
        return body.decode()

    def value(self, name: str) -> float:
        """Return the sum of a series over its label sets."""
        found = [line for line in self.page().splitlines() if re.match(rf"{name}[{{ ]", line)]
        assert found, name
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(READY_S)

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.process.poll() is None:
            with contextlib.suppress(psutil.Error):
                self.core.pid  # noqa: B018  looked for now, it would be an orphan later
            self.process.kill()
            self.process.wait(READY_S)
        if self._core is not None:
            core = self._core
            with contextlib.suppress(psutil.Error):
                core.send_signal(signal.SIGKILL)
            wait_until(lambda: gone(core), READY_S, "the end of EngineCore")


@contextlib.contextmanager
def simulated(
    directory: Path,
    *options: str,
    profile: str = "vllm-0.32",
    startup_seconds: float = 0.0,
    ready: bool = True,
    env: Mapping[str, str] | None = None,
) -> Iterator[SimProcess]:
    """Run one simulated engine; by default wait until it serves."""
    directory.mkdir(parents=True, exist_ok=True)
    engine = SimProcess(directory, *options, profile=profile, startup_seconds=startup_seconds, env=env)
    try:
        yield engine.wait_ready() if ready else engine
    finally:
        engine.end()


def gone(process: psutil.Process) -> bool:
    """True when a process has ended, whether or not its parent has noticed."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def rss_anon(pid: int) -> int:
    """Return a process's anonymous resident memory in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found is not None, os.strerror(2)
    return int(found[1]) * 1024
