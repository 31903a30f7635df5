"""When a leak of memory is worth a word, and what is said of it. Shared by those of the host and of a GPU."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from alerts.base import check_seconds
from alerts.eta import seconds_until, size, urgency
from alerts.growth import Trend
from alerts.timeline import told_s
from opsboard.core.model import Record

MIB = 1 << 20


class Pace(Record, frozen=True, kw_only=True):
    """Parameters: how soon memory is full, and how loud that is."""

    slow_gain_mib: Annotated[
        float, Meta(gt=0, description="the same where memory lasts longer than `ticket` at this pace")
    ] = 512.0
    slow_s: Annotated[float, Meta(description="and for so long")] = 21_600.0
    page_s: Annotated[float, Meta(description="memory that lasts less is urgent: `page` in the evidence")] = 7200.0
    ticket_s: Annotated[float, Meta(description="and less than this is a `ticket`, more a `note`")] = 259_200.0

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense together."""
        check_seconds(self, ("page",), [("page", "ticket")])


def claimed(trend: Trend | None, room: float | None, at: float, pace: Pace, *, before: bool) -> bool:
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
    end = "" if eta_s is None else f"; memory lasts for {told_s(eta_s)} more"
    return f"{size(scale * trend.per_work)} a {unit}, {size(3600 * per_s)} an hour{end}"


def evidence(trend: Trend, per_s: float, room: float | None, pace: Pace) -> dict[str, Any]:
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
