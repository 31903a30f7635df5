"""What detectors say of themselves, in one line: what is not judged, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opsboard.core.wire import DetectorInfo, Engine


def unjudged(detectors: Iterable[DetectorInfo], state: str = "unknown") -> str:
    """Return ``kv_leak, latency (why); stall (why)`` of those in ``state``; empty where there are none."""
    by_reason: dict[str, list[str]] = {}
    for one in detectors:
        if one.state == state:
            by_reason.setdefault(one.reason or "", []).append(one.name)
    return "; ".join(f"{', '.join(names)} ({why})" for why, names in by_reason.items())


def doubts(engine: Engine) -> str | None:
    """Return what cannot be judged of an engine although its page is read; None: nothing, or its state says enough."""
    said = unjudged(engine.detectors) if engine.reading.outcome == "OK" and engine.state != "asleep" else ""
    return f"cannot judge {said}" if said else None
