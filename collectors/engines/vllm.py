"""vLLM 0.4 to 0.33: both engine generations, the Python and the Rust front end, one process or many, one rank or many.

Names changed over the years (docs/engines/vllm.md has the table); each is found by presence, first match wins, and
what was found is told in ``aliases``. Sources: vllm/engine/metrics.py (V0), vllm/v1/metrics/loggers.py (V1),
rust/src/metrics.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from pathlib import PurePath

from collectors import families
from collectors.base import Dialect, Page, Sleep
from collectors.completions import COMPLETIONS
from opsboard.core.model import EngineView, Histogram, RankView

GAUGES = {
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
}
MOST = {"kv_usage": 1.001}
"""What lies beyond is no value of that field: a share is at most 1, and a little more by rounding."""
COUNTERS = {
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "prompt_tokens_cached": ("vllm:prompt_tokens_cached_total",),
    "generation_tokens": ("vllm:generation_tokens_total",),
    "preemptions": ("vllm:num_preemptions_total",),
    "prefix_queries": (
        "vllm:prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_queries",
    ),
    "prefix_hits": (
        "vllm:prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits",
    ),
    # A histogram despite its name: one observation for each step that gave output.
    "iterations": ("vllm:iteration_tokens_total_count",),
    "spec_draft_tokens": ("vllm:spec_decode_num_draft_tokens_total",),
    "spec_accepted_tokens": ("vllm:spec_decode_num_accepted_tokens_total",),
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
HTTP = "http_requests_total"
CACHE = "vllm:cache_config_info"
SLEEP = "vllm:engine_sleep_state"
RANK = ("engine", "model_name")
NOT_WELL = ("error", "abort")
"""Reasons of ``request_success_total`` that are no success; abort is an operator's doing and counts on neither side."""


def recognise(page: Page) -> bool:
    """Return whether the page has any series of vLLM's."""
    return any(name.startswith("vllm:") for name in page.columns)


def read(page: Page) -> EngineView:
    """Return the canonical fields; what this version does not tell is None or absent."""
    aliases: dict[str, str] = {}
    gauges = {field: _gauge(page, field, aliases) for field in GAUGES}
    capacity = _capacity(page, {rank for gauge in gauges.values() for rank in gauge})
    ranks = tuple(
        RankView(
            rank=rank,
            running=gauges["running"].get(rank),
            waiting=gauges["waiting"].get(rank),
            kv_usage=gauges["kv_usage"].get(rank),
            kv_capacity_tokens=capacity.get(rank),
        )
        for rank in sorted({*capacity, *(rank for gauge in gauges.values() for rank in gauge)}, key=_rank_order)
    )
    finished = families.by_label(page, SUCCESS, "finished_reason")
    models = _models(page)
    return EngineView(
        kind="vllm",
        model=models[0] if models else None,
        models=models,
        ranks=ranks,
        running=_sum([rank.running for rank in ranks]),
        waiting=_sum([rank.waiting for rank in ranks]),
        kv_usage=_weighted_usage(ranks),
        kv_capacity_tokens=_sum([rank.kv_capacity_tokens for rank in ranks]),
        asleep=_asleep(page),
        process_start=families.total(page, "process_start_time_seconds"),
        counters=_counters(page, finished, aliases),
        histograms=_histograms(page, aliases),
        finished=finished,
        aliases=aliases,
    )


def _gauge(page: Page, field: str, aliases: dict[str, str]) -> dict[str, float]:
    """Return a gauge by rank ("0" where the page has no ranks: all of V0)."""
    name = families.present(page, GAUGES[field])
    if name is None:
        return {}
    aliases[field] = name
    return families.by_label(page, name, "engine", "0", MOST.get(field, inf))


def _counters(page: Page, finished: dict[str, float], aliases: dict[str, str]) -> dict[str, float]:
    counters: dict[str, float | None] = {}
    for field, names in COUNTERS.items():
        name = families.present(page, names)
        if name is not None:
            aliases[field] = name
            counters[field] = families.total(page, name)
    if finished:
        aliases["requests_finished"] = SUCCESS
        counters["requests_finished"] = sum(count for why, count in finished.items() if why not in NOT_WELL)
    # Before 0.14 there is no reason "error" and before 0.33 no rejection: then nobody counted, which is not 0.
    failed = {SUCCESS: finished.get("error"), REJECTIONS: families.total(page, REJECTIONS)}
    counted = {name: count for name, count in failed.items() if count is not None}
    if counted:
        aliases["requests_failed"] = " + ".join(counted)
        counters["requests_failed"] = sum(counted.values())
    # Children appear with the first request of their status; a family without one has counted none.
    if HTTP in page.columns or HTTP in page.types or HTTP.removesuffix("_total") in page.types:
        aliases["http_5xx"] = HTTP
        served = families.total(page, HTTP, lambda labels: labels.get("status", "").startswith("5"))
        counters["http_5xx"] = served or 0.0
    return {field: count for field, count in counters.items() if count is not None}


def _histograms(page: Page, aliases: dict[str, str]) -> dict[str, Histogram]:
    found: dict[str, Histogram] = {}
    for field, names in HISTOGRAMS.items():
        name = families.present(page, names, "_bucket")
        histogram = families.histogram(page, name, RANK) if name else None
        if name and histogram:
            found[field], aliases[field] = histogram, name
    return found


