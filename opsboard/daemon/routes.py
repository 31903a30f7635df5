"""Engines that stand in for each other, by route: which of them serve, and which one must not be taken away."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from opsboard.config.schema import Route
from opsboard.core.model import EngineState
from opsboard.core.wire import RouteInfo, TargetInfo

WEIGHT = 1.0


def route_info(route: Route, states: Mapping[str, EngineState]) -> RouteInfo:
    """Return a route as the board shows it. ``states`` are those of the engines on the board."""
    targets = tuple(
        TargetInfo(name=name, state=states.get(name, EngineState.UNREACHABLE).value, weight=WEIGHT)
        for name in route.targets
    )
    return RouteInfo(model=route.model, targets=targets, serving=any(map(_serves, targets)))


def last_target(name: str, routes: Collection[Route], states: Mapping[str, EngineState]) -> str | None:
    """Say why engine ``name`` may not be taken out of service now; None when it may.

    It may not when it serves a route that no other target serves. One that does not serve takes nothing away.
    """
    if states.get(name) is not EngineState.READY:
        return None
    alone = [route for route in routes if name in route.targets and _others(name, route, states) == 0]
    if not alone:
        return None
    models = ", ".join(route.model for route in alone)
    return f"{name} is the last healthy target of route{'s' if len(alone) > 1 else ''} {models}"


def _others(name: str, route: Route, states: Mapping[str, EngineState]) -> int:
    return sum(states.get(other) is EngineState.READY for other in route.targets if other != name)


def _serves(target: TargetInfo) -> bool:
    return target.state == EngineState.READY.value
