"""The routes of a configuration: which incidents go to which channels, and the same in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from alerts.telling import Route, everywhere
from opsboard.config.schema import AlertRoute, Config
from opsboard.config.units import format_seconds
from opsboard.core.incidents import Urgency

URGENCIES: tuple[Urgency, ...] = ("page", "ticket", "note")


def routes(config: Config) -> list[Route]:
    """Return those that a configuration has."""
    return [
        Route(
            channels=route.channels,
            severities=_severities(route),
            detectors=route.detector,
            subjects=tuple(f"engine/{pattern}" for pattern in route.engine),
            escalate_after_s=route.escalate_after,
            escalate_to=route.escalate_to,
        )
        for route in config.alert_route
    ]


def in_force(config: Config) -> list[Route]:
    """Return those that hold: without any, pages and tickets go to every channel."""
    return routes(config) or [everywhere([channel.name for channel in config.channel])]


def taking(config: Config, severity: Urgency, detector: str, subject: str) -> list[tuple[int, Route]]:
    """Return the routes that such an incident would take, with their numbers in the file, from 0."""
    return [(index, route) for index, route in enumerate(in_force(config)) if route.fits(severity, detector, subject)]


def hear(found: Sequence[tuple[int, Route]]) -> list[str]:
    """Return the channels that these routes lead to, each once, in order."""
    return list(dict.fromkeys(name for _, route in found for name in route.channels))


def in_words(config: Config) -> Iterator[str]:
    """Yield a line for the channels, and one for each route."""
    if not config.channel:
        return
    yield f"channels: {', '.join(f'{channel.name} ({channel.kind})' for channel in config.channel)}"
    for route in in_force(config):
        yield f"{_what(route)} go to {', '.join(route.channels) or 'nobody'}{_later(route)}"
    if config.alerts.quiet_hours:
        zone = config.alerts.time_zone or "this host's time"
        yield f"tickets and notes wait during {', '.join(config.alerts.quiet_hours)} ({zone}); pages never do"


def gaps(config: Config, loud: Mapping[str, Urgency]) -> Iterator[str]:
    """Yield a line for what people may not expect: pages that nobody hears of, channels that hear of nothing.

    ``loud`` is the severity of each detector there is; their pages are looked at, of the engines in the file.
    """
    if not config.channel:
        yield "nobody is told of incidents: there is no [[channel]]"
        return
    named = {name for route in in_force(config) for name in (*route.channels, *route.escalate_to)}
    for channel in config.channel:
        if channel.name not in named:
            yield f"no [[alert_route]] leads to {channel.name}: it hears only of pages that another channel cannot tell"
    unheard = [
        f"{detector} of {engine.name}"
        for engine in config.engine
        for detector, severity in loud.items()
        if severity == "page" and not hear(taking(config, "page", detector, f"engine/{engine.name}"))
    ]
    if unheard:
        more = f" and {len(unheard) - 1} more" if len(unheard) > 1 else ""
        yield f"a page goes to nobody: {unheard[0]}{more}"
    if not hear(taking(config, "page", "disk_low", "host")):
        yield "a page that is of no engine goes to nobody"


def _what(route: Route) -> str:
    loud = " and ".join(f"{severity}s" for severity in route.severities or URGENCIES)
    which = f" of {' or '.join(route.detectors)}" if route.detectors else ""
    where = f" on {' or '.join(one.removeprefix('engine/') for one in route.subjects)}" if route.subjects else ""
    return f"{loud}{which}{where}"


def _later(route: Route) -> str:
    if route.escalate_after_s is None:
        return ""
    after = format_seconds(route.escalate_after_s)
    return f"; to {', '.join(route.escalate_to)}, too, when nobody has acknowledged it for {after}"


def _severities(route: AlertRoute) -> tuple[Urgency, ...]:
    severity = route.severity
    return (severity,) if isinstance(severity, str) else tuple(severity or ())
