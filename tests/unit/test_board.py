"""What the board shows of a state."""

from __future__ import annotations

import msgspec
import pytest

from opsboard.core.clock import ManualClock
from opsboard.core.errors import NotFound
from opsboard.core.model import (
    EngineReading,
    EngineState,
    EngineView,
    GpuProcess,
    GpuReading,
    GpuView,
    Histogram,
    HostReading,
    HostView,
    LifeView,
    Outcome,
    Phase,
    ProcessReading,
    ProcessView,
)
from opsboard.core.wire import DaemonInfo, Status
from opsboard.daemon.board import BOARD_EVENTS, detail, status
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed

DAEMON = DaemonInfo(version="0", pid=1, started=0.0)
BOUNDS = (0.1, 0.2, 0.4, float("inf"))


def reading(n: int) -> EngineReading:
    """A steady engine after ``n`` seconds: 10 requests a second, a tenth failing; half of the prefixes cached."""
    return EngineReading(engine="a", outcome=Outcome.OK, view=view_of(n))


def view_of(n: int) -> EngineView:
    counts = (0.0, 8.0 * n, 10.0 * n, 10.0 * n)
    return EngineView(
        kind="vllm",
        model="llama",
        version="0.32.0",
        running=4.0,
        waiting=0.0,
        kv_usage=0.25,
        kv_capacity_tokens=1000.0,
        process_start=50.0,
        counters={
            "generation_tokens": 500.0 * n,
            "requests_finished": 9.0 * n,
            "requests_failed": 1.0 * n,
            "prefix_queries": 100.0 * n,
            "prefix_hits": 50.0 * n,
            "preemptions": 0.0,
        },
        histograms={"ttft": Histogram(bounds=BOUNDS, counts=counts, total=1.5 * n)},
        finished={"stop": 9.0 * n},
        aliases={"running": "vllm:num_requests_running"},
    )


def steady(seconds: int = 70) -> tuple[PipelineState, ManualClock]:
    clock = ManualClock()
    state = PipelineState("gpu-a", [EngineSpec(name="a", url="http://127.0.0.1:1", command=("serve",))])
    for n in range(seconds):
        feed(state, reading(n), clock.advance(1.0))
    return state, clock


def test_rates_and_latencies_are_over_the_last_minute() -> None:
    state, clock = steady()
    (engine,) = status(state, DAEMON, clock.now()).engines
    assert engine.state == "ready"
    assert (engine.kind, engine.model, engine.version, engine.started) == ("vllm", "llama", "0.32.0", 50.0)
    assert (engine.running, engine.waiting, engine.kv_usage) == (4.0, 0.0, 0.25)
    assert engine.generation_tokens_per_s == pytest.approx(500.0)
    assert engine.requests_per_s == pytest.approx(9.0)
    assert engine.errors_per_s == pytest.approx(1.0)
    assert engine.error_ratio == pytest.approx(0.1)
    assert engine.prefix_hit_ratio == pytest.approx(0.5)
    assert engine.preemptions_per_s == 0.0
    assert engine.ttft_p50_s == pytest.approx(0.1625)
    assert engine.ttft_p95_s == pytest.approx(0.35)
    assert engine.reading.outcome == "OK"
    assert engine.reading.age_s == 0.0


def test_latencies_that_the_histogram_cannot_tell_well_carry_their_bounds() -> None:
    state, clock = steady()
    (engine,) = status(state, DAEMON, clock.now()).engines
    assert engine.latency_bounds == {}
    spec = [EngineSpec(name="a", url="http://127.0.0.1:1")]
    state, clock = PipelineState("gpu-a", spec), ManualClock()
    for n in range(70):
        quick = Histogram(bounds=BOUNDS, counts=(10.0 * n,) * 4, total=None)
        slow = Histogram(bounds=BOUNDS, counts=(0.0, 8.0 * n, 8.0 * n, 10.0 * n), total=None)
        view = msgspec.structs.replace(view_of(n), histograms={"queue": quick, "e2e": slow})
        feed(state, EngineReading(engine="a", outcome=Outcome.OK, view=view), clock.advance(1.0))
    (engine,) = status(state, DAEMON, clock.now()).engines
    assert engine.latency_bounds == {"queue_p95_s": (0.0, 0.1), "e2e_p95_s": (0.4, None)}
    assert engine.queue_p95_s == pytest.approx(0.095), "values stay as Prometheus has them"
    assert engine.e2e_p95_s == 0.4
    assert status(state, DAEMON, clock.advance(400.0)).engines[0].latency_bounds == {}


def test_unknown_is_null_and_never_zero() -> None:
    state, clock = steady()
    (engine,) = status(state, DAEMON, clock.now()).engines
    for name in (
        "itl_p50_s",
        "e2e_p95_s",
        "prompt_tokens_per_s",
        "rss_bytes",
        "gpu_memory_bytes",
        "usd_per_hour",
        "pid",
    ):
        assert getattr(engine, name) is None, name
    fresh = PipelineState("gpu-a", [EngineSpec(name="a")])
    (engine,) = status(fresh, DAEMON, clock.now()).engines
    assert (engine.state, engine.running, engine.reading.outcome) == ("unreachable", None, None)
    assert engine.message == "not read yet"


