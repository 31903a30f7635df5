"""Memory of a GPU that an engine takes after its warm-up and never gives back, measured against its work.

An engine reserves what it needs before it serves; after that its part of a card is flat. The driver tells it a process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, NamedTuple

from msgspec import Meta

from alerts.base import Detector, Observation, Off, Step, unread
from alerts.blocks import Sample
from alerts.engine_life import Work, follow
from alerts.eta import seconds_until, size
from alerts.growth import Growth, add, claimed_trend
from alerts.leak import LeakParams, WarmSeconds, claimed, evidence, filling, rates, rules, warming
from alerts.timeline import told_s
from opsboard.core.judgement import Unknown
from opsboard.core.model import Finding, GpuProcess, GpuView, Record

_UNCOUNTED = "its page counts neither requests nor tokens"
_NO_GPU = Off("no GPU is seen here")
_LEAST_MIB = 64.0


class Params(LeakParams, frozen=True, kw_only=True):
    """Times, requests, and growth in MiB."""

    # Workspaces of NCCL and cuBLAS, and graphs that are captured late.
    warm_s: WarmSeconds = 300.0
    gain_mib: Annotated[
        float, Meta(gt=0, description="least growth on one card that is claimed, in MiB; 3 % of what is free, if less")
    ] = 256.0


class Held(NamedTuple):
    """What the engine holds on one card."""

    card: int
    growth: Growth
    claimed: bool
    room: float | None


class State(Record, frozen=True, kw_only=True):
    """What is remembered of one life. ``cards`` by uuid."""

    params: Params
    work: Work | None = None
    cards: Mapping[str, Held] = {}


def begin(params: Params) -> State:
    """Know nothing."""
    return State(params=params)


def step(state: State, seen: Observation) -> Step:
    """Take in one observation: with every page, what is held on each card."""
    work, anew = follow(state.work, seen)
    if anew or work is None:
        return Step(State(params=state.params, work=work), unknown=unread(seen) or _UNCOUNTED)
    cards = state.cards
    if work is not state.work:
        cards = {gpu.uuid: held for gpu in seen.gpus if (held := _taken(state, work, gpu, seen)) is not None}
        state = State(params=state.params, work=work, cards=cards)
    leaks = [(uuid, one) for uuid, one in cards.items() if one.claimed and one.growth.trend is not None]
    if leaks:
        return Step(state, _finding(leaks, seen, state.params))
    return Step(state, unknown=unread(seen) or _unknown(state, work, seen))


def _unknown(state: State, work: Work, seen: Observation) -> Unknown | None:
    """Return why it does not judge; one card of which it can tell is enough."""
    if not seen.gpus:
        return _NO_GPU
    if not state.cards:
        return "the driver does not tell what its processes hold"
    missing = warming(work, seen.now.mono, state.params.warm_s, state.params.warm_requests)
    return missing or filling(one.growth for one in state.cards.values())


def _taken(state: State, work: Work, gpu: GpuView, seen: Observation) -> Held | None:
    """Return what was seen of a card; None where it holds nothing of this engine. An unknown level changes nothing."""
    params, old = state.params, state.cards.get(gpu.uuid)
    pids = {one.pid for one in seen.processes}
    ours = [one.memory_bytes for one in gpu.processes if _is_of(one, seen.engine, pids)]
    known = [held for held in ours if held is not None]
    if not ours or len(known) < len(ours):
        return old
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    room = None if used is None or total is None else float(total - used)
    warm = warming(work, work.at, params.warm_s, params.warm_requests) is None
    sample = Sample(work.at, float(sum(known)), work.requests, work.tokens, work.load)
    grown = Growth() if old is None else old.growth
    growth = add(grown, sample, rules(params.gain_mib, _LEAST_MIB, room), warm=warm)
    before = old is not None and old.claimed
    return Held(gpu.index, growth, claimed(growth.trend, room, work.at, params, before=before), room)


def _is_of(process: GpuProcess, engine: str, pids: Collection[int]) -> bool:
    """Tell whose it is: as somebody said, else by its pid."""
    return process.engine == engine if process.engine is not None else process.pid in pids


def _finding(leaks: list[tuple[str, Held]], seen: Observation, params: Params) -> Finding:
    """Claim the card that is full first."""
    ends = [seconds_until(one.room, claimed_trend(one.growth).per_s) for _, one in leaks]
    first = min(range(len(leaks)), key=lambda at: float("inf") if (end := ends[at]) is None else end)
    (uuid, worst), eta_s = leaks[first], ends[first]
    trend, mono = claimed_trend(worst.growth), seen.now.mono
    since = min(claimed_trend(one.growth).since for _, one in leaks)
    where = f"GPU {worst.card}" if len(leaks) == 1 else f"GPU {worst.card} and {len(leaks) - 1} more"
    return Finding(
        detector="gpu_memory_leak",
        engine=seen.engine,
        summary=f"{size(trend.gain)} leaked on {where} in {told_s(mono - since)}, {rates(trend, trend.per_s, eta_s)}",
        since=seen.now.wall - (mono - since),
        confirmed=any(claimed_trend(one.growth).gain >= 2 * claimed_trend(one.growth).opened_gain for _, one in leaks),
        evidence={
            "gpu": uuid,
            "gpu_index": float(worst.card),
            "cards": float(len(leaks)),
            "leaked_bytes": trend.gain,
            **evidence(trend, trend.per_s, worst.room, params),
        },
    )


DETECTOR = Detector(
    name="gpu_memory_leak",
    severity="ticket",
    summary="memory of a GPU that the engine takes after its warm-up and never gives back",
    params=Params,
    begin=begin,
    step=step,
)
