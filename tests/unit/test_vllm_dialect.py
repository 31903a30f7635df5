"""What the tables of vLLM's metrics mean, case by case; whole pages are in tests/golden."""

from __future__ import annotations

import pytest

from collectors.engines.vllm import DIALECT
from collectors.engines.vllm_process import SLEEP_MODE
from collectors.exposition import Parser
from opsboard.core.model import EngineView

CACHE = "vllm:cache_config_info"


def read(*lines: str) -> EngineView:
    return DIALECT.read(Parser().parse("".join(f"{line}\n" for line in lines).encode()))


def test_what_the_page_does_not_tell_is_none_or_absent() -> None:
    view = read('vllm:num_requests_running{model_name="m"} 0')
    assert (view.running, view.waiting, view.kv_usage, view.kv_capacity_tokens) == (0.0, None, None, None)
    assert (view.asleep, view.process_start, view.version) == (None, None, None)
    assert (dict(view.counters), dict(view.histograms), dict(view.finished)) == ({}, {}, {})
    assert view.aliases == {"running": "vllm:num_requests_running"}


def test_the_newest_name_wins_and_is_told() -> None:
    view = read('vllm:gpu_cache_usage_perc{engine="0"} 0.5', 'vllm:kv_cache_usage_perc{engine="0"} 0.25')
    assert (view.kv_usage, view.aliases["kv_usage"]) == (0.25, "vllm:kv_cache_usage_perc")


def test_failures_are_unknown_where_the_engine_does_not_count_them() -> None:
    before = read('vllm:request_success_total{finished_reason="stop"} 5')
    assert "requests_failed" not in before.counters
    since = read(
        'vllm:request_success_total{finished_reason="stop"} 5',
        'vllm:request_success_total{finished_reason="abort"} 2',
        'vllm:request_success_total{finished_reason="error"} 1',
        'vllm:admission_rejections_total{reason="max_num_queued_reqs"} 3',
    )
    assert (since.counters["requests_finished"], since.counters["requests_failed"]) == (5, 4)
    assert since.finished == {"stop": 5, "abort": 2, "error": 1}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (('http_requests_total{status="2xx"} 5',), 0),
        (('http_requests_total{status="2xx"} 5', 'http_requests_total{status="5xx"} 2'), 2),
        (('http_requests_total{status="503"} 2', 'http_requests_total{status="500"} 1'), 3),
        (("# TYPE http_requests_total counter",), 0),
        (("# TYPE http_requests counter",), 0),
        ((), None),
    ],
)
def test_server_errors_are_zero_only_where_somebody_counts(lines: tuple[str, ...], expected: float | None) -> None:
    assert read("vllm:num_requests_running 1", *lines).counters.get("http_5xx") == expected


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        ('kv_cache_size_tokens="2048",num_gpu_blocks="7",block_size="16"', 2048),
        ('kv_cache_size_tokens="None",num_gpu_blocks="101",block_size="16"', 1600),
        ('num_gpu_blocks="101",block_size="16",effective_attention_block_size="32"', 3200),
        ('num_gpu_blocks="101",block_size="16",effective_attention_block_size="None"', 1600),
        ('num_gpu_blocks="None",block_size="16"', None),
        ('num_gpu_blocks="101",block_size="None"', None),
        ('num_gpu_blocks="1",block_size="16"', None),
        ('num_gpu_blocks="nan",block_size="inf"', None),
        ("", None),
    ],
)
def test_capacity_comes_from_labels_that_may_be_none(labels: str, tokens: float | None) -> None:
    view = read("vllm:num_requests_running 1", f"{CACHE}{{{labels}}} 1")
    assert view.kv_capacity_tokens == tokens


def test_each_rank_of_an_older_front_end_shows_the_blocks_of_all() -> None:
    ranks = [f'{CACHE}{{engine="{rank}",num_gpu_blocks="202",block_size="16"}} 1' for rank in range(2)]
    view = read(*ranks)
    assert [rank.kv_capacity_tokens for rank in view.ranks] == [1600, 1600]
    assert view.kv_capacity_tokens == 3200


