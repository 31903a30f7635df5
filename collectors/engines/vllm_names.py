"""What vLLM calls what opsboard reads, over ten years of names. docs/engines/vllm.md has the table for people."""

from __future__ import annotations

from typing import NamedTuple


class Source(NamedTuple):
    """Where a number comes from: the first of ``names`` that the page has, or the sum of ``all_of`` them."""

    names: tuple[str, ...]
    where: tuple[str, str] | None = None
    """Only series with this value of this label."""
    all_of: bool = False


def _one(*names: str) -> Source:
    return Source(tuple(f"vllm:{name}" for name in names))


def _sum(*names: str) -> Source:
    return Source(tuple(f"vllm:{name}" for name in names), all_of=True)


def _where(name: str, label: str, value: str) -> Source:
    return Source((f"vllm:{name}",), (label, value))


FIELDS = {
    "running": _one("num_requests_running"),
    "waiting": _one("num_requests_waiting"),
    "kv_usage": _one("kv_cache_usage_perc", "gpu_cache_usage_perc"),
}
"""Gauges that are fields of a view."""

GAUGES = {
    "waiting_deferred": _where("num_requests_waiting_by_reason", "reason", "deferred"),
    "kv_fetching": _one("num_requests_kv_fetch_by_stage"),
    "kv_offload_usage": _one("kv_offload_cpu_cache_usage_perc"),
    "kv_offload_read_usage": _one("kv_offload_cpu_cache_read_usage_perc"),
    "kv_offload_write_usage": _one("kv_offload_cpu_cache_write_usage_perc"),
    "kv_offload_pending_blocks": _one("simple_kv_offload_pending_store_blocks"),
}

SHARES = frozenset({"kv_usage", "kv_offload_usage", "kv_offload_read_usage", "kv_offload_write_usage"})
"""Gauges that are parts of a whole: of several ranks they are never added up."""

COUNTERS = {
    "prompt_tokens": _one("prompt_tokens_total"),
    "prompt_tokens_cached": _one("prompt_tokens_cached_total"),
    "prompt_tokens_computed": _where("prompt_tokens_by_source_total", "source", "local_compute"),
    "prompt_tokens_hit": _where("prompt_tokens_by_source_total", "source", "local_cache_hit"),
    "prompt_tokens_transferred": _where("prompt_tokens_by_source_total", "source", "external_kv_transfer"),
    "generation_tokens": _one("generation_tokens_total"),
    "requests_begun": _one("time_to_first_token_seconds_count"),
    "requests_completed": _one("e2e_request_latency_seconds_count"),
    "completed_prompt_tokens": _one("request_prompt_tokens_sum"),
    "completed_generation_tokens": _one("request_generation_tokens_sum"),
    "completed_prefill_tokens": _one("request_prefill_kv_computed_tokens_sum"),
    "preemptions": _one("num_preemptions_total"),
    "prefix_queries": _one("prefix_cache_queries_total", "gpu_prefix_cache_queries_total", "gpu_prefix_cache_queries"),
    "prefix_hits": _one("prefix_cache_hits_total", "gpu_prefix_cache_hits_total", "gpu_prefix_cache_hits"),
    "external_queries": _one("external_prefix_cache_queries_total"),
    "external_hits": _one("external_prefix_cache_hits_total"),
    # A histogram despite its name: one observation for each step that gave output.
    "iterations": _one("iteration_tokens_total_count"),
    "spec_drafts": _one("spec_decode_num_drafts_total"),
    "spec_draft_tokens": _one("spec_decode_num_draft_tokens_total"),
    "spec_accepted_tokens": _one("spec_decode_num_accepted_tokens_total"),
    "kv_leases_expired": _sum("nixl_num_kv_expired_reqs_total", "mooncake_num_kv_expired_reqs_total"),
    "kv_transfers_failed": _sum(
        "nixl_num_failed_transfers_total",
        "mooncake_num_failed_transfers_total",
        "mooncake_num_failed_recvs_total",
    ),
    "corrupted_requests": _one("corrupted_requests_total"),
}

HISTOGRAMS = {
    "ttft": ("vllm:time_to_first_token_seconds",),
    "itl": ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    "tpot": ("vllm:request_time_per_output_token_seconds",),
    "e2e": ("vllm:e2e_request_latency_seconds",),
    "queue": ("vllm:request_queue_time_seconds", "vllm:time_in_queue_requests"),
    "prefill": ("vllm:request_prefill_time_seconds",),
    "decode": ("vllm:request_decode_time_seconds",),
    "inference": ("vllm:request_inference_time_seconds",),
}

SUCCESS = "vllm:request_success_total"
REJECTIONS = "vllm:admission_rejections_total"
CACHE = "vllm:cache_config_info"
SLEEP = "vllm:engine_sleep_state"
POSITIONS = "vllm:spec_decode_num_accepted_tokens_per_pos_total"
RANK = ("engine", "model_name")

CONNECTORS = ("nixl", "mooncake", "kv_offload", "simple_kv_offload", "hisparse", "hf3fs", "umbp")
"""How the names of series begin that are there only where something holds or moves KV blocks for others."""

MEASURED = frozenset(
    {"engine", "model_name", "num_gpu_blocks", "num_cpu_blocks", "kv_cache_size_tokens", "kv_cache_max_concurrency"}
)
"""Labels of ``cache_config_info`` that are no configuration: they differ from start to start, or from rank to rank."""
