"""``opsboard incident``: what went wrong, with its evidence and its timeline; and what people say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from opsboard.cli.common import client, echo_json, echo_table, shown_age
from opsboard.cli.curves import curve_lines
from opsboard.client.person import me
from opsboard.core.clock import SystemClock

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.core.letters import Letter
    from opsboard.core.wire import Incident, IncidentDetail

_TOLD = 20
"""Messages that are shown with an incident, the newest."""


@click.group()
def incident() -> None:
    """List incidents, show one with its evidence and timeline; acknowledge, note, silence, resolve."""


@incident.command("list")
@click.option("--all", "every", is_flag=True, help="Also those that are resolved, newest first.")
@click.option("--engine", metavar="NAME", help="Of this engine only.")
@click.option("-n", "--limit", default=100, show_default=True, type=click.IntRange(1, 10_000), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_obj
def list_incidents(options: Options, every: bool, engine: str | None, limit: int, as_json: bool) -> None:
    """List what is open."""
    subject = None if engine is None else f"engine/{engine}"
    found = client(options).incidents(every=every, subject=subject, limit=limit)
    if as_json:
        echo_json(found)
        return
    if not found:
        click.echo("no incidents" if every else "no incident is open (`--all` lists those that are resolved)")
        return
    now = SystemClock().now().wall
    rows = [
        [
            str(one.id),
            one.severity,
            _state(one),
            one.detector,
            _subject(one),
            shown_age(now - one.opened),
            shown_age((one.ended or one.resolved or now) - (one.since or one.opened)),
            one.summary,
        ]
        for one in found
    ]
    echo_table(["ID", "SEVERITY", "STATE", "WHAT", "WHERE", "OPENED", "LASTED", ""], rows)


@incident.command()
@click.argument("id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the series kept with it.")
@click.pass_obj
def show(options: Options, id: str, as_json: bool) -> None:
    """Show one: the numbers that justify it, the series around it, and all that happened."""
    detail = client(options).incident(id)
    if as_json:
        echo_json(detail)
        return
    told = client(options).outbox("all", uid=detail.incident.uid, limit=_TOLD)
    _write(detail, told, SystemClock().now().wall)


def _said(verb: str, summary: str, *, needs_text: bool = False) -> Callable[..., None]:
    @incident.command(verb, help=summary, short_help=summary.partition(":")[0].rstrip(".") + ".")
    @click.argument("id", metavar="ID")
    @click.argument("text", nargs=-1, required=needs_text)
    @click.option("--json", "as_json", is_flag=True, help="The incident as JSON.")
    @click.pass_obj
    def run(options: Options, id: str, text: tuple[str, ...], as_json: bool) -> None:
        one = client(options).tell_incident(id, verb, " ".join(text) or None, me())
        if as_json:
            echo_json(one)
        else:
            click.echo(incident_line(one, SystemClock().now().wall))

    return run


ack = _said("ack", "Take one on: say that somebody works on it. TEXT is kept on its timeline.")
note = _said("note", "Write a line on its timeline; also of one that is over.", needs_text=True)
silence = _said(
    "silence", 'Keep it quiet: TEXT is how long and why, e.g. "2h new driver"; it stays on the board.', needs_text=True
)
resolve = _said("resolve", "Close one for good: what is still claimed opens no other until it has been away.")


def incident_line(one: Incident, now: float) -> str:
    """Return an incident in one line; ``now`` is Unix seconds."""
    return f"incident {one.id}  {one.severity}  {_state(one)}  {shown_age(now - one.opened)} ago: {one.summary}"


def _state(one: Incident) -> str:
    words = [one.state, *["flapping"] * one.flapping, *["silenced"] * (one.silenced is not None)]
    return ", ".join(words)


def _subject(one: Incident) -> str:
    return one.subject.removeprefix("engine/")


def _write(detail: IncidentDetail, told: Sequence[Letter], now: float) -> None:
    one = detail.incident
    click.echo(f"incident {one.id}: {one.summary}")
    click.echo(
        f"  {one.detector} of {one.subject}, {one.severity}, {_state(one)}{'' if one.confirmed else ', suspected'}"
    )
    began = one.opened if one.since is None else one.since
    lasted = shown_age((one.ended or one.resolved or now) - began)
    click.echo(f"  began {_when(began)}, told {_when(one.opened)}, {'lasted' if one.resolved else 'for'} {lasted}")
    if one.acknowledged is not None:
        click.echo(f"  acknowledged {_when(one.acknowledged)} by {one.acknowledged_by}")
    if one.resolved is not None:
        click.echo(f"  resolved {_when(one.resolved)}{f' by {one.resolved_by}' if one.resolved_by else ''}")
    if one.cause is not None:
        click.echo(f"  belongs to incident {one.cause}")
    if one.related:
        click.echo(f"  related: {', '.join(map(str, one.related))}")
    _evidence(one.evidence, detail.first_evidence)
    if detail.curves:
        click.echo("\nAROUND IT")
        for line in curve_lines(detail.curves, began, one.ended or one.resolved):
            click.echo(f"  {line}")
    if told:
        click.echo("\nTOLD (UTC)")
        for letter in reversed(told):
            click.echo(f"  {_when(letter.created)}  {letter.channel}: {letter.step} {_became(letter)}")
    click.echo("\nTIMELINE (UTC)")
    for entry in detail.timeline:
        by = f"{entry.by}: " if entry.by else ""
        click.echo(f"  {_when(entry.t)}  {entry.kind:<9}  {by}{entry.text}")
    if detail.left_out:
        click.echo(f"  ({detail.left_out} lines in between were given up)")


def _became(letter: Letter) -> str:
    """Return what became of a message."""
    why = "" if letter.error is None else f": {letter.error}"
    match letter.state:
        case "due":
            return f"waits, tried {letter.attempts} times{why}" if letter.attempts > 1 else f"waits{why}"
        case "dead":
            return f"could not be delivered (`opsboard alerts outbox retry {letter.id}`){why}"
        case "superseded":
            return "was overtaken by newer news"
    return letter.state


def _evidence(newest: Mapping[str, object], first: Mapping[str, object]) -> None:
    if not newest:
        return
    click.echo("\nEVIDENCE")
    width = max(map(len, newest))
    for name, value in newest.items():
        opened = first.get(name)
        was = "" if opened == value or name not in first else f"  (when it opened: {_value(opened)})"
        click.echo(f"  {name:<{width}}  {_value(value)}{was}")


def _value(value: object) -> str:
    match value:
        case None:
            return "--"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}" if abs(value) < 1e9 else f"{value:.0f}"
    return str(value)


def _when(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S")
