"""An engine that ended and that supervision starts again by itself: a note, unless that fails or takes long. Pure.

Nobody wants to be woken by what is mended already. Whether it will be is known within a moment: what nobody starts
again is a page at once.
"""

from __future__ import annotations

from msgspec.structs import replace

from opsboard.core.incidents import Incident
from opsboard.core.model import EngineState

AT_WORK = frozenset({EngineState.BACKING_OFF, EngineState.STOPPING, EngineState.STARTING})
"""``STOPPING``: what the old life left goes first."""
FAILED = frozenset({"failed", "refused"})


SETTLES_S = 90.0
"""What serves again gets so long on top: its incident is over a minute after it was last seen."""


def eased(incident: Incident, state: EngineState | None, t: float, mending_s: float) -> Incident:
    """Return an incident as loud as people are to hear it at ``t`` (Unix s); ``state`` is its engine's.

    It is a note for ``mending_s`` while the first restart since it opened is at work or has worked.
    """
    serves = state is EngineState.READY and incident.evidence.get("predicate") == "exited"
    mended = (
        mending_s > 0
        and incident.detector == "engine_down"
        and incident.severity == "page"
        and (serves or state in AT_WORK)
        and 0 <= t - incident.opened < mending_s + (SETTLES_S if serves else 0.0)
        and all(action.outcome not in FAILED for action in incident.actions)
    )
    return replace(incident, severity="note") if mended else incident
