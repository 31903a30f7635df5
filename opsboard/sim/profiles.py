"""Which vLLM a simulated engine is: its metrics page and those of its manners that changed between releases."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from opsboard.core.errors import UsageError
from opsboard.sim.families import CORRUPTED, FAMILIES, Family, Version
from opsboard.sim.model import Shape

_CACHE_0_5 = (
    "block_size=$block_size gpu_memory_utilization=0.9 swap_space_bytes=4294967296 num_gpu_blocks_override=None "
    "cache_dtype=auto sliding_window=None enable_prefix_caching=False cpu_offload_gb=0 num_gpu_blocks=$blocks "
    "num_cpu_blocks=2048"
)
_CACHE_0_8 = (
    "block_size=$block_size gpu_memory_utilization=0.9 swap_space=4 cache_dtype=auto is_attention_free=False "
    "num_gpu_blocks_override=None sliding_window=None enable_prefix_caching=True prefix_caching_hash_algo=builtin "
    "cpu_offload_gb=0 calculate_kv_scales=False num_gpu_blocks=$blocks num_cpu_blocks=0 swap_space_bytes=4294967296"
)
_CACHE_0_10 = (
    "block_size=$block_size gpu_memory_utilization=0.9 swap_space=4 cache_dtype=auto is_attention_free=False "
    "num_gpu_blocks_override=None sliding_window=None enable_prefix_caching=True prefix_caching_hash_algo=sha256 "
    "cpu_offload_gb=0 calculate_kv_scales=False cpu_kvcache_space_bytes=None mamba_page_size_padded=None "
    "mamba_cache_dtype=auto mamba_ssm_cache_dtype=auto num_gpu_blocks=$blocks num_cpu_blocks=0 "
    "kv_sharing_fast_prefill=False kv_cache_memory_bytes=None swap_space_bytes=4294967296 engine=0"
)
_CACHE_0_16 = (
    "block_size=$block_size gpu_memory_utilization=0.9 swap_space=4 cache_dtype=auto is_attention_free=False "
    "num_gpu_blocks_override=None sliding_window=None enable_prefix_caching=True prefix_caching_hash_algo=sha256 "
    "cpu_offload_gb=0 calculate_kv_scales=False cpu_kvcache_space_bytes=None mamba_page_size_padded=None "
    "mamba_block_size=None mamba_cache_dtype=auto mamba_ssm_cache_dtype=auto mamba_cache_mode=none "
    "num_gpu_blocks=$blocks num_cpu_blocks=0 kv_sharing_fast_prefill=False kv_cache_memory_bytes=None "
    "kv_offloading_size=None kv_offloading_backend=native engine=0"
)
_CACHE_0_32 = (
    "_block_size_resolved=True block_size=$block_size cache_dtype=auto cache_hit_alignment_tokens=None "
    "effective_attention_block_size=$block_size enable_mamba_shared_prefix_checkpoint=False enable_prefix_caching=True "
    "engine=0 gpu_memory_utilization=0.92 hash_block_size=None is_attention_free=False kv_cache_dtype_skip_layers=[] "
    "kv_cache_layout=None kv_cache_max_concurrency=$concurrency kv_cache_memory_bytes=None "
    "kv_cache_size_tokens=$tokens kv_offloading_backend=native kv_offloading_size=None kv_sharing_fast_prefill=False "
    "mamba_block_size=None mamba_cache_dtype=auto mamba_cache_mode=none mamba_page_size_padded=None "
    "mamba_ssm_cache_dtype=float32 num_cpu_blocks=None num_gpu_blocks=$blocks num_gpu_blocks_override=None "
    "prefix_cache_retention_interval=0 prefix_caching_hash_algo=sha256 prefix_match_unit=None replayssm_buffer_len=16 "
    "skip_page_size_padded=None sliding_window=None swa_bounded_replay=True use_kda_recoverssm=False "
    "use_replayssm=False user_specified_block_size=False"
)
_CACHE_0_33 = _CACHE_0_32 + " simple_cpu_offload_num_blocks=None"

_RUST_ORDER = (
    *("num_requests_running", "num_requests_waiting", "num_requests_waiting_by_reason", "kv_cache_usage_perc"),
    *("prefix_cache_queries_total", "prefix_cache_hits_total", "external_prefix_cache_queries_total"),
    *("external_prefix_cache_hits_total", "prompt_tokens_cached_by_source_total", "estimated_flops_per_gpu_total"),
    *("estimated_read_bytes_per_gpu_total", "estimated_write_bytes_per_gpu_total", "iteration_tokens_total"),
    *("num_preemptions_total", "prompt_tokens_total", "prompt_tokens_by_source_total", "prompt_tokens_cached_total"),
    *("generation_tokens_total", "corrupted_requests_total", "request_success_total", "request_prompt_tokens"),
    *("request_generation_tokens", "request_max_num_generation_tokens", "request_params_max_tokens"),
    *("request_params_n", "request_num_preemptions", "request_prefill_kv_computed_tokens"),
    *("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"),
    *("request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds"),
    *("request_inference_time_seconds", "request_time_per_output_token_seconds"),
)
"""What ``rust/src/metrics`` of 0.33.0 registers with a series from the start, in its order."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One release. The flags say what it does differently."""

    name: str
    version: Version
    families: tuple[Family, ...]
    cache_config: str = ""
    """Labels of ``vllm:cache_config_info``; empty where there is no such series."""
    engine_label: bool = True
    created: bool = True
    """``_created`` series beside counters and histograms."""
    http: bool = True
    """``http_*`` families of prometheus-fastapi-instrumentator."""
    rust: bool = False
    """The Rust front end: OpenMetrics, no series of the serving process."""
    lazy: bool = False
    """V0: a histogram or a finish reason has no series before its first use."""
    process_prefix: bool = True
    """Log lines begin with ``(APIServer pid=N)``."""
    watches_core: bool = True
    """Notices the death of EngineCore; before 0.10.1 /health stayed 200 and requests hung."""
    stats_after_abort: bool = True
    """Steps once more after everything was aborted, so that the gauges come down (not in 0.10 to 0.12)."""

    @property
    def release(self) -> str:
        """The version as ``/version`` tells it."""
        return ".".join(map(str, self.version))

    def cache_labels(self, shape: Shape) -> dict[str, str]:
        """Return the labels of ``vllm:cache_config_info`` for an engine of this size."""
        # The release reports blocks times block size here, the null block included.
        tokens = shape.blocks * shape.block_size
        facts = {
            "$block_size": str(shape.block_size),
            "$blocks": str(shape.blocks),
            "$tokens": str(tokens),
            "$concurrency": str(tokens / shape.max_model_len),
        }
        pairs = (pair.split("=", 1) for pair in self.cache_config.split())
        return {name: facts.get(value, value) for name, value in pairs}


