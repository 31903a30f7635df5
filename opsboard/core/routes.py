"""Engines that stand in for each other: which one must not be taken out of service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opsboard.core.model import EngineState, state_word
from opsboard.core.wire import RouteInfo, TargetInfo

READY = EngineState.READY.value
_SHOWN = 4


def last_target(name: str, routes: Iterable[RouteInfo]) -> str | None:
    """Say why engine ``name`` may not be taken out of service now; None when it may.

    It may not when it serves a route that no other target serves. One that does not serve takes nothing away.
    """
    alone = [route for route in routes if [target.name for target in route.targets if target.state == READY] == [name]]
    if not alone:
        return None
    models = ", ".join(route.model for route in alone)
    others = {target.name: target for route in alone for target in route.targets if target.name != name}
    text = f"{name} is the last healthy target of route{'s' if len(alone) > 1 else ''} {models}"
    return f"{text} ({_said(list(others.values()))})"


def _said(others: Sequence[TargetInfo]) -> str:
    """Say how those are that do not serve."""
    shown = [f"{target.name} is {state_word(target.state)}" for target in others[:_SHOWN]]
    more = [f"{len(others) - _SHOWN} more do not serve"] if len(others) > _SHOWN else []
    return ", ".join(shown + more) or "it has no other"
