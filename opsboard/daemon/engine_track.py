"""What the daemon remembers of one engine between readings: last good view, trackers, and the state derived from them.

No I/O and no clock: the instant is handed in with each reading.
"""

from __future__ import annotations

from opsboard.core.clock import Now
from opsboard.core.connections import ConnectionReading
from opsboard.core.histogram import at_an_edge, quantile
from opsboard.core.inflight import InflightRequest
from opsboard.core.lives import SERVES, other_process
from opsboard.core.model import (
    EngineReading,
    EngineState,
    EngineView,
    Histogram,
    LifeView,
    Outcome,
    ProcessReading,
    ProcessView,
    Record,
    Transaction,
    Transition,
)
from opsboard.core.rates import WINDOWS, CounterTrack, HistogramTrack
from opsboard.core.series import FIELDS

SHORT_S, WINDOW_S, HORIZON_S = WINDOWS["10s"], WINDOWS["1m"], WINDOWS["5m"]
"""Windows in seconds: of the recorded token rates, of the board, and the longest one kept."""

KEEP_S = 300.0
"""Values of an engine that cannot be read stay on the board, with their age, this long; after that they are unknown."""

CONNECTED_S = 10.0
"""A look at who is connected says nothing any more after so long."""

SERVING = SERVES | {EngineState.STOPPING}
"""Life states in which an engine has a page worth reading."""

LASTING = frozenset({EngineState.STOPPED, EngineState.FAILED, EngineState.PARKED, EngineState.DRAINING})
"""Life states that only a person ends: found again by a daemon, they have lasted since the last one wrote them down."""

LIVING = SERVING | {EngineState.STARTING}
"""Life states in which an engine has processes."""


_OVER = frozenset({EngineState.STOPPED, EngineState.FAILED})


class Figures(Record, frozen=True, kw_only=True):
    """Computed from the trackers at one reading: rates a second, latencies in s, ratios 0..1, over ``WINDOW_S``."""

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
    latency_bounds: dict[str, tuple[float, float | None]] = {}
    """As on the wire (wire.Engine)."""


NO_FIGURES = Figures()

_TRACKED = frozenset(field.name for field in FIELDS["engine"] if field.counter)
"""Counters of which rates are made, and that tell a restart. The others are the detectors' own."""

_LATENCIES = (("ttft", (0.5, 0.95)), ("itl", (0.5, 0.95)), ("e2e", (0.95,)), ("queue", (0.95,)))