def _families(version: Version) -> tuple[Family, ...]:
    return tuple(family for family in FAMILIES if family.since <= version <= family.until)


def _rust() -> tuple[Family, ...]:
    known = {family.name.removeprefix("vllm:"): family for family in (*_families((0, 33, 0)), CORRUPTED)}
    return tuple(known[name] for name in _RUST_ORDER)


def _profile(name: str, version: Version, cache_config: str, **flags: object) -> Profile:
    fields = {"name": name, "version": version, "cache_config": cache_config, "families": _families(version)}
    return Profile(**{**fields, **flags})  # type: ignore[arg-type]  # names are checked by the struct


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            _profile(
                "vllm-0.5.5",
                (0, 5, 5),
                _CACHE_0_5,
                engine_label=False,
                created=False,
                http=False,
                lazy=True,
                process_prefix=False,
                stats_after_abort=False,
            ),
            _profile("vllm-0.8.5", (0, 8, 5), _CACHE_0_8, process_prefix=False, watches_core=False),
            _profile("vllm-0.10.2", (0, 10, 2), _CACHE_0_10, stats_after_abort=False),
            _profile("vllm-0.16", (0, 16, 0), _CACHE_0_16),
            _profile("vllm-0.32", (0, 32, 0), _CACHE_0_32),
            _profile("vllm-0.33", (0, 33, 0), _CACHE_0_33),
            _profile("vllm-rust", (0, 33, 0), "", families=_rust(), created=False, rust=True),
        )
    }
)


def profile_named(name: str) -> Profile:
    """Return a profile; ``0.32`` means ``vllm-0.32``. Raises UsageError."""
    found = PROFILES.get(name) or PROFILES.get(f"vllm-{name}")
    if found is None:
        raise UsageError(f"there is no profile {name!r}", hint="one of " + ", ".join(PROFILES))
    return found
