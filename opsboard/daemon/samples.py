"""From views to recorded numbers: every field of :mod:`opsboard.core.series` that is known, under its series name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from math import isfinite
from operator import attrgetter
from typing import TypeGuard

from opsboard.core.model import EngineReading, EngineView, Finding, GpuView, HostView, Outcome, ProcessView, Sample
from opsboard.core.series import DIGITS, FIELDS, Kind, series_name
from opsboard.daemon.engine_track import SHORT_S, EngineTrack

Value = float | int | None

_GAUGES = ("running", "waiting", "kv_usage", "kv_capacity_tokens")
_COUNTERS = tuple(field.name for field in FIELDS["engine"] if field.counter)
_SHORT_RATES = (("prompt_tokens_per_s", "prompt_tokens"), ("generation_tokens_per_s", "generation_tokens"))
_FIGURES = (
    "requests_per_s", "errors_per_s", "ttft_p50_s", "ttft_p95_s", "itl_p50_s", "itl_p95_s", "e2e_p95_s", "queue_p95_s",
)  # fmt: skip
_GPU = tuple(field.name for field in FIELDS["gpu"] if field.name != "throttled")
_PROCESS = tuple(field.name for field in FIELDS["process"])
_HOST = tuple(field.name for field in FIELDS["host"] if not field.name.startswith("daemon_"))

_COMPUTED = {kind: frozenset(field.name for field in fields if field.computed) for kind, fields in FIELDS.items()}

_CLAIMED = {"kv_leak": (("lost_blocks", "kv_lost_blocks"),)}
"""By detector: numbers of its evidence, and the fields under which they are recorded."""

_PROCESS_GETTERS: dict[str, Callable[[ProcessView], Value]] = {name: attrgetter(name) for name in _PROCESS}


@lru_cache(maxsize=4096)
def _name(kind: Kind, subject: str, field: str) -> str:
    return series_name(kind, subject, field)


def _known(kind: Kind, subject: str, pairs: Iterable[tuple[str, Value]]) -> list[Sample]:
    computed = _COMPUTED[kind]
    return [
        Sample(_name(kind, subject, field), _rounded(value) if field in computed else float(value))
        for field, value in pairs
        if value is not None
    ]


def _rounded(value: float) -> float:
    """Cut a computed value to its significant digits: the rest is noise, and most of what the store would keep."""
    return float(f"{value:.{DIGITS}g}")


def engine_samples(track: EngineTrack, reading: EngineReading) -> list[Sample]:
    """Return what one scrape says, computed rates and latencies included; a scrape that failed says only ``up`` = 0."""
    up = reading.outcome is Outcome.OK
    about = [("up", 1.0 if up else 0.0), ("scrape_s", reading.duration_s)]
    numbers = _engine_numbers(track, reading.view) if up and reading.view is not None else ()
    return _known("engine", track.name, (*about, *numbers))


def _engine_numbers(track: EngineTrack, view: EngineView) -> Iterator[tuple[str, Value]]:
    for name in _GAUGES:
        yield name, getattr(view, name)
    for name in _COUNTERS:
        yield name, view.counters.get(name)
    for name, counter in _SHORT_RATES:
        yield name, track.rate(counter, SHORT_S)
    for name in _FIGURES:
        yield name, getattr(track.figures, name)


def judged_samples(engine: str, claims: Iterable[Finding], measured: Mapping[str, float]) -> list[Sample]:
    """Return the numbers by which claims are drawn: those of their evidence while they last, and what was measured."""
    pairs = [(field, claim.evidence.get(key)) for claim in claims for key, field in _CLAIMED.get(claim.detector, ())]
    numbers = [(field, value) for field, value in (*pairs, *measured.items()) if _is_number(value)]
    return _known("engine", engine, numbers)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and isfinite(value)


def births(samples: Iterable[Sample]) -> list[Sample]:
    """Return the counters among an engine's samples at 0, where they began.

    Without them what a process counted before it was first read would belong to nobody.
    """
    return [Sample(sample.series, 0.0) for sample in samples if sample.series.rpartition("/")[2] in _COUNTERS]


def process_samples(track: EngineTrack) -> list[Sample]:
    """Return the memory and CPU of an engine's processes summed by role, and its resident memory in all."""
    roles: dict[str, list[ProcessView]] = {}
    for process in track.processes:
        roles.setdefault(process.role, []).append(process)
    samples = _known("engine", track.name, [("rss_bytes", total(p.rss_bytes for p in track.processes))])
    for role, members in roles.items():
        pairs = [(field, total(map(get, members))) for field, get in _PROCESS_GETTERS.items()]
        samples += _known("process", f"{track.name}:{role}", pairs)
    return samples


def gpu_memory_samples(tracks: Iterable[EngineTrack]) -> list[Sample]:
    """Return the GPU memory that each engine's processes hold."""
    return [s for t in tracks for s in _known("engine", t.name, [("gpu_memory_bytes", t.gpu_memory_bytes)])]


def gpu_samples(gpus: Iterable[GpuView]) -> list[Sample]:
    """Return what the GPUs say; a lost one says nothing."""
    samples: list[Sample] = []
    for gpu in gpus:
        if gpu.lost:
            continue
        throttled = None if gpu.throttle is None else float(bool(gpu.throttle))
        samples += _known("gpu", gpu.uuid, [*((name, getattr(gpu, name)) for name in _GPU), ("throttled", throttled)])
    return samples


def host_samples(name: str, host: HostView) -> list[Sample]:
    """Return what the machine says."""
    return _known("host", name, [(field, getattr(host, field)) for field in _HOST])


def self_samples(name: str, cpu_ratio: float | None, rss_bytes: int | None) -> list[Sample]:
    """Return what the daemon itself uses."""
    return _known("host", name, [("daemon_cpu_ratio", cpu_ratio), ("daemon_rss_bytes", rss_bytes)])


def total(values: Iterable[Value]) -> Value:
    """Return the sum of what is known, None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
