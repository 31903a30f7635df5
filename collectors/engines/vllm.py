"""vLLM 0.4 to 0.33: both engine generations, the Python and the Rust front end, one process or many, one rank or many.

Names changed over the years (collectors/engines/vllm_names.py); each is found by presence, first match wins, and what
was found is told in ``aliases``. Sources: vllm/engine/metrics.py (V0), vllm/v1/metrics/loggers.py (V1),
rust/src/metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from collectors import families
from collectors.base import Dialect, Page
from collectors.completions import COMPLETIONS
from collectors.engines.vllm_layout import Cache, Said, Sum, total, within
from collectors.engines.vllm_names import HISTOGRAMS, RANK, REJECTIONS, SHARES, SLEEP, SUCCESS
from collectors.engines.vllm_process import SLEEP_MODE, process_role
from opsboard.core.model import EngineView, Histogram, RankView

HTTP = "http_requests_total"
FULL = 1.001
"""What lies beyond is no share: it is at most 1, and a little more by rounding."""
NOT_WELL = ("error", "abort")
"""Reasons of ``request_success_total`` that are no success; abort is an operator's doing and counts on neither side."""


def recognise(page: Page) -> bool:
    """Return whether the page has any series of vLLM's."""
    return any(name.startswith("vllm:") for name in page.columns)


def read(page: Page) -> EngineView:
    """Return the canonical fields; what this version does not tell is None or absent."""
    said = page.kept.get(Said)
    if said is None:
        said = page.kept[Said] = Said(page)
    aliases = dict(said.aliases)
    finished = families.by_label(page, SUCCESS, "finished_reason")
    counters = {**_numbers(page, said.counters), **_outcomes(page, finished, aliases)}
    gauges = _gauges(page, said.gauges, said.ranks)
    ranks = _ranks(page, said, gauges, counters)
    return EngineView(
        kind="vllm",
        model=said.models[0] if said.models else None,
        models=said.models,
        ranks=ranks,
        running=_sum([rank.running for rank in ranks]),
        waiting=_sum([rank.waiting for rank in ranks]),
        kv_usage=_weighted_usage(ranks),
        kv_capacity_tokens=_sum([rank.kv_capacity_tokens for rank in ranks]),
        asleep=_asleep(page),
        process_start=families.total(page, "process_start_time_seconds"),
        config=said.config,
        kv_connectors=said.connectors,
        spec_tokens=said.spec_tokens,
        gauges=gauges,
        counters=counters,
        histograms=_histograms(page, aliases),
        finished=finished,
        aliases=aliases,
    )


def _ranks(page: Page, said: Said, gauges: Mapping[str, float], counters: Mapping[str, float]) -> tuple[RankView, ...]:
    alone = len(said.ranks) == 1
    return tuple(
        RankView(
            rank=rank,
            running=_field(page, said, "running", rank),
            waiting=_field(page, said, "waiting", rank),
            kv_usage=_field(page, said, "kv_usage", rank),
            kv_capacity_tokens=cache.tokens,
            kv_blocks=cache.blocks,
            kv_block_tokens=cache.block_tokens,
            gauges=gauges if alone else _gauges(page, said.gauges, (rank,)),
            counters=counters if alone else _numbers(page, said.counters, rank),
        )
        for rank, cache in ((rank, said.caches.get(rank, Cache())) for rank in said.ranks)
    )


def _field(page: Page, said: Said, field: str, rank: str) -> float | None:
    places = said.fields[field].ranked.get(rank)
    return within(page, places, FULL if field in SHARES else inf) if places else None


def _numbers(page: Page, sums: Mapping[str, Sum], rank: str | None = None) -> dict[str, float]:
    """Return what is known of ``sums``, for one rank or for all."""
    found: dict[str, float] = {}
    for field, one in sums.items():
        places = one.places if rank is None else one.ranked.get(rank)
        value = total(page, places) if places else None
        if value is not None:
            found[field] = value
    return found


def _gauges(page: Page, sums: Mapping[str, Sum], ranks: Sequence[str]) -> dict[str, float]:
    """Return the gauges of these ranks together."""
    found: dict[str, float] = {}
    for field, one in sums.items():
        share = field in SHARES
        values = [within(page, one.ranked[rank], FULL if share else inf) for rank in ranks if rank in one.ranked]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            found[field] = max(known) if share else sum(known)
    return found


def _outcomes(page: Page, finished: Mapping[str, float], aliases: dict[str, str]) -> dict[str, float]:
    """Return how requests ended. Front ends count these, not ranks."""
    counters: dict[str, float] = {}
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
    return counters


def _histograms(page: Page, aliases: dict[str, str]) -> dict[str, Histogram]:
    found: dict[str, Histogram] = {}
    for field, names in HISTOGRAMS.items():
        name = families.present(page, names, "_bucket")
        histogram = families.histogram(page, name, RANK) if name else None
        if name and histogram:
            found[field], aliases[field] = histogram, name
    return found


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


def _sum(values: Sequence[float | None]) -> float | None:
    """Return the sum; None when one is unknown, for part of a sum would be a wrong number."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers and len(numbers) == len(values) else None


DIALECT = Dialect(
    kind="vllm",
    recognise=recognise,
    read=read,
    process_role=process_role,
    no_series="a vLLM started with --disable-log-stats tells nothing",
    tokens=COMPLETIONS,
    sleep=SLEEP_MODE,
    reset_path="/reset_prefix_cache",  # with VLLM_SERVER_DEV_MODE=1; before 0.26 it answers nothing
)
