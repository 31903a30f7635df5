"""A real daemon process, real pages, real SQLite, real signals."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from opsboard.core.errors import BadRequest, ConfigError, Conflict, ControlError, Denied, NotReachable
from tests.support.herd import free_port
from tests.support.house import START_S, House
from tests.support.page_engine import ROOT, page_engines
from tests.support.waiting import wait_until


def observed(name: str, port: int) -> str:
    return f'name = "{name}"\nurl = "http://127.0.0.1:{port}"'


def test_the_straight_path_and_a_clean_end(house: House) -> None:
    with page_engines(2) as ports:
        house.write(observed("a", ports[0]), observed("b", ports[1]))
        daemon = house.start()
        wait_until(lambda: all(e.generation_tokens_per_s is not None for e in house.client.status().engines))
        status = house.client.status()
        a = status.engines[0]
        assert (a.kind, a.version, a.reading.outcome) == ("vllm", "0.32.0", "OK")
        assert a.ttft_p95_s is not None
        assert a.kv_usage is not None
        assert (status.host, status.daemon.recorded, status.daemon.dropped) == ("house", True, 0)
        assert status.system is not None
        assert status.system.memory_total_bytes
        assert status.gpus or status.gpu_message
        assert "ttft" in house.client.engine("a").latencies
        assert "engine/a/generation_tokens" in wait_until(house.client.series)
        assert house.end(daemon) == 0
        assert not house.socket.exists()
        with pytest.raises(NotReachable):
            house.client.status()


@pytest.mark.parametrize("trouble", ["socket", "exporter"])
def test_a_daemon_that_could_not_be_reached_starts_no_engine(house: House, trouble: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        house.write()
        if trouble == "socket":
            house.start()
        house.state = house.root / "other-state"
        mark = house.root / "engine-ran"
        listen = f'[exporter]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n' if trouble == "exporter" else ""
        engine = f'url = "http://127.0.0.1:{free_port()}"\ncommand = ["/usr/bin/touch", "{mark}"]\nautostart = true'
        house.write(f'name = "a"\n{engine}', rest=listen)
        assert house.spawn().wait(START_S) in {1, 2}
        assert {"socket": "another process serves", "exporter": "xporter"}[trouble] in house.log.read_text()
        assert not mark.exists()


def test_a_start_that_fails_at_once_is_told_at_once(house: House) -> None:
    house.write('name = "a"\ncommand = ["no-such-engine"]')
    house.start()
    verb = [sys.executable, "-m", "opsboard", "--socket", str(house.socket), "engine", "start", "a"]
    for options in ([], ["--wait"]):
        asked = subprocess.run(
            [*verb, *options], cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False
        )
        assert asked.returncode == 1
        assert "command not found: no-such-engine" in asked.stderr
        assert "accepted" not in asked.stdout


def test_all_engines_are_started_and_stopped_together(house: House) -> None:
    ports = [free_port() for _ in range(2)]
    sim = [sys.executable, "-m", "opsboard", "sim", "--startup-seconds", "0.2", "--port"]
    engines = [f'name = "s{n}"\ncommand = {json.dumps([*sim, str(port)])}' for n, port in enumerate(ports)]
    house.write(*engines, f'name = "bad"\ncommand = ["no-such-engine"]\nurl = "http://127.0.0.1:{free_port()}"')
    house.start()
    verb = [sys.executable, "-m", "opsboard", "--socket", str(house.socket), "engine"]

    def ask(kind: str) -> subprocess.CompletedProcess[str]:
        words = [*verb, kind, "--all", "--wait"]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False)

    try:
        started = ask("start")
        assert started.returncode == 1
        assert sorted(started.stdout.split("\n")) == ["", "s0: ready", "s1: ready"]
        assert "start failed for 1 of 3 engines: bad" in started.stderr
        assert "command not found: no-such-engine" in started.stderr
    finally:
        stopped = ask("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert sorted(stopped.stdout.split()) == sorted(["s0:", "s1:", "bad:", *["stopped"] * 3])


def test_an_engine_dies_and_comes_back(house: House) -> None:
    with page_engines(1) as ports:
        house.write(observed("a", ports[0]))
        house.start()
        wait_until(lambda: house.is_ready("a"))
    wait_until(lambda: house.engine("a").state == "unreachable")
    gone = house.engine("a")
    assert gone.reading.outcome == "FAILED"
    assert gone.kv_usage is not None, "the last good values are kept"
    with page_engines(1, ports):
        wait_until(lambda: house.is_ready("a"))
        back = house.engine("a")
        assert (back.state, back.restarts, back.restarted) == ("ready", 1, True)
        assert back.generation_tokens_per_s is None, "withheld until the new process was read twice"
    # Whether a detector claims that it is down depends on how soon it came back.
    kinds = [kind for subject, kind in house.events() if subject == "engine/a" and kind != "engine_down"]
    assert kinds[:3] == ["unreachable", "ready", "restarted"]


def test_kill_9_and_restart_keep_the_history(house: House) -> None:
    with page_engines(1) as ports:
        house.write(observed("a", ports[0]))
        daemon = house.start()
        wait_until(lambda: house.is_ready("a"))
        first = house.client.status().time
        wait_until(lambda: house.client.history("engine/a/up", first - 60, first + 60, 1).points)
        wait_until(lambda: house.client.status().time > first + 3)
        assert house.end(daemon, signal.SIGKILL) == -signal.SIGKILL
        assert house.socket.exists(), "the stale socket stays"
        house.start()
        wait_until(lambda: house.is_ready("a"))
        points = house.client.history("engine/a/up", first - 60, first + 60, 1).points
        assert sum(point.t < first + 1 for point in points) >= 1
        assert ("host", "daemon") in house.events()


def test_a_second_daemon_is_refused_plainly(house: House) -> None:
    house.write()
    first = house.start()
    second = house.spawn()
    assert second.wait(START_S) == 1
    assert f"pid {first.pid}" in house.log.read_text()
    assert "Traceback" not in house.log.read_text()
    assert house.answers(first)


def test_a_good_reload_is_applied_and_a_bad_one_refused_whole(house: House) -> None:
    with page_engines(2) as ports:
        house.write(observed("a", ports[0]))
        daemon = house.start()
        wait_until(lambda: house.is_ready("a"))
        house.write(observed("a", ports[0]), observed("b", ports[1]))
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: len(house.client.status().engines) == 2)
        assert house.engine("a").model == "tiny", "what is known of a stays"
        wait_until(lambda: house.is_ready("b"))
        with pytest.raises(Conflict, match="b is observed"):
            house.client.action("b", "stop")
        house.config.write_text("[[engine]]\nnam = 'x'\n")
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: ("host", "reload_refused") in house.events())
        with pytest.raises(BadRequest, match="unknown key") as wrong:
            house.client.reload()
        assert wrong.value.exit_code == 2
        assert [engine.name for engine in house.client.status().engines] == ["a", "b"]
        house.write(observed("a", ports[0]), rest='[control]\nsocket = "/tmp/elsewhere.sock"\n')
        with pytest.raises(Conflict, match=r"\[control\] socket"):
            house.client.reload()
        house.write(observed("b", ports[1]))
        house.client.reload()
        assert [engine.name for engine in house.client.status().engines] == ["b"]
        assert ("host", "reloaded") in house.events()


def test_the_exporter(house: House) -> None:
    port, other = free_port(), free_port()
    with page_engines(1) as ports, socket.create_server(("127.0.0.1", 0)) as taken:
        house.write(observed("a", ports[0]), rest=f'[exporter]\nlisten = "127.0.0.1:{port}"\n')
        house.start()
        wait_until(lambda: house.is_ready("a"))
        text = fetch(f"http://127.0.0.1:{port}/metrics")
        assert 'opsboard_engine_up{engine="a",host="house",model="tiny"} 1.0' in text
        for name in (
            "opsboard_host_load1",
            "opsboard_daemon_resident_memory_bytes",
            "opsboard_engine_kv_usage_ratio",
        ):
            assert f"\n{name}{{" in text
        busy = taken.getsockname()[1]
        house.write(observed("a", ports[0]), rest=f'[exporter]\nlisten = "127.0.0.1:{busy}"\n')
        with pytest.raises(ControlError, match="cannot listen"):
            house.client.reload()
        assert fetch(f"http://127.0.0.1:{port}/metrics")
        house.write(observed("a", ports[0]), rest=f'[exporter]\nlisten = "127.0.0.1:{other}"\n')
        house.client.reload()
        assert fetch(f"http://127.0.0.1:{other}/metrics")
        with pytest.raises(OSError, match="refused"):
            fetch(f"http://127.0.0.1:{port}/metrics")


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as reply:
        text: str = reply.read().decode()
    return text


def test_an_exporter_port_that_is_taken(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        house.write(rest=f'[exporter]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n')
        assert house.spawn().wait(START_S) == ConfigError.exit_code
    assert "cannot listen on" in house.log.read_text()
    assert "Traceback" not in house.log.read_text()


def test_the_service_manager_is_told(house: House) -> None:
    house.write()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = house.root / "notify"
        manager.bind(str(address))
        manager.settimeout(START_S)
        daemon = house.spawn(env={"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "1500000"})
        heard: list[str] = []

        def hear(expected: str) -> None:
            while not any(expected in message for message in heard):
                heard.append(manager.recv(4096).decode())

        hear("READY=1")
        hear("WATCHDOG=1")
        daemon.send_signal(signal.SIGHUP)
        hear("RELOADING=1")
        assert house.answers(daemon)
        daemon.terminate()
        hear("STOPPING=1")
        assert daemon.wait(START_S) == 0


def test_a_private_daemon_looks_and_ends_with_its_parent(house: House) -> None:
    with page_engines(1) as ports, subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as parent:
        url = f"http://127.0.0.1:{ports[0]}"
        daemon = house.start("--private", "--url", url, "--parent-pid", str(parent.pid), config=False)
        name = f"127.0.0.1:{ports[0]}"
        wait_until(lambda: house.is_ready(name))
        assert house.client.status().daemon.read_only
        with pytest.raises(Denied, match="only looks"):
            house.client.action(name, "stop")
        parent.kill()
        assert daemon.wait(START_S) == 0


def test_an_engine_is_started_outlives_daemons_and_is_stopped(house: House) -> None:
    port = free_port()
    command = [sys.executable, "-m", "opsboard", "sim", "--port", str(port), "--startup-seconds", "0.2"]
    house.write(f'name = "s"\ncommand = {json.dumps(command)}\nurl = "http://127.0.0.1:{port}"\nstop_timeout = "5s"')
    daemon = house.start()
    assert house.engine("s").state == "stopped"
    house.client.action("s", "start", "by a test")
    try:
        wait_until(lambda: house.engine("s").state == "ready", START_S)
        wait_until(lambda: house.engine("s").reading.outcome == "OK")
        pid = house.engine("s").pid
        assert house.end(daemon) == 0
        assert pid is not None
        assert Path(f"/proc/{pid}").exists()
        daemon = house.start()
        assert (house.engine("s").pid, house.engine("s").state) == (pid, "ready")
        assert house.end(daemon, signal.SIGKILL) == -signal.SIGKILL
        house.write(f'name = "s"\ncommand = {json.dumps(command)}\nurl = "http://127.0.0.1:{free_port()}"')
        house.start()
        assert (house.engine("s").pid, house.engine("s").state) == (pid, "ready")
        wait_until(lambda: house.is_ready("s"), what="it is read where it listens, not where its next life will")
        wait_until(lambda: any(series.startswith("process/s:") for series in house.client.series()))
        assert any("Application startup complete" in line for line in house.client.logs("s", 500))
        house.write()
        with pytest.raises(ControlError, match="s: still running"):
            house.client.reload()
    finally:
        house.client.action("s", "stop")
        wait_until(lambda: house.engine("s").state == "stopped", START_S)
    assert not Path(f"/proc/{pid}").exists()
    told = [event.text for event in house.client.engine("s").events]
    assert any(text.startswith("start asked by uid") and text.endswith("by a test") for text in told)
    assert "starting → ready" in told


def test_a_recording_holds_what_was_read(house: House) -> None:
    with page_engines(1) as ports:
        house.write(observed("a", ports[0]))
        house.start()
        wait_until(lambda: house.is_ready("a"))
        lines: list[dict[str, Any]] = []
        for line in house.client.record():
            lines.append(json.loads(line))
            if len(lines) == 3:
                break
    assert [(line["engine"], line["kind"]) for line in lines] == [("a", "vllm")] * 3
    assert all("vllm:num_requests_running" in line["metrics"] for line in lines)
    assert lines[0]["host"]["memory_total"] > 0
    times = [line["t"] for line in lines]
    assert times == sorted(times)


def test_a_state_directory_that_cannot_be_made(house: House) -> None:
    house.write()
    house.state.write_text("a file")
    assert house.spawn().wait(START_S) in {1, 2}
    text = house.log.read_text()
    assert str(house.state) in text
    assert "Traceback" not in text
