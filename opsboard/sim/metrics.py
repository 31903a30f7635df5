"""What a vLLM front end counts: from the steps of its engine core to gauges, counters and histograms.

Pure, in the caller's time. The rules are those of ``vllm/v1/metrics/stats.py``: queue, prefill and decode times come
from the core's clock, TTFT and end-to-end latency from the front end's; inter-token latency is one observation per
request and step; a request whose client went away is in no histogram of finished requests and in no finish reason.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from opsboard.sim.model import Finished, FirstToken, Stats, StepResult

HISTOGRAMS = (
    *("ttft", "itl", "tpot", "e2e", "queue", "inference", "prefill", "decode"),
    *("prompt_len", "output_len", "max_output", "max_tokens", "computed_len", "n", "iteration", "preempted"),
)
FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")


class Histogram:
    """Observations by bucket; ``counts`` are not cumulative, the last one is that of +Inf."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """``bounds`` are the finite upper bounds, ascending."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class _Tracked:
    """One request of the front end; instants in seconds of the shared monotonic clock."""

    __slots__ = ("arrived", "cached", "first", "last", "max_tokens", "prompt_tokens", "queued", "scheduled", "tokens")

    def __init__(self, arrived: float, prompt_tokens: int, max_tokens: int) -> None:
        self.arrived = self.queued = self.scheduled = self.first = self.last = arrived
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.cached = 0
        self.tokens = 0


class EngineMetrics:
    """The numbers of one engine since its start: ``values`` by name (see ``families.py``), ``histograms`` by name."""

    def __init__(self, bounds: Mapping[str, Sequence[float]], block_size: int) -> None:
        """``bounds`` gives the buckets of every name of :data:`HISTOGRAMS`."""
        self.values = dict.fromkeys(
            (
                *("running", "waiting", "kv_usage", "preemptions", "prompt_tokens", "generation_tokens", "zero"),
                *("prefix_queries", "prefix_hits", "prefix_query_blocks", "prefix_hit_blocks"),
                *("prompt_cached", "prompt_computed", "prompt_throughput", "generation_throughput"),
                *(f"finished_{reason}" for reason in FINISH_REASONS),
            ),
            0.0,
        )
        self.values |= {"awake": 1.0, "weights_offloaded": 0.0, "discard_all": 0.0}
        self.values |= {"one": 1.0, "prefix_hit_rate": -1.0, "unused": -1.0}
        self.histograms = {name: Histogram(bounds[name]) for name in HISTOGRAMS}
        self.stale = False
        """While True the scheduler's gauges keep what they say (a fault)."""
        self._block_size = block_size
        self._tracked: dict[int, _Tracked] = {}

    def arrived(self, id: int, now: float, prompt_tokens: int, max_tokens: int) -> None:
        """Begin to follow a request."""
        self._tracked[id] = _Tracked(now, prompt_tokens, max_tokens)

    def forget(self, id: int) -> None:
        """Stop following a request whose client went away."""
        self._tracked.pop(id, None)

    def aborted(self, id: int) -> None:
        """Count a request that the engine itself ended before its time; no latency is known of it."""
        if self._tracked.pop(id, None) is not None:
            self.values["finished_abort"] += 1

    def slept(self, level: int | None) -> None:
        """Tell of the sleep at ``level``, None: awake. Level 0 is a pause that offloads nothing."""
        self.values |= {"awake": float(level is None), "weights_offloaded": float(level == 1)}
        self.values["discard_all"] = float(level == 2)

    def stepped(self, result: StepResult, now: float) -> None:
        """Take in one step; ``now`` is when the front end got to know of it."""
        self.scheduler(result.stats)
        computed = sum(self._first_token(first, now) for first in result.first)
        for tracked in map(self._tracked.get, result.tokens):
            if tracked is None:
                continue
            if tracked.tokens == 0:
                tracked.first = result.ends
            else:
                self.histograms["itl"].observe(result.ends - tracked.last)
            tracked.last = result.ends
            tracked.tokens += 1
        self.values["generation_tokens"] += len(result.tokens)
        if result.tokens:
            self.histograms["iteration"].observe(computed + len(result.tokens))
        for finished in result.finished:
            self._finished(finished, now)

    def scheduler(self, stats: Stats) -> None:
        """Take in what the scheduler says of itself."""
        values = self.values
        if not self.stale:
            values["running"], values["waiting"], values["kv_usage"] = stats.running, stats.waiting, stats.kv_usage
        values["preemptions"] += stats.preemptions
        if stats.prefix_queries:
            values["prefix_queries"] += stats.prefix_queries
            values["prefix_hits"] += stats.prefix_hits
            values["prefix_query_blocks"] += stats.prefix_queries // self._block_size
            values["prefix_hit_blocks"] += stats.prefix_hits // self._block_size
            values["prefix_hit_rate"] = values["prefix_hits"] / values["prefix_queries"]

    def _first_token(self, first: FirstToken, now: float) -> int:
        """Count a prompt that is done and return how many of its tokens had to be computed."""
        computed = first.prompt_tokens - first.cached_tokens
        self.values["prompt_tokens"] += first.prompt_tokens
        self.values["prompt_cached"] += first.cached_tokens
        self.values["prompt_computed"] += computed
        tracked = self._tracked.get(first.id)
        if tracked is not None:
            tracked.queued, tracked.scheduled, tracked.cached = first.queued, first.scheduled, first.cached_tokens
            self.histograms["ttft"].observe(now - tracked.arrived)
        return computed

    def _finished(self, finished: Finished, now: float) -> None:
        tracked = self._tracked.pop(finished.id, None)
        if tracked is None:
            return
        self.values[f"finished_{finished.reason}"] += 1
        decode = tracked.last - tracked.first
        observed = {
            "e2e": now - tracked.arrived,
            "queue": tracked.scheduled - tracked.queued,
            "prefill": tracked.first - tracked.scheduled,
            "decode": decode,
            "inference": tracked.last - tracked.scheduled,
            "tpot": decode / (tracked.tokens - 1) if tracked.tokens > 1 else 0.0,
            "prompt_len": tracked.prompt_tokens,
            "output_len": tracked.tokens,
            "max_output": tracked.tokens,
            "max_tokens": tracked.max_tokens,
            "computed_len": tracked.prompt_tokens - tracked.cached,
            "n": 1,
            "preempted": finished.preemptions,
        }
        for name, value in observed.items():
            self.histograms[name].observe(value)
