"""States of a board for tests, the demo of the screens and the bench: busy, starting, failed, stale, hostile, ..."""

from __future__ import annotations

import math
import random
from functools import cache

import msgspec

from opsboard.core.deliveries import ChannelHealth
from opsboard.core.model import GpuProcess, HostView, Phase, ProcessView
from opsboard.core.series import split_series
from opsboard.core.wire import (
    DaemonInfo,
    DetectorInfo,
    Engine,
    EngineDetail,
    EventInfo,
    Gpu,
    History,
    HistoryPoint,
    Latency,
    Quantile,
    ReadingInfo,
    Status,
)

T0 = 1_700_000_000.0
"""Tue 14 Nov 2023 22:13:20 UTC."""
GIB = 2**30
NAMES = ("llama-a", "llama-b", "qwen-coder", "mixtral", "embed", "guard", "draft", "vision")
MODELS = (
    "meta-llama/Llama-3.3-70B-Instruct",
    "meta-llama/Llama-3.3-70B-Instruct",
    "Qwen/Qwen2.5-Coder-32B-Instruct",
    "mistralai/Mixtral-8x22B-Instruct-v0.1",
    "BAAI/bge-m3",
    "meta-llama/Llama-Guard-3-8B",
    "meta-llama/Llama-3.2-1B-Instruct",
    "Qwen/Qwen2-VL-72B-Instruct",
)

DETECTORS = (
    DetectorInfo(name="engine_down"),
    DetectorInfo(name="kv_leak", state="unknown", reason="its page does not tell the number of blocks"),
    DetectorInfo(name="latency", state="learning", reason="34 of 45 s of work seen"),
    DetectorInfo(name="preemption_storm", state="unknown", reason="its page does not tell preemptions"),
    DetectorInfo(name="slo_burn", state="off", reason="no objective is set in [slo]"),
    DetectorInfo(name="throughput_collapse", state="unknown", reason="its page does not tell preemptions"),
)


def daemon(**changes: object) -> DaemonInfo:
    base = DaemonInfo(
        version="0.1.0", pid=811, started=T0 - 86_400, cpu_ratio=0.009, rss_bytes=61 * 2**20, scrape_lag_s=0.003
    )
    return msgspec.structs.replace(base, **changes)


def engine(i: int, t: float = 0.0, seed: int = 0, **changes: object) -> Engine:
    """One ready engine; its numbers move with ``t`` as those of a busy one do."""
    rng = random.Random(f"{seed}/{i}/{t}")

    def wave(mean: float, swing: float, period: float, noise: float = 0.03) -> float:
        return max(0.0, mean + swing * math.sin(t / period + i) + rng.gauss(0, mean * noise))

    load = 1.0 / (1 + i % 4)
    base = Engine(
        name=NAMES[i % 8] if i < 8 else f"engine-{i:02d}",
        kind="vllm",
        model=MODELS[i % 8],
        version="0.32.0",
        supervised=True,
        state="ready",
        state_since=T0 - 4000 * (i + 1),
        pid=4200 + i,
        started=T0 - 4060.0 * (i + 1) ** 2,
        restarts=i % 3,
        reading=ReadingInfo(outcome="OK", age_s=0.2),
        running=round(wave(48 * load, 10 * load, 40)),
        waiting=round(wave(1.5, 4, 25)) if i in (0, 2) else 0.0,
        kv_usage=min(0.99, wave(0.62 * (0.4 + load * 0.6), 0.2, 90, 0.01)),
        kv_capacity_tokens=412_000.0,
        ttft_p50_s=wave(0.09, 0.02, 70),
        ttft_p95_s=wave(0.31 + 0.2 * load, 0.1, 60),
        itl_p50_s=wave(0.021, 0.002, 50),
        itl_p95_s=wave(0.038, 0.008, 45),
        e2e_p95_s=wave(6.2, 1.0, 80),
        queue_p95_s=wave(0.012, 0.01, 30),
        prompt_tokens_per_s=wave(8100 * load, 900, 35),
        generation_tokens_per_s=wave(2150 * load, 300 * load, 35),
        requests_per_s=wave(5.1 * load, 0.5, 35),
        errors_per_s=0.0,
        error_ratio=0.0,
        preemptions_per_s=0.0,
        prefix_hit_ratio=0.63,
        rss_bytes=int(9.1 * GIB),
        gpu_memory_bytes=int(71.2 * GIB),
        url=f"http://127.0.0.1:{8001 + i}",
    )
    return msgspec.structs.replace(base, **changes)