def test_capacity_without_a_rank_is_that_of_all_ranks_together() -> None:
    gauges = [f'vllm:num_requests_running{{engine="{rank}"}} 1' for rank in range(2)]
    view = read(*gauges, f'{CACHE}{{num_gpu_blocks="202",block_size="16"}} 1')
    assert [rank.kv_capacity_tokens for rank in view.ranks] == [1600, 1600]


def test_usage_is_weighted_by_capacity_or_by_nothing() -> None:
    usage = ['vllm:kv_cache_usage_perc{engine="0"} 0.9', 'vllm:kv_cache_usage_perc{engine="1"} 0.1']
    sizes = [f'{CACHE}{{engine="{rank}",kv_cache_size_tokens="{size}"}} 1' for rank, size in ((0, 300), (1, 100))]
    assert read(*usage, *sizes).kv_usage == pytest.approx(0.7)
    assert read(*usage).kv_usage == pytest.approx(0.5)
    assert read(*usage, sizes[0]).kv_usage == pytest.approx(0.5)


def test_a_sum_over_ranks_of_which_one_is_unknown_is_unknown() -> None:
    view = read(
        'vllm:num_requests_running{engine="0"} 3',
        'vllm:num_requests_running{engine="1"} NaN',
        'vllm:num_requests_waiting{engine="1"} 1',
    )
    assert (view.running, view.waiting) == (None, None)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "1.5", "1e300"])
def test_a_value_that_the_field_cannot_have_is_unknown_and_the_rest_is_good(value: str) -> None:
    view = read(f"vllm:kv_cache_usage_perc {value}", "vllm:num_requests_running 2", "vllm:num_requests_waiting -1")
    assert (view.kv_usage, view.running, view.waiting) == (None, 2, None)


def test_ranks_are_in_order_of_number() -> None:
    lines = [f'vllm:num_requests_running{{engine="{rank}"}} 1' for rank in (10, 9, "x", 0)]
    assert [rank.rank for rank in read(*lines).ranks] == ["0", "9", "10", "x"]


@pytest.mark.parametrize(
    ("labels", "blocks"),
    [
        (('num_gpu_blocks="700",block_size="32",kv_cache_size_tokens="22400"',), [700]),
        (('num_gpu_blocks="None",block_size="32"',), [None]),
        (('engine="0",num_gpu_blocks="202"', 'engine="1",num_gpu_blocks="202"'), [101, 101]),
        (('engine="0",num_gpu_blocks="201",block_size="8"', 'engine="1",num_gpu_blocks="201"'), [None, None]),
        (
            (
                'engine="0",num_gpu_blocks="202",block_size="16",kv_cache_size_tokens="1616"',
                'engine="1",num_gpu_blocks="202",block_size="16",kv_cache_size_tokens="160"',
            ),
            [101, None],
        ),
    ],
)
def test_blocks_are_told_only_where_they_are_certain(labels: tuple[str, ...], blocks: list[int | None]) -> None:
    view = read(
        *(f'vllm:num_requests_running{{engine="{rank}"}} 1' for rank in range(len(blocks))),
        *(f"{CACHE}{{{one}}} 1" for one in labels),
    )
    assert [rank.kv_blocks for rank in view.ranks] == blocks


