"""Host memory that a process of the engine takes and never gives back, measured against its work.

What counts is anonymous memory and what of it was swapped out: file pages come and go. Growth by itself is nothing:
see :mod:`alerts.growth` for what is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from msgspec import Meta

from alerts.base import Detector, Observation, Step, unread
from alerts.blocks import Sample
from alerts.engine_life import Work, follow
from alerts.eta import seconds_until, size
from alerts.growth import Growth, add, claimed_trend
from alerts.leak import LeakParams, claimed, evidence, filling, rates, rules, warming
from alerts.timeline import told_s
from opsboard.core.judgement import Unknown
from opsboard.core.model import Finding, Record

_UNCOUNTED = "its page counts neither requests nor tokens"
_BYSTANDERS = frozenset({"shim", "resource_tracker"})
_LEAST_MIB = 16.0


class Params(LeakParams, frozen=True, kw_only=True):
    """Times, requests, and growth in MiB."""

    cpu_warm_s: Annotated[
        float,
        # The KV cache of a CPU engine is touched for the first time, kernels are cached for every shape.
        Meta(description="`warm` of the process that computes, of an engine without a GPU"),
    ] = 900.0
    cpu_warm_requests: Annotated[float, Meta(ge=0, description="and its requests")] = 2000.0
    gain_mib: Annotated[
        float, Meta(gt=0, description="least growth that is claimed, in MiB; 3 % of the room left, if that is less")
    ] = 128.0


class Watched(NamedTuple):
    """One process."""

    role: str
    growth: Growth
    claimed: bool = False


class State(Record, frozen=True, kw_only=True):
    """What is remembered of one life. ``processes`` by pid and start; ``looked`` is the last look taken in."""

    params: Params
    work: Work | None = None
    looked: float = float("-inf")
    processes: Mapping[tuple[int, float], Watched] = {}


def begin(params: Params) -> State:
    """Know nothing."""
    return State(params=params)


def step(state: State, seen: Observation) -> Step:
    """Take in one observation: a page is work, a look at the processes is levels."""
    work, anew = follow(state.work, seen)
    if anew or work is None:
        if state.processes or anew or work is not state.work:
            state = State(params=state.params, work=work, looked=state.looked)
        return Step(state, unknown=unread(seen) or _UNCOUNTED)
    looked = state.looked
    processes = state.processes
    if seen.looked is not None and seen.looked > state.looked and seen.processes:
        looked, processes = seen.looked, _taken(state, work, seen, seen.looked)
    state = State(params=state.params, work=work, looked=looked, processes=processes)
    leaks = [one for one in processes.values() if one.claimed and one.growth.trend is not None]
    if leaks:
        return Step(state, _finding(leaks, seen, state))
    return Step(state, unknown=unread(seen) or _unknown(state, work, seen))


def _unknown(state: State, work: Work, seen: Observation) -> Unknown | None:
    """Return why it does not judge; one process of which it can tell is enough."""
    if seen.looked is None:
        return "nobody looks at its processes"
    if not any(one.role not in _BYSTANDERS for one in seen.processes):
        return "its processes cannot be seen"
    if not state.processes:
        return "what its processes hold cannot be read"
    params = state.params
    missing = warming(work, state.looked, params.warm_s, params.warm_requests)
    return missing or filling(one.growth for one in state.processes.values())


def _taken(state: State, work: Work, seen: Observation, at: float) -> dict[tuple[int, float], Watched]:
    """Return every process with what was seen of it at this look."""
    params, room = state.params, room_bytes(seen)
    least = rules(params.gain_mib, _LEAST_MIB, room)
    alone = not any(one.role == "worker" for one in seen.processes)
    taken = {}
    for one in seen.processes:
        level = one.rss_anon_bytes
        if level is None or one.role in _BYSTANDERS:
            continue
        key = one.pid, one.started
        old = state.processes.get(key) or Watched(one.role, Growth())
        computes = one.role == "worker" or (alone and one.role == "engine_core")
        sample = Sample(at, level + (one.swap_bytes or 0), work.requests, work.tokens, work.load)
        warm = _warm(params, work, at, cpu=computes and not _on_gpu(seen))
        growth = add(old.growth, sample, least, warm=warm)
        taken[key] = Watched(one.role, growth, claimed(growth.trend, room, at, params, before=old.claimed))
    return taken


def _warm(params: Params, work: Work, at: float, *, cpu: bool) -> bool:
    if not cpu:
        return warming(work, at, params.warm_s, params.warm_requests) is None
    if work.tokens is not None and work.tokens < 2 * (work.view.kv_capacity_tokens or 0.0):
        return False  # its KV cache lies in host memory and was not yet touched everywhere
    return warming(work, at, params.cpu_warm_s, params.cpu_warm_requests) is None


def _on_gpu(seen: Observation) -> bool:
    """Tell whether it may compute on a GPU: one holds memory for it, or for processes that nobody can name."""
    return any(held.engine == seen.engine or held.memory_bytes is None for gpu in seen.gpus for held in gpu.processes)


def room_bytes(seen: Observation) -> float | None:
    """Return what is left on the host or in the cgroup, whichever is less. None: nobody knows.

    The cgroup is opsboard's own: it counts where the engine's processes can be in it.
    """
    host = seen.host
    if host is None:
        return None
    rooms = [] if host.memory_available_bytes is None else [float(host.memory_available_bytes)]
    if host.cgroup_limit_bytes is not None:
        held = float(sum(one.rss_anon_bytes or 0 for one in seen.processes))
        used = held if host.cgroup_used_bytes is None else float(host.cgroup_used_bytes)
        if held <= used <= host.cgroup_limit_bytes:
            rooms.append(host.cgroup_limit_bytes - used)
    return min(rooms, default=None)


def _finding(leaks: list[Watched], seen: Observation, state: State) -> Finding:
    worst = max(leaks, key=lambda one: claimed_trend(one.growth).per_s)
    trend = claimed_trend(worst.growth)
    per_s, gain = (
        sum(claimed_trend(one.growth).per_s for one in leaks),
        sum(claimed_trend(one.growth).gain for one in leaks),
    )
    room, mono = room_bytes(seen), seen.now.mono
    since = min(claimed_trend(one.growth).since for one in leaks)
    who = worst.role if len(leaks) == 1 else f"{worst.role} and {len(leaks) - 1} more"
    said = rates(trend, per_s, seconds_until(room, per_s))
    return Finding(
        detector="memory_leak",
        engine=seen.engine,
        summary=f"{who} leaked {size(gain)} of host memory in {told_s(mono - since)}, {said}",
        since=seen.now.wall - (mono - since),
        confirmed=any(claimed_trend(one.growth).gain >= 2 * claimed_trend(one.growth).opened_gain for one in leaks),
        evidence={
            "role": worst.role,
            "processes": float(len(leaks)),
            "leaked_bytes": gain,
            **evidence(trend, per_s, room, state.params),
            "requests_finished": None if state.work is None else state.work.requests,
        },
    )


DETECTOR = Detector(
    name="memory_leak",
    severity="ticket",
    summary="host memory that a process of the engine takes and never gives back",
    params=Params,
    begin=begin,
    step=step,
)
