"""What the service manager hears."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import pytest

from opsboard.daemon.notify import Notifier


def heard(address: str, path: str) -> list[str]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        notifier.ready("8 engines")
        notifier.reloading(12.5)
        notifier.status("two\nlines")
        notifier.feed()
        notifier.stopping()
        messages = []
        while True:
            try:
                messages.append(manager.recv(4096).decode())
            except BlockingIOError:
                return messages


EXPECTED = [
    "READY=1\nSTATUS=8 engines",
    "RELOADING=1\nMONOTONIC_USEC=12500000",
    "STATUS=two\N{REPLACEMENT CHARACTER}lines",
    "WATCHDOG=1",
    "STOPPING=1",
]


def test_a_socket_in_the_file_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # short names only: a socket's path has 107 bytes
    path = f"/tmp/ob-{uuid.uuid4().hex}"
    try:
        assert heard(path, path) == EXPECTED
    finally:
        Path(path).unlink()


def test_an_abstract_socket() -> None:
    name = f"opsboard-{uuid.uuid4().hex}"
    assert heard(f"\0{name}", f"@{name}") == EXPECTED


def test_nobody_listens() -> None:
    Notifier({}).ready("fine")
    gone = Notifier({"NOTIFY_SOCKET": "/nonexistent/notify"})
    assert gone.active
    gone.ready("fine")


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "42"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_of_this_process(env: dict[str, str], expected: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "@x", **env}, pid=42).watchdog_s == expected
    assert Notifier(env, pid=42).watchdog_s is None
