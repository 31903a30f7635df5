"""KV blocks on one page of vLLM's: how many are referenced, and how many those requests need that the page knows of.

Sources: ``vllm/v1/core/block_pool.py`` (``get_usage``: 1 - free / (blocks - 1), the null block counts on neither side;
what is only cached is free) and ``vllm/v1/core/single_type_kv_cache_manager.py`` (a request holds
ceil((tokens + lookahead) / block) blocks). So an idle engine reads exactly 0, and any other usage is a whole number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import nlargest
from math import isfinite

from opsboard.core.inflight import InflightRequest
from opsboard.core.model import EngineView, RankView, Record

ASYNC_TOKENS = 2
"""Placeholders that asynchronous scheduling allocates ahead, at most."""

_NEEDED = ("kv_usage", "kv_blocks", "kv_block_tokens", "running", "waiting")
_WHOLE = 0.01
"""What is farther from a whole number is not counted in blocks."""

_UNIFORM = 1.02
"""More blocks than this for the tokens that fit mean several groups of layers, each with blocks of its own (hybrid
models): then ceil(tokens / block) is not what a request holds."""


class Blocks(Record, frozen=True, kw_only=True):
    """The KV cache of one rank, as one page tells. Whole numbers of blocks, requests and tokens."""

    rank: str
    pool: int
    """Blocks that there are for requests."""
    size: int
    """Tokens in one."""
    used: int
    """Those that somebody references."""
    running: int
    waiting: int
    deferred: bool = False
    """Some of those wait for something other than room, and may hold blocks meanwhile."""
    finished: float | None = None
    """Requests that ended and were measured."""
    steps: float | None = None
    preemptions: float = 0.0
    counted: tuple[float, ...] = ()
    """Cumulative counters: one that falls belongs to another life. With :attr:`finished` they tell a step, too."""
    tokens: float | None = None
    """Tokens of the requests that have given one and were not measured yet: those that run, those thrown back to the
    queue, and for ever those whose clients went away, because nobody measures them."""
    generated: float | None = None
    """Tokens generated in this life."""
    measured: tuple[float, float] | None = None
    """Tokens of the prompts of those that ended and were measured, and those that they generated."""
    begun: float | None = None
    """And how many requests those are."""
    hits: float | None = None
    """Prompt tokens that those found in the prefix cache: blocks that they may share."""
    uniform: bool = True
    """A request holds ceil(tokens / :attr:`size`) blocks, as far as the page tells."""
    told: bool = False
    """The engine itself says so: from 0.26 on its page has the tokens that fit, which hybrid models have fewer of."""

    @property
    def idle(self) -> bool:
        """No request runs or waits."""
        return self.running == 0 and self.waiting == 0


def blocks(view: EngineView) -> tuple[Blocks, ...]:
    """Return what is known of each rank; a rank that lacks a number is left out."""
    return tuple(known for known in map(_rank, view.ranks) if known is not None)


def lacking(view: EngineView) -> str | None:
    """Return for people what a page lacks that :func:`blocks` needs of every rank; None: it has it."""
    names = [name for name in _NEEDED if not view.ranks or any(getattr(rank, name) is None for rank in view.ranks)]
    if names:
        return f"its page does not tell {', '.join(names)}"
    return None if len(blocks(view)) == len(view.ranks) else "its KV usage is no whole number of blocks"


def _rank(rank: RankView) -> Blocks | None:
    usage, count, size = rank.kv_usage, rank.kv_blocks, rank.kv_block_tokens
    if usage is None or count is None or count < 2 or not size or size < 1:
        return None
    running, waiting = rank.running, rank.waiting
    if running is None or waiting is None or not isfinite(usage + running + waiting):
        return None
    pool = count - 1
    used = _whole(usage * pool)
    if used is None:
        used = _whole(usage * count)  # before V1 there was no null block
    if used is None:
        return None
    counters = rank.counters
    live = [_known(counters.get(name)) for name in _LIVE]
    prompt, generated, prompt_out, generated_out, begun, completed = live
    tokens = outstanding = measured = None
    if prompt is not None and generated is not None and prompt_out is not None and generated_out is not None:
        tokens = prompt + generated - prompt_out - generated_out
        measured = prompt_out, generated_out
    if begun is not None and completed is not None:
        outstanding = begun - completed
    hits = None
    cached, computed = _known(counters.get("prompt_tokens_cached")), _known(counters.get("completed_prefill_tokens"))
    if cached is not None and computed is not None and prompt_out is not None:
        hits = cached - (prompt_out - computed)
    fits = rank.kv_capacity_tokens
    return Blocks(
        rank=rank.rank,
        pool=pool,
        size=size,
        used=used,
        running=max(0, round(running)),
        waiting=max(0, round(waiting)),
        deferred=bool(rank.gauges.get("waiting_deferred")),
        finished=completed,
        steps=_known(counters.get("iterations")),
        preemptions=_known(counters.get("preemptions")) or 0.0,
        counted=tuple(value for value in live if value is not None),
        tokens=tokens,
        generated=generated,
        measured=measured,
        begun=outstanding,
        hits=hits,
        uniform=fits is None or count * size <= _UNIFORM * fits + 2 * size,
        told=fits == count * size,
    )


_LIVE = (
    "prompt_tokens",
    "generation_tokens",
    "completed_prompt_tokens",
    "completed_generation_tokens",
    "requests_begun",
    "requests_completed",
)


def _known(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _whole(value: float) -> int | None:
    nearest = round(value)
    return nearest if nearest >= 0 and abs(value - nearest) <= _WHOLE else None


def together(ranks: Sequence[Blocks]) -> Blocks | None:
    """Return all ranks of one page as one; None where they cannot be added up."""
    if len(ranks) == 1:
        return ranks[0]
    if not ranks or len({one.size for one in ranks}) > 1:
        return None
    return Blocks(
        rank="all",
        pool=sum(one.pool for one in ranks),
        size=ranks[0].size,
        used=sum(one.used for one in ranks),
        running=sum(one.running for one in ranks),
        waiting=sum(one.waiting for one in ranks),
        deferred=any(one.deferred for one in ranks),
        finished=_sum(one.finished for one in ranks),
        steps=_sum(one.steps for one in ranks),
        preemptions=sum(one.preemptions for one in ranks),
        counted=tuple(value for one in ranks for value in one.counted),
        tokens=_sum(one.tokens for one in ranks),
        generated=_sum(one.generated for one in ranks),
        begun=_sum(one.begun for one in ranks),
        uniform=all(one.uniform for one in ranks),
        told=all(one.told for one in ranks),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    numbers = [value for value in known if value is not None]
    return sum(numbers) if len(numbers) == len(known) else None


def needed(requests: Iterable[InflightRequest], running: int, size: int, ahead: int) -> int:
    """Return the most blocks that ``running`` of ``requests`` can hold: the largest ones, nothing of theirs shared.

    Those that wait hold none, and nobody says which they are. ``ahead``: tokens allocated beyond what was generated.
    """
    tokens = (one.prompt_tokens + one.generated_tokens + ahead for one in requests)
    return sum(-(-count // size) for count in nlargest(running, tokens))
