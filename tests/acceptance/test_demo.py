"""`opsboard demo`: everything at once, and nothing left behind however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from opsboard.client.sync import Client
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(150)

HEADLESS = [sys.executable, "-m", "opsboard", "demo", "--headless"]


@contextlib.contextmanager
def demo(tmp_path: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a headless demo whose temporary files lie in ``tmp_path``; kill what is left of it."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*HEADLESS, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        for left in belonging_to(tmp_path):
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()


def belonging_to(tmp_path: Path) -> list[psutil.Process]:
    """Return the processes, zombies aside, whose environment says that they are of this test's demo."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(tmp_path) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def restarted(client: Client) -> bool:
    first = client.status().engines[0]
    return first.state == "ready" and first.restarts == 1


@pytest.fixture
def place() -> Iterator[Path]:
    """A place for temporary files with a short name: sockets lie in it."""
    path = Path(tempfile.mkdtemp(prefix="ob-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def test_the_last_line_is_a_status_of_three_ready_engines_with_traffic(place: Path) -> None:
    with demo(place, "--seconds", "5") as process:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        status = json.loads(out.strip().splitlines()[-1])
        assert status["schema"] == "opsboard.status/1"
        assert [engine["state"] for engine in status["engines"]] == ["ready"] * 3
        assert all(engine["generation_tokens_per_s"] > 0 for engine in status["engines"])
        assert all(0 <= engine["kv_usage"] <= 1 for engine in status["engines"])
        assert all(engine["ttft_p95_s"] > 0 for engine in status["engines"])
        assert all(engine["supervised"] for engine in status["engines"])
        assert status["daemon"]["recorded"] is True
        wait_until(lambda: not belonging_to(place), what="every process is gone", deadline=30)
        assert list(place.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_demo_that_is_ended_leaves_no_process(number: signal.Signals, place: Path) -> None:
    broken = number == signal.SIGTERM
    with demo(place, "--seconds", "100", *(("--fault", "engine_death") if broken else ())) as process:
        assert process.stderr is not None
        assert "3 engines ready" in process.stderr.readline()
        if broken:  # one that served before its fault began serves again after it
            client = Client(list(place.glob("*/opsboard.sock")))
            wait_until(lambda: restarted(client), what="it was restarted by itself", deadline=60)
        process.send_signal(number)
        process.wait(60)
        wait_until(lambda: not belonging_to(place), what="every process is gone", deadline=45)
        if number != signal.SIGKILL:  # nobody is left to tidy up then
            assert list(place.iterdir()) == []
