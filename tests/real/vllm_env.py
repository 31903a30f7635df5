"""Start, ask and stop a real vLLM with the tiny model. `make test-real` makes both and says where they are."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SERVED_NAME = "tiny"
MAX_MODEL_LEN = 2048
BLOCK_SIZE = 32
GPU_BLOCKS = 420
MAX_SEQS = 48
# Healthy after 25-45 s on two idle cores; a busy machine gets several times that.
HEALTHY_WITHIN_S = 240.0
STOPPED_WITHIN_S = 30.0
REQUEST_TIMEOUT_S = 120.0


class NoRealVllm(RuntimeError):
    """The environment does not say where the real vLLM is."""


@dataclass(frozen=True)
class Installation:
    """The interpreter that has vLLM, and the model's directory."""

    python: Path
    model: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read OPSBOARD_REAL_VLLM_PYTHON and OPSBOARD_REAL_MODEL; raise ``NoRealVllm`` saying how to make them."""
        try:
            found = cls(Path(environ["OPSBOARD_REAL_VLLM_PYTHON"]), Path(environ["OPSBOARD_REAL_MODEL"]))
        except KeyError as missing:
            msg = f"{missing.args[0]} is not set: run `make test-real`, or `tools/real_vllm.sh pytest tests/real/...`"
            raise NoRealVllm(msg) from None
        if not os.access(found.python, os.X_OK) or not (found.model / "config.json").is_file():
            msg = f"{found.python} or {found.model} is not there: run `make test-real`"
            raise NoRealVllm(msg)
        return found

    def command(self, port: int, *extra: str) -> list[str]:
        """Return the argv of a server on ``port``; ``extra`` options come last, so they win."""
        options = {
            "--model": self.model,
            "--served-model-name": SERVED_NAME,
            "--host": "127.0.0.1",
            "--port": port,
            "--max-model-len": MAX_MODEL_LEN,
            "--block-size": BLOCK_SIZE,
            "--num-gpu-blocks-override": GPU_BLOCKS,
            "--max-num-seqs": MAX_SEQS,
        }
        # `vllm serve` fails under the name of the CPU distribution, its module does not.
        argv = [str(self.python), "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
        for name, value in options.items():
            argv += [name, str(value)]
        return [*argv, *extra]

    def variables(self) -> dict[str, str]:
        """Return what a server needs in its environment beside PATH and HOME."""
        return {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }


def free_port() -> int:
    """Return a TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RealVllm:
    """One running server in a process group of its own; a context manager that waits until it is healthy."""

    installation: Installation
    directory: Path
    """Where the log is written, and the server's HOME."""
    extra: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.log = self.directory / f"vllm-{self.port}.log"
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The API server's pid, which is also the pid of the process group."""
        assert self._process is not None, "start() comes first"
        return self._process.pid

    def start(self) -> None:
        """Start the server and return at once."""
        self.directory.mkdir(parents=True, exist_ok=True)
        env = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LC_ALL": "C.UTF-8"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.installation.command(self.port, *self.extra),
                env=env | self.installation.variables() | dict(self.env),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_healthy(self, deadline: float = HEALTHY_WITHIN_S) -> None:
        """Return when /health answers 200; fail with the log's end when the server ends or the deadline (s) passes."""

        def healthy() -> bool:
            assert self._process is not None, "start() comes first"
            code = self._process.poll()
            assert code is None, f"vLLM ended with {code}:\n{self.log_tail()}"
            try:
                return self.request("GET", "/health", timeout=5)[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        wait_until(healthy, deadline, what=f"vLLM is healthy (log: {self.log})")

    def log_tail(self, lines: int = 30) -> str:
        """Return the last lines of the server's output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def request(
        self, method: str, path: str, body: object = None, timeout: float = REQUEST_TIMEOUT_S
    ) -> tuple[int, bytes]:
        """Send one request, ``body`` as JSON, and return the status and the whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def complete(self, prompt: str | list[int], max_tokens: int, **options: object) -> dict[str, Any]:
        """Return the answer of /v1/completions; greedy and exactly ``max_tokens`` long unless ``options`` say else."""
        body = {
            "model": SERVED_NAME,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        status, answer = self.request("POST", "/v1/completions", body | options)
        assert status == 200, f"{status}: {answer[:500]!r}"
        decoded: dict[str, Any] = json.loads(answer)
        return decoded

    def metrics(self) -> str:
        """Return the text of /metrics."""
        status, page = self.request("GET", "/metrics")
        assert status == 200
        return page.decode()

    def processes(self) -> list[psutil.Process]:
        """Return the living processes of the server's group: API server, EngineCore, worker, resource tracker."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found

    def stop(self) -> None:
        """TERM to the group, KILL after a deadline, and return when none of its processes is left."""
        if self._process is None:
            return
        end = time.monotonic() + STOPPED_WITHIN_S
        self._signal(signal.SIGTERM)
        while self.processes() and time.monotonic() < end:
            self._reap(0.1)
        self._signal(signal.SIGKILL)
        self._reap(STOPPED_WITHIN_S)
        wait_until(lambda: not self.processes(), what="every process of vLLM is gone")

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def _reap(self, timeout: float) -> None:
        assert self._process is not None, "start() comes first"
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return
