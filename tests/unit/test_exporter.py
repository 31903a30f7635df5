"""The board as Prometheus sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from opsboard.core.deliveries import ChannelHealth
from opsboard.core.model import HostView
from opsboard.core.wire import DaemonInfo, DetectorInfo, Engine, Gpu, Incident, ReadingInfo, Status
from opsboard.daemon.exporter import Exporter
from opsboard.httpd import Request, Response

STATUS = Status(
    time=0.0,
    host="gpu-a",
    daemon=DaemonInfo(version="0.1", pid=1, started=5.0, cpu_ratio=0.01, rss_bytes=99, dropped=3, recorded=False),
    engines=(
        Engine(
            name="a", model='ll"a\n', state="ready", reading=ReadingInfo(outcome="OK"), running=2.0, ttft_p95_s=0.5,
            ttft_p50_s=0.1, rss_bytes=7, restarts=4,
            detectors=(
                DetectorInfo(name="kv_leak", state="unknown", reason="its page tells no blocks"),
                DetectorInfo(name="stall"),
                DetectorInfo(name="slo_burn", state="off", reason="no objective is set in [slo]"),
            ),
        ),
        Engine(name="b", state="unreachable", reading=ReadingInfo(outcome="FAILED"), running=8.0, rss_bytes=8),
    ),
    gpus=(
        Gpu(index=0, uuid="GPU-1", name="H200", sm_clock_mhz=1980.0, throttle=("sw_power_cap",), ecc_uncorrected=0),
        Gpu(index=1, uuid="GPU-2", lost=True),
    ),
    incidents=(
        Incident(id=7, uid="u7", detector="stall", subject="engine/a", severity="page", state="open", opened=1.0,
                 summary="it hangs"),
        Incident(id=6, uid="u6", detector="latency", subject="engine/a", severity="page", state="resolved", opened=1.0,
                 summary="it was slow", resolved=2.0),
    ),
    system=HostView(load1=0.5),
    channels=(
        ChannelHealth(name="oncall", kind="pagerduty", waiting=2, oldest=9.0, error="HTTP 503", delivered=5, failed=3),
        ChannelHealth(name="chat", kind="slack", dead=1, sent=8.0, broken=True),
    ),
)  # fmt: skip


def ask(path: str = "/metrics", method: str = "GET", status: Status = STATUS, accept: str = "") -> Response:
    exporter = Exporter(lambda: status, lambda: {"collect:engine/a": 2})
    return asyncio.run(exporter.handle(Request(method=method, path=path, headers={"accept": accept})))


def samples(response: Response) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(response.body.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def series(metric: str, /, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"opsboard_{metric}", frozenset({"host": "gpu-a", **labels}.items())


A: Mapping[str, str] = {"engine": "a", "model": 'll"a\n'}
B: Mapping[str, str] = {"engine": "b", "model": ""}
GPU: Mapping[str, str] = {"gpu": "GPU-1", "index": "0", "name": "H200", "mig": ""}


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (series("engine_up", **A), 1.0),
        (series("incident_open", engine="a", gpu="", detector="stall", severity="page"), 1.0),
        (series("engine_up", **B), 0.0),
        (series("detector_unknown", detector="kv_leak", **A), 1.0),
        (series("detector_unknown", detector="stall", **A), 0.0),
        (series("engine_requests_running", **A), 2.0),
        (series("engine_ttft_seconds", quantile="0.95", **A), 0.5),
        (series("engine_ttft_seconds", quantile="0.5", **A), 0.1),
        (series("engine_state", state="ready", **A), 1.0),
        (series("engine_state", state="failed", **A), 0.0),
        (series("engine_restarts_total", **A), 4.0),
        (series("engine_resident_memory_bytes", **B), 8.0),
        (series("gpu_sm_clock_hertz", **GPU), 1.98e9),
        (series("gpu_throttled", reason="sw_power_cap", **GPU), 1.0),
        (series("gpu_lost", **{**GPU, "gpu": "GPU-2", "index": "1", "name": ""}), 1.0),
        (series("gpu_ecc_uncorrected_total", **GPU), 0.0),
        (series("host_load1"), 0.5),
        (series("daemon_dropped_total"), 3.0),
        (series("channel_waiting", channel="oncall", kind="pagerduty"), 2.0),
        (series("channel_oldest_timestamp_seconds", channel="oncall", kind="pagerduty"), 9.0),
        (series("channel_failures_total", channel="oncall", kind="pagerduty"), 3.0),
        (series("channel_broken", channel="chat", kind="slack"), 1.0),
        (series("daemon_recorded"), 0.0),
        (series("daemon_task_restarts_total", task="collect:engine/a"), 2.0),
        (series("build_info", version="0.1"), 1.0),
    ],
    ids=lambda item: item[0] if isinstance(item, tuple) else "",
)
def test_a_series(expected: tuple[str, frozenset[tuple[str, str]]], value: float) -> None:
    assert samples(ask())[expected] == value


def test_what_an_unreadable_engine_said_last_is_absent() -> None:
    assert series("engine_requests_running", **B) not in samples(ask())


def test_an_incident_that_is_over_is_absent() -> None:
    assert not any(("detector", "latency") in labels for _, labels in samples(ask()))


def test_a_detector_that_is_off_is_absent() -> None:
    assert series("detector_unknown", detector="slo_burn", **A) not in samples(ask())


def test_the_unknown_is_absent() -> None:
    names = {name for name, _ in samples(ask())}
    assert "opsboard_engine_kv_usage_ratio" not in names
    assert "opsboard_host_memory_total_bytes" not in names
    assert samples(ask(status=msgspec.structs.replace(STATUS, engines=(), gpus=(), system=None)))


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for name in {name for name, _ in samples(ask())}:
        whole = f"`{name}`" in text or f"`{name}{{" in text
        prefix, _, short = name.removeprefix("opsboard_").partition("_")
        assert whole or f"`_{short}`" in text or f"`_{short}{{" in text, f"{prefix}: {name}"


def test_open_metrics_when_asked_for() -> None:
    response = ask(accept="application/openmetrics-text;version=1.0.0")
    assert "openmetrics" in response.content_type
    assert list(open_metrics(response.body.decode()))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/v1/status", 404), ("POST", "/metrics", 405), ("HEAD", "/metrics", 200)],
)
def test_metrics_only_and_read_only(method: str, path: str, status: int) -> None:
    assert ask(path, method).status == status