def gpu(i: int, t: float = 0.0, **changes: object) -> Gpu:
    rng = random.Random(f"gpu/{i}/{int(t)}")
    base = Gpu(
        index=i,
        uuid=f"GPU-{i:08d}",
        name="NVIDIA H100 80GB HBM3",
        memory_used_bytes=int(71.2 * GIB),
        memory_total_bytes=80 * GIB,
        utilization=round(min(1.0, 0.9 + rng.gauss(0, 0.04)), 2),
        power_w=round(rng.gauss(560, 25)),
        power_limit_w=700.0,
        temperature_c=62.0 + i,
        sm_clock_mhz=1980.0,
        throttle=(),
        ecc_uncorrected=0,
        processes=(GpuProcess(pid=5000 + i, memory_bytes=int(70 * GIB), engine=NAMES[i % 8]),),
    )
    return msgspec.structs.replace(base, **changes)


def lost_gpu(i: int) -> Gpu:
    return Gpu(index=i, uuid=f"GPU-{i:08d}", name="NVIDIA H100 80GB HBM3", lost=True)


def event(dt: float, subject: str, kind: str, text: str, severity: str = "info") -> EventInfo:
    return EventInfo(t=T0 + dt, subject=subject, kind=kind, text=text, severity=severity)


EVENTS = (
    event(-7300, "host", "reload", "configuration reloaded: 1 engine added"),
    event(-612, "engine/vision", "state", "starting: asked for by ana (new weights)"),
    event(-300, "engine/mixtral", "state", "unreachable: connection refused on 127.0.0.1:8004", "warning"),
    event(-42, "engine/mixtral", "state", "failed: exit 1, CUDA out of memory", "error"),
    event(-8, "engine/llama-a", "waiting", "5 requests wait for KV cache", "warning"),
)


CHANNELS = (
    ChannelHealth(name="oncall", kind="pagerduty", sent=T0 - 3600, waiting=3, oldest=T0 - 95, error="HTTP 503: busy"),
    ChannelHealth(name="chat", kind="slack", dead=1, error="invalid_auth", broken=True),
    ChannelHealth(name="mail", kind="email", sent=T0 - 60),
)


def status(engines: tuple[Engine, ...], gpus: tuple[Gpu, ...] = (), t: float = 0.0, **changes: object) -> Status:
    base = Status(
        time=T0 + t,
        host="gpu-a",
        daemon=daemon(),
        engines=engines,
        gpus=gpus,
        gpu_message=None if gpus else "NVIDIA driver not loaded (libnvidia-ml.so.1 not found)",
        system=HostView(cpu_ratio=0.12, cpu_count=96),
        events=EVENTS,
    )
    return msgspec.structs.replace(base, **changes)


def starting(i: int, **changes: object) -> Engine:
    fresh = Engine(
        name=NAMES[i % 8],
        kind="vllm",
        model=MODELS[i % 8],
        supervised=True,
        state="starting",
        state_since=T0 - 62,
        started=T0 - 62,
        pid=4300,
        phase="loading weights",
        progress=0.47,
    )
    return msgspec.structs.replace(fresh, **changes)


def failed(i: int, **changes: object) -> Engine:
    base = Engine(
        name=NAMES[i % 8],
        kind="vllm",
        model=MODELS[i % 8],
        supervised=True,
        state="failed",
        state_since=T0 - 42,
        exit_code=1,
        message="CUDA out of memory: tried to allocate 2.50 GiB, 1.12 GiB free",
    )
    return msgspec.structs.replace(base, **changes)


