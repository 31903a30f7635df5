"""A daemon that begins anew goes on with what its detectors had learnt, however the last one ended."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support.herd import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.house import House

DEADLINE_S = 40.0
QUICK = """
[slo]
e2e_p95 = "3s"
[detector.latency]
learn = "2s"
settle = "1s"
[detector.slo_burn]
known = "2s"
"""


def ask_for_tokens(port: int) -> None:
    """Ask for a minute of them, in the background."""
    body = {"model": "sim-7b", "prompt": "hello", "max_tokens": 4000, "ignore_eos": True}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )

    def run() -> None:
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=DEADLINE_S) as reply:
            reply.read()

    threading.Thread(target=run, daemon=True).start()


def said(house: House) -> dict[str, str]:
    """Return what each detector says of the engine, nothing before its page was read."""
    engine = house.engine("a")
    return {one.name: one.state for one in engine.detectors} if engine.reading.outcome == "OK" else {}


def learnt(house: House) -> bool:
    states = said(house)
    return states["slo_burn"] == "judging" and states["latency"] != "learning"  # no load is like the one before


@pytest.mark.timeout(90)
def test_what_was_learnt_outlives_the_daemon(house: House) -> None:
    port = free_port()
    command = [sys.executable, "-m", "opsboard", "sim", "--port", str(port), "--startup-seconds", "0.2"]
    house.write(
        f'name = "a"\nkind = "vllm"\ncommand = {json.dumps(command)}\nurl = "http://127.0.0.1:{port}"\n'
        'autostart = true\nstop_timeout = "5s"',
        rest=QUICK,
    )
    house.start()
    wait_until(lambda: said(house) != {}, DEADLINE_S, "a is ready, and its page was read")
    try:
        assert said(house)["latency"] == said(house)["slo_burn"] == "learning"
        ask_for_tokens(port)
        wait_until(lambda: learnt(house), DEADLINE_S, "both have learnt")
        pid = house.engine("a").pid
        for ending in (signal.SIGTERM, signal.SIGKILL):
            house.end(house.daemons[-1], ending)
            house.start()
            wait_until(lambda: said(house) != {}, DEADLINE_S, "its page is read again")
            assert learnt(house), "from the first page on"
            assert house.engine("a").pid == pid
    finally:
        house.client.action("a", "stop", reason="the test ends")
        wait_until(lambda: house.engine("a").state == "stopped", DEADLINE_S, "a has stopped")
