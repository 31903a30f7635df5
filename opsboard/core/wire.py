"""The JSON of CONTRACT: what ``status --json`` and the control socket say. Fields may be added, never changed.

SI: seconds, bytes, ratios 0..1, USD; unknown is null, never 0; latencies and rates are over the last 60 s.
"""

from __future__ import annotations

from opsboard.core.deliveries import ChannelHealth
from opsboard.core.incidents import Curve, Entry, IncidentAction, Urgency
from opsboard.core.model import GpuProcess, HostView, Phase, ProcessView, Record, Rolling, Step, Transition

STATUS_SCHEMA = "opsboard.status/1"
RECORDING_SCHEMA = "opsboard.recording/1"
PROTOCOL = "1"
PROTOCOL_HEADER = "opsboard-protocol"
"""The version handshake of the control socket, a header of requests and replies; without it, this version is meant."""


class ReadingInfo(Record, frozen=True, kw_only=True):
    """The last scrape of an engine: outcome, age of the last good values, and what went wrong."""

    outcome: str | None = None
    age_s: float | None = None
    error: str | None = None


class DetectorInfo(Record, frozen=True, kw_only=True):
    """Whether a detector judges an engine: ``judging``, ``learning``, ``unknown`` (it cannot know) or ``off``."""

    name: str
    state: str = "judging"
    reason: str | None = None
    """Why it does not, or how far it has learnt."""


class Engine(Record, frozen=True, kw_only=True):
    """One engine on the board."""

    name: str
    kind: str | None = None
    model: str | None = None
    version: str | None = None
    supervised: bool = False
    restartable: bool = False
    """It is observed, and its owner gave a command that restarts it."""
    state: str = "unreachable"
    state_since: float | None = None
    phase: str | None = None
    progress: float | None = None
    pid: int | None = None
    started: float | None = None
    restarts: int = 0
    reading: ReadingInfo = ReadingInfo()
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    kv_capacity_tokens: float | None = None
    kv_unexplained_tokens: float | None = None
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    itl_p50_s: float | None = None
    itl_p95_s: float | None = None
    e2e_p95_s: float | None = None
    queue_p95_s: float | None = None
    prompt_tokens_per_s: float | None = None
    generation_tokens_per_s: float | None = None
    requests_per_s: float | None = None
    errors_per_s: float | None = None
    error_ratio: float | None = None
    preemptions_per_s: float | None = None
    prefix_hit_ratio: float | None = None
    rss_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    usd_per_hour: float | None = None
    usd_per_million_tokens: float | None = None
    # added beyond CONTRACT
    url: str | None = None
    message: str | None = None
    hint: str | None = None
    """What a person can do about it, where it stays as it is by itself."""
    restarted: bool = False
    """True while rates are withheld because the process or its counters began anew."""
    exit_code: int | None = None
    cause: str | None = None
    """Why it came into this state."""
    until: float | None = None
    """Unix s: when what it waits for happens, such as the next start or the end of a drain."""
    drain_timeout_s: float | None = None
    standby: bool = False
    """It is kept asleep, or stopped where it cannot sleep, until somebody wakes it."""
    wake_s: float | None = None
    """What its last waking took until it served, in s."""
    latency_bounds: dict[str, tuple[float, float | None]] = {}
    """By field, of those latencies above that their histogram cannot tell well: the bounds in s between which they lie.

    In its first bucket ``[0, b]``: less than b, interpolated from 0. Beyond its last one ``[b, null]``: more than b.
    """
    detectors: tuple[DetectorInfo, ...] = ()
    """Every detector, by name."""


class Quantile(Record, frozen=True, kw_only=True):
    """A quantile read from a histogram.

    ``value`` interpolated, truly between ``lower`` and ``upper`` (None: above the last bound).
    """

    value: float
    lower: float
    upper: float | None


class Latency(Record, frozen=True, kw_only=True):
    """One latency over one window."""

    count: float
    mean: float | None = None
    p50: Quantile | None = None
    p95: Quantile | None = None
    p99: Quantile | None = None


class EventInfo(Record, frozen=True, kw_only=True):
    """One line of a timeline."""

    t: float
    subject: str
    kind: str
    text: str
    severity: str = "info"