def steady(t: float = 0.0) -> Status:
    """Eight ready engines on eight GPUs: what the budgets are measured with."""
    return status(tuple(engine(i, t) for i in range(8)), tuple(gpu(i, t) for i in range(8)), t, events=EVENTS[:1])


def busy(t: float = 0.0) -> Status:
    """What a bad night looks like: most engines serve, one starts, one failed, one is stale, one is unreachable."""
    stale = ReadingInfo(outcome="FAILED", age_s=14.0, error="timeout after 3.0 s reading /metrics")
    engines = (
        engine(0, t),
        engine(1, t, kv_usage=0.94, waiting=7.0, errors_per_s=0.4),
        engine(2, t),
        failed(3),
        engine(
            4, t, running=0.0, waiting=0.0, generation_tokens_per_s=0.0, kv_usage=0.0, ttft_p95_s=None, itl_p95_s=None
        ),
        engine(5, t, reading=stale),
        engine(6, t, state="unreachable", state_since=T0 - 300, reading=msgspec.structs.replace(stale, age_s=301.0)),
        starting(7),
    )
    gpus = (
        *(gpu(i, t) for i in range(5)),
        gpu(5, t, throttle=("sw_thermal_slowdown",), temperature_c=91.0),
        gpu(6, t, xid=79),
        lost_gpu(7),
    )
    return status(engines, gpus, t)


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt\u2028[red]x[/]\t\n'; DROP"


KEEP = ("state", "schema", "outcome", "severity")