def test_each_rank_has_its_own_numbers() -> None:
    lines = [
        f'vllm:{name}{{engine="{rank}"{more}}} {value + rank}'
        for rank in (0, 1)
        for name, more, value in (
            ("num_requests_running", "", 1),
            ("num_requests_waiting_by_reason", ',reason="capacity"', 7),
            ("num_requests_waiting_by_reason", ',reason="deferred"', 2),
            ("kv_offload_cpu_cache_usage_perc", "", 0),
            ("generation_tokens_total", "", 100),
            ("prompt_tokens_by_source_total", ',source="local_compute"', 10),
            ("prompt_tokens_by_source_total", ',source="local_cache_hit"', 20),
            ("request_prompt_tokens_sum", "", 50),
            ("e2e_request_latency_seconds_count", "", 5),
            ("time_to_first_token_seconds_count", "", 6),
        )
    ]
    view = read(*lines)
    assert view.gauges == {"waiting_deferred": 5, "kv_offload_usage": 1}, "shares are not added up"
    assert view.counters == {
        "prompt_tokens_computed": 21, "prompt_tokens_hit": 41, "generation_tokens": 201, "requests_begun": 13,
        "requests_completed": 11, "completed_prompt_tokens": 101,
    }  # fmt: skip
    assert [rank.counters["prompt_tokens_computed"] for rank in view.ranks] == [10, 11]
    assert [rank.gauges["waiting_deferred"] for rank in view.ranks] == [2, 3]
    assert view.aliases["prompt_tokens_hit"] == 'vllm:prompt_tokens_by_source_total{source="local_cache_hit"}'


def test_a_rank_alone_has_the_numbers_of_its_engine() -> None:
    view = read("vllm:num_requests_running 1", "vllm:generation_tokens_total 5", 'http_requests_total{status="500"} 1')
    (rank,) = view.ranks
    assert rank.counters == view.counters == {"generation_tokens": 5, "http_5xx": 1}


def test_connectors_leases_and_drafts_are_seen() -> None:
    view = read(
        "vllm:num_requests_running 1",
        "vllm:nixl_num_kv_expired_reqs_total 2",
        "vllm:nixl_num_failed_transfers_total 1",
        "vllm:mooncake_num_kv_expired_reqs_total 3",
        'vllm:num_requests_kv_fetch_by_stage{engine="0",stage="in_progress"} 1',
        'vllm:num_requests_kv_fetch_by_stage{engine="0",stage="waiting_to_start"} 2',
        *(f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{position="{n}"}} 1' for n in range(3)),
        "vllm:corrupted_requests_total 0",
    )
    assert view.kv_connectors == ("nixl", "mooncake")
    assert view.spec_tokens == 3
    assert view.gauges == {"kv_fetching": 3}
    assert view.counters == {"kv_leases_expired": 5, "kv_transfers_failed": 1, "corrupted_requests": 0}
    assert read("vllm:external_prefix_cache_queries_total 0").kv_connectors == (), "every engine says that"


def test_configuration_holds_nothing_that_was_measured() -> None:
    labels = 'block_size="32",cache_dtype="fp8",num_gpu_blocks="700",sliding_window="None",engine="0"'
    assert read(f"{CACHE}{{{labels}}} 1").config == {"block_size": "32", "cache_dtype": "fp8"}


def test_a_page_of_the_same_layout_is_read_by_its_new_numbers() -> None:
    parser = Parser()
    pages = [f'vllm:num_requests_running{{engine="0"}} {n}\nvllm:generation_tokens_total {n}\n' for n in (1, 2)]
    views = [DIALECT.read(parser.parse(page.encode())) for page in pages]
    assert [(view.running, view.counters["generation_tokens"]) for view in views] == [(1, 1), (2, 2)]


def test_sleep_is_told_by_awake() -> None:
    states = 'vllm:engine_sleep_state{{sleep_state="awake"}} {}'
    assert read(states.format(1)).asleep is False
    assert read(states.format(0)).asleep is True


