"""Routes of the configuration with the state of their targets, as the board shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opsboard.config.schema import Route
from opsboard.core.model import EngineState
from opsboard.core.wire import RouteInfo, TargetInfo

WEIGHT = 1.0


def route_infos(routes: Iterable[Route], states: Mapping[str, EngineState]) -> tuple[RouteInfo, ...]:
    """Return the routes in the order of the file; ``states`` are those of the engines on the board."""
    return tuple(_route_info(route, states) for route in routes)


def _route_info(route: Route, states: Mapping[str, EngineState]) -> RouteInfo:
    found = [states.get(name, EngineState.UNREACHABLE) for name in route.targets]
    targets = zip(route.targets, found, strict=True)
    return RouteInfo(
        model=route.model,
        targets=tuple(TargetInfo(name=name, state=state.value, weight=WEIGHT) for name, state in targets),
        serving=EngineState.READY in found,
    )