def poison(value: object, text: str = HOSTILE, keep: tuple[str, ...] = KEEP) -> object:
    """Return a JSON value with what a stranger may say at the end of every text."""
    if isinstance(value, str):
        return value + text
    if isinstance(value, dict):
        return {key: item if key in keep else poison(item, text, keep) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [poison(item, text, keep) for item in value]
    return value


def hostile() -> Status:
    """Every string that a stranger can reach holds terminal escapes, bidi overrides, markup and line ends."""
    raw = poison(msgspec.to_builtins(busy()))
    return msgspec.convert(raw, Status)


def edges() -> Status:
    """Latencies in the first bucket of their histograms, and beyond the last one."""
    first = {"ttft_p50_s": (0.0, 0.001), "ttft_p95_s": (0.0, 0.1), "itl_p95_s": (0.0, 0.01), "queue_p95_s": (0.0, 0.3)}
    return status((engine(0, latency_bounds=first), engine(1, latency_bounds={"e2e_p95_s": (2560.0, None)})))


def mig() -> Status:
    """One card in three instances, one whole card."""
    parts = tuple(
        gpu(
            0,
            mig=f"{n}g.{n * 10}gb",
            uuid=f"MIG-{n}",
            memory_total_bytes=n * 10 * GIB,
            memory_used_bytes=n * 7 * GIB,
            utilization=None,
            power_w=None,
            temperature_c=None,
        )
        for n in (1, 2, 4)
    )
    return status(tuple(engine(i) for i in range(3)), (*parts, gpu(1)))


def long_names() -> Status:
    names = (
        "a-very-long-engine-name-that-nobody-should-type-blue-1",
        "a-very-long-engine-name-that-nobody-should-type-green-2",
        "日本語のとても長い名前のエンジン",
    )
    return status(tuple(engine(i, name=name) for i, name in enumerate(names)), (gpu(0),))


def many(number: int = 30) -> Status:
    return status(tuple(engine(i) for i in range(number)), tuple(gpu(i) for i in range(8)))


def unknown() -> Status:
    """Engines of which nothing is known yet."""
    return status(
        (Engine(name="llama-a"), Engine(name="llama-b", state="ready", reading=ReadingInfo(outcome="NO_DATA"))),
        (Gpu(index=0, uuid="GPU-0"),),
    )


def detail(base: Engine, t: float = 0.0) -> EngineDetail:
    """All of one engine."""

    def quantile(value: float, lower: float, upper: float | None) -> Quantile:
        return Quantile(value=value, lower=lower, upper=upper)

    def latency(scale: float, number: float) -> Latency:
        return Latency(
            count=number,
            mean=0.4 * scale,
            p50=quantile(0.3 * scale, 0.25 * scale, 0.5 * scale),
            p95=quantile(0.9 * scale, 0.75 * scale, scale),
            p99=quantile(2.2 * scale, scale, None),
        )

    scales = {"ttft": 0.5, "itl": 0.05, "e2e": 8.0, "queue": 0.02, "prefill": 0.3, "decode": 7.0}
    phases = [
        ("process", 3.1, 3.0),
        ("init", 6.4, 6.9),
        ("loading weights", 41.0, 39.5),
        ("compile", 22.0, 20.1),
        ("graphs", 18.5, 19.0),
        ("ready", 1.2, 1.1),
    ]
    return EngineDetail(
        engine=base,
        latencies={
            name: {window: latency(scale, n) for window, n in (("10s", 31.0), ("1m", 204.0), ("5m", 990.0))}
            for name, scale in scales.items()
        },
        phases=tuple(
            Phase(name=name, started=T0 - 4060 + i, seconds=s, last_seconds=last)
            for i, (name, s, last) in enumerate(phases)
        ),
        processes=(
            ProcessView(
                pid=4200,
                started=T0 - 4060,
                name="vllm",
                role="api_server",
                rss_bytes=int(2.1 * GIB),
                rss_anon_bytes=int(1.6 * GIB),
                swap_bytes=0,
                cpu_ratio=0.31,
            ),
            ProcessView(
                pid=4271,
                started=T0 - 4055,
                name="VLLM::EngineCor",
                role="engine_core",
                rss_bytes=int(6.9 * GIB),
                rss_anon_bytes=int(5.2 * GIB),
                swap_bytes=0,
                cpu_ratio=1.02,
            ),
            ProcessView(
                pid=4302,
                started=T0 - 4050,
                name="VLLM::Worker_TP",
                role="worker",
                rss_bytes=None,
                rss_anon_bytes=None,
                swap_bytes=None,
                cpu_ratio=None,
            ),
        ),
        finished={"stop": 18234.0, "length": 410.0, "abort": 12.0},
        aliases={"kv_usage": "vllm:kv_cache_usage_perc"},
        events=tuple(e for e in EVENTS if e.subject == f"engine/{base.name}") or EVENTS[4:],
        command=(
            "vllm",
            "serve",
            base.model or "",
            "--port",
            "8001",
            "--max-model-len",
            "32768",
            "--gpu-memory-utilization",
            "0.92",
        ),
        log_path=f"/var/lib/opsboard/engines/{base.name}/out.log",
    )


@cache
def history(series: str, start: float, end: float, step: float) -> History:
    """A past that fits the series' field."""
    _, name, field = split_series(series)
    i = NAMES.index(name) if name in NAMES else 0
    points = []
    t = start
    while t < end:
        value = getattr(engine(i, t - T0), field)
        if value is not None and not 300 < end - t < 330:
            points.append(HistoryPoint(t=t, mean=float(value), min=float(value), max=float(value), count=1))
        t += step
    return History(series=series, step=step, points=tuple(points))


STATS = (
    "Engine 000: Avg prompt throughput: 8123.4 tokens/s, Avg generation throughput: 2150.1 tokens/s, "
    "Running: 48 reqs, Waiting: 0 reqs, GPU KV cache usage: 62.1%, Prefix cache hit rate: 63.0%"
)
LOG = tuple(
    f"(APIServer pid=4200) {level} 11-14 22:{12 + n // 30:02d}:{n * 2 % 60:02d} [loggers.py:123] {text}"
    for n, (level, text) in enumerate(
        [
            ("INFO", STATS),
            ("INFO", '127.0.0.1:50412 - "POST /v1/chat/completions HTTP/1.1" 200 OK'),
            ("WARNING", "Sequence group 812 is preempted by PreemptionMode.RECOMPUTE"),
            ("ERROR", "Exception in ASGI application: client disconnected"),
        ]
        * 15
    )
)
