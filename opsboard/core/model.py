"""Domain records: what was read, what an engine, a GPU, a host is. Frozen; SI units; missing is None, never 0.

Words: an *engine* is a serving process group with one endpoint; a *life* is one start of an engine from spawn to
exit; a *reading* is what one collection said, with its outcome; a *view* holds the canonical fields read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Outcome(StrEnum):
    """What became of one collection."""

    OK = "OK"
    NO_DATA = "NO_DATA"
    """The source answered and has nothing for us (no engine series, no GPU)."""
    FAILED = "FAILED"


def state_word(state: str) -> str:
    """Return a state as people read it; programs read its value."""
    return state.replace("_", " ")


class EngineState(StrEnum):
    """Where an engine is in its life. The words of CONTRACT."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"
    BACKING_OFF = "backing_off"
    PARKED = "parked"
    UNREACHABLE = "unreachable"
    ASLEEP = "asleep"

    @property
    def word(self) -> str:
        """As people read it."""
        return state_word(self.value)


class Severity(StrEnum):
    """How loud an event is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Record(msgspec.Struct, frozen=True):
    """Base of all domain records (msgspec inherits ``frozen`` but not ``kw_only``: say it in each)."""


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


# --- lives
# ------------------------------------------------------------------------------------------------------------------


class Phase(Record, frozen=True, kw_only=True):
    """One step of an engine's start-up. ``seconds`` so far (or in all), ``last_seconds`` what it took last time."""

    name: str
    started: float
    seconds: float | None = None
    last_seconds: float | None = None


class Step(Record, frozen=True, kw_only=True):
    """One step of a restart: drain, end, clear, launch, start, canary or serving; of a sleep or waking: sleep, wake.

    ``started`` is Unix seconds; ``seconds`` what it took; ``text`` one line for people. ``outcome`` is ``ok``,
    ``skipped``, ``cut`` (a drain that ended while requests were under way, or may have been), ``differs`` (an answer
    that is not the golden one), ``aborted`` or ``failed``. Seconds and outcome are None while it is under way.
    """

    name: str
    started: float
    seconds: float | None = None
    outcome: str | None = None
    text: str | None = None


class Transaction(Record, frozen=True, kw_only=True):
    """One start, restart, sleep or wake from its first step to its last. Unix seconds.

    ``automatic``: nobody asked for it; ``cause`` says why. ``outcome`` is ``ok``, ``aborted`` or ``failed``, None
    while it is under way.
    """

    id: str
    engine: str
    kind: str
    """``start``, ``restart``, ``sleep`` or ``wake``."""
    began: float
    cause: str | None = None
    automatic: bool = False
    steps: tuple[Step, ...] = ()
    ended: float | None = None
    outcome: str | None = None


class Restart(Record, frozen=True, kw_only=True):
    """One restart that opsboard decided by itself, at ``t`` (Unix s); ``gpus`` are the engine's, by uuid or number.

    ``served_s``: how long the life before it had served. ``forgiven``: a person has looked at the engine since, so that
    it does not count any more.
    """

    engine: str
    t: float
    cause: str
    gpus: tuple[str, ...] = ()
    served_s: float = 0.0
    forgiven: bool = False


class Rolling(Record, frozen=True, kw_only=True):
    """A rolling restart: ``engines`` one after the other; ``done`` of them serve again. All times in Unix seconds.

    ``now``: without draining, and whatever that takes away; ``uid`` asked for it. ``outcome`` is ``ok``, ``failed`` or
    ``cancelled``, None while it is under way; ``error`` says why it stopped.
    """

    id: str
    engines: tuple[str, ...]
    reason: str
    began: float
    changed: float
    """When it last came further."""
    now: bool = False
    uid: int | None = None
    done: int = 0
    begun: bool = False
    """The restart of the engine at hand was begun."""
    old: float | None = None
    """When the life began that this restart ends; None: there was none."""
    down: tuple[str, ...] = ()
    """Those that were stopped when it was asked for: being stopped does not speak against their restart."""
    ended: float | None = None
    outcome: str | None = None
    error: str | None = None

    @property
    def at(self) -> str | None:
        """The engine at hand; None when all serve again."""
        return self.engines[self.done] if self.done < len(self.engines) else None

    @property
    def untouched(self) -> tuple[str, ...]:
        """Those whose restart has not begun."""
        return self.engines[self.done + self.begun :]


class Transition(Record, frozen=True, kw_only=True):
    """An engine came into ``state`` at ``t`` (Unix s), because of ``reason``; ``message`` is what was said of it."""

    t: float
    engine: str
    state: EngineState
    reason: str | None = None
    message: str | None = None


class LifeView(Record, frozen=True, kw_only=True):
    """What supervision knows of an engine. Sent whenever it changes.

    ``progress`` 0..1 of the start-up; ``message`` one line for people, ``hint`` what they can do about it; ``cause``
    why it came into this state;
    ``exit_code`` of the last life (negative = signal, None = unknown); ``until`` (Unix s) when what it waits for
    happens: the next start, the end of a drain.
    """

    engine: str
    state: EngineState
    since: float
    supervised: bool
    pid: int | None = None
    pgid: int | None = None
    started: float | None = None
    url: str | None = None
    """Where the life that runs listens: the configuration may name another place for the next one."""
    restarts: int = 0
    """Lives begun after the first one since the daemon's records began."""
    phase: str | None = None
    progress: float | None = None
    phases: tuple[Phase, ...] = ()
    message: str | None = None
    hint: str | None = None
    cause: str | None = None
    exit_code: int | None = None
    transaction: Transaction | None = None
    """The start or restart under way, or the last one."""
    until: float | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of that."""
        return () if self.transaction is None else self.transaction.steps


# --- what is judged, and what is asked of an engine
# ----------------------------------------------------------------


class Finding(Record, frozen=True, kw_only=True):
    """What a detector claims now, with the numbers that justify it.

    ``summary`` is one sentence for people with those numbers; ``since`` (Unix s) when it began as far as is known;
    ``confirmed``: more than one kind of evidence speaks for it, so that automation may act on it.
    """

    detector: str
    engine: str
    summary: str
    since: float
    confirmed: bool = False
    evidence: Mapping[str, float | str | bool | None] = {}


class FindingChange(Record, frozen=True, kw_only=True):
    """A finding that opened, gained or lost its confirmation, or closed."""

    t: float
    finding: Finding
    open: bool


class CanaryOutcome(StrEnum):
    """What became of one request that opsboard itself made."""

    OK = "ok"
    TIMEOUT = "timeout"
    """Accepted, and no answer within its deadline."""
    SATURATED = "saturated"
    """No connection within its deadline: busy, not dead."""
    REFUSED = "refused"
    """Nobody listens, or an answer that says it cannot serve (5xx)."""
    ASLEEP = "asleep"
    """Paused or sleeping, as somebody asked it to."""
    UNABLE = "unable"
    """It cannot be asked: no model known, no right, no such endpoint."""


class CanaryReading(Record, frozen=True, kw_only=True):
    """One small request to an engine. ``seconds`` until its end; the rest only for a golden one that was answered."""

    engine: str
    outcome: CanaryOutcome
    seconds: float
    error: str | None = None
    output: str | None = None
    output_sha256: str | None = None
    version: str | None = None
    """Of the engine that was asked, where its page tells."""


class FatalVerdict(StrEnum):
    """What a failed start or a crash asks for."""

    RETRY = "retry"
    """Try again after a pause: it may have been chance."""
    WAIT = "wait"
    """Something outside is in the way (a neighbour's memory, a port): look again until it is gone, without starting."""
    PARK = "park"
    """It cannot work until a person changes something."""


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
