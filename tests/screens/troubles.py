"""Incidents for tests and pictures: a leak, a regression, a hang, memory that fills, and what is over."""

from __future__ import annotations

import math

import msgspec

from opsboard.core.incidents import Entry, IncidentAction
from opsboard.core.series import split_series
from opsboard.core.wire import History, HistoryPoint, Incident, IncidentDetail, Status
from tests.screens import boards
from tests.screens.boards import GIB, T0

POOL = 699.0


def leak(**changes: object) -> Incident:
    base = Incident(
        id=7,
        uid="4f1c5a0e9d2b4b7f8a3e6c1d2e3f4a5b",
        detector="kv_leak",
        subject="engine/llama-b",
        severity="page",
        state="open",
        since=T0 - 720,
        opened=T0 - 700,
        confirmed=True,
        summary="has leaked 48 KV blocks in 12 m 0 s, 0.035 a finished request; "
        "the pool of 699 is exhausted in 53 m 11 s",
        evidence={
            "lost_blocks": 48.0,
            "by": "idle: no request runs or waits",
            "by_requests_blocks": 0.0,
            "by_tokens_blocks": 12.0,
            "by_idle_blocks": 48.0,
            "by_drift_blocks": 0.0,
            "drift_score": 0.6389,
            "lost_tokens": 1536.0,
            "pool_blocks": POOL,
            "used_blocks": 527.0,
            "running": 27.0,
            "waiting": 7.0,
            "explained_tokens": 19488.0,
            "blocks_per_finished_request": 0.0347,
            "blocks_per_aborted_request": None,
            "blocks_per_hour": 240.0,
            "blocks_per_hour_low": 212.0,
            "blocks_per_hour_high": 251.0,
            "exhausted_in_s": 3191.0,
            "exhausted_in_s_low": 2900.0,
            "exhausted_in_s_high": 3600.0,
            "urgency": "page",
            "all_accounted_for_s_ago": 725.0,
            "rank": None,
        },
        related=(5,),
    )
    return msgspec.structs.replace(base, **changes)


def slow(**changes: object) -> Incident:
    base = Incident(
        id=8,
        uid="u8",
        detector="latency",
        subject="engine/llama-a",
        severity="ticket",
        state="acknowledged",
        since=T0 - 400,
        opened=T0 - 380,
        acknowledged=T0 - 200,
        acknowledged_by="ana (uid 1000)",
        confirmed=False,
        summary="tokens take 17% longer than this load explains (18.3 ms instead of 15.6)",
        evidence={
            "of": "token",
            "ratio": 1.1705,
            "tolerance": 0.08,
            "seconds": 0.0183,
            "expected_s": 0.01564,
            "batch": 7.09,
            "context_tokens": 3396.9,
            "prefill_tokens_per_step": 1.85,
            "learnt_s": 129.3,
            "cause": "clock",
            "causes": "the SM clock of GPU 0 fell from 1980 to 1410 MHz",
            "event": None,
            "version": "0.33.0",
            "version_before": None,
        },
    )
    return msgspec.structs.replace(base, **changes)


def memory(**changes: object) -> Incident:
    base = Incident(
        id=9,
        uid="u9",
        detector="memory_leak",
        subject="engine/qwen-coder",
        severity="note",
        state="open",
        since=T0 - 900,
        opened=T0 - 300,
        confirmed=True,
        summary="its EngineCore leaked 310M of host memory in 15 m 0 s, 62K a finished request, 1.21G an hour; "
        "memory lasts for 41 h more",
        evidence={
            "role": "engine_core",
            "processes": 1.0,
            "leaked_bytes": 310.0 * 2**20,
            "bytes_per_request": 62.0 * 1024,
            "bytes_per_token": None,
            "bytes_per_work_low": 58.0 * 1024,
            "bytes_per_hour": 1.21 * GIB,
            "base_bytes": 5.2 * GIB,
            "room_bytes": 50.0 * GIB,
            "eta_s": 148_000.0,
            "eta_latest_s": 160_000.0,
            "urgency": "ticket",
            "requests_finished": 5100.0,
        },
    )
    return msgspec.structs.replace(base, **changes)


