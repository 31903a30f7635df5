"""How long until something is used up, how loud that is, and how people read it."""

from __future__ import annotations

from typing import Literal

Loud = Literal["page", "ticket", "note"]


def seconds_until(room: float | None, per_s: float) -> float | None:
    """Return when ``room`` is used up at this pace, in s; None where it is not known, or never."""
    return None if room is None or per_s <= 0 else max(0.0, room) / per_s


def urgency(eta_s: float | None, page_s: float, ticket_s: float) -> Loud:
    """Return how loud a leak that ends so soon should be; one whose end is not known is work for somebody."""
    if eta_s is None:
        return "ticket"
    return "page" if eta_s < page_s else "ticket" if eta_s < ticket_s else "note"


def size(value: float) -> str:
    """Return bytes as people say them, in powers of 1024 and three digits: ``205 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"