class EngineDetail(Record, frozen=True, kw_only=True):
    """``GET /v1/engines/NAME``: the board's line and what only the engine's own screen needs."""

    engine: Engine
    latencies: dict[str, dict[str, Latency]] = {}
    """By histogram name, then by window ("10s", "1m", "5m")."""
    phases: tuple[Phase, ...] = ()
    processes: tuple[ProcessView, ...] = ()
    finished: dict[str, float] = {}
    aliases: dict[str, str] = {}
    events: tuple[EventInfo, ...] = ()
    command: tuple[str, ...] | None = None
    log_path: str | None = None
    transaction: tuple[Step, ...] = ()
    """The steps of what is under way, or was last."""
    transaction_kind: str | None = None
    """What that is: ``start``, ``restart``, ``sleep`` or ``wake``."""
    timeline: tuple[Transition, ...] = ()
    """The newest changes of its state, oldest first."""


class Gpu(Record, frozen=True, kw_only=True):
    """One GPU on the board."""

    index: int
    uuid: str
    name: str | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilization: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    throttle: tuple[str, ...] | None = None
    ecc_uncorrected: int | None = None
    xid: int | None = None
    processes: tuple[GpuProcess, ...] = ()
    # added beyond CONTRACT
    mig: str | None = None
    lost: bool = False


class Incident(Record, frozen=True, kw_only=True):
    """One incident: what people are told about, from its opening to its end. The times are Unix seconds."""

    id: int
    uid: str
    detector: str
    subject: str
    severity: str
    state: str
    opened: float
    summary: str
    acknowledged: float | None = None
    resolved: float | None = None
    evidence: dict[str, float | str | bool | None] = {}
    """The newest numbers that justify it."""
    actions: tuple[IncidentAction, ...] = ()
    cost_usd: float | None = None
    # added beyond CONTRACT
    since: float | None = None
    """When it began as far as is known."""
    ended: float | None = None
    """When it was last seen, once it is gone."""
    confirmed: bool = False
    flapping: bool = False
    acknowledged_by: str | None = None
    resolved_by: str | None = None
    """The person who closed it; null: it was over, or is open."""
    cause: int | None = None
    """The incident it turned out to belong to."""
    related: tuple[int, ...] = ()
    silenced: float | None = None
    """Until when it is kept quiet."""


class IncidentDetail(Record, frozen=True, kw_only=True):
    """``GET /v1/incidents/ID``: the incident, what it was opened with, its timeline, and the series kept with it."""

    incident: Incident
    first_summary: str
    first_evidence: dict[str, float | str | bool | None] = {}
    timeline: tuple[Entry, ...] = ()
    left_out: int = 0
    """Lines in the middle of the timeline that were given up."""
    curves: tuple[Curve, ...] = ()


class IncidentRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/incidents/ID/{ack,note,resolve,silence}``. ``by`` is the person's name, with the uid added."""

    text: str | None = None
    by: str | None = None


class SilenceRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/silences``: which incidents, for how long (seconds), why. ``start`` None: now (Unix s)."""

    comment: str
    duration_s: float
    severities: tuple[Urgency, ...] = ()
    detectors: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    start: float | None = None
    by: str | None = None


class TargetInfo(Record, frozen=True, kw_only=True):
    """One engine of a route. ``inflight`` requests that the gateway sent it, None while there is no gateway."""

    name: str
    state: str
    weight: float
    inflight: float | None = None


class RouteInfo(Record, frozen=True, kw_only=True):
    """A ``[[route]]``: engines that stand in for each other. ``serving``: one of them at least is ready."""

    model: str
    targets: tuple[TargetInfo, ...] = ()
    serving: bool = False


class DaemonInfo(Record, frozen=True, kw_only=True):
    """How the daemon itself is doing. ``recorded`` is False while nothing can be written (the NOT RECORDED banner)."""

    version: str
    pid: int
    started: float
    cpu_ratio: float | None = None
    rss_bytes: int | None = None
    scrape_lag_s: float | None = None
    dropped: int = 0
    recorded: bool = True
    # added beyond CONTRACT
    message: str | None = None
    """Why nothing is recorded, or what else a person must know of the daemon."""
    interval_s: float = 1.0
    loop_gap_s: float | None = None
    """Longest time the event loop was away lately (30 to 60 s)."""
    read_only: bool = False
    """True for a daemon that only looks (first run, ``--url``)."""


class Status(Record, frozen=True, kw_only=True):
    """``status --json`` and each line of ``GET /v1/events``."""

    schema: str = STATUS_SCHEMA
    time: float
    host: str
    daemon: DaemonInfo
    engines: tuple[Engine, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    incidents: tuple[Incident, ...] = ()
    routes: tuple[RouteInfo, ...] = ()
    # added beyond CONTRACT
    rolling: Rolling | None = None
    """The rolling restart under way."""
    system: HostView | None = None
    gpu_message: str | None = None
    """One line that says why there are no GPUs to see."""
    events: tuple[EventInfo, ...] = ()
    """The newest few, oldest first."""
    channels: tuple[ChannelHealth, ...] = ()
    """How people are told, in the order of the configuration."""


class ActionRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/engines/NAME/actions``: kind is start, stop, restart, drain, undrain, sleep or wake.

    ``now``: even if it takes the last healthy target of a route away; a restart then cuts off what is under way.
    ``then`` (restart): engines to restart after this one, one at a time, as long as none fails.
    """

    kind: str
    reason: str | None = None
    idempotency_key: str | None = None
    now: bool = False
    then: tuple[str, ...] = ()


