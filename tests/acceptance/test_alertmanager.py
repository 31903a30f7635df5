"""A real Alertmanager (Debian's prometheus-alertmanager): takes our push, and calls our kind of receiver back."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from alerts.message import message
from alerts.notifier import Answer, Http, Sent
from alerts.notifiers import alertmanager
from opsboard.core.deliveries import Delivery
from opsboard.core.secret import Secret
from tests.support.herd import free_port
from tests.support.messages import ABOUT, LEAK, delivery
from tests.support.receiver import receiver
from tests.support.waiting import wait_until

BINARY = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
DEADLINE_S = 30.0
pytestmark = pytest.mark.skipif(BINARY is None, reason="no Alertmanager here (Debian: prometheus-alertmanager)")


@contextmanager
def running(place: Path, hook: str) -> Iterator[int]:
    port = free_port()
    config = place / "alertmanager.json"
    route = {"receiver": "us", "group_wait": "0s", "group_interval": "1s", "group_by": ["incident"]}
    receivers = [{"name": "us", "webhook_configs": [{"url": hook, "send_resolved": True}]}]
    config.write_text(json.dumps({"route": route, "receivers": receivers}))
    command = [
        str(BINARY),
        f"--config.file={config}",
        f"--storage.path={place / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(port), DEADLINE_S, "Alertmanager answers")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    try:
        return bool(_get(port, "status"))
    except OSError:
        return False


def _get(port: int, what: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/{what}", timeout=5) as answer:
        return json.load(answer)


def push(port: int, one: Delivery) -> None:
    params = alertmanager.Params(url=Secret(f"http://127.0.0.1:{port}"))
    (request,) = alertmanager.render(params, one)
    assert isinstance(request, Http)
    asked = urllib.request.Request(request.url.reveal(), request.body, dict(request.headers), method="POST")
    with urllib.request.urlopen(asked, timeout=5) as answer:
        status = answer.status
    assert alertmanager.NOTIFIER.classify(params, Answer(status=status)) == Sent()


@pytest.mark.timeout(90)
def test_a_real_alertmanager_takes_the_push_and_tells_of_it(tmp_path: Path) -> None:
    now = time.time()
    leak = replace(LEAK, since=now - 600, opened=now - 500)
    with receiver() as service, running(tmp_path, service.url) as port:
        push(port, delivery(message(leak, "trigger", "opened", ABOUT, now), at=now))
        wait_until(lambda: service.requests, DEADLINE_S, "it tells its receivers")
        told = service.bodies[0]
        assert (told["version"], told["status"]) == ("4", "firing")
        (one,) = told["alerts"]
        assert one["labels"]["alertname"] == "kv_leak"
        assert one["labels"]["engine"] == "vllm-a"
        assert "214 KV blocks" in one["annotations"]["summary"]
        push(port, delivery(message(leak, "update", "still so", ABOUT, now), at=now + 60, seq=2))
        assert len(_get(port, "alerts")) == 1, "the same alert, not another one"
        over = replace(leak, ended=now, resolved=now)
        push(port, delivery(message(over, "resolve", "over", ABOUT, now), at=now + 61, seq=3))
        wait_until(lambda: service.bodies[-1]["status"] == "resolved", DEADLINE_S, "its end is told")