@pytest.mark.parametrize(
    "buckets",
    [
        {"0.1": 1, "1.0": 2},
        {"0.1": 3, "1.0": 2, "+Inf": 3},
        {"0.1": 1, "1.0": float("nan"), "+Inf": 3},
        {"0.1": 1, "zero": 2, "+Inf": 3},
        {"0.1": -1, "+Inf": 3},
        {"0.1": 1, "0.10": 1, "+Inf": 3},
        {"1.0": 2, "+Inf": float("inf")},
    ],
)
def test_what_cannot_be_a_histogram_is_absent(buckets: dict[str, float]) -> None:
    lines = [f'vllm:time_to_first_token_seconds_bucket{{le="{le}"}} {count}' for le, count in buckets.items()]
    assert read(*lines).histograms == {}


def test_buckets_in_any_order_and_without_a_sum_are_a_histogram() -> None:
    lines = [f'vllm:time_to_first_token_seconds_bucket{{le="{le}"}} {n}' for le, n in (("+Inf", 3), ("1.0", 2))]
    ttft = read(*lines).histograms["ttft"]
    assert (ttft.counts, ttft.total, ttft.count) == ((2, 3), None, 3)


def test_model_names_are_harmless_and_all_told() -> None:
    view = read('vllm:num_requests_running{model_name="a\x1b[31m"} 1', 'vllm:num_requests_running{model_name="b"} 1')
    assert view.models == ("a\ufffd[31m", "b")
    assert view.model == view.models[0]


@pytest.mark.parametrize(
    ("name", "argv", "role"),
    [
        ("VLLM::EngineCor", ["VLLM::EngineCore"], "engine_core"),
        ("VLLM::EngineCor", ["VLLM::EngineCore_DP0", "", ""], "engine_core"),
        ("VLLM::EngineCor", [], "engine_core"),
        ("VLLM::Worker_TP", ["VLLM::Worker_TP0"], "worker"),
        ("VLLM::Worker", ["VLLM::Worker"], "worker"),
        ("VLLM::DPCoordin", ["VLLM::DPCoordinator"], "dp_coordinator"),
        ("VLLM::ApiServer", ["VLLM::ApiServer_0"], "api_server"),
        ("VLLM::APIServer", ["VLLM::APIServer_1"], "api_server"),
        ("my-long-prefix:", ["my-long-prefix::EngineCore_DP1"], "engine_core"),
        ("python3", ["/v/bin/python3", "/v/bin/vllm", "serve", "m"], "api_server"),
        ("vllm", ["/v/bin/vllm", "serve", "m"], "api_server"),
        ("python3.11", ["python3.11", "-u", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"], "api_server"),
        ("python", ["python", "/s/vllm/entrypoints/openai/api_server.py"], "api_server"),
        ("python", ["python", "-c", "from multiprocessing.resource_tracker import main;main(9)"], "resource_tracker"),
        ("python", ["python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()"], "other"),
        ("python", ["python", "train.py", "vllm", "serve"], None),
        ("vllm", ["/v/bin/vllm", "bench", "serve"], None),
        ("opsboard", ["/v/bin/python", "-m", "opsboard", "shim", "--", "vllm", "serve", "m"], None),
        ("bash", ["bash", "-c", "vllm serve m"], None),
        ("kworker/0:1", [], None),
        ("python", ["python"], None),
    ],
)
def test_processes_have_roles(name: str, argv: list[str], role: str | None) -> None:
    assert DIALECT.process_role(name, argv) == role


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (("vllm", "serve", "m"), True),
        (("/opt/bin/python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"), True),
        (("vllm", "serve", "m", "--no-enable-sleep-mode"), True),
        (("vllm", "serve", "m", "--enable-sleep-mode"), False),
        (("vllm", "serve", "m", "--enable_sleep_mode"), False),
        (("vllm", "serve", "m", "--config", "c.yaml"), False),  # it may be in there
        (("vllm", "serve", "m", "--config=c.yaml"), False),
        (("docker", "run", "vllm/vllm-openai"), False),  # what it is given is not to be seen
    ],
)
def test_a_command_tells_when_its_engine_will_not_sleep(command: tuple[str, ...], missing: bool) -> None:
    assert (SLEEP_MODE.lacks(command) is not None) is missing