def hang(**changes: object) -> Incident:
    """It is over: the engine was restarted, and somebody said why."""
    base = Incident(
        id=5,
        uid="u5",
        detector="stall",
        subject="engine/llama-b",
        severity="page",
        state="resolved",
        since=T0 - 3000,
        opened=T0 - 2988,
        ended=T0 - 2900,
        resolved=T0 - 2840,
        acknowledged=T0 - 2970,
        acknowledged_by="ana (uid 1000)",
        confirmed=True,
        summary="requests run and no step ends: no progress for 14 s with 27 running and 7 waiting; "
        "a one-token request got no answer within 5.0 s",
        evidence={
            "predicate": "H1", "no_progress_s": 14.2, "patience_s": 10.0, "running": 27.0, "waiting": 7.0,
            "inflight": None, "connections": 31.0, "kv_usage": 0.71, "iterations": 81234.0,
            "generation_tokens": 2.1e6, "canaries_unanswered": 1.0, "canary_s": 5.0, "engine_core_cpu_ratio": 1.0,
            "gpu_utilization": 1.0,
        },
        actions=(IncidentAction(id="a1", kind="restart", time=T0 - 2960, outcome="ok", reason="stall"),),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def board(*ones: Incident, t: float = 0.0) -> Status:
    """A bad night in which these are known; without any the whole lot."""
    return msgspec.structs.replace(boards.busy(t), incidents=ones or (leak(), slow(), memory(), hang()))


TIMELINE = {
    7: (
        Entry(t=T0 - 700, kind="opened", text="has leaked 4 KV blocks in 20 s"),
        Entry(t=T0 - 640, kind="confirmed", text="has leaked 8 KV blocks in 80 s, 0.034 a finished request"),
        Entry(t=T0 - 300, kind="severity", text="from ticket to page"),
        Entry(t=T0 - 120, kind="caused", text="preemption_storm: 34 preemptions in 30 s, 2.1 a finished request"),
        Entry(t=T0 - 60, kind="note", text="traffic moved to llama-a as far as it goes", by="ana (uid 1000)"),
    ),
    8: (
        Entry(t=T0 - 380, kind="opened", text="tokens take 16% longer than this load explains"),
        Entry(t=T0 - 200, kind="ack", text="acknowledged", by="ana (uid 1000)"),
    ),
    9: (Entry(t=T0 - 300, kind="opened", text="its EngineCore leaked 200M of host memory in 10 m 0 s"),),
    5: (
        Entry(t=T0 - 2988, kind="opened", text="requests run and no step ends: no progress for 12 s"),
        Entry(t=T0 - 2970, kind="ack", text="acknowledged", by="ana (uid 1000)"),
        Entry(t=T0 - 2960, kind="action", text="restart began: stall"),
        Entry(t=T0 - 2900, kind="action", text="restart ok"),
        Entry(t=T0 - 2890, kind="gone", text="not claimed any more"),
        Entry(t=T0 - 2840, kind="resolved", text="over after 1 m 40 s"),
    ),
}


def detail(one: Incident) -> IncidentDetail:
    return IncidentDetail(
        incident=one,
        first_summary=one.summary,
        first_evidence={**one.evidence, "lost_blocks": 4.0} if one.detector == "kv_leak" else one.evidence,
        timeline=TIMELINE.get(one.id, ()),
    )


def _value(series: str, t: float) -> float | None:
    """A past in which each of the four can be seen."""
    _, name, field = split_series(series)
    dt = t - T0
    wave = math.sin(dt / 70) + 0.4 * math.sin(dt / 23)
    leaks, hangs = name == "llama-b", name == "llama-b" and -3000 < dt < -2915
    past: dict[str, float | None] = {
        "kv_lost_blocks": max(1.0, 48.0 * (dt + 720) / 720) if dt > -700 else None,
        "kv_usage": 0.72 + 0.1 * wave + (0.07 * max(0.0, dt + 720) / 720 if leaks else 0.0),
        "latency_ratio": 1.0 + 0.01 * wave + (0.17 if dt > -400 else 0.0),
        "itl_p50_s": 0.0156 + 0.0005 * wave + (0.0027 if dt > -400 else 0.0),
        "requests_finished": 20_000 + 5.6 * (dt + 1800),
        "iterations": None if hangs else 80_000 + 40 * (dt + 4000),
        "rss_anon_bytes": 5.2 * GIB + max(0.0, dt + 900) * 0.344 * 2**20 + 2e6 * wave,
        "generation_tokens_per_s": 0.0 if hangs else 1190.0 + 160 * wave,
        "running": 27.0 + round(5 * wave),
    }
    return past.get(field)


def history(series: str, start: float, end: float, step: float) -> History:
    """What the daemon remembers of a series."""
    times = [start + step * n for n in range(int((end - start) / step))]
    points = [(t, value) for t in times if (value := _value(series, t)) is not None]
    return History(
        series=series,
        step=step,
        points=tuple(HistoryPoint(t=t, mean=v, min=v, max=v, count=1) for t, v in points),
    )


def deaf(**changes: object) -> Incident:
    base = Incident(
        id=12,
        uid="9f1c5a0e9d2b4b7f8a3e6c1d2e3f4a5b",
        detector="channel_broken",
        subject="channel/chat",
        severity="ticket",
        state="open",
        since=T0 - 30,
        opened=T0 - 30,
        confirmed=True,
        summary="nothing can be told by chat (slack): invalid_auth",
        evidence={"messages_waiting": 0, "messages_dead": 1, "error": "invalid_auth"},
    )
    return msgspec.structs.replace(base, **changes)
