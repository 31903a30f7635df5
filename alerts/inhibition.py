"""One root cause, one incident: what belongs to which incident instead of being one of its own. Pure tables and rules.

Only troubles of one subject explain each other. A trouble is explained when it began no sooner than
:data:`WITHIN_S` before its cause, while that lasts and for :data:`WITHIN_S` after it.
"""

from __future__ import annotations

from collections.abc import Iterable

from opsboard.core.incidents import Incident

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
INHIBITS: dict[str, frozenset[str]] = {
    "gpu_fault": _NO_SERVICE | {"engine_down", "stall"},
    "engine_down": _NO_SERVICE | {"stall"},
    "stall": _NO_SERVICE | {"engine_down"},
    "budget_spent": _NO_SERVICE | {"engine_down", "stall"},
    "parked": _NO_SERVICE | {"engine_down", "stall"},
    "kv_leak": frozenset({"preemption_storm", "throughput_collapse"}),
    "preemption_storm": frozenset({"throughput_collapse", "latency", "slo_burn"}),
    "throughput_collapse": frozenset({"latency", "slo_burn"}),
    "latency": frozenset({"slo_burn"}),
}
"""What each explains. Of two that explain each other, the first opens. In order: of those that come at once, the
earlier in this table opens first."""

_RANK = {detector: rank for rank, detector in enumerate(INHIBITS)}


def rank(detector: str) -> int:
    """Return where a detector stands when several claims come at once: causes first."""
    return _RANK.get(detector, len(_RANK))


def explains(root: Incident, detector: str, since: float) -> bool:
    """Tell whether a trouble of ``detector`` that began at ``since`` (Unix s) belongs to ``root``.

    What came of a root that is over is for the caller to end, after :func:`lingers_s`.
    """
    if detector == root.detector or detector not in INHIBITS.get(root.detector, frozenset()):
        return False
    if since < min(root.since, root.opened) - WITHIN_S:
        return False
    return root.open or since <= (root.ended or root.resolved or 0.0) + WITHIN_S


def lingers_s(detector: str) -> float:
    """Return for how long, in s, after the end of its cause a trouble may still belong to it."""
    return LINGERS_S.get(detector, WITHIN_S)


def root_of(roots: Iterable[Incident], detector: str, since: float) -> Incident | None:
    """Return the incident that such a trouble belongs to, an open one first; None: it stands for itself."""
    found = [root for root in roots if explains(root, detector, since)]
    return min(found, key=lambda root: (not root.open, rank(root.detector), root.id), default=None)
