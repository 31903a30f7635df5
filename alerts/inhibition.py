"""One root cause, one incident: what belongs to which incident instead of being one of its own. Pure tables and rules.

Only troubles of one subject explain each other. A trouble is explained when it began no sooner than
:data:`WITHIN_S` before its cause, while that lasts and for :data:`WITHIN_S` after it, and its numbers agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from opsboard.core.incidents import Evidence, Incident

WITHIN_S = 30.0
LINGERS_S = {"slo_burn": 1800.0}
"""What looks back over a window is true for longer than its cause: the short window of a burn rate is 5 or 30 min."""

_NO_SERVICE = frozenset(
    {
        "latency",
        "slo_burn",
        "throughput_collapse",
        "preemption_storm",
        "output_drift",
        "scrape_failed",
        "parked",
        "budget_spent",
    }
)
_SLOW = frozenset({"latency", "slo_burn", "throughput_collapse"})
INHIBITS: dict[str, frozenset[str]] = {
    "gpu_fault": _NO_SERVICE | {"engine_down", "stall"},
    "engine_down": _NO_SERVICE | {"stall"},
    "stall": _NO_SERVICE | {"engine_down"},
    "budget_spent": _NO_SERVICE | {"engine_down", "stall"},
    "parked": _NO_SERVICE | {"engine_down", "stall"},
    "memory_leak": frozenset({"engine_down"}),
    "gpu_memory_leak": frozenset({"engine_down"}),
    "kv_leak": frozenset({"stall", "preemption_storm", "throughput_collapse"}),
    "preemption_storm": _SLOW,
    "throughput_collapse": frozenset({"latency", "slo_burn"}),
    "latency": frozenset({"slo_burn"}),
}
"""What each may explain. Of two that explain each other, the first opens. In order: of those that come at once, the
earlier in this table opens first."""

_RANK = {detector: rank for rank, detector in enumerate(INHIBITS)}

_BY_FAULT = {
    "lost": INHIBITS["gpu_fault"],
    "xid_reset": INHIBITS["gpu_fault"],
    "ecc": _NO_SERVICE | {"engine_down"},
    "xid_restart": _NO_SERVICE | {"engine_down"},
    "slowed": _SLOW,
    "hot": _SLOW,
    "xid_wears": frozenset[str](),
}
"""What each fault of a GPU explains: a card that is slow hangs no engine, and one that wears serves on."""
_KILLED = frozenset({-9.0, 137.0})
"""Exit codes of what the kernel ended, as it does where memory is short."""
_GONE = frozenset({"half_death", "gone", "silent_death"})
_MEMORY = "out of memory"
_FULL = 0.8
"""KV use from which on a request may wait for blocks that never come back."""


class Trouble(Protocol):
    """What may belong to an incident: a claim, or an incident of its own."""

    @property
    def detector(self) -> str:
        """What claims it."""

    @property
    def since(self) -> float:
        """When it began, Unix s."""

    @property
    def summary(self) -> str:
        """The same in words."""

    @property
    def evidence(self) -> Evidence:
        """Its numbers."""


def rank(detector: str) -> int:
    """Return where a detector stands when several claims come at once: causes first."""
    return _RANK.get(detector, len(_RANK))


def explains(root: Incident, trouble: Trouble, detector: str | None = None) -> bool:
    """Tell whether a trouble belongs to ``root``; ``detector``: to a consequence of it of that kind.

    What came of a root that is over is for the caller to end, after :func:`lingers_s`.
    """
    kind = detector or root.detector
    if trouble.detector in {kind, root.detector} or trouble.detector not in INHIBITS.get(kind, frozenset()):
        return False
    if not _fits(kind, root.evidence if detector is None else {}, trouble):
        return False
    if trouble.since < min(root.since, root.opened) - WITHIN_S:
        return False
    return root.open or trouble.since <= (root.ended or root.resolved or 0.0) + WITHIN_S


def _fits(kind: str, evidence: Evidence, trouble: Trouble) -> bool:
    """Tell whether the numbers of both agree with what :data:`INHIBITS` holds possible."""
    match kind:
        case "gpu_fault":
            faults = str(evidence.get("predicates") or evidence.get("predicate") or "").split()
            return not faults or any(trouble.detector in _BY_FAULT.get(fault, _NO_SERVICE) for fault in faults)
        case "memory_leak" | "gpu_memory_leak":
            code, how = trouble.evidence.get("exit_code"), trouble.evidence.get("predicate")
            killed = code in _KILLED or how in _GONE
            return _MEMORY in trouble.summary.lower() or (kind == "memory_leak" and killed)
        case "kv_leak" if trouble.detector == "stall":
            usage = trouble.evidence.get("kv_usage")
            return isinstance(usage, float) and usage >= _FULL
    return True


def lingers_s(detector: str) -> float:
    """Return for how long, in s, after the end of its cause a trouble may still belong to it."""
    return LINGERS_S.get(detector, WITHIN_S)


def root_of(
    roots: Iterable[Incident], trouble: Trouble, caused: Iterable[tuple[Incident, str]] = ()
) -> Incident | None:
    """Return the incident that such a trouble belongs to, an open one first; None: it stands for itself.

    ``caused``: what is a line of an incident, with its kind. What that explains belongs there, too.
    """
    found = [root for root in roots if explains(root, trouble)]
    found += [root for root, kind in caused if explains(root, trouble, kind)]
    return min(found, key=lambda root: (not root.open, rank(root.detector), root.id), default=None)
