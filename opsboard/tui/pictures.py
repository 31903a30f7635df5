"""Which curves show what an incident claims: for each kind of incident the telling one first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec.structs import replace

from opsboard.core.model import Record
from opsboard.core.series import series_name
from opsboard.core.wire import Incident
from opsboard.tui import format as fmt

Text = Callable[[float | None], str]


class Picture(Record, frozen=True, kw_only=True):
    """One drawing. ``series`` is drawn over time, as it is or as the ``rate`` of a counter.

    ``lost``: the part of it that ``other`` (in units of which ``whole`` make a full scale) cannot explain.
    ``work``: against the growth of the counter ``other`` instead of time. ``plus``: a series that is added.
    ``base`` is taken off every value. ``reference`` is drawn as a line, less ``base``. ``fixed``: the full scale is
    ``floor``, else it is at least that; ``near``: the scale begins near the least value, because what matters is how
    it moves.
    """

    title: str
    series: str
    kind: Literal["level", "rate", "lost", "work"] = "level"
    text: Text = fmt.count
    other: str | None = None
    plus: str | None = None
    whole: float | None = None
    base: float = 0.0
    reference: float | None = None
    floor: float = 1.0
    fixed: bool = False
    near: bool = False

    @property
    def all_series(self) -> tuple[str, ...]:
        """Every series that it needs."""
        return tuple(one for one in (self.series, self.other, self.plus) if one is not None)


def pictures(one: Incident, host: str) -> tuple[Picture, ...]:
    """Return what to draw of an incident on ``host``; of a kind that is not known the load of its engine."""
    kind, _, name = one.subject.partition("/")
    if kind == "host":
        return (Picture(title="free on the disk", series=series_name("host", host, "disk_free_bytes"), text=fmt.size),)
    if kind == "gpu":
        return _card(name)
    return _OF.get(one.detector, _load)(one, name)


def number(one: Incident, name: str) -> float | None:
    """Return a number of the evidence."""
    value = one.evidence.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _engine(name: str, field: str) -> str:
    return series_name("engine", name, field)


def _tokens(name: str, reference: float | None = None) -> Picture:
    series = _engine(name, "generation_tokens_per_s")
    return Picture(title="tokens a second", series=series, floor=10.0, reference=reference)


def _running(name: str) -> Picture:
    return Picture(title="requests running", series=_engine(name, "running"), text=fmt.whole, floor=4.0)


def _waiting(name: str) -> Picture:
    return Picture(title="requests waiting", series=_engine(name, "waiting"), text=fmt.whole, floor=4.0)


def _kv(name: str) -> Picture:
    return Picture(title="KV cache in use", series=_engine(name, "kv_usage"), text=fmt.percent, fixed=True)


def _load(_: Incident, name: str) -> tuple[Picture, ...]:
    return _tokens(name), _running(name), _kv(name)


def _kv_leak(one: Incident, name: str) -> tuple[Picture, ...]:
    whole = number(one, "pool_blocks")
    lost = Picture(
        title="KV cache",
        series=_engine(name, "kv_usage"),
        other=_engine(name, "kv_lost_blocks"),
        whole=whole,
        kind="lost",
        text=fmt.percent,
        floor=0.25,
    )
    alone = Picture(title="KV blocks lost", series=_engine(name, "kv_lost_blocks"), floor=4.0)
    return lost, alone, _running(name)


def _latency(one: Incident, name: str) -> tuple[Picture, ...]:
    prompts = one.evidence.get("of") == "prefill"
    ratio = Picture(
        title="longer than the load explains",
        series=_engine(name, "prefill_ratio" if prompts else "latency_ratio"),
        text=fmt.percent,
        base=1.0,
        floor=0.2,
        reference=None if (tolerance := number(one, "tolerance")) is None else 1.0 + tolerance,
    )
    field, title = ("ttft_p50_s", "time to first token, median") if prompts else ("itl_p50_s", "a token, median")
    seconds = Picture(title=title, series=_engine(name, field), text=fmt.seconds, floor=0.01)
    return ratio, seconds, _running(name)


def _memory(one: Incident, name: str) -> tuple[Picture, ...]:
    role = one.evidence.get("role")
    if not isinstance(role, str) or not role:
        return _grows(_engine(name, "rss_bytes"), "host memory", name)
    level, swapped = (series_name("process", f"{name}:{role}", field) for field in ("rss_anon_bytes", "swap_bytes"))
    return _grows(level, "host memory", name, plus=swapped)


def _gpu_memory(_: Incident, name: str) -> tuple[Picture, ...]:
    return _grows(_engine(name, "gpu_memory_bytes"), "GPU memory", name)


def _grows(level: str, what: str, name: str, plus: str | None = None) -> tuple[Picture, ...]:
    time = Picture(title=f"{what} over time", series=level, plus=plus, text=fmt.size, near=True)
    finished = _engine(name, "requests_finished")
    work = replace(time, title=f"{what} by requests finished", other=finished, kind="work")
    return work, time, _running(name)


def _stall(_: Incident, name: str) -> tuple[Picture, ...]:
    steps = Picture(title="engine steps a second", series=_engine(name, "iterations"), kind="rate", floor=1.0)
    return _tokens(name), _running(name), steps


def _storm(_: Incident, name: str) -> tuple[Picture, ...]:
    return (
        Picture(title="preemptions a second", series=_engine(name, "preemptions"), kind="rate", text=fmt.rate),
        _kv(name),
        _tokens(name),
    )


def _collapse(one: Incident, name: str) -> tuple[Picture, ...]:
    return _tokens(name, number(one, "own_level_tokens_per_s")), _waiting(name), _running(name)


def _burn(one: Incident, name: str) -> tuple[Picture, ...]:
    objective = str(one.evidence.get("objective") or "").removesuffix("_s")
    limit = number(one, "limit_s")
    failed = Picture(title="failed a second", series=_engine(name, "requests_failed"), kind="rate", text=fmt.rate)
    for field, title in (("ttft", "time to first token"), ("itl", "a token"), ("e2e", "a request")):
        if objective.startswith(field):
            slow = Picture(
                title=f"{title}, 95th percentile",
                series=_engine(name, f"{field}_p95_s"),
                text=fmt.seconds,
                floor=0.01,
                reference=limit,
            )
            return slow, _running(name), failed
    return failed, _running(name), _tokens(name)


def _down(_: Incident, name: str) -> tuple[Picture, ...]:
    up = Picture(title="its page could be read", series=_engine(name, "up"), text=fmt.percent, fixed=True)
    return _tokens(name), up, _running(name)


def _gpu_fault(one: Incident, name: str) -> tuple[Picture, ...]:
    uuid = one.evidence.get("gpu")
    return (*(_card(uuid) if isinstance(uuid, str) and uuid else ()), _tokens(name))


def _card(uuid: str) -> tuple[Picture, ...]:
    return (
        Picture(title="SM clock, MHz", series=series_name("gpu", uuid, "sm_clock_mhz"), floor=100.0),
        Picture(title="temperature, C", series=series_name("gpu", uuid, "temperature_c"), floor=50.0),
    )


_OF: Mapping[str, Callable[[Incident, str], tuple[Picture, ...]]] = {
    "kv_leak": _kv_leak,
    "latency": _latency,
    "memory_leak": _memory,
    "gpu_memory_leak": _gpu_memory,
    "stall": _stall,
    "preemption_storm": _storm,
    "throughput_collapse": _collapse,
    "slo_burn": _burn,
    "engine_down": _down,
    "parked": _down,
    "budget_spent": _down,
    "scrape_failed": _down,
    "gpu_fault": _gpu_fault,
}