class ActionAccepted(Record, frozen=True, kw_only=True):
    """202: the action was taken; its outcome shows in the engine's state and timeline."""

    id: str
    kind: str
    engine: str


class LastRolling(Record, frozen=True, kw_only=True):
    """``GET /v1/rolling``: the rolling restart under way, or the last one; None when there was none."""

    rolling: Rolling | None


class AdoptRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/engines/adopt``: ``target`` is the address or a pid of an engine that somebody started."""

    target: str
    name: str | None = None
    reason: str | None = None


class Adopted(Record, frozen=True, kw_only=True):
    """An engine that was taken over. No text holds a value of its environment or a secret of its command line."""

    engine: str
    pid: int
    url: str
    command: tuple[str, ...]
    user: str | None = None
    """Whom a restart runs it as; None is the daemon's own user."""
    lacks: tuple[str, ...] = ()
    """What it cannot have after a restart."""
    warnings: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    """Names of variables that a restart leaves out."""
    again: bool = False
    """It had been taken over before."""


class Forgotten(Record, frozen=True, kw_only=True):
    """What was kept of a taken-over engine is gone. ``supervised``: the configuration has it; ``runs``: it runs on."""

    engine: str
    supervised: bool
    runs: bool


class ErrorBody(Record, frozen=True, kw_only=True):
    """What is inside ``{"error": ...}``."""

    code: str
    message: str
    hint: str | None = None


class ErrorReply(Record, frozen=True, kw_only=True):
    """Every refusal of the control socket."""

    error: ErrorBody


class HistoryPoint(Record, frozen=True, kw_only=True):
    """One step of a series: mean, extremes and number of samples; a step without samples is absent (a gap is a gap)."""

    t: float
    mean: float
    min: float
    max: float
    count: int


class History(Record, frozen=True, kw_only=True):
    """``GET /v1/history``: ``step`` in seconds, ``points`` ascending by time."""

    series: str
    step: float
    points: tuple[HistoryPoint, ...] = ()


# --- `opsboard backtest --json`
# ------------------------------------------------------------------------------------------------


class BacktestFinding(Record, frozen=True, kw_only=True):
    """One line: a finding opened or closed at ``t``. What a finding said when it opened, or last."""

    t: float
    engine: str
    detector: str
    severity: str
    state: str
    """``open`` or ``closed``."""
    summary: str
    evidence: dict[str, float | str | bool | None] = {}
    # added beyond CONTRACT
    since: float
    """When it began, as far as is known."""
    confirmed: float | None = None
    """When it was confirmed; null: it is not, or not yet."""
    seconds: float
    """``t`` from the first reading of its recording."""
    recording: str


class Unjudged(Record, frozen=True, kw_only=True):
    """A detector that did not judge an engine: it is still ``learning``, or ``unknown``: it cannot know."""

    recording: str
    engine: str
    detector: str
    state: str
    reason: str | None


class BacktestTotals(Record, frozen=True, kw_only=True):
    """Of all recordings together; ``open`` are findings that no reading closed, ``confirmed`` those that got sure."""

    readings: int
    engines: int
    seconds: float
    findings: int
    # added beyond CONTRACT
    recordings: int
    open: int
    confirmed: int
    bad_lines: int
    dropped: int
    late: int
    """Lines that came late or twice."""
    unjudged: tuple[Unjudged, ...] = ()
    """What could not be judged when its recording ended: no finding there is no all-clear."""


class BacktestSummary(Record, frozen=True, kw_only=True):
    """The last line."""

    summary: BacktestTotals