def test_without_requests_the_error_ratio_is_unknown() -> None:
    state = PipelineState("gpu-a", [EngineSpec(name="a")])
    clock = ManualClock()
    for _ in range(10):
        feed(state, reading(0), clock.advance(1.0))
    (engine,) = status(state, DAEMON, clock.now()).engines
    assert engine.requests_per_s == 0.0
    assert engine.error_ratio is None
    assert engine.ttft_p95_s is None


def test_what_cannot_be_read_is_kept_with_its_age_and_then_unknown() -> None:
    state, clock = steady()
    feed(state, EngineReading(engine="a", outcome=Outcome.FAILED, error="cut"), clock.advance(12.0))
    (engine,) = status(state, DAEMON, clock.now()).engines
    assert (engine.state, engine.running) == ("unreachable", 4.0)
    assert (engine.reading.outcome, engine.reading.error, engine.message) == ("FAILED", "cut", "cut")
    assert engine.reading.age_s == pytest.approx(12.0)
    (engine,) = status(state, DAEMON, clock.advance(600.0)).engines
    assert (engine.running, engine.generation_tokens_per_s, engine.model) == (None, None, "llama")


def test_detail_has_three_windows_with_bucket_bounds() -> None:
    state, clock = steady(320)
    found = detail(state, "a", clock.now())
    assert list(found.latencies) == ["ttft"]
    assert {name: window.count for name, window in found.latencies["ttft"].items()} == {
        "10s": pytest.approx(100.0),
        "1m": pytest.approx(600.0),
        "5m": pytest.approx(3000.0),
    }
    p95 = found.latencies["ttft"]["1m"].p95
    assert p95 is not None
    assert (p95.lower, p95.upper) == (0.2, 0.4)
    assert found.finished == {"stop": 9.0 * 319}
    assert found.aliases == {"running": "vllm:num_requests_running"}
    assert found.command == ("serve",)
    with pytest.raises(NotFound, match="no engine is called 'b'"):
        detail(state, "b", clock.now())


def test_a_supervised_engine_shows_its_life() -> None:
    state, clock = PipelineState("gpu-a", [EngineSpec(name="a", supervised=True)]), ManualClock()
    phases = (Phase(name="load weights", started=5.0, seconds=2.0, last_seconds=8.0),)
    feed(
        state,
        LifeView(
            engine="a", state=EngineState.STARTING, since=4.0, supervised=True, pid=77, started=4.0, restarts=2,
            phase="load weights", progress=0.4, phases=phases, message="loading",
        ),
        clock.now(),
    )  # fmt: skip
    (engine,) = status(state, DAEMON, clock.now()).engines
    assert (engine.state, engine.state_since, engine.pid, engine.restarts) == ("starting", 4.0, 77, 2)
    assert (engine.phase, engine.progress, engine.message) == ("load weights", 0.4, "loading")
    assert detail(state, "a", clock.now()).phases == phases


def test_gpus_host_processes_and_events() -> None:
    state, clock = steady()
    now = clock.now()
    members = (ProcessView(pid=11, started=0.0, name="x", role="engine_core", rss_bytes=5),)
    feed(state, ProcessReading(engine="a", outcome=Outcome.OK, processes=members), now)
    card = GpuView(index=0, uuid="GPU-1", name="H200", utilization=0.5, processes=(GpuProcess(pid=11, memory_bytes=9),))
    feed(state, GpuReading(outcome=Outcome.OK, gpus=(card,)), now)
    feed(state, HostReading(outcome=Outcome.OK, host=HostView(cpu_ratio=0.1)), now)
    for n in range(40):
        outcome = Outcome.FAILED if n % 2 else Outcome.OK
        feed(state, EngineReading(engine="a", outcome=outcome, view=reading(70 + n).view), clock.advance(1.0))
    shown = status(state, DAEMON, clock.now())
    assert shown.host == "gpu-a"
    assert shown.gpus[0].processes == (GpuProcess(pid=11, memory_bytes=9, engine="a"),)
    assert (shown.engines[0].pid, shown.engines[0].rss_bytes, shown.engines[0].gpu_memory_bytes) == (11, 5, 9)
    assert shown.system == HostView(cpu_ratio=0.1)
    assert len(shown.events) == BOARD_EVENTS
    assert [event.t for event in shown.events] == sorted(event.t for event in shown.events)
    assert shown.events[-1].t == clock.now().wall
    assert msgspec.json.decode(msgspec.json.encode(shown), type=Status) == shown


def test_a_machine_without_a_driver_says_one_line() -> None:
    state, clock = PipelineState("h"), ManualClock()
    feed(state, GpuReading(outcome=Outcome.NO_DATA, error="no NVIDIA driver on this machine"), clock.now())
    shown = status(state, DAEMON, clock.now())
    assert (shown.gpus, shown.gpu_message) == ((), "no NVIDIA driver on this machine")
