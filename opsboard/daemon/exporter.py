"""The board for Prometheus: ``/metrics`` on loopback TCP, read-only. Imported only when configured.

Names have the prefix ``opsboard_`` and base units; the unknown is absent, and so is what an unreadable engine said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from opsboard.core.model import EngineState, HostView, Outcome, Record
from opsboard.core.wire import DaemonInfo, Status
from opsboard.httpd import Request, Response

_MHZ = 1e6

# field of the JSON -> name, help, labels beyond the common ones, factor to base units
_Gauge = tuple[str, str, str, Mapping[str, str], float]
_NONE: Mapping[str, str] = {}

_ENGINE: tuple[_Gauge, ...] = (
    ("running", "requests_running", "Requests in the execution batch.", _NONE, 1),
    ("waiting", "requests_waiting", "Requests queued.", _NONE, 1),
    ("kv_usage", "kv_usage_ratio", "Part of the KV cache in use.", _NONE, 1),
    ("kv_capacity_tokens", "kv_capacity_tokens", "Size of the KV cache.", _NONE, 1),
    ("ttft_p50_s", "ttft_seconds", "Time to first token, last 60 s.", {"quantile": "0.5"}, 1),
    ("ttft_p95_s", "ttft_seconds", "Time to first token, last 60 s.", {"quantile": "0.95"}, 1),
    ("itl_p50_s", "itl_seconds", "Inter-token latency, last 60 s.", {"quantile": "0.5"}, 1),
    ("itl_p95_s", "itl_seconds", "Inter-token latency, last 60 s.", {"quantile": "0.95"}, 1),
    ("e2e_p95_s", "e2e_seconds", "Request latency, last 60 s.", {"quantile": "0.95"}, 1),
    ("queue_p95_s", "queue_seconds", "Time in the queue, last 60 s.", {"quantile": "0.95"}, 1),
    ("prompt_tokens_per_s", "prompt_tokens_per_second", "Prompt tokens a second, last 60 s.", _NONE, 1),
    ("generation_tokens_per_s", "generation_tokens_per_second", "Generated tokens a second, last 60 s.", _NONE, 1),
    ("requests_per_s", "requests_per_second", "Requests finished a second, last 60 s.", _NONE, 1),
    ("errors_per_s", "errors_per_second", "Requests failed a second, last 60 s.", _NONE, 1),
    ("error_ratio", "error_ratio", "Part of the requests that failed, last 60 s.", _NONE, 1),
    ("preemptions_per_s", "preemptions_per_second", "Preemptions a second, last 60 s.", _NONE, 1),
    (
        "prefix_hit_ratio",
        "prefix_hit_ratio",
        "Part of looked-up tokens found in the prefix cache, last 60 s.",
        _NONE,
        1,
    ),
)
_ENGINE_ALWAYS: tuple[_Gauge, ...] = (
    ("rss_bytes", "resident_memory_bytes", "Resident memory of the engine's processes.", _NONE, 1),
    ("gpu_memory_bytes", "gpu_memory_bytes", "GPU memory held by the engine's processes.", _NONE, 1),
    ("started", "start_time_seconds", "When the engine's present life began, Unix time.", _NONE, 1),
    ("state_since", "state_since_seconds", "When the engine entered its state, Unix time.", _NONE, 1),
)
_GPU: tuple[_Gauge, ...] = (
    ("memory_used_bytes", "memory_used_bytes", "Memory in use.", _NONE, 1),
    ("memory_total_bytes", "memory_total_bytes", "Memory of the card.", _NONE, 1),
    ("utilization", "utilization_ratio", "Time with a kernel running.", _NONE, 1),
    ("power_w", "power_watts", "Power draw.", _NONE, 1),
    ("power_limit_w", "power_limit_watts", "Enforced power limit.", _NONE, 1),
    ("temperature_c", "temperature_celsius", "Core temperature.", _NONE, 1),
    ("sm_clock_mhz", "sm_clock_hertz", "SM clock.", _NONE, _MHZ),
    ("xid", "xid", "Last Xid seen.", _NONE, 1),
)
_HOST: tuple[_Gauge, ...] = (
    ("cpu_ratio", "cpu_ratio", "CPU in use, of all cores.", _NONE, 1),
    ("load1", "load1", "Load average, 1 min.", _NONE, 1),
    ("memory_total_bytes", "memory_total_bytes", "Memory of the machine.", _NONE, 1),
    ("memory_available_bytes", "memory_available_bytes", "Memory that can be had without swapping.", _NONE, 1),
    ("swap_used_bytes", "swap_used_bytes", "Swap in use.", _NONE, 1),
    ("disk_total_bytes", "disk_total_bytes", "Size of the disk of the state directory.", _NONE, 1),
    ("disk_free_bytes", "disk_free_bytes", "Free on the disk of the state directory.", _NONE, 1),
)
_CHANNEL: tuple[_Gauge, ...] = (
    ("waiting", "waiting", "Messages that wait in the outbox.", _NONE, 1),
    ("oldest", "oldest_timestamp_seconds", "Since when the oldest of them waits, Unix time.", _NONE, 1),
    ("dead", "dead", "Messages that could not be delivered.", _NONE, 1),
    ("sent", "last_sent_timestamp_seconds", "When the last message went out, Unix time.", _NONE, 1),
    ("broken", "broken", "1 while nothing can be delivered there until somebody mends it.", _NONE, 1),
)
_CHANNEL_COUNTS = (
    ("delivered", "sent", "Messages that went out."),
    ("failed", "failures", "Attempts that did not get one out."),
)
_DAEMON: tuple[_Gauge, ...] = (
    ("cpu_ratio", "cpu_ratio", "Cores used by the daemon.", _NONE, 1),
    ("rss_bytes", "resident_memory_bytes", "Resident memory of the daemon.", _NONE, 1),
    ("scrape_lag_s", "scrape_lag_seconds", "Worst lateness of a scrape lately.", _NONE, 1),
    ("recorded", "recorded", "1 while readings reach the disk.", _NONE, 1),
    ("started", "start_time_seconds", "When the daemon began, Unix time.", _NONE, 1),
)


class Board(Collector):
    """Turns the newest status into metric families."""

    def __init__(self, status: Callable[[], Status], restarts: Callable[[], Mapping[str, int]]) -> None:
        """``restarts`` returns how often each of the daemon's tasks was restarted."""
        self._status = status
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        """Yield all families of one status."""
        status = self._status()
        yield from _engines(status)
        yield from _gpus(status)
        yield from _host(status.host, status.system)
        yield _incidents(status)
        yield from _channels(status)
        yield from self._daemon(status.host, status.daemon)

    def _daemon(self, host: str, daemon: DaemonInfo) -> Iterator[Metric]:
        yield from _gauges("opsboard_daemon", _DAEMON, [({"host": host}, daemon)], ("host",))
        dropped = CounterMetricFamily("opsboard_daemon_dropped", "Samples that could not be kept.", labels=["host"])
        dropped.add_metric([host], daemon.dropped)
        yield dropped
        restarts = CounterMetricFamily(
            "opsboard_daemon_task_restarts", "Restarts of a task that failed.", labels=["host", "task"]
        )
        for task, count in sorted(self._restarts().items()):
            restarts.add_metric([host, task], count)
        yield restarts
        yield InfoMetricFamily("opsboard_build", "Version of opsboard.", {"version": daemon.version, "host": host})


