"""Engines that stand in for each other: which one must not be taken out of service."""

from __future__ import annotations

from collections.abc import Iterable

from opsboard.core.model import EngineState
from opsboard.core.wire import RouteInfo

READY = EngineState.READY.value


def last_target(name: str, routes: Iterable[RouteInfo]) -> str | None:
    """Say why engine ``name`` may not be taken out of service now; None when it may.

    It may not when it serves a route that no other target serves. One that does not serve takes nothing away.
    """
    alone = [
        route.model for route in routes if [target.name for target in route.targets if target.state == READY] == [name]
    ]
    if not alone:
        return None
    return f"{name} is the last healthy target of route{'s' if len(alone) > 1 else ''} {', '.join(alone)}"