def _capacity(page: Page, ranks: set[str]) -> dict[str, float]:
    """Return the KV cache of each rank in tokens, from the labels of ``cache_config_info``.

    From 0.26 on the engine says it. Before, it is (blocks - 1) * block size, one block being the null block; with
    several ranks behind one front end each series holds the blocks of all of them (vllm/v1/engine/core_client.py).
    """
    said: dict[str, float] = {}
    rows = page.rows(CACHE)
    everyone = {labels["engine"] for labels, _ in rows if "engine" in labels} | ranks or {"0"}
    for labels, _ in rows:
        tokens = families.number(labels.get("kv_cache_size_tokens"))
        if tokens is None:
            blocks = families.number(labels.get("num_gpu_blocks"))
            size = families.number(labels.get("effective_attention_block_size"))
            size = size or families.number(labels.get("block_size"))
            tokens = None if blocks is None or size is None else (blocks / len(everyone) - 1) * size
        if tokens is not None and tokens > 0:
            said.update(dict.fromkeys([labels["engine"]] if "engine" in labels else everyone, tokens))
    return said


def _weighted_usage(ranks: Sequence[RankView]) -> float | None:
    used = [(rank.kv_usage, rank.kv_capacity_tokens) for rank in ranks if rank.kv_usage is not None]
    if not used:
        return None
    if any(capacity is None for _, capacity in used):
        return sum(usage for usage, _ in used) / len(used)  # ranks of one engine are configured alike
    weights = [capacity or 0.0 for _, capacity in used]
    return sum(usage * weight for (usage, _), weight in zip(used, weights, strict=True)) / sum(weights)


def _asleep(page: Page) -> bool | None:
    awake = [value for labels, value in page.rows(SLEEP) if labels.get("sleep_state") == "awake"]
    return any(value == 0 for value in awake) if awake else None


def _models(page: Page) -> tuple[str, ...]:
    names = (*GAUGES["running"], *GAUGES["kv_usage"], *COUNTERS["generation_tokens"])
    found = page.column(families.present(page, names) or "").labels
    return tuple(dict.fromkeys(labels["model_name"] for labels in found if labels.get("model_name")))


def _sum(values: Sequence[float | None]) -> float | None:
    """Return the sum; None when one is unknown, for part of a sum would be a wrong number."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers and len(numbers) == len(values) else None


def _rank_order(rank: str) -> tuple[int, str]:
    return (int(rank), "") if rank.isascii() and rank.isdigit() else (1 << 30, rank)


_TITLE = re.compile(r"\S*::(EngineCor|Worker|A[Pp][Ii]Server|DPCoordin)")
_TITLE_ROLES = {"EngineCor": "engine_core", "Worker": "worker", "DPCoordin": "dp_coordinator"}


def process_role(name: str, argv: Sequence[str]) -> str | None:
    """Return the role of a process; None when it is none of vLLM's.

    Children rename themselves ``VLLM::EngineCore_DP0`` (another prefix by VLLM_PROCESS_NAME_PREFIX), of which ``name``
    holds 15 characters; without setproctitle they look like any Python and are ``other``.
    """
    title = _TITLE.match(argv[0] if argv else "") or _TITLE.match(name)
    if title:
        return _TITLE_ROLES.get(title[1], "api_server")
    if any("multiprocessing.resource_tracker" in word for word in argv):
        return "resource_tracker"
    if any("multiprocessing.spawn" in word or "multiprocessing.forkserver" in word for word in argv):
        return "other"
    return "api_server" if _serves(argv) else None


def _serves(argv: Sequence[str]) -> bool:
    words = list(argv)
    if words and PurePath(words[0]).name.startswith("python"):
        words.pop(0)
        while words and words[0].startswith("-") and words[0] != "-m":
            words.pop(0)
    if words[:1] == ["-m"]:
        return words[1:2] != [] and words[1].startswith("vllm.entrypoints.")
    script = PurePath(words[0]) if words else PurePath()
    if script.name == "vllm":
        return "serve" in words[1:2]
    return script.parts[-4:-1] == ("vllm", "entrypoints", "openai") or script.parts[-3:-1] == ("vllm", "entrypoints")


def _lacks(command: Sequence[str]) -> str | None:
    """Return what ``command`` needs to sleep; without it vLLM says that it sleeps and gives no memory back.

    Only with it do weights come from the allocator that can put them away (``ModelConfig.enable_sleep_mode``).
    """
    options = {word.partition("=")[0].replace("_", "-") for word in command}  # vLLM takes underscores, too
    told = bool(options & {"--config", "--enable-sleep-mode"})
    return None if told or not _serves(command) else "its command has no --enable-sleep-mode"


# Only with VLLM_SERVER_DEV_MODE=1. Both questions go through the engine's busy loop (vllm/v1/engine/core_client.py).
SLEEP_MODE = Sleep(
    questions=(("/is_sleeping", "is_sleeping"), ("/is_paused", "is_paused")),
    sleep_path="/sleep?level={level}&mode=wait",
    wake_path="/wake_up",
    lacks=_lacks,
    hint="vLLM sleeps when it runs with --enable-sleep-mode and, in its environment, VLLM_SERVER_DEV_MODE=1; these "
    "endpoints ask for no key, so let it listen on 127.0.0.1 only",
)

DIALECT = Dialect(
    kind="vllm",
    recognise=recognise,
    read=read,
    process_role=process_role,
    no_series="a vLLM started with --disable-log-stats tells nothing",
    tokens=COMPLETIONS,
    sleep=SLEEP_MODE,
)