def _engines(status: Status) -> Iterator[Metric]:
    labels = ("host", "engine", "model")
    subjects = [({"host": status.host, "engine": e.name, "model": e.model or ""}, e) for e in status.engines]
    readable = [(values, e) for values, e in subjects if e.reading.outcome == Outcome.OK]
    yield from _gauges("opsboard_engine", _ENGINE_ALWAYS, subjects, labels)
    yield from _gauges("opsboard_engine", _ENGINE, readable, labels)
    up = GaugeMetricFamily("opsboard_engine_up", "1 while the engine's page can be read.", labels=labels)
    state = GaugeMetricFamily("opsboard_engine_state", "1 for the engine's state.", labels=[*labels, "state"])
    restarts = CounterMetricFamily("opsboard_engine_restarts", "Lives begun after the first one.", labels=labels)
    for values, engine in subjects:
        common = list(values.values())
        up.add_metric(common, engine.reading.outcome == Outcome.OK)
        restarts.add_metric(common, engine.restarts)
        for name in EngineState:
            state.add_metric([*common, name.value], engine.state == name)
    yield from (up, state, restarts, _unknown(status))


def _unknown(status: Status) -> Metric:
    labels = ["host", "engine", "model", "detector"]
    text = "1 while a detector cannot judge an engine, 0 while it does or learns."
    unknown = GaugeMetricFamily("opsboard_detector_unknown", text, labels=labels)
    for engine in status.engines:
        for one in engine.detectors:
            if one.state != "off":
                unknown.add_metric([status.host, engine.name, engine.model or "", one.name], one.state == "unknown")
    return unknown


