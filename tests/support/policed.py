"""Incidents, engines and routes for the rules of policies."""

from __future__ import annotations

from typing import Any

from alerts.policy import Able, Deed, Scene
from opsboard.config.schema import Policy
from opsboard.config.units import Seconds
from opsboard.core.incidents import Incident
from opsboard.core.model import EngineState
from opsboard.core.wire import RouteInfo, TargetInfo

READY = EngineState.READY


def policy(**changes: Any) -> Policy:
    """Return one that restarts what leaks, at once."""
    fields: dict[str, Any] = {"name": "p", "on": "kv_leak", "do": ("drain", "restart"), "after": Seconds(0)}
    return Policy(**(fields | changes))


def incident(engine: str = "a", number: int = 1, **changes: Any) -> Incident:
    """Return a confirmed leak that ends its engine in an hour."""
    fields: dict[str, Any] = {
        "id": number,
        "uid": f"u{number}",
        "detector": "kv_leak",
        "subject": f"engine/{engine}",
        "severity": "ticket",
        "since": 900.0,
        "opened": 1000.0,
        "summary": "214 KV blocks lost",
        "first_summary": "3 KV blocks lost",
        "evidence": {"exhausted_in_s": 3600.0},
        "confirmed": True,
    }
    return Incident(**(fields | changes))


def route(model: str = "chat", /, **states: EngineState) -> RouteInfo:
    """Return a route whose targets are in these states."""
    targets = tuple(TargetInfo(name=name, state=state.value, weight=1.0) for name, state in states.items())
    return RouteInfo(model=model, targets=targets, serving=READY in states.values())


def scene(*incidents: Incident, deeds: tuple[Deed, ...] = (), **changes: Any) -> Scene:
    """Return engines a and b of one route, and what is open."""
    fields: dict[str, Any] = {
        "incidents": incidents,
        "stands": {one.uid: 0.0 for one in incidents},
        "engines": {"a": Able(state=READY), "b": Able(state=READY)},
        "routes": (route(a=READY, b=READY),),
        "deeds": deeds,
    }
    return Scene(**(fields | changes))
