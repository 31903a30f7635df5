"""The page of a real vLLM holds the series that the board relies on, and they move with traffic."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.real.vllm_env import GPU_BLOCKS, SERVED_NAME, RealVllm
from tests.support.waiting import wait_until

REQUESTS = 12
PROMPT_TOKENS = 40
GENERATED_TOKENS = 16

# Sample names, as they stand on the page of vLLM 0.32.
RELIED_ON = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:iteration_tokens_total_count",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:request_success_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:request_queue_time_seconds_bucket",
    "vllm:cache_config_info",
    "process_resident_memory_bytes",
}


def totals(page: str) -> dict[str, float]:
    """Return the sum over label sets of each sample name."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


@pytest.fixture(scope="module")
def pages(shared_vllm: RealVllm) -> tuple[str, str]:
    """Return the page before and after REQUESTS requests of known lengths, four at a time."""
    before = shared_vllm.metrics()
    prompts = [[(n * 7 + i) % 200 + 4 for i in range(PROMPT_TOKENS)] for n in range(REQUESTS)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda prompt: shared_vllm.complete(prompt, GENERATED_TOKENS), prompts))
    assert all(answer["usage"]["completion_tokens"] == GENERATED_TOKENS for answer in answers)
    return before, shared_vllm.metrics()


def test_the_page_has_every_series_the_board_relies_on(pages: tuple[str, str]) -> None:
    assert RELIED_ON - totals(pages[1]).keys() == set()


def test_counters_moved_by_exactly_what_was_sent(pages: tuple[str, str]) -> None:
    before, after = (totals(page) for page in pages)
    moved = {name: after[name] - before.get(name, 0.0) for name in after}
    assert moved["vllm:request_success_total"] == REQUESTS
    assert moved["vllm:prompt_tokens_total"] == REQUESTS * PROMPT_TOKENS
    assert moved["vllm:generation_tokens_total"] == REQUESTS * GENERATED_TOKENS
    assert moved["vllm:time_to_first_token_seconds_count"] == REQUESTS
    assert moved["vllm:inter_token_latency_seconds_count"] == REQUESTS * (GENERATED_TOKENS - 1)
    assert moved["vllm:iteration_tokens_total_count"] >= GENERATED_TOKENS


@pytest.mark.usefixtures("pages")
def test_an_idle_server_runs_nothing_and_holds_no_blocks(shared_vllm: RealVllm) -> None:
    gauges = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")

    def idle() -> bool:
        page = totals(shared_vllm.metrics())
        return [page[name] for name in gauges] == [0, 0, 0]

    wait_until(idle, what="all gauges are zero")


def test_labels_name_the_model_and_the_engine(pages: tuple[str, str]) -> None:
    for family in text_string_to_metric_families(pages[1]):
        if family.name == "vllm:num_requests_running":
            assert [sample.labels for sample in family.samples] == [{"engine": "0", "model_name": SERVED_NAME}]
        if family.name == "vllm:cache_config_info":
            assert {sample.labels["num_gpu_blocks"] for sample in family.samples} == {str(GPU_BLOCKS)}


def test_its_processes_are_one_tree(shared_vllm: RealVllm) -> None:
    titles = sorted(process.name() for process in shared_vllm.processes())
    assert any(title.startswith("VLLM::EngineCor") for title in titles), titles
    assert len(titles) >= 3
