"""Names and units of all that is recorded: the one list behind the store's views, the history endpoint and the docs.

A series is ``kind/subject/field``: ``engine/llama-a/kv_usage``, ``gpu/GPU-6f…/power_w``, ``host/gpu-a/cpu_ratio``,
``process/llama-a:engine_core/rss_anon_bytes`` (summed over the processes of a role).
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["engine", "gpu", "host", "process"]


class Field(msgspec.Struct, frozen=True):
    """One recorded field: ``counter`` ones are cumulative and may reset, all others are of the moment.

    ``computed`` ones are our own arithmetic (rates, quantiles, ratios, durations): kept at :data:`DIGITS`. All others
    are kept as they were read.
    """

    name: str
    unit: str
    help: str
    counter: bool = False
    computed: bool = False


DIGITS = 4
"""Significant digits of a computed value: an error of 0.05 % at most, far below what its window and buckets say."""


FIELDS: dict[Kind, tuple[Field, ...]] = {
    "engine": (
        Field("up", "1", "1 while the engine's page can be read, 0 while not"),
        Field("running", "requests", "requests in the execution batch"),
        Field("waiting", "requests", "requests queued"),
        Field("kv_usage", "ratio", "part of the KV cache in use"),
        Field("kv_capacity_tokens", "tokens", "size of the KV cache"),
        Field("prompt_tokens", "tokens", "prompt tokens processed", counter=True),
        Field("generation_tokens", "tokens", "tokens generated", counter=True),
        Field("requests_finished", "requests", "requests that ended well", counter=True),
        Field("requests_failed", "requests", "requests that ended in an error", counter=True),
        Field("preemptions", "requests", "requests pushed out of the batch for want of KV blocks", counter=True),
        Field("prefix_queries", "tokens", "tokens looked up in the prefix cache", counter=True),
        Field("prefix_hits", "tokens", "tokens found in the prefix cache", counter=True),
        Field("iterations", "steps", "engine steps that produced output", counter=True),
        Field("prompt_tokens_per_s", "tokens/s", "prompt tokens a second, last 10 s", computed=True),
        Field("generation_tokens_per_s", "tokens/s", "generated tokens a second, last 10 s", computed=True),
        Field("requests_per_s", "requests/s", "requests finished a second, last 60 s", computed=True),
        Field("errors_per_s", "requests/s", "requests failed a second, last 60 s", computed=True),
        Field("ttft_p50_s", "seconds", "time to first token, median, last 60 s", computed=True),
        Field("ttft_p95_s", "seconds", "time to first token, 95th percentile, last 60 s", computed=True),
        Field("itl_p50_s", "seconds", "inter-token latency, median, last 60 s", computed=True),
        Field("itl_p95_s", "seconds", "inter-token latency, 95th percentile, last 60 s", computed=True),
        Field("e2e_p95_s", "seconds", "request latency, 95th percentile, last 60 s", computed=True),
        Field("queue_p95_s", "seconds", "time in the queue, 95th percentile, last 60 s", computed=True),
        Field("rss_bytes", "bytes", "resident memory of all the engine's processes"),
        Field("gpu_memory_bytes", "bytes", "GPU memory held by the engine's processes"),
        Field("scrape_s", "seconds", "how long the last scrape took", computed=True),
        Field("kv_lost_blocks", "blocks", "KV blocks that are lost at least, while kv_leak claims it", computed=True),
        Field("latency_ratio", "1", "time of a token / what its load explains", computed=True),
        Field("prefill_ratio", "1", "time of a prompt / what its load explains", computed=True),
    ),
    "gpu": (
        Field("memory_used_bytes", "bytes", "memory in use"),
        Field("memory_total_bytes", "bytes", "memory of the card"),
        Field("utilization", "ratio", "time with a kernel running"),
        Field("power_w", "watts", "power draw"),
        Field("power_limit_w", "watts", "enforced power limit"),
        Field("temperature_c", "celsius", "core temperature"),
        Field("sm_clock_mhz", "MHz", "SM clock"),
        Field("memory_clock_mhz", "MHz", "memory clock"),
        Field("throttled", "1", "1 while a throttle reason other than idle is active"),
        Field("ecc_corrected", "errors", "corrected ECC errors", counter=True),
        Field("ecc_uncorrected", "errors", "uncorrected ECC errors", counter=True),
        Field("xid", "code", "last Xid seen"),
    ),
    "host": (
        Field("cpu_ratio", "ratio", "CPU in use, of all cores", computed=True),
        Field("load1", "1", "load average, 1 min"),
        Field("memory_available_bytes", "bytes", "memory that can be had without swapping"),
        Field("memory_total_bytes", "bytes", "memory of the machine"),
        Field("swap_used_bytes", "bytes", "swap in use"),
        Field("cgroup_used_bytes", "bytes", "memory charged to the daemon's cgroup"),
        Field("disk_free_bytes", "bytes", "free on the disk of the state directory"),
        Field("disk_total_bytes", "bytes", "size of the disk of the state directory"),
        Field("daemon_cpu_ratio", "ratio", "cores used by the daemon", computed=True),
        Field("daemon_rss_bytes", "bytes", "resident memory of the daemon"),
    ),
    "process": (
        Field("rss_bytes", "bytes", "resident memory"),
        Field("rss_anon_bytes", "bytes", "anonymous resident memory (what leaks)"),
        Field("swap_bytes", "bytes", "swapped out"),
        Field("cpu_ratio", "cores", "cores used", computed=True),
    ),
}


def series_name(kind: Kind, subject: str, field: str) -> str:
    """Return ``kind/subject/field``."""
    return f"{kind}/{subject}/{field}"


def split_series(series: str) -> tuple[str, str, str]:
    """Return ``(kind, subject, field)``; a subject may hold slashes. Raises ValueError when a part is missing."""
    kind, _, rest = series.partition("/")
    subject, _, field = rest.rpartition("/")
    if not (kind and subject and field):
        msg = f"series {series!r} is not kind/subject/field"
        raise ValueError(msg)
    return kind, subject, field
