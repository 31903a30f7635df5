"""The first line of every screen, and the banners that must not be missed."""

from __future__ import annotations

from collections import Counter

from opsboard.core.channels import channel_trouble
from opsboard.core.text import sanitise
from opsboard.core.waiting import rolling_told
from opsboard.core.wire import DaemonInfo, Incident, Status
from opsboard.tui import format as fmt
from opsboard.tui.spans import Line, Span, Style, clip, fit, line_width, split_ends
from opsboard.tui.view import View

STATE_STYLES: dict[str, Style] = {
    "ready": "ok",
    "starting": "info",
    "draining": "warn",
    "stopping": "warn",
    "stopped": "dim",
    "failed": "bad",
    "backing_off": "warn",
    "parked": "bad",
    "unreachable": "bad",
    "asleep": "info",
    "stale": "warn",
}
PATIENCE_S = 30.0
"""What waits for less than this behind an error is tried again, and most often goes out."""
_COUNTED = (
    "failed",
    "parked",
    "unreachable",
    "backing_off",
    "starting",
    "stopping",
    "draining",
    "asleep",
    "stopped",
    "ready",
)


def header(view: View, width: int) -> Line:
    """Return host, clock, engines by state, tokens a second, incidents, the daemon's health; the last fall off."""
    status = view.status
    if status is None:
        return clip((Span(" opsboard", "strong"),), width)
    name = fit(status.host, min(len(status.host), max(8, width // 4)), middle=True)
    left: list[Span] = [Span(" " + name, "strong"), Span("  " + fmt.clock(status.time, view.zone))]
    right = _daemon(status.daemon, short=width < 110)
    parts = [_engines(status, view), _tokens(status, width)]
    incidents = _incidents(status, view)
    parts.insert(0 if _open(status) else 2, incidents)
    untold = sum(channel.waiting for channel in status.channels if channel.error is not None)
    if untold:
        parts.insert(0, [Span(f"untold {fmt.count(untold)}", "warn")])
    if status.daemon.dropped:
        parts.insert(0, [Span(f"dropped {fmt.count(status.daemon.dropped)}", "warn")])
    budget = width - line_width(left) - 1
    for part in parts:
        if line_width(part) + 2 <= budget:
            left += [Span("  "), *part]
            budget -= line_width(part) + 2
    return split_ends(left, [*right, Span(" ")], width)


def _engines(status: Status, view: View) -> list[Span]:
    """Return how many engines are in which state, the bad ones first."""
    numbers = Counter(engine.state for engine in status.engines)
    known = [state for state in _COUNTED if numbers[state]]
    spans: list[Span] = []
    for state in (*known, *sorted(set(numbers) - set(_COUNTED))):
        shape = view.glyphs.states.get(state, "?")
        spans += [Span(" " if spans else ""), Span(f"{shape} {numbers[state]}", STATE_STYLES.get(state, ""))]
    return spans or [Span("no engines", "dim")]


def _tokens(status: Status, width: int) -> list[Span]:
    """Return the tokens a second that all engines generate together."""
    known = [
        e.generation_tokens_per_s
        for e in status.engines
        if e.generation_tokens_per_s is not None and e.state in {"ready", "draining"}  # of others it may be an old one
    ]
    total = fit(fmt.count(sum(known) if known else None), 5, ">")
    return [Span(total, "strong"), Span(" tokens/s" if width >= 100 else " tok/s", "dim")]


def _open(status: Status) -> list[Incident]:
    return [incident for incident in status.incidents if incident.resolved is None]


def _incidents(status: Status, view: View) -> list[Span]:
    """Return how many incidents are open."""
    still = _open(status)
    if not still:
        return [Span("no incidents", "dim")]
    pages = any(incident.severity == "page" for incident in still)
    word = "incident" if len(still) == 1 else "incidents"
    return [Span(f"{view.glyphs.warn} {len(still)} {word}", "bad" if pages else "warn")]


def _daemon(daemon: DaemonInfo, *, short: bool) -> list[Span]:
    """Return the daemon's own load, how late it scrapes (coarsely: it would only flicker)."""
    lag = daemon.scrape_lag_s
    return [
        Span("daemon ", "dim"),
        Span(f"{daemon.cpu_ratio:.1%}" if daemon.cpu_ratio is not None else fmt.UNKNOWN, "dim"),
        Span(" " if short else " lag ", "dim"),
        Span("<.1s" if lag is not None and lag < 0.1 else fmt.seconds(lag), "warn" if (lag or 0) > 1 else "dim"),
        Span("" if short else f" every {daemon.interval_s:g}s", "dim"),
    ]


def banners(view: View, width: int) -> list[Line]:
    """Return the lines that say what a person must know before believing the screen; most often none."""
    lines: list[Line] = []
    status = view.status
    if not view.link.connected and status is not None:
        lines.append(
            _banner(
                f"daemon not reachable for {fmt.age(view.link.silent_s)}, retrying; below is what it said last",
                width,
                "alarm",
            )
        )
    elif view.silent:
        lines.append(
            _banner(
                f"no news from the daemon for {fmt.age(view.link.silent_s)}; below is what it said last", width, "alarm"
            )
        )
    if status is not None and not status.daemon.recorded:
        lines.append(
            _banner("NOT RECORDED: " + (status.daemon.message or "nothing can be written to disk"), width, "alarm")
        )
    elif status is not None and status.daemon.message:
        lines.append(_banner(status.daemon.message, width, "notice"))
    if status is not None:
        lines += _not_told(status, width)
    if status is not None and status.rolling is not None:
        lines.append(_banner(rolling_told(status.rolling), width, "notice"))
    if view.paused_s is not None:
        lines.append(
            _banner(
                f"PAUSED, shown as of {fmt.age(view.paused_s)} ago; collection goes on; p continues", width, "notice"
            )
        )
    return lines


def _not_told(status: Status, width: int) -> list[Line]:
    """Return a line for channels in trouble; those of which an incident tells, and what is tried again, need none."""
    told = {one.subject for one in _open(status)}
    troubled = [
        (channel, trouble)
        for channel in status.channels
        if (trouble := channel_trouble(channel, status.time)) is not None
        and f"channel/{channel.name}" not in told
        and (channel.broken or channel.dead or status.time - (channel.oldest or status.time) >= PATIENCE_S)
    ]
    if not troubled:
        return []
    channel, trouble = max(troubled, key=lambda one: one[0].broken)
    more = f" ({len(troubled)} channels)" if len(troubled) > 1 else ""
    return [_banner(f"NOT TOLD{more}: {sanitise(trouble)}", width, "alarm" if channel.broken else "notice")]


def _banner(text: str, width: int, style: Style) -> Line:
    return (Span(fit(" " + text, width), style),)
