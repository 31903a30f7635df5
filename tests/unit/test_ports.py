"""Who answers at an engine's port: the engine, or somebody in its place."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from opsboard.supervise import ports
from opsboard.supervise.adopt import survivors
from opsboard.supervise.processes import Process, look
from opsboard.supervise.who import who


def this() -> Process:
    found = look(os.getpid())
    assert found is not None
    return found


def parent() -> Process:
    found = look(os.getppid())
    assert found is not None
    return found


def test_an_engine_answers_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert ports.stranger_at(url, lambda: [this()]) is None
        assert ports.stranger_at(url, lambda: survivors([parent()])) is None, "a process of its family"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_somebody_else_is_named(address: str) -> None:
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        told = ports.stranger_at(f"http://localhost:{port}", lambda: [parent()])
        assert told == f"port {port} is answered by {who(os.getpid())}, not ours"


def test_what_cannot_be_told_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert ports.stranger_at(url, list) is None, "no process of it is known"
        docker = parent()._replace(name="docker")
        assert ports.stranger_at(url, lambda: [docker]) is None, "what it runs is elsewhere"
        assert ports.stranger_at(url.replace("127.0.0.1", "gpu7"), lambda: [parent()]) is None, "another host"
        space = ports._space
        monkeypatch.setattr(ports, "_space", lambda pid: "pid:[1]" if pid == os.getpid() else space(pid))
        assert ports.stranger_at(url, lambda: [parent()]) is None, "a container of the host's network"
    assert ports.stranger_at(url, lambda: [parent()]) is None, "nobody listens"


def test_another_address_of_the_host_is_not_ours_to_judge() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        assert ports.stranger_at(f"http://127.0.0.1:{server.getsockname()[1]}", lambda: [parent()]) is None


def test_who_listens_is_found_among_all_who_hold_the_socket() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        url = f"http://[::1]:{port}"
        assert ports.listener(url) == this()
        told = f"port {port} is answered by {who(os.getpid())}, not ours"
        assert ports.stranger_at(url, lambda: [parent()]) == told
        with subprocess.Popen(["sleep", "60"], pass_fds=[server.fileno()]) as child:
            try:
                shared = look(child.pid)
                assert shared is not None
                assert ports.stranger_at(url, lambda: [shared]) is None, "it holds it, whoever else does"
                assert ports.listener(url) == this(), "the oldest"
            finally:
                child.kill()
    assert ports.listener(url) is None


def test_a_port_that_somebody_is_still_connected_from_is_free() -> None:
    """An engine may bind it again; a port that is only bound must be told apart from that."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = server.accept()
    with client, served:
        assert ports.taken_by(port) is None
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert "does not listen yet" in (ports.taken_by(bound.getsockname()[1]) or "")
