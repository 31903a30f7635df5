"""The simulated pages are true: the 0.32 one to a recorded real page, series by series; the others to their sources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as text_families
from prometheus_client.utils import floatToGoString

from collectors.engines.vllm import DIALECT
from collectors.exposition import Limits, Parser
from opsboard.core.model import EngineView
from opsboard.sim.families import bounds
from opsboard.sim.http_metrics import HttpMetrics
from opsboard.sim.metrics import EngineMetrics
from opsboard.sim.model import EngineModel, Request, Shape
from opsboard.sim.page import Page, number
from opsboard.sim.profiles import PROFILES, profile_named

RECORDED = Path(__file__).parents[1] / "fixtures/metrics/vllm/0.32.txt"
SHAPE = Shape(max_model_len=2048)
MODEL = "tiny"
STARTED = 1_795_252_418.7
# What depends on the size of the cache, on how it was sized, or on the build (the recording is of the CPU build).
SIZED = {
    *("block_size", "effective_attention_block_size", "kv_cache_max_concurrency", "kv_cache_memory_bytes"),
    *("kv_cache_size_tokens", "num_gpu_blocks"),
}


def page_of(profile: str, requests: int = 3) -> str:
    """Return the page of a simulated engine that has served some requests."""
    chosen = profile_named(profile)
    metrics, http = EngineMetrics(bounds(chosen.version, SHAPE.max_model_len), SHAPE.block_size), HttpMetrics()
    model, now = EngineModel(SHAPE), 0.0
    for one in range(1, requests + 1):
        metrics.arrived(one, now, 40, 8)
        model.add(Request(one, 40, (1, 2), 8, "length"), now)
        while model.has_work:
            result = model.step(now)
            now = result.ends
            metrics.stepped(result, now)
        http.answered("/v1/completions", "POST", 200, 0.1, received=66, sent=0, wall=STARTED + 30)
    return Page(chosen, MODEL, SHAPE, STARTED).render(metrics, http).decode()


def series(page: str) -> list[str]:
    """Return what a page is made of: its comments, and each sample line without its number, in order."""
    return [line if line.startswith("#") else line.rsplit(" ", 1)[0] for line in page.splitlines()]


def labels_of(line: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="([^"]*)"', line))


def test_the_page_of_0_32_is_the_recorded_real_one_line_by_line() -> None:
    real, ours = series(RECORDED.read_text()), series(page_of("vllm-0.32"))
    info = "vllm:cache_config_info{"
    python = "python_info{"
    assert [line for line in ours if not line.startswith((info, python))] == [
        line for line in real if not line.startswith((info, python))
    ]


@pytest.mark.parametrize("name", ["vllm:cache_config_info{", "python_info{"])
def test_information_has_the_same_labels_and_where_it_can_the_same_values(name: str) -> None:
    real = labels_of(next(line for line in series(RECORDED.read_text()) if line.startswith(name)))
    ours = labels_of(next(line for line in series(page_of("vllm-0.32")) if line.startswith(name)))
    assert ours.keys() == real.keys()
    if name.startswith("vllm"):
        assert {key: ours[key] for key in ours.keys() - SIZED} == {key: real[key] for key in real.keys() - SIZED}


def test_types_are_those_of_the_recording() -> None:
    def types(page: str) -> dict[str, str]:
        return {family.name: family.type for family in text_families(page)}

    assert types(page_of("vllm-0.32")) == types(RECORDED.read_text())


@pytest.mark.parametrize(
    "value", [0.0, 1.0, 0.1, 12345.0, 999999.0, 1e6, 1234567.5, 1.795252418705631e9, 1e16, 1e22, -1.0, float("inf")]
)
def test_numbers_are_written_as_prometheus_client_does(value: float) -> None:
    assert number(value) == floatToGoString(value)  # type: ignore[no-untyped-call]


# Which names each release has and has not: read in the releases' own sources.
PRESENT = {
    "vllm-0.5.5": (
        *("num_requests_swapped", "gpu_cache_usage_perc", "cpu_cache_usage_perc", "gpu_prefix_cache_hit_rate"),
        *("num_preemptions_total", "time_per_output_token_seconds_bucket", "request_params_best_of_bucket"),
        *("avg_prompt_throughput_toks_per_s", "cache_config_info"),
    ),
    "vllm-0.8.5": (
        *("gpu_cache_usage_perc", "gpu_prefix_cache_queries_total", "num_preemptions_total"),
        *("time_per_output_token_seconds_bucket", "request_queue_time_seconds_bucket", "iteration_tokens_total_count"),
    ),
    "vllm-0.10.2": (
        *("gpu_cache_usage_perc", "kv_cache_usage_perc", "gpu_prefix_cache_hits_total", "prefix_cache_hits_total"),
        *("time_per_output_token_seconds_bucket", "inter_token_latency_seconds_bucket"),
    ),
    "vllm-0.16": (
        *("kv_cache_usage_perc", "prefix_cache_hits_total", "inter_token_latency_seconds_bucket"),
        *("engine_sleep_state", "prompt_tokens_recomputed_total", "request_time_per_output_token_seconds_bucket"),
    ),
    "vllm-0.33": (
        *("kv_cache_usage_perc", "num_requests_waiting_by_reason", "estimated_flops_per_gpu_total"),
        *("request_num_preemptions_bucket", "prompt_tokens_cached_by_source_total"),
    ),
    "vllm-rust": ("kv_cache_usage_perc", "corrupted_requests_total", "iteration_tokens_total_count"),
}
ABSENT = {
    "vllm-0.5.5": ("kv_cache_usage_perc", "iteration_tokens_total_count", "request_queue_time_seconds_bucket"),
    "vllm-0.8.5": ("kv_cache_usage_perc", "inter_token_latency_seconds_bucket", "num_requests_swapped"),
    "vllm-0.10.2": ("request_time_per_output_token_seconds_bucket", "engine_sleep_state", "mm_cache_queries_total"),
    "vllm-0.16": (
        *("gpu_cache_usage_perc", "time_per_output_token_seconds_bucket", "num_requests_waiting_by_reason"),
        *("estimated_flops_per_gpu_total", "request_num_preemptions_bucket"),
    ),
    "vllm-0.33": ("prompt_tokens_recomputed_total", "gpu_prefix_cache_hits_total"),
    "vllm-rust": (
        "cache_config_info",
        "engine_sleep_state",
        "mm_cache_queries_total",
        "time_to_first_token_seconds_created",
    ),
}


def names(page: str) -> set[str]:
    return {re.split(r"[ {]", line, maxsplit=1)[0] for line in page.splitlines() if not line.startswith("#")}


@pytest.mark.parametrize("profile", sorted(PRESENT))
def test_a_release_has_its_names_and_no_others(profile: str) -> None:
    found = names(page_of(profile))
    assert {f"vllm:{name}" for name in PRESENT[profile]} - found == set()
    assert {f"vllm:{name}" for name in ABSENT[profile]} & found == set()


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_prometheus_client_reads_every_page_and_histograms_add_up(profile: str) -> None:
    page = page_of(profile)
    read = open_families if profile_named(profile).rust else text_families
    families = list(read(page))
    assert {family.type for family in families} >= {"counter", "gauge", "histogram"}
    for family in families:
        if family.type == "histogram" and family.samples:
            buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
            counts = {sample.value for sample in family.samples if sample.name.endswith("_count")}
            assert counts == {buckets[-1]}
            if not family.name.startswith("http"):
                assert buckets == sorted(buckets)


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_labels_are_those_of_the_release(profile: str) -> None:
    chosen = profile_named(profile)
    line = next(line for line in page_of(profile).splitlines() if line.startswith("vllm:num_requests_running{"))
    assert labels_of(line) == {"model_name": MODEL} | ({"engine": "0"} if chosen.engine_label else {})


def view_of(profile: str) -> EngineView:
    chosen = profile_named(profile)
    kind = Page(chosen, MODEL, SHAPE, STARTED).content_type
    return DIALECT.read(Parser(Limits()).parse(page_of(profile).encode(), kind))


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_the_vllm_dialect_reads_the_truth_from_every_profile(profile: str) -> None:
    view = view_of(profile)
    assert view.model == MODEL
    assert (view.running, view.waiting, view.kv_usage) == (0.0, 0.0, 0.0)
    counters: Mapping[str, float] = view.counters
    assert counters["prompt_tokens"] == 120
    assert counters["generation_tokens"] == 24
    assert counters["preemptions"] == 0
    assert view.finished["length"] == 3
    assert view.histograms["ttft"].count == 3
    assert view.histograms["itl"].count == 21
    assert view.histograms["e2e"].count == 3


def test_label_values_are_escaped() -> None:
    page = Page(profile_named("vllm-0.32"), 'a"b\\c\nd', SHAPE, STARTED)
    metrics = EngineMetrics(bounds((0, 32, 0), 2048), 16)
    text = page.render(metrics, HttpMetrics()).decode()
    found = next(family for family in text_families(text) if family.name == "vllm:num_requests_running")
    assert found.samples[0].labels["model_name"] == 'a"b\\c\nd'
