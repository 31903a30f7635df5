"""What is wrong as the daemon itself knows, without a detector, and when a claim of an engine is to be expected. Pure.

``parked`` and ``budget_spent`` need a person; ``scrape_failed`` is a page that cannot be used although somebody
answers; ``disk_low`` the disk that holds the state directory.
"""

from __future__ import annotations

from collections.abc import Iterable

from alerts.detectors.engine_down import NO_ANSWER, NOBODY
from alerts.incidents import Claim
from alerts.inhibition import WITHIN_S
from opsboard.core.clock import Now
from opsboard.core.incidents import Incident
from opsboard.core.lives import spent_its_budget
from opsboard.core.model import EngineState, HostView, Outcome
from opsboard.daemon.engine_track import EngineTrack

SCRAPE_S = 60.0
"""A page that fails for so long is told."""
DISK_LOW_BYTES, DISK_WELL_BYTES = 1 << 30, 3 << 29
"""Told below 1 GiB, over again above 1.5 GiB: what the store may grow by in days of a few engines."""

_KNOWN = frozenset({EngineState.READY, EngineState.DRAINING, EngineState.STOPPED, EngineState.ASLEEP})
_AWAY = frozenset({EngineState.STOPPED, EngineState.STOPPING, EngineState.ASLEEP})
_BROKEN = frozenset({EngineState.PARKED, EngineState.FAILED})


def engine_troubles(track: EngineTrack, now: Now) -> list[Claim]:
    """Return what is wrong with an engine."""
    subject, life, last = f"engine/{track.name}", track.life, track.last
    found: list[Claim] = []
    if life is not None and life.state is EngineState.PARKED:
        said = "; ".join(part for part in (life.message, life.hint) if part)
        spent = spent_its_budget(life)
        found.append(
            Claim(
                detector="budget_spent" if spent else "parked",
                subject=subject,
                severity="page",
                summary=f"{track.name} is parked: {said or 'it needs a person'}",
                since=life.since,
                confirmed=True,
                evidence={"exit_code": life.exit_code, "restarts": life.restarts},
            )
        )
    failing = track.failing
    unread = now.mono - failing.mono if failing is not None else 0.0
    if track.state is EngineState.UNREACHABLE and last is not None and failing is not None and unread >= SCRAPE_S:
        found.append(
            Claim(
                detector="scrape_failed",
                subject=subject,
                severity="ticket",
                summary=f"no page of {track.name} could be read for {unread:.0f} s: {last.error}",
                since=failing.wall,
                confirmed=last.reason not in NOBODY | NO_ANSWER,
                evidence={"reason": last.reason, "error": last.error, "seconds": round(unread)},
            )
        )
    return found


def host_troubles(host: HostView | None, now: Now, ongoing: Iterable[Incident]) -> list[Claim]:
    """Return what is wrong with the host; ``ongoing`` is what is open."""
    if host is None or host.disk_free_bytes is None:
        return []
    told = any(one.detector == "disk_low" for one in ongoing)
    free = host.disk_free_bytes
    if free >= (DISK_WELL_BYTES if told else DISK_LOW_BYTES):
        return []
    return [
        Claim(
            detector="disk_low",
            subject="host",
            severity="ticket",
            summary=f"the disk of the state directory has {free / 2**20:.0f} MiB left",
            since=now.wall,
            confirmed=True,
            evidence={"disk_free_bytes": free, "disk_total_bytes": host.disk_total_bytes},
        )
    ]


def can_be_judged(track: EngineTrack) -> bool:
    """Tell whether what is not claimed of an engine now is not there: it serves and is read, or is away on purpose."""
    if track.state in {EngineState.READY, EngineState.DRAINING}:
        return track.last is not None and track.last.outcome is not Outcome.FAILED
    return track.state in _KNOWN


def worked_on(track: EngineTrack, now: Now) -> float | None:
    """Return by when (Unix s) what is claimed of an engine has to have begun to be expected; None: nothing is.

    Somebody works on it: a start, a restart or a sleep that an operator, a rolling restart or ``max_age`` asked for.
    What began meanwhile is expected for ``WITHIN_S`` longer. One that fails is no excuse.
    """
    last = track.transaction
    under_way = last is not None and last.outcome is None
    by_itself = last is not None and last.automatic and last.kind in {"start", "restart"}
    if track.state in _BROKEN or (by_itself and under_way):
        return None
    if track.state in _AWAY or track.doing is not None or under_way:
        return float("inf")
    if last is None or by_itself or last.outcome != "ok" or last.ended is None:
        return None
    return last.ended if 0 <= now.wall - last.ended < WITHIN_S else None
