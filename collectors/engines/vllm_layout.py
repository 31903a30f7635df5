"""What a page of vLLM's says by its names and labels alone. It is worked out once and holds as long as its layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, isfinite
from typing import NamedTuple

from collectors import families
from collectors.base import Page
from collectors.engines.vllm_names import CACHE, CONNECTORS, COUNTERS, FIELDS, GAUGES, MEASURED, POSITIONS, Source
from collectors.layout import Labels

ONLY = "0"
"""The rank of a page without ranks: all of V0."""

Place = tuple[str, int]
"""A column of the page and where in it."""


class Sum(NamedTuple):
    """Where the numbers stand that make up one of ours: all of them, and those of each rank that says so."""

    places: tuple[Place, ...]
    ranked: Mapping[str, tuple[Place, ...]]


class Cache(NamedTuple):
    """The KV cache of one rank."""

    tokens: float | None = None
    blocks: int | None = None
    block_tokens: int | None = None


class Said:
    """What names and labels say."""

    def __init__(self, page: Page) -> None:
        """Work it out."""
        self.aliases: dict[str, str] = {}
        self.fields = {field: self._sum(page, field, source, ONLY) for field, source in FIELDS.items()}
        self.gauges = self._sums(page, GAUGES, ONLY)
        self.counters = self._sums(page, COUNTERS)
        rows = page.column(CACHE).labels
        ranks = {rank for found in self.fields.values() for rank in found.ranked}
        self.caches = _caches(rows, ranks)
        self.ranks = tuple(sorted({*ranks, *self.caches}, key=_rank_order))
        self.models = _models(page, self.aliases)
        labels = {name: value for row in rows[:1] for name, value in row.items() if name not in MEASURED}
        self.config = {name: value for name, value in labels.items() if value != "None"}
        self.connectors = tuple(
            name for name in CONNECTORS if any(own.startswith(f"vllm:{name}_") for own in (*page.columns, *page.types))
        )
        self.spec_tokens = len({row.get("position") for row in page.column(POSITIONS).labels}) or None

    def _sums(self, page: Page, sources: Mapping[str, Source], unranked: str | None = None) -> dict[str, Sum]:
        found = {field: self._sum(page, field, source, unranked) for field, source in sources.items()}
        return {field: one for field, one in found.items() if one.places}

    def _sum(self, page: Page, field: str, source: Source, unranked: str | None = None) -> Sum:
        there = [name for name in source.names if page.column(name).values]
        names = there if source.all_of else there[:1]
        places: list[Place] = []
        ranked: dict[str, list[Place]] = {}
        for name in names:
            for place, labels in enumerate(page.column(name).labels):
                if source.where is not None and labels.get(source.where[0]) != source.where[1]:
                    continue
                places.append((name, place))
                rank = labels.get("engine", unranked)
                if rank is not None:
                    ranked.setdefault(rank, []).append((name, place))
        if places:
            shown = " + ".join(names)
            self.aliases[field] = shown if source.where is None else f'{shown}{{{source.where[0]}="{source.where[1]}"}}'
        return Sum(tuple(places), {rank: tuple(own) for rank, own in ranked.items()})


def total(page: Page, places: Iterable[Place]) -> float | None:
    """Return the sum of what stands there; None when something is no number."""
    columns = page.columns
    value = 0.0
    for name, place in places:
        value += columns[name].values[place]
    return value if isfinite(value) else None


def within(page: Page, places: Iterable[Place], most: float = inf) -> float | None:
    """Return that sum; None also when it is outside 0..``most``."""
    value = total(page, places)
    return value if value is not None and 0 <= value <= most else None


def _models(page: Page, aliases: Mapping[str, str]) -> tuple[str, ...]:
    named = next((aliases[field] for field in ("running", "kv_usage", "generation_tokens") if field in aliases), "")
    labels = page.column(named).labels
    return tuple(dict.fromkeys(own["model_name"] for own in labels if own.get("model_name")))


def _caches(rows: Sequence[Labels], ranks: set[str]) -> dict[str, Cache]:
    """Return the KV cache of each rank, from the labels of ``cache_config_info``.

    Tokens: from 0.26 on the engine says it. Before, it is (blocks - 1) * block size, one block being the null block;
    with several ranks behind one front end each series holds the blocks of all of them (vllm/v1/engine/core_client.py).
    """
    said: dict[str, Cache] = {}
    everyone = {labels["engine"] for labels in rows if "engine" in labels} | ranks or {ONLY}
    for labels in rows:
        told, blocks = (
            families.number(labels.get("kv_cache_size_tokens")),
            families.number(labels.get("num_gpu_blocks")),
        )
        size = families.number(labels.get("effective_attention_block_size"))
        size = size or families.number(labels.get("block_size"))
        tokens = told
        if tokens is None and blocks is not None and size is not None:
            tokens = (blocks / len(everyone) - 1) * size
        cache = Cache(
            tokens=tokens if tokens is not None and tokens > 0 else None,
            blocks=_own_blocks(blocks, size, told, len(everyone)),
            block_tokens=None if size is None or size < 1 else int(size),
        )
        if any(value is not None for value in cache):
            said.update(dict.fromkeys([labels["engine"]] if "engine" in labels else everyone, cache))
    return said


def _own_blocks(blocks: float | None, size: float | None, tokens: float | None, ranks: int) -> int | None:
    """Return the blocks of one rank, null block included; None when what is said does not agree.

    Ranks behind one front end have a part each, which is the same only where their caches are.
    """
    own = None if blocks is None else blocks / ranks
    if own is None or own != int(own) or own < 1:
        return None
    if ranks > 1 and tokens is not None and size is not None and tokens not in {own * size, (own - 1) * size}:
        return None
    return int(own)


def _rank_order(rank: str) -> tuple[int, str]:
    return (int(rank), "") if rank.isascii() and rank.isdigit() else (1 << 30, rank)
