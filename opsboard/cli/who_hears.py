"""Who would be told of an incident: from the configuration, and from the silences of the daemon where one answers."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from alerts.routes import hear, taking
from opsboard.cli.common import client, loaded
from opsboard.config.detectors import severities
from opsboard.config.units import format_seconds
from opsboard.core.clock import SystemClock
from opsboard.core.errors import ControlError, UsageError
from opsboard.core.incidents import Urgency
from opsboard.core.model import Record
from opsboard.core.quiet import quiet
from opsboard.core.registry import detectors

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.config.schema import Alerts

OWN: dict[str, Urgency] = {
    "budget_spent": "page",
    "channel_broken": "ticket",
    "disk_low": "ticket",
    "parked": "page",
    "scrape_failed": "ticket",
}
"""What the daemon itself sees, and how loud it is."""


class Asked(Record, frozen=True, kw_only=True):
    """The incident that somebody thinks of. ``engine`` None: of the host; ``severity`` None: as configured."""

    detector: str
    engine: str | None = None
    severity: Urgency | None = None


class Later(Record, frozen=True, kw_only=True):
    """Who hears of it when nobody has acknowledged it for ``after_s`` seconds."""

    after_s: float
    channels: tuple[str, ...]


class Told(Record, frozen=True, kw_only=True):
    """Who would be told. ``routes`` are numbers of `[[alert_route]]`, from 1; empty: there is none in the file."""

    severity: Urgency
    detector: str
    subject: str
    channels: tuple[str, ...]
    routes: tuple[int, ...] = ()
    later: tuple[Later, ...] = ()
    waits: str | None = None
    """Why it would not be told now."""


def explain(options: Options, asked: Asked) -> Told:
    """Return who would be told. Raises ConfigError, UsageError."""
    config = loaded(options).config
    known = severities(config, detectors().found)
    if asked.detector not in {**detectors().found, **OWN}:
        near = difflib.get_close_matches(asked.detector, [*detectors().found, *OWN], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted({**known, **OWN}))}"
        raise UsageError(f"nothing is called {asked.detector!r} that incidents come from", hint=hint)
    severity = asked.severity or {**OWN, **known}.get(asked.detector)
    if severity is None:
        raise UsageError(f"{asked.detector} is switched off in the configuration", hint="--severity asks all the same")
    subject = "host" if asked.engine is None else f"engine/{asked.engine}"
    found = taking(config, severity, asked.detector, subject)
    return Told(
        severity=severity,
        detector=asked.detector,
        subject=subject,
        channels=tuple(hear(found)),
        routes=tuple(index + 1 for index, _ in found) if config.alert_route else (),
        later=tuple(
            Later(after_s=route.escalate_after_s, channels=route.escalate_to)
            for _, route in found
            if route.escalate_after_s is not None
        ),
        waits=_silenced(options, severity, asked.detector, subject)
        or ("it is quiet hours" if severity != "page" and _quiet_now(config.alerts) else None),
    )


def lines(told: Told) -> Iterator[str]:
    """Yield the answer for people."""
    yield f"a {told.severity} of {told.detector} on {told.subject.removeprefix('engine/')}:"
    by = f"alert_route {', '.join(map(str, told.routes))}" if told.routes else "without [[alert_route]]: every channel"
    if not told.channels:
        yield "  goes to nobody: no route takes it; it shows on the board"
        return
    yield f"  goes to {', '.join(told.channels)} ({by})"
    for one in told.later:
        yield f"  and to {', '.join(one.channels)} when nobody has acknowledged it for {format_seconds(one.after_s)}"
    if told.waits:
        yield f"  but not now: {told.waits}"


def _quiet_now(alerts: Alerts) -> bool:
    return quiet(alerts.quiet_hours, alerts.time_zone).holds(SystemClock().now().wall)


def _silenced(options: Options, severity: Urgency, detector: str, subject: str) -> str | None:
    """Return which silence would keep it quiet now; None: none, or no daemon answers."""
    try:
        silences = client(options, timeout=3.0).silences()
    except ControlError:
        return None
    now = SystemClock().now().wall
    for one in silences:
        if one.stands(now) and one.fits(severity, detector, subject):
            return f"silence {one.id} ({one.by}: {one.comment})"
    return None
