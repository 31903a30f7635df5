"""Domain records: what was read, what an engine, a GPU, a host is. Frozen; SI units; missing is None, never 0.

Those of supervision and judgement have files of their own, and are to be had here, too.

Words: an *engine* is a serving process group with one endpoint; a *life* is one start of an engine from spawn to
exit; a *reading* is what one collection said, with its outcome; a *view* holds the canonical fields read from it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from opsboard.core.judgement import CanaryOutcome, CanaryReading, Finding, FindingChange
from opsboard.core.supervision import LifeView, Phase, Restart, Rolling, Step, Transaction, Transition
from opsboard.core.words import EngineState, FatalVerdict, Outcome, Record, Severity, state_word

__all__ = [
    "CanaryOutcome",
    "CanaryReading",
    "EngineReading",
    "EngineState",
    "EngineView",
    "Event",
    "FatalVerdict",
    "Finding",
    "FindingChange",
    "GpuProcess",
    "GpuReading",
    "GpuView",
    "Histogram",
    "HostReading",
    "HostView",
    "LifeView",
    "Outcome",
    "Phase",
    "ProcessReading",
    "ProcessView",
    "RankView",
    "Record",
    "Restart",
    "Rolling",
    "Sample",
    "Severity",
    "Step",
    "Transaction",
    "Transition",
    "state_word",
]

# --- engines
# -----------------------------------------------------------------------------------------------------------


class Histogram(Record, frozen=True, kw_only=True):
    """A cumulative Prometheus histogram as one page shows it.

    ``bounds`` are the upper bounds, ascending, the last one +Inf; ``counts`` are cumulative and as long as
    ``bounds``; ``total`` is the sum of all observations in the metric's unit, None when the page omits it.
    """

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total: float | None = None

    @property
    def count(self) -> float:
        """Number of observations."""
        return self.counts[-1] if self.counts else 0.0


class RankView(Record, frozen=True, kw_only=True):
    """One data-parallel rank (the ``engine`` label of vLLM; "0" where the page has none).

    ``gauges`` and ``counters`` are named as those of :class:`EngineView`; of an engine with one rank they are the same.
    """

    rank: str
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    kv_capacity_tokens: float | None = None
    kv_blocks: int | None = None
    """Blocks of the KV cache, those that hold nothing (vLLM's null block) included."""
    kv_block_tokens: int | None = None
    """Tokens that one of them holds."""
    gauges: Mapping[str, float] = {}
    counters: Mapping[str, float] = {}


class EngineView(Record, frozen=True, kw_only=True):
    """Canonical fields of one engine page.

    Gauges are of this moment; counters and histograms are cumulative since the process began. ``gauges``, ``counters``
    and ``histograms`` use the names of :mod:`opsboard.core.canonical` and are summed over ranks; what the page does not
    have is absent. ``aliases`` says which series of the page stood for which name, for renames.
    """

    kind: str
    model: str | None = None
    models: tuple[str, ...] = ()
    version: str | None = None
    ranks: tuple[RankView, ...] = ()
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    """0..1, weighted by capacity over ranks."""
    kv_capacity_tokens: float | None = None
    asleep: bool | None = None
    process_start: float | None = None
    """Unix seconds at which the serving process began, when the page tells."""
    config: Mapping[str, str] = {}
    """How it was configured, as far as its page tells, by the engine's own names; never what it measured. With model
    and version it says which engines and lives are alike."""
    kv_connectors: tuple[str, ...] = ()
    """What may hold KV blocks for others, or move them elsewhere, by the names of the page's series: nixl, mooncake,
    kv_offload, ..."""
    spec_tokens: int | None = None
    """Tokens that speculative decoding drafts for a request in one step; None: it does not, or does not tell."""
    gauges: Mapping[str, float] = {}
    counters: Mapping[str, float] = {}
    histograms: Mapping[str, Histogram] = {}
    finished: Mapping[str, float] = {}
    """Finished requests by reason (stop, length, abort, error, ...)."""
    aliases: Mapping[str, str] = {}


class ProcessView(Record, frozen=True, kw_only=True):
    """One process of an engine, from /proc.

    Memory in bytes; ``cpu_ratio`` is cores used since the last look, None at the first.
    """

    pid: int
    started: float
    """Unix seconds."""
    name: str
    role: str
    """api_server, engine_core, worker, resource_tracker, shim or other."""
    rss_bytes: int | None = None
    rss_anon_bytes: int | None = None
    swap_bytes: int | None = None
    cpu_ratio: float | None = None


class EngineReading(Record, frozen=True, kw_only=True):
    """What one scrape of one engine said. ``page`` is kept only for recorders."""

    engine: str
    outcome: Outcome
    view: EngineView | None = None
    error: str | None = None
    reason: str | None = None
    """Why it FAILED, in one word of ``FetchError.reason``; "page": it answers, and the page cannot be trusted."""
    duration_s: float = 0.0
    size_bytes: int = 0
    page: bytes | None = None


class ProcessReading(Record, frozen=True, kw_only=True):
    """The processes of one engine, all of them or none."""

    engine: str
    outcome: Outcome
    processes: tuple[ProcessView, ...] = ()
    zombies: tuple[int, ...] = ()
    """Pids of those that have ended and were not reaped: they serve nothing."""
    error: str | None = None


# --- GPUs and host
# --------------------------------------------------------------------------------------------------------


class GpuProcess(Record, frozen=True, kw_only=True):
    """A process that holds memory of a GPU.

    ``memory_bytes`` is None where the driver cannot tell (foreign PID namespace).
    """

    pid: int
    memory_bytes: int | None = None
    engine: str | None = None
    name: str | None = None
    """Its own and its user's, where it is no engine's."""
    user: str | None = None
    left: str | None = None
    """The engine whose last life left it behind; None with a name: not ours."""


class GpuView(Record, frozen=True, kw_only=True):
    """One GPU, or one MIG instance of one (``mig`` then names it, e.g. "1g.10gb", and ``parent`` is the card's uuid).

    Watts, bytes, degrees Celsius, MHz; ``utilization`` 0..1; ``ecc_uncorrected`` since the driver loaded; ``xid`` the
    last seen one. ``lost`` is a state: the card fell off the bus and all else is None.
    """

    index: int
    uuid: str
    name: str | None = None
    mig: str | None = None
    parent: str | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilization: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttle: tuple[str, ...] | None = None
    """Reasons that slow the clocks now, by name; empty when none."""
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    xid: int | None = None
    xid_time: float | None = None
    lost: bool = False
    processes: tuple[GpuProcess, ...] = ()


class GpuReading(Record, frozen=True, kw_only=True):
    """All GPUs of the host. NO_DATA with a one-line ``error`` on a machine without driver or card."""

    outcome: Outcome
    gpus: tuple[GpuView, ...] = ()
    driver: str | None = None
    error: str | None = None


class HostView(Record, frozen=True, kw_only=True):
    """The machine. Ratios 0..1 of all cores, bytes; disk is the one that holds the state directory."""

    cpu_ratio: float | None = None
    cpu_count: int | None = None
    load1: float | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    swap_used_bytes: int | None = None
    cgroup_limit_bytes: int | None = None
    cgroup_used_bytes: int | None = None
    disk_total_bytes: int | None = None
    disk_free_bytes: int | None = None


class HostReading(Record, frozen=True, kw_only=True):
    """What the host said."""

    outcome: Outcome
    host: HostView | None = None
    error: str | None = None


# --- what the pipeline lets out
# ------------------------------------------------------------------------------------------------


class Event(Record, frozen=True, kw_only=True):
    """One line of a timeline: an engine's transition, a reload, a lost GPU."""

    t: float
    subject: str
    """``engine/NAME``, ``gpu/UUID`` or ``host``."""
    kind: str
    text: str
    severity: Severity = Severity.INFO


class Sample(msgspec.Struct, frozen=True):
    """One number of one series at the time of the batch it travels in.

    Series are named ``kind/subject/field`` (see core/series.py).
    """

    series: str
    value: float
