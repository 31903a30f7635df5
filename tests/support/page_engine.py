"""Engines that are nothing but a page: the recorded real one (51 kB, vLLM 0.32) with numbers that move.

``python -m tests.support.page_engine PORT...`` (0: any free one) prints its ports on one line and serves until its
standard input ends. Ended, its engines are dead; a new one on the same ports is a restarted engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opsboard.httpd import Request, Response, bind_tcp, serve

FIXTURE = Path(__file__).parents[1] / "fixtures" / "metrics" / "vllm" / "0.32.txt"
GAUGES = {"vllm:num_requests_running": 7, "vllm:num_requests_waiting": 3, "vllm:kv_cache_usage_perc": 0.01}
ROOT = Path(__file__).parents[2]


class MovingPage:
    """A page whose counters and histograms grow with every second since it began, as under steady traffic."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._start = time.time()
        self._rendered = -1, b""
        self._lines: list[tuple[str, float | None]] = []
        for line in FIXTURE.read_text().splitlines():
            if line.startswith("#"):
                self._lines.append((line, None))
            else:
                prefix, _, value = line.rpartition(" ")
                self._lines.append((prefix, float(value)))

    def render(self) -> bytes:
        """Return the page. Engines share one, a tenth of a second long: on two cores they would slow who reads them."""
        tenth = int((time.monotonic() - self._began) * 10)
        if tenth != self._rendered[0]:
            text = "\n".join(self._line(prefix, value, tenth / 10) for prefix, value in self._lines) + "\n"
            self._rendered = tenth, text.encode()
        return self._rendered[1]

    def _line(self, prefix: str, value: float | None, seconds: float) -> str:
        if value is None:
            return prefix
        name = prefix.partition("{")[0]
        if name in GAUGES:
            return f"{prefix} {int(seconds) % 9 * GAUGES[name]}"
        if name == "process_start_time_seconds":
            return f"{prefix} {self._start}"
        if name.endswith(("_total", "_bucket", "_count", "_sum")):  # all by the same factor: buckets stay in order
            return f"{prefix} {value * (1 + seconds)}"
        return f"{prefix} {value}"


async def serve_pages(ports: list[int]) -> None:
    async def handle(request: Request) -> Response:
        match request.path:
            case "/metrics":
                return Response(200, page.render(), "text/plain; version=0.0.4; charset=utf-8")
            case "/health":
                return Response(200)
            case "/version":
                return Response(200, b'{"version":"0.32.0"}', "application/json")
        return Response(404)

    page = MovingPage()
    servers = [await serve(handle, sock=bind_tcp("127.0.0.1", port)) for port in ports]
    print(*(server.port for server in servers), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


@contextmanager
def page_engines(count: int, ports: list[int] | None = None) -> Iterator[list[int]]:
    """Run ``count`` engines in one process of their own and yield their ports."""
    arguments = [str(port) for port in ports] if ports else ["0"] * count
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.page_engine", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield [int(port) for port in process.stdout.readline().split()]
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(serve_pages([int(port) for port in sys.argv[1:]]))
