"""The simulated engine as real processes: what it serves, how it dies, what it leaves, and each fault at work."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from opsboard.sim.faults import CATALOGUE
from opsboard.sim.traffic import Mix, Traffic
from tests.support.sim_process import SimProcess, gone, rss_anon, simulated
from tests.support.waiting import NeverHappened, wait_until

FAST = ("--step-ms", "2")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimProcess]:
    """One engine for the tests that leave it as it was."""
    with simulated(tmp_path_factory.mktemp("sim"), *FAST) as running:
        yield running


@pytest.fixture
def healed(engine: SimProcess) -> Iterator[SimProcess]:
    """The same engine for tests that break it in ways that end."""
    yield engine
    engine.clear_faults()


def settled(engine: SimProcess, name: str, value: float) -> bool:
    return wait_until(lambda: engine.value(name) == value, what=f"{name} is {value}")


# -- serving


def test_processes_have_the_names_of_the_real_ones(engine: SimProcess) -> None:
    assert Path(f"/proc/{engine.core.pid}/comm").read_text() == "VLLM::EngineCor\n"
    assert engine.core.cmdline()[0] == "VLLM::EngineCore"
    assert engine.core.ppid() == engine.process.pid


def test_small_endpoints_answer_as_vllm_does(engine: SimProcess) -> None:
    assert engine.request("GET", "/health") == (200, b"")
    assert engine.request("POST", "/ping") == (200, b"")
    assert engine.request("GET", "/version")[1] == b'{"version":"0.32.0"}'
    assert engine.request("GET", "/load")[1] == b'{"server_load":0}'
    assert json.loads(engine.request("GET", "/v1/models")[1])["data"][0]["id"] == "sim-7b"
    assert json.loads(engine.request("POST", "/tokenize", {"prompt": "hello world"})[1])["count"] == 3
    assert engine.request("GET", "/nope") == (404, b'{"detail":"Not Found"}')
    assert engine.request("GET", "/v1/completions")[0] == 405
    assert engine.request("POST", "/v1/completions", {"prompt": "x", "model": "y"})[0] == 404


def test_the_same_prompt_gets_the_same_answer_and_the_page_counts_it(engine: SimProcess) -> None:
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:time_to_first_token_seconds_count")
    before = [engine.value(name) for name in names]
    one, two = (engine.complete("tell me a story", 5) for _ in range(2))
    assert one["choices"] == two["choices"]
    assert one["usage"] == {"prompt_tokens": 4, "total_tokens": 9, "completion_tokens": 5}
    assert [engine.value(name) for name in names] == [before[0] + 8, before[1] + 10, before[2] + 2]
    settled(engine, "vllm:kv_cache_usage_perc", 0.0)
    assert engine.value("http_requests_total") > 0


def test_a_stream_is_server_sent_events_of_whole_tokens(engine: SimProcess) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "ignore_eos": True, "stream": True}
    status, data = engine.request("POST", "/v1/chat/completions", body)
    events = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
    assert status == 200
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert chunks[0]["delta"] == {"role": "assistant", "content": ""}
    sizes = [len(chunk["delta"]["content"]) for chunk in chunks[1:]]
    assert [size % 4 for size in sizes] == [0] * len(sizes), "a late front end sends several at once, as vLLM's does"
    assert sum(sizes) == 4 * 4
    assert chunks[-1]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_blocks_and_counts_in_no_finish_reason(engine: SimProcess, stream: bool) -> None:
    settled(engine, "vllm:num_requests_running", 0.0)
    finished = engine.value("vllm:request_success_total")
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
    body = {"prompt": "x" * 400, "max_tokens": 4000, "ignore_eos": True, "stream": stream}
    connection.request("POST", "/v1/completions", json.dumps(body))
    settled(engine, "vllm:num_requests_running", 1.0)
    assert engine.value("vllm:kv_cache_usage_perc") > 0
    connection.close()
    settled(engine, "vllm:num_requests_running", 0.0)
    assert engine.value("vllm:kv_cache_usage_perc") == 0.0
    assert engine.value("vllm:request_success_total") == finished


def test_the_clients_truth_and_the_page_agree(engine: SimProcess) -> None:
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total")
    before = [engine.value(name) for name in names]
    gaps = engine.value("vllm:inter_token_latency_seconds_count")
    mix = Mix(prompt_median=40, output_median=12, stream_share=1.0)
    traffic = Traffic(f"http://127.0.0.1:{engine.port}", 40.0, seed=3, mix=mix)
    truth = asyncio.run(asyncio.wait_for(traffic.run(1.0), 25))
    assert truth.failed == truth.running == truth.skipped == 0
    assert truth.finished == truth.sent == len(truth.requests) > 20
    after = [engine.value(name) for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [
        truth.prompt_tokens,
        truth.generation_tokens,
        truth.finished,
    ]
    moved = engine.value("vllm:inter_token_latency_seconds_count") - gaps
    assert moved == truth.generation_tokens - truth.finished
    assert all(one.first is not None and one.sent < one.first <= (one.last or 0) for one in truth.requests)
    # On a busy machine one chunk may bring two tokens, as vLLM's do.
    assert all(len(one.gaps) <= (one.tokens or 0) - 1 for one in truth.requests)


def test_clients_that_leave_are_known_to_the_truth_and_leave_no_block(engine: SimProcess) -> None:
    mix = Mix(prompt_median=40, output_median=200, stream_share=1.0, abort_share=1.0, ignore_eos=True)
    traffic = Traffic(f"http://127.0.0.1:{engine.port}", 40.0, seed=4, mix=mix)
    truth = asyncio.run(asyncio.wait_for(traffic.run(0.4), 25))
    assert truth.failed == 0
    assert truth.aborted > 5
    assert truth.aborted + truth.finished == truth.sent
    settled(engine, "vllm:num_requests_running", 0.0)
    settled(engine, "vllm:kv_cache_usage_perc", 0.0)


# -- starting and ending


def test_until_it_is_ready_the_port_is_taken_and_nobody_answers(tmp_path: Path) -> None:
    with simulated(tmp_path, "--fault", "never_ready", ready=False) as engine:
        assert engine.core.is_running()
        # Its front end has a word to say only when it can be asked to end.
        both = ("(APIServer", "Loading weights took")
        wait_until(lambda: all(part in engine.text() for part in both), what="half of the start")
        assert engine.process.poll() is None
        assert "Available routes" not in engine.text()
        assert engine.stop() == 0
        assert gone(engine.core)


def test_a_port_that_says_it_serves_and_does_not_listen(tmp_path: Path) -> None:
    with simulated(tmp_path, "--fault", "port_bound_not_listening", ready=False) as engine:
        wait_until(lambda: "Application startup complete" in engine.errors.read_text(), what="a word of readiness")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", engine.port), timeout=5)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", engine.port))


def test_a_failed_start_says_why_and_exits_1(tmp_path: Path) -> None:
    with simulated(tmp_path, "--fault", "fail_start", ready=False) as engine:
        assert engine.process.wait(20) == 1
        assert "No available memory for the cache blocks" in engine.text()
        assert "Engine core initialization failed" in engine.errors.read_text()


def test_a_taken_port_and_impossible_options_are_told(tmp_path: Path, engine: SimProcess) -> None:
    base = [sys.executable, "-m", "opsboard", "sim"]
    taken = subprocess.run(
        [*base, "--port", str(engine.port)], capture_output=True, text=True, timeout=20, check=False, cwd=tmp_path
    )
    assert (taken.returncode, "Address already in use" in taken.stderr) == (1, True)
    wrong = subprocess.run(
        [*base, "--profile", "vllm-99"], capture_output=True, text=True, timeout=20, check=False, cwd=tmp_path
    )
    assert (wrong.returncode, "vllm-0.32" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(("profile", "ending"), [("vllm-0.32", b'"finish_reason":"abort"'), ("vllm-0.16", b"")])
def test_sigterm_ends_what_is_under_way_and_both_processes_with_code_0(
    tmp_path: Path, profile: str, ending: bytes
) -> None:
    with simulated(tmp_path, profile=profile) as engine:
        connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
        body = {"prompt": "x", "max_tokens": 8000, "ignore_eos": True, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body))
        response = connection.getresponse()
        assert response.read(10)
        assert engine.stop() == 0
        data = b""
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            data = response.read()
        assert ending in data
        assert gone(engine.core)
        connection.close()


def test_the_death_of_enginecore_is_503_and_then_exit_0(tmp_path: Path) -> None:
    with simulated(tmp_path) as engine:
        engine.core.kill()
        wait_until(lambda: engine.request("GET", "/health")[0] == 503, what="503")
        assert engine.request("GET", "/v1/models")[0] == 200
        assert engine.request("GET", "/metrics")[0] == 200
        assert engine.process.wait(10) == 0
        assert "engine core exited unexpectedly" in engine.text()


def test_a_request_to_a_dead_engine_gets_500_and_ends_the_server_at_once(tmp_path: Path) -> None:
    with simulated(tmp_path) as engine:
        engine.set_fault("engine_death")
        wait_until(lambda: engine.request("GET", "/health")[0] == 503, what="503")
        assert engine.request("POST", "/v1/completions", {"prompt": "x"})[0] == 500
        assert engine.process.wait(4) == 0
        assert "EngineCore encountered a fatal error" in engine.text()


def test_a_stream_cut_by_the_death_of_the_engine_ends_with_an_error(tmp_path: Path) -> None:
    with simulated(tmp_path) as engine:
        connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=10)
        body = {"prompt": "x", "max_tokens": 8000, "ignore_eos": True, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body))
        response = connection.getresponse()
        assert response.read(10)
        engine.core.kill()
        assert b'data: {"error":' in response.read()
        assert response.status == 200
        connection.close()


def test_before_0_10_1_the_death_of_enginecore_goes_unnoticed(tmp_path: Path) -> None:
    with simulated(tmp_path, profile="vllm-0.8.5") as engine:
        engine.core.kill()
        wait_until(lambda: gone(engine.core), what="the end of EngineCore")
        assert engine.request("GET", "/health")[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=0.5)
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "x"}))
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()
        assert engine.request("GET", "/health")[0] == 200


def test_kill_9_of_the_front_end_leaves_an_orphan_that_sigterm_ends(tmp_path: Path) -> None:
    with simulated(tmp_path) as engine:
        engine.process.kill()
        engine.process.wait(10)
        assert engine.core.is_running()
        assert engine.core.name() == "VLLM::EngineCore"
        with pytest.raises(NeverHappened):
            wait_until(lambda: gone(engine.core), 0.3)
        os.kill(engine.core.pid, signal.SIGTERM)
        wait_until(lambda: gone(engine.core), what="the end of EngineCore")


# -- faults while it runs


def test_faults_are_set_listed_and_cleared(healed: SimProcess) -> None:
    healed.set_fault("slow_step", 3.0)
    healed.set_fault("metrics_500")
    assert json.loads(healed.request("GET", "/sim/faults")[1]) == {"faults": {"slow_step": 3.0, "metrics_500": 1.0}}
    assert healed.request("DELETE", "/sim/faults?name=metrics_500")[0] == 200
    assert json.loads(healed.request("GET", "/sim/faults")[1]) == {"faults": {"slow_step": 3.0}}
    assert healed.request("POST", "/sim/faults", {"name": "nope"})[0] == 404
    assert healed.request("POST", "/sim/faults", {"name": "never_ready"})[0] == 409
    assert healed.request("POST", "/sim/faults", {"nome": "leak"})[0] == 400
    assert healed.request("DELETE", "/sim/faults?name=nope")[0] == 404


def test_a_leak_shows_as_usage_on_an_idle_engine(tmp_path: Path) -> None:
    with simulated(tmp_path, *FAST, "--fault", "leak=2") as engine:
        for number in range(5):
            engine.complete(f"prompt number {number} " * 10, 3)
        settled(engine, "vllm:num_requests_running", 0.0)
        assert engine.value("vllm:kv_cache_usage_perc") == pytest.approx(10 / 699)


def test_a_hang_stops_every_token_and_leaves_health_alone(healed: SimProcess) -> None:
    healed.set_fault("hang")
    connection = http.client.HTTPConnection("127.0.0.1", healed.port, timeout=10)
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": 3}))
    steps = healed.value("vllm:iteration_tokens_total_count")
    assert connection.sock is not None
    connection.sock.settimeout(0.4)
    with pytest.raises(TimeoutError):
        connection.getresponse()
    assert healed.request("GET", "/health")[0] == 200
    assert healed.value("vllm:iteration_tokens_total_count") == steps
    connection.close()


def test_a_hang_that_is_cleared_goes_on(healed: SimProcess) -> None:
    healed.set_fault("hang")
    connection = http.client.HTTPConnection("127.0.0.1", healed.port, timeout=10)
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": 3}))
    healed.clear_faults()
    assert connection.getresponse().status == 200
    connection.close()


def test_stale_gauges_stay_while_counters_go_on(healed: SimProcess) -> None:
    settled(healed, "vllm:num_requests_running", 0.0)
    connection = http.client.HTTPConnection("127.0.0.1", healed.port, timeout=10)
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": 100, "ignore_eos": True}))
    settled(healed, "vllm:num_requests_running", 1.0)
    healed.set_fault("stale_gauges")
    assert connection.getresponse().read()
    connection.close()
    assert healed.value("vllm:num_requests_running") == 1.0
    assert healed.complete("another")["usage"]["completion_tokens"] > 0
    assert healed.value("vllm:num_requests_running") == 1.0


def test_pages_break_in_every_way(healed: SimProcess) -> None:
    whole = len(healed.page())
    healed.set_fault("metrics_500")
    assert healed.request("GET", "/metrics")[0] == 500
    healed.clear_faults()
    healed.set_fault("metrics_cut", 0.3)
    assert len(healed.page()) == pytest.approx(0.3 * whole, rel=0.01)
    healed.clear_faults()
    healed.set_fault("metrics_truncated")
    with pytest.raises(http.client.IncompleteRead):
        healed.page()
    healed.clear_faults()
    healed.set_fault("metrics_huge", 5.0)
    assert len(healed.page()) > 5 * 2**20
    healed.clear_faults()
    healed.set_fault("metrics_slow", 0.2)
    assert len(healed.page()) > whole // 2


def test_a_host_leak_is_real_memory_of_enginecore(tmp_path: Path) -> None:
    with simulated(tmp_path) as engine:
        before = rss_anon(engine.core.pid)
        engine.set_fault("host_leak", 3000.0)
        wait_until(lambda: rss_anon(engine.core.pid) > before + 20 * 2**20, what="20 MB more")


def test_log_spam_fills_the_log(tmp_path: Path) -> None:
    with simulated(tmp_path) as engine:
        engine.set_fault("log_spam", 20.0)
        wait_until(lambda: engine.log.stat().st_size > 4 * 2**20, what="4 MB of log")
        engine.clear_faults()
        assert engine.request("GET", "/health")[0] == 200


def test_the_manual_names_every_fault() -> None:
    manual = (Path(__file__).parents[2] / "docs/simulator.md").read_text()
    assert [name for name in CATALOGUE if f"`{name}`" not in manual] == []


def test_traffic_ends_with_its_parent(tmp_path: Path, engine: SimProcess) -> None:
    script = (
        "import subprocess, sys, time\n"
        "argv = [sys.executable, '-m', 'opsboard.sim.traffic', '--url', sys.argv[1], '--rate', '5']\n"
        "child = subprocess.Popen(argv)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    url = f"http://127.0.0.1:{engine.port}"
    with subprocess.Popen(
        [sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        before = engine.value("vllm:generation_tokens_total")
        try:
            wait_until(lambda: engine.value("vllm:generation_tokens_total") > before, what="traffic")
        except NeverHappened:
            child.kill()
            raise
        finally:
            parent.kill()
        wait_until(lambda: gone(child), what="the end of traffic")
