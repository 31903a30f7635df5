"""When a leak of memory is worth a word, and what is said of it. Shared by those of the host and of a GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import Meta

from alerts.base import Learning, check_seconds
from alerts.engine_life import Work
from alerts.eta import seconds_until, size, urgency
from alerts.growth import BLOCK_S, Growth
from alerts.timeline import told_s
from alerts.trend import WINDOW, Rules, Trend
from opsboard.core.model import Record

MIB = 1 << 20
SOON_S = 8 * 3600.0
"""What lasts longer has time for a second look."""
SHARE_OF_ROOM = 0.03
"""Growth of so much of what is left is worth a word, however little that is."""
TOKENS_A_REQUEST = 100.0
"""Where requests are not counted."""
OLD = 20.0
"""A life with so many times the requests of its warm-up is past it, whenever it was first seen."""


WarmSeconds = Annotated[float, Meta(description="the beginning of a life that is not judged")]


class LeakParams(Record, frozen=True, kw_only=True):
    """What both have: when a life is warm, and how loud it is how soon memory is full."""

    warm_s: WarmSeconds = 120.0
    warm_requests: Annotated[float, Meta(ge=0, description="and at least so many finished requests of it")] = 200.0
    slow_gain_mib: Annotated[
        float, Meta(gt=0, description="least growth where memory lasts longer than `ticket` at this pace, in MiB")
    ] = 512.0
    slow_s: Annotated[float, Meta(description="and for so long")] = 21_600.0
    page_s: Annotated[float, Meta(description="memory that lasts less is urgent: `page` in the evidence")] = 7200.0
    ticket_s: Annotated[float, Meta(description="and less than this is a `ticket`, more a `note`")] = 259_200.0

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense together."""
        check_seconds(self, ("page",), [("page", "ticket")])


def rules(gain_mib: float, least_mib: float, room: float | None) -> Rules:
    """Return from which growth on it is judged, and which pace is urgent, where ``room`` bytes are left.

    That is ``gain_mib``, or a share of little room, but not less than ``least_mib``: memory breathes.
    """
    if room is None:
        return Rules(gain=gain_mib * MIB)
    gain = min(gain_mib * MIB, max(least_mib * MIB, SHARE_OF_ROOM * room))
    return Rules(gain=gain, quick_per_s=max(0.0, room) / SOON_S)


def warming(work: Work, at: float, seconds: float, requests: float) -> Learning | None:
    """Return what is missing until a life is warm at ``at``; None: it is."""
    done = (work.tokens or 0.0) / TOKENS_A_REQUEST if work.requests is None else work.requests
    if done < requests:
        return Learning(done, requests, "finished requests")
    if done < OLD * requests and at - work.begun < seconds:
        return Learning(at - work.begun, seconds, "s of its life")
    return None


def filling(grown: Iterable[Growth]) -> Learning | None:
    """Return what is missing until the first of them has enough blocks; None: one has."""
    blocks = max((len(one.scales[0]) if one.scales else 0 for one in grown), default=0)
    return Learning(blocks * BLOCK_S, WINDOW * BLOCK_S) if blocks < WINDOW else None


def claimed(trend: Trend | None, room: float | None, at: float, pace: LeakParams, *, before: bool) -> bool:
    """Tell whether it is worth a word at ``at``: memory is full soon, or it is large by now.

    ``room`` is what is left, in bytes. What was said once stands until it is over.
    """
    if trend is None or before:
        return trend is not None
    eta_s = seconds_until(room, trend.per_s)
    large = trend.gain >= pace.slow_gain_mib * MIB and at - trend.since >= pace.slow_s
    return large or eta_s is None or eta_s <= pace.ticket_s


def rates(trend: Trend, per_s: float, eta_s: float | None) -> str:
    """Return how fast it leaks and how long that can go on, for people."""
    unit, scale = ("finished request", 1.0) if trend.unit == "request" else ("1,000 tokens", 1000.0)
    end = "how long memory lasts is not known" if eta_s is None else f"memory lasts for {told_s(eta_s)} more"
    return f"{size(scale * trend.per_work)} a {unit}, {size(3600 * per_s)} an hour; {end}"


def evidence(trend: Trend, per_s: float, room: float | None, pace: LeakParams) -> dict[str, Any]:
    """Return the numbers that justify the claim of ``trend`` with ``per_s`` bytes a second in all."""
    eta_s = seconds_until(room, per_s)
    return {
        "bytes_per_request": trend.per_work if trend.unit == "request" else None,
        "bytes_per_token": trend.per_work if trend.unit == "token" else None,
        "bytes_per_work_low": trend.low_per_work,
        "bytes_per_hour": 3600 * per_s,
        "base_bytes": trend.base,
        "room_bytes": room,
        "eta_s": eta_s,
        "eta_latest_s": seconds_until(room, per_s * trend.low_per_work / trend.per_work),
        "urgency": urgency(eta_s, pace.page_s, pace.ticket_s),
    }