class EngineTrack:
    """The memory of one engine. Changed only by ``read``, ``look``, ``connect`` and ``live``; everything else asks."""

    def __init__(self, name: str, *, kind: str | None = None, url: str | None = None, supervised: bool = False) -> None:
        """``kind`` is the configured one; None means it is recognised from the page."""
        self.name = name
        self.kind = kind
        self.configured_url = url
        self.supervised = supervised
        self.life: LifeView | None = None
        self.last: EngineReading | None = None
        self.view: EngineView | None = None
        self.good_mono: float | None = None
        self.failing: Now | None = None
        """Since when its page cannot be read, in this life; None: it can."""
        self.figures = NO_FIGURES
        self.processes: tuple[ProcessView, ...] = ()
        self.zombies: tuple[int, ...] = ()
        self.looked: float | None = None
        """When (monotonic s) the processes were looked at; None: nobody could look in this life."""
        self.idle_since: float | None = None
        """Since when (monotonic s) its pages show no request; None: they show some, or do not tell."""
        self.gpu_memory_bytes: int | None = None
        self.restarts = 0
        self.restarted = False
        self.newborn = False
        """The last reading is the first one of a life whose beginning is known: its counters began at 0 before it."""
        self.standby = False
        """It is to be asleep."""
        self.slept = False
        """It was put to sleep in this life, for pages that do not tell."""
        self.wake_s: float | None = None
        self.doing: str | None = None
        """What is being done to it while it is out of service."""
        self.rested: Transaction | None = None
        """Its sleep or waking that is under way, or the last one."""
        self.state: EngineState | None = None
        self.state_since: float | None = None
        self._before: Transition | None = None
        self._counters: dict[str, CounterTrack] = {}
        self._histograms: dict[str, HistogramTrack] = {}
        self._unread = False
        self._connected: ConnectionReading | None = None
        self._tells = False
        """The last reading came in the life's present state."""
        self.inflight: tuple[InflightRequest, ...] | None = None
        """Requests under way to it at the moment of the page that comes next; None: nobody knows."""

    @property
    def url(self) -> str | None:
        """Where it is to be found now: where its life listens, else where it is configured to."""
        return (self.life.url if self.life is not None else None) or self.configured_url

    @property
    def known_kind(self) -> str | None:
        """What kind of engine it is: as configured, else as its page was recognised; None: nobody knows."""
        return self.kind or (None if self.view is None else self.view.kind)

    # --- readings ---------------------------------------------------------------------------------------------------

    def read(self, reading: EngineReading, now: Now) -> bool:
        """Take in one scrape; return whether the serving process began anew since the last good one."""
        self.last, self._tells, self.newborn = reading, True, False
        self.failing = (self.failing or now) if reading.outcome is Outcome.FAILED else None
        if reading.outcome is not Outcome.OK or reading.view is None:
            return False
        old, self.view, self.good_mono = self.view, reading.view, now.mono
        idle = reading.view.running == 0 and not reading.view.waiting and not reading.view.asleep
        self.idle_since = (now.mono if self.idle_since is None else self.idle_since) if idle else None
        began_anew = old is not None and other_process(old, reading.view) is True
        self.newborn, self._unread = began_anew or self._unread, False
        if began_anew or self._add(reading.view, now.mono):
            began_anew = began_anew or old is not None
            self._counters, self._histograms = {}, {}
            self._add(reading.view, now.mono)
        if began_anew:
            self.restarts += 1
            self.restarted = True
        self.figures = self._figures(now.mono)
        if self.restarted and self._rates_known(now.mono):
            self.restarted = False
        return began_anew

    def look(self, reading: ProcessReading, now: Now) -> None:
        """Take in the engine's processes; a failed look leaves none, because old ones may be gone."""
        self.processes = reading.processes if reading.outcome is Outcome.OK else ()
        self.zombies = reading.zombies
        self.looked = None if reading.outcome is Outcome.FAILED else now.mono

    def connect(self, reading: ConnectionReading) -> None:
        """Take in who is connected to it."""
        self._connected = reading

    def connections(self, now: Now) -> ConnectionReading | None:
        """Return who is connected to it; None when that was not looked at lately, or cannot be."""
        seen = self._connected
        known = seen is not None and seen.since is not None and now.mono - seen.looked <= CONNECTED_S
        return seen if known else None

    def live(self, life: LifeView) -> None:
        """Take in what supervision knows; a new or ended life makes the old one's numbers unknown.

        What is seen of the processes of an engine that is starting stays: it is told of its progress many times.
        """
        old, self.life = self.life, life
        self._tells = self._tells and old is not None and old.since == life.since
        self._unread = self._unread or life.state is EngineState.STARTING
        another = old is not None and old.started != life.started
        silenced = life.state not in SERVING and (old is None or old.state in SERVING)
        if another or silenced or life.state not in LIVING:
            self._forget()

    def recall(self, before: Transition) -> None:
        """Take in how an earlier daemon left it."""
        self._before = before

    def same_engine(self, other: EngineTrack) -> bool:
        """Whether both read the same page in the same way; a new address counts from its next life on."""
        return (self.kind, self.url, self.supervised) == (other.kind, other.url, other.supervised)

    def inherit(self, before: EngineTrack) -> None:
        """Take over what supervision knows: an engine lives on when its configuration changes, its numbers do not."""
        self.life, self.state, self.state_since = before.life, before.state, before.state_since
        self.rest(standby=before.standby, slept=before.slept, wake_s=before.wake_s, doing=before.doing)
        self.rested = before.rested

    def rest(self, *, standby: bool, slept: bool, wake_s: float | None, doing: str | None = None) -> None:
        """Take in whether it is to sleep, whether it was put to sleep, and what its last waking took in s."""
        self.standby, self.slept, self.wake_s, self.doing = standby, slept, wake_s, doing

    @property
    def transaction(self) -> Transaction | None:
        """What is under way, or was last; of two that go on, the younger: a waking starts what is stopped."""
        started = None if self.life is None else self.life.transaction
        known = [one for one in (started, self.rested) if one is not None]
        return max(known, key=lambda one: (one.outcome is None, one.began), default=None)

    def _forget(self) -> None:
        self.last = self.view = self.good_mono = self.failing = None
        self.figures, self.processes, self.gpu_memory_bytes, self.restarted = NO_FIGURES, (), None, False
        self.zombies, self.looked, self.idle_since, self._connected = (), None, None, None
        self.inflight = None
        self._counters, self._histograms = {}, {}

    def _add(self, view: EngineView, mono: float) -> bool:
        """Add to every tracker; return whether any counter went backwards."""
        reset = False
        for name in _TRACKED & view.counters.keys():
            value = view.counters[name]
            counter = self._counters.get(name)
            if counter is None:
                counter = self._counters[name] = CounterTrack(HORIZON_S)
            reset = counter.add(mono, value) or reset
        for name, value_h in view.histograms.items():
            track = self._histograms.get(name)
            if track is None:
                track = self._histograms[name] = HistogramTrack(HORIZON_S)
            reset = track.add(mono, value_h) or reset
        return reset

    # --- numbers ----------------------------------------------------------------------------------------------------

    def rate(self, counter: str, window_s: float) -> float | None:
        """Return a counter's rate over the window that ended at the last good reading."""
        track = self._counters.get(counter)
        return None if track is None or self.good_mono is None else track.rate(window_s, self.good_mono)

    def latencies(self, window_s: float) -> dict[str, Histogram]:
        """Return the histograms of the window that ended at the last good reading, those that are known."""
        if self.good_mono is None:
            return {}
        windows = {name: track.window(window_s, self.good_mono) for name, track in self._histograms.items()}
        return {name: window for name, window in windows.items() if window is not None}

    def age_s(self, now: Now) -> float | None:
        """Return how old the last good values are."""
        return None if self.good_mono is None else now.mono - self.good_mono

    def fresh_view(self, now: Now) -> EngineView | None:
        """Return the last good view, None when it is older than ``KEEP_S``."""
        age = self.age_s(now)
        return None if age is None or age > KEEP_S else self.view

    def _rates_known(self, mono: float) -> bool:
        return any(track.rate(WINDOW_S, mono) is not None for track in self._counters.values())

    def _figures(self, mono: float) -> Figures:
        found: dict[str, float | None] = {}
        bounds: dict[str, tuple[float, float | None]] = {}
        for name, quantiles in _LATENCIES:
            track = self._histograms.get(name)
            window = None if track is None else track.window(WINDOW_S, mono)
            for q in quantiles:
                at = None if window is None else quantile(window, q)
                field = f"{name}_p{q * 100:.0f}_s"
                found[field] = None if at is None else at.value
                if at is not None and at_an_edge(at):
                    bounds[field] = at.lower, at.upper
        finished, failed = self.rate("requests_finished", WINDOW_S), self.rate("requests_failed", WINDOW_S)
        return Figures(
            prompt_tokens_per_s=self.rate("prompt_tokens", WINDOW_S),
            generation_tokens_per_s=self.rate("generation_tokens", WINDOW_S),
            requests_per_s=finished,
            errors_per_s=failed,
            error_ratio=None if finished is None or failed is None else _ratio(failed, finished + failed),
            preemptions_per_s=self.rate("preemptions", WINDOW_S),
            prefix_hit_ratio=_ratio(self.rate("prefix_hits", WINDOW_S), self.rate("prefix_queries", WINDOW_S)),
            latency_bounds=bounds,
            **found,
        )

    # --- state ------------------------------------------------------------------------------------------------------

    def derive(self, now: Now) -> tuple[EngineState | None, EngineState] | None:
        """Settle the state after a change; return ``(old, new)`` when it moved, None when not or still unknown."""
        new = self._state()
        if new is None or new is self.state:
            return None
        old, self.state = self.state, new
        self.state_since = self.life.since if self.life is not None and new is self.life.state else now.wall
        if old is None and new in LASTING and self._before is not None and self._before.state is new:
            self.state_since = min(self.state_since, self._before.t)
        return old, new

    def _state(self) -> EngineState | None:
        if self.life is None:
            return None if self.supervised or self.last is None else self._observed(self.last)
        if self.life.state in _OVER and not self.supervised and self.last is not None:
            return self._observed(self.last)  # only its page tells how it is
        # A scrape of before the engine said it was ready proves nothing.
        if self.last is None or not self._tells:
            return self.life.state
        if self.life.state is EngineState.READY:
            return self._observed(self.last)
        # Out of service by a wish; one that drains for a restart has a time by which it is over.
        out = self.life.state is EngineState.DRAINING and self.life.until is None
        return EngineState.ASLEEP if out and self._sleeps(self.last) else self.life.state

    def _observed(self, reading: EngineReading) -> EngineState:
        if reading.outcome is Outcome.FAILED:
            return EngineState.UNREACHABLE
        if reading.outcome is Outcome.NO_DATA:
            # It answers. Whether it is an engine at all is known only from the configuration or from an earlier page.
            return EngineState.READY if self.kind or self.supervised or self.view else EngineState.UNREACHABLE
        return EngineState.ASLEEP if self._sleeps(reading) else EngineState.READY

    def _sleeps(self, reading: EngineReading) -> bool:
        told = None if reading.view is None else reading.view.asleep
        return reading.outcome is not Outcome.FAILED and (self.slept if told is None else told)

    @property
    def message(self) -> str | None:
        """One line for people: what supervision says, else why the page cannot be read (first where nobody answers)."""
        if self.state is EngineState.ASLEEP and self.life is not None:
            took = "" if self.wake_s is None else f" (the last time in {self.wake_s:.1f} s)"
            return f"`opsboard engine wake {self.name}` brings it back{took}"
        if self.doing is not None and self.state is EngineState.DRAINING:
            return self.doing
        life = None if self.life is None else self.life.message
        error = None if self.last is None else self.last.error
        if self.state is EngineState.UNREACHABLE:  # supervision does not know of it yet
            return "; ".join(filter(None, (error, life))) or None
        return life or error

    @property
    def hint(self) -> str | None:
        """What a person can do about that, as supervision knows it."""
        spoken_for = self.state is EngineState.ASLEEP or self.doing is not None
        return None if self.life is None or spoken_for or self.state is not self.life.state else self.life.hint


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else min(1.0, max(0.0, part / whole))
