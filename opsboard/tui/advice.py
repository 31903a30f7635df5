"""What a person can do about an incident, in one sentence. Nothing here is done by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from opsboard.core.wire import Incident
from opsboard.tui import format as fmt

Evidence = Mapping[str, float | str | bool | None]


def advice(one: Incident) -> str | None:
    """Return what to do, None where nothing is known of its kind or it is over."""
    if one.resolved is not None:
        return None
    under_way = next((action for action in reversed(one.actions) if action.outcome is None), None)
    if under_way is not None:
        return f"a {under_way.kind} of it is under way: wait how it goes"
    if one.ended is not None:
        return "it is not seen any more, and closes by itself in a minute if it stays away"
    told = _TOLD.get(one.detector)
    return told(one.evidence) if told is not None else None


def _number(evidence: Evidence, name: str) -> float | None:
    value = evidence.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _before(evidence: Evidence, name: str, low: str, what: str) -> str:
    """Tell by when: the soonest that is known."""
    soon = _number(evidence, low)
    left = soon if soon is not None else _number(evidence, name)
    return f" within {fmt.duration(left)}, before {what}" if left is not None else f" before {what}"


def _kv_leak(evidence: Evidence) -> str:
    when = _before(evidence, "exhausted_in_s", "exhausted_in_s_low", "the pool is exhausted")
    return f"only a restart gives lost blocks back: plan one{when}"


def _memory(evidence: Evidence) -> str:
    when = _before(evidence, "eta_s", "eta_s", "memory is full")
    return f"only a restart gives it back: plan one{when}"


def _latency(evidence: Evidence) -> str:
    if evidence.get("causes"):
        return f"look first at what moved beside it: {evidence['causes']}"
    if evidence.get("event") == "upgrade" and evidence.get("version_before"):
        return f"compare with version {evidence['version_before']}, or go back to it"
    if evidence.get("event") == "configuration":
        return "take the change of configuration back, or accept it: what lasts a week is the new normal"
    return "look for what began with it: clocks and neighbours of its GPUs, the host's CPUs, its log"


def _gpu(evidence: Evidence) -> str:
    if evidence.get("predicate") in ("lost", "xid_reset", "ecc"):
        return "drain what uses this card; it needs a reset or a reboot, and restarting the engine alone cures nothing"
    if evidence.get("predicate") in ("slowed", "hot"):
        return "look at cooling and power of this card; until then it is slower than it should be"
    return "restart the engine if it misbehaves; the same again on this card is a matter for the hardware's owner"


def _storm(evidence: Evidence) -> str:
    if evidence.get("predicate") == "without_need":
        return "its cache has room, so that load is not the reason: see who resets it, else drain and restart it"
    return "send it less: fewer requests at once (max_num_seqs), shorter contexts, or some of them elsewhere"


_TOLD: Mapping[str, Callable[[Evidence], str]] = {
    "kv_leak": _kv_leak,
    "memory_leak": _memory,
    "gpu_memory_leak": _memory,
    "latency": _latency,
    "gpu_fault": _gpu,
    "stall": lambda _: (
        "it hangs and seldom comes back by itself: read the end of its log, then restart it now, without draining"
    ),
    "engine_down": lambda _: (
        "read the end of its log; what opsboard started it also starts again, as far as the budgets allow"
    ),
    "parked": lambda _: "mend what its log says, then start it: a start un-parks it",
    "budget_spent": lambda _: "mend what its log says, then start it: a start un-parks it with a fresh budget",
    "scrape_failed": lambda _: "check its address and what its page answers; the engine itself may serve",
    "channel_broken": lambda _: (
        "mend its key or address, reload the configuration, then `opsboard alerts test` it; what waits is sent then"
    ),
    "disk_low": lambda _: "make room on the disk of the state directory: when it is full nothing is recorded",
    "preemption_storm": _storm,
    "throughput_collapse": lambda _: (
        "see what began with it (clocks, neighbours, another kind of request), drain it, then restart it"
    ),
    "output_drift": lambda _: (
        "drain it until you know why: weights, quantisation, kernels or the card are not what they were"
    ),
    "slo_burn": lambda _: "find the incident or the load that causes it; send it less until then",
}