def _gpus(status: Status) -> Iterator[Metric]:
    labels = ("host", "gpu", "index", "name", "mig")
    subjects = [
        ({"host": status.host, "gpu": g.uuid, "index": str(g.index), "name": g.name or "", "mig": g.mig or ""}, g)
        for g in status.gpus
    ]
    yield from _gauges("opsboard_gpu", _GPU, subjects, labels)
    lost = GaugeMetricFamily("opsboard_gpu_lost", "1 while the card is gone from the bus.", labels=labels)
    throttled = GaugeMetricFamily("opsboard_gpu_throttled", "1 for what slows the clocks.", labels=[*labels, "reason"])
    errors = CounterMetricFamily("opsboard_gpu_ecc_uncorrected", "Uncorrected ECC errors.", labels=labels)
    for values, gpu in subjects:
        common = list(values.values())
        lost.add_metric(common, gpu.lost)
        for reason in gpu.throttle or ():
            throttled.add_metric([*common, reason], 1)
        if gpu.ecc_uncorrected is not None:
            errors.add_metric(common, gpu.ecc_uncorrected)
    yield from (lost, throttled, errors)


def _incidents(status: Status) -> Metric:
    labels = ["host", "engine", "gpu", "detector", "severity"]
    going = GaugeMetricFamily("opsboard_incident_open", "1 while an incident is open.", labels=labels)
    for one in status.incidents:
        if one.resolved is None:
            kind, _, name = one.subject.partition("/")
            engine, gpu = (name if kind == "engine" else ""), (name if kind == "gpu" else "")
            going.add_metric([status.host, engine, gpu, one.detector, one.severity], 1)
    return going


def _channels(status: Status) -> Iterator[Metric]:
    labels = ("host", "channel", "kind")
    subjects = [({"host": status.host, "channel": one.name, "kind": one.kind}, one) for one in status.channels]
    yield from _gauges("opsboard_channel", _CHANNEL, subjects, labels)
    for field, name, text in _CHANNEL_COUNTS:
        counted = CounterMetricFamily(f"opsboard_channel_{name}", text, labels=labels)
        for values, one in subjects:
            counted.add_metric([*values.values()], getattr(one, field))
        yield counted


def _host(name: str, system: HostView | None) -> Iterator[Metric]:
    if system is not None:
        yield from _gauges("opsboard_host", _HOST, [({"host": name}, system)], ("host",))


def _gauges(
    prefix: str,
    gauges: tuple[_Gauge, ...],
    subjects: Iterable[tuple[Mapping[str, str], Record]],
    labels: tuple[str, ...],
) -> Iterator[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for field, name, text, extra, factor in gauges:
        if name not in families:
            families[name] = GaugeMetricFamily(f"{prefix}_{name}", text, labels=[*labels, *extra])
        for values, subject in subjects:
            value = getattr(subject, field)
            if value is not None:
                families[name].add_metric([*values.values(), *extra.values()], float(value) * factor)
    yield from families.values()


class Exporter:
    """The handler of ``/metrics``, for :func:`opsboard.httpd.serve`."""

    def __init__(self, status: Callable[[], Status], restarts: Callable[[], Mapping[str, int]]) -> None:
        """See :class:`Board`."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(Board(status, restarts))

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.path != "/metrics":
            return Response(404, b"only /metrics is here\n")
        if request.method not in {"GET", "HEAD"}:
            return Response(405, b"read-only\n", headers=(("allow", "GET, HEAD"),))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(200, encode(self._registry), content_type)
