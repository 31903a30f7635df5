"""The metric families of vLLM, from which release to which, and which number of the engine each one shows.

Names, order, help texts and label values are those of ``vllm/v1/metrics/loggers.py`` (read in 0.8.5, 0.10.2, 0.16.0,
0.32.0 and 0.33.0) and ``vllm/engine/metrics.py`` (0.5.5), with default features.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

Version = tuple[int, int, int]
_FIRST: Version = (0, 0, 0)
_LAST: Version = (99, 0, 0)


class Family(msgspec.Struct, frozen=True):
    """One family: counters under their exposed name (with ``_total``).

    ``key`` names a value or a histogram of ``EngineMetrics``; with ``label`` there is one series for each of ``keys``.
    """

    name: str
    kind: str
    help: str
    key: str = ""
    label: str = ""
    keys: Mapping[str, str] = {}
    since: Version = _FIRST
    until: Version = _LAST
    engine: bool = True
    """Has the ``engine`` label, where the release has one at all."""


def _cut(since: tuple[int, int], until: tuple[int, int] | None = None) -> dict[str, Version]:
    return {"since": (*since, 0), "until": (*until, 99) if until else _LAST}


_V0: dict[str, Version] = {"until": (0, 6, 99)}
_CACHED_HELP = (
    "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to DRAM), disk, "
    "p2p (transferred from another vLLM instance) or external_unspecified. Counted at admission; sums to "
    "vllm:prefix_cache_hits + vllm:external_prefix_cache_hits."
)
_WAITING_HELP = (
    "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' = "
    "deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals "
    "vllm:num_requests_waiting."
)
_SLEEP_HELP = (
    "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1 "
    "means sleep level 1; discard_all = 1 means sleep level 2."
)
_EXTERNAL = "from KV connector cross-instance cache sharing, in terms of number of"
_MFU = "per GPU (for Model Flops Utilization calculations)."
_DEVICE = {"device": "prompt_cached", "host": "zero", "p2p": "zero", "disk": "zero", "external_unspecified": "zero"}
_SOURCES = {"local_compute": "prompt_computed", "local_cache_hit": "prompt_cached", "external_kv_transfer": "zero"}


def _reasons(*names: str) -> dict[str, str]:
    return {name: f"finished_{name}" for name in names}


def _counter(name: str, help: str, key: str, **more: object) -> Family:
    return msgspec.convert({"name": name, "kind": "counter", "help": help, "key": key, **more}, Family)


def _gauge(name: str, help: str, key: str, **more: object) -> Family:
    return msgspec.convert({"name": name, "kind": "gauge", "help": help, "key": key, **more}, Family)


def _histogram(name: str, help: str, key: str, **more: object) -> Family:
    return msgspec.convert({"name": name, "kind": "histogram", "help": help, "key": key, **more}, Family)


def _success(*reasons: str, **more: object) -> Family:
    return _counter(
        "vllm:request_success_total",
        "Count of successfully processed requests.",
        "",
        label="finished_reason",
        keys=_reasons(*reasons),
        **more,
    )


FAMILIES: tuple[Family, ...] = (
    _counter(
        "vllm:estimated_flops_per_gpu_total",
        f"Estimated number of floating point operations {_MFU}",
        "zero",
        **_cut((0, 18)),
    ),
    _counter(
        "vllm:estimated_read_bytes_per_gpu_total",
        f"Estimated number of bytes read from memory {_MFU}",
        "zero",
        **_cut((0, 18)),
    ),
    _counter(
        "vllm:estimated_write_bytes_per_gpu_total",
        f"Estimated number of bytes written to memory {_MFU}",
        "zero",
        **_cut((0, 18)),
    ),
    _gauge("vllm:num_requests_running", "Number of requests in model execution batches.", "running"),
    _gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", "waiting"),
    _gauge(
        "vllm:num_requests_waiting_by_reason",
        _WAITING_HELP,
        "",
        label="reason",
        keys={"capacity": "waiting", "deferred": "zero"},
        **_cut((0, 20)),
    ),
    _gauge("vllm:num_requests_swapped", "Number of requests swapped to CPU.", "zero", **_V0),
    _gauge(
        "vllm:engine_sleep_state",
        _SLEEP_HELP,
        "",
        label="sleep_state",
        keys={name: name for name in ("awake", "weights_offloaded", "discard_all")},
        **_cut((0, 12)),
    ),
    _gauge(
        "vllm:gpu_cache_usage_perc",
        "GPU KV-cache usage. 1 means 100 percent usage.",
        "kv_usage",
        **_cut((0, 0), (0, 10)),
    ),
    _gauge("vllm:cpu_cache_usage_perc", "CPU KV-cache usage. 1 means 100 percent usage.", "zero", **_V0),
    _gauge("vllm:cpu_prefix_cache_hit_rate", "CPU prefix cache block hit rate.", "unused", **_V0),
    _gauge("vllm:gpu_prefix_cache_hit_rate", "GPU prefix cache block hit rate.", "prefix_hit_rate", **_V0),
    _counter(
        "vllm:gpu_prefix_cache_queries_total",
        "GPU prefix cache queries, in terms of number of queried blocks.",
        "prefix_query_blocks",
        **_cut((0, 7), (0, 8)),
    ),
    _counter(
        "vllm:gpu_prefix_cache_hits_total",
        "GPU prefix cache hits, in terms of number of cached blocks.",
        "prefix_hit_blocks",
        **_cut((0, 7), (0, 8)),
    ),
    _counter(
        "vllm:gpu_prefix_cache_queries_total",
        "GPU prefix cache queries, in terms of number of queried tokens.",
        "prefix_queries",
        **_cut((0, 9), (0, 10)),
    ),
    _counter(
        "vllm:gpu_prefix_cache_hits_total",
        "GPU prefix cache hits, in terms of number of cached tokens.",
        "prefix_hits",
        **_cut((0, 9), (0, 10)),
    ),
    _gauge(
        "vllm:kv_cache_usage_perc",
        "KV-cache usage. 1 means 100 percent usage.",
        "kv_usage",
        **_cut((0, 9)),
    ),
    _counter(
        "vllm:prefix_cache_queries_total",
        "Prefix cache queries, in terms of number of queried tokens.",
        "prefix_queries",
        **_cut((0, 9)),
    ),
    _counter(
        "vllm:prefix_cache_hits_total",
        "Prefix cache hits, in terms of number of cached tokens.",
        "prefix_hits",
        **_cut((0, 9)),
    ),
    _counter(
        "vllm:external_prefix_cache_queries_total",
        f"External prefix cache queries {_EXTERNAL} queried tokens.",
        "zero",
        **_cut((0, 11)),
    ),
    _counter(
        "vllm:external_prefix_cache_hits_total",
        f"External prefix cache hits {_EXTERNAL} cached tokens.",
        "zero",
        **_cut((0, 11)),
    ),
    _counter(
        "vllm:mm_cache_queries_total",
        "Multi-modal cache queries, in terms of number of queried items.",
        "zero",
        **_cut((0, 11)),
    ),
    _counter(
        "vllm:mm_cache_hits_total",
        "Multi-modal cache hits, in terms of number of cached items.",
        "zero",
        **_cut((0, 11)),
    ),
    _counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", "preemptions"),
    _counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", "prompt_tokens"),
    _counter(
        "vllm:prompt_tokens_by_source_total",
        "Number of prompt tokens by source.",
        "",
        label="source",
        keys=_SOURCES,
        **_cut((0, 16)),
    ),
    _counter(
        "vllm:prompt_tokens_cached_total",
        "Number of cached prompt tokens (local + external).",
        "prompt_cached",
        **_cut((0, 16)),
    ),
    _counter(
        "vllm:prompt_tokens_recomputed_total",
        "Number of cached tokens recomputed for forward pass.",
        "zero",
        **_cut((0, 16), (0, 18)),
    ),
    _counter(
        "vllm:prompt_tokens_cached_by_source_total",
        _CACHED_HELP,
        "",
        label="source",
        keys=_DEVICE,
        **_cut((0, 32)),
    ),
    _counter("vllm:generation_tokens_total", "Number of generation tokens processed.", "generation_tokens"),
    _success("stop", "length", "abort", **_cut((0, 0), (0, 13))),
    _success("stop", "length", "abort", "error", **_cut((0, 14), (0, 19))),
    _success("stop", "length", "abort", "error", "repetition", **_cut((0, 20))),
    _counter(
        "vllm:admission_rejections_total",
        "Number of admission attempts rejected by a queue limit, by reason.",
        "",
        label="reason",
        keys={"max_num_queued_reqs": "zero", "max_num_queued_tokens": "zero"},
        engine=False,
        **_cut((0, 32)),
    ),
    _histogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.", "prompt_len"),
    _histogram("vllm:request_generation_tokens", "Number of generation tokens processed.", "output_len"),
    _histogram(
        "vllm:iteration_tokens_total",
        "Histogram of number of tokens per engine_step.",
        "iteration",
        **_cut((0, 7)),
    ),
    _histogram(
        "vllm:request_max_num_generation_tokens",
        "Histogram of maximum number of requested generation tokens.",
        "max_output",
        **_cut((0, 7)),
    ),
    _histogram("vllm:request_params_best_of", "Histogram of the best_of request parameter.", "n", **_V0),
    _histogram("vllm:request_params_n", "Histogram of the n request parameter.", "n"),
    _histogram(
        "vllm:request_params_max_tokens",
        "Histogram of the max_tokens request parameter.",
        "max_tokens",
        **_cut((0, 7)),
    ),
    _histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", "ttft"),
    _histogram(
        "vllm:time_per_output_token_seconds",
        "Histogram of time per output token in seconds.",
        "itl",
        **_cut((0, 0), (0, 11)),
    ),
    _histogram(
        "vllm:inter_token_latency_seconds",
        "Histogram of inter-token latency in seconds.",
        "itl",
        **_cut((0, 10)),
    ),
    _histogram(
        "vllm:request_time_per_output_token_seconds",
        "Histogram of time_per_output_token_seconds per request.",
        "tpot",
        **_cut((0, 11)),
    ),
    _histogram("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", "e2e"),
    _histogram(
        "vllm:request_queue_time_seconds",
        "Histogram of time spent in WAITING phase for request.",
        "queue",
        **_cut((0, 7)),
    ),
    _histogram(
        "vllm:request_inference_time_seconds",
        "Histogram of time spent in RUNNING phase for request.",
        "inference",
        **_cut((0, 7)),
    ),
    _histogram(
        "vllm:request_prefill_time_seconds",
        "Histogram of time spent in PREFILL phase for request.",
        "prefill",
        **_cut((0, 7)),
    ),
    _histogram(
        "vllm:request_decode_time_seconds",
        "Histogram of time spent in DECODE phase for request.",
        "decode",
        **_cut((0, 7)),
    ),
    _histogram(
        "vllm:request_num_preemptions",
        "Histogram of the number of times a request was preempted.",
        "preempted",
        **_cut((0, 30)),
    ),
    _histogram(
        "vllm:request_prefill_kv_computed_tokens",
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
        "computed_len",
        **_cut((0, 16)),
    ),
    *(
        Family(f"vllm:spec_decode_{name}", kind, about, label="unused", until=_V0["until"])
        for name, kind, about in (
            ("draft_acceptance_rate", "gauge", "Speulative token acceptance rate."),
            ("efficiency", "gauge", "Speculative decoding system efficiency."),
            ("num_accepted_tokens_total", "counter", "Number of accepted tokens."),
            ("num_draft_tokens_total", "counter", "Number of draft tokens."),
            ("num_emitted_tokens_total", "counter", "Number of emitted tokens."),
        )
    ),
    _gauge(
        "vllm:avg_prompt_throughput_toks_per_s",
        "Average prefill throughput in tokens/s.",
        "prompt_throughput",
        **_V0,
    ),
    _gauge(
        "vllm:avg_generation_throughput_toks_per_s",
        "Average generation throughput in tokens/s.",
        "generation_throughput",
        **_V0,
    ),
)

CORRUPTED = _counter(
    "vllm:corrupted_requests_total",
    "Corrupted requests, in terms of total number of requests with NaNs in logits.",
    "zero",
)
"""Registered always by the Rust front end, by the Python one only with VLLM_COMPUTE_NANS_IN_LOGITS."""

_SECONDS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)
_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_SMALL = (1.0, 2.0, 5.0, 10.0, 20.0)


def bounds(version: Version, max_model_len: int) -> Mapping[str, tuple[float, ...]]:
    """Return the finite bucket bounds of every histogram of ``EngineMetrics`` as ``version`` has them."""
    old = version < (0, 7, 0)
    request = _SECONDS if old else (*_SECONDS, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0)
    itl = _ITL if old else (*_ITL, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
    lengths = tuple(
        float(mantissa * 10**power)
        for power in range(10)
        for mantissa in (1, 2, 5)
        if mantissa * 10**power <= max_model_len
    )
    return MappingProxyType(
        dict.fromkeys(("queue", "inference", "prefill", "decode"), request)
        | dict.fromkeys(("prompt_len", "output_len", "max_output", "max_tokens", "computed_len"), lengths)
        | {
            "e2e": (1.0, 2.5, *request[7:]) if old else request,
            "ttft": _TTFT if old else (*_TTFT, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
            "itl": itl,
            "tpot": itl,
            "n": _SMALL,
            "preempted": (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0),
            "iteration": (1.0, *(float(2**power) for power in range(3, 15))),
        }
    )
