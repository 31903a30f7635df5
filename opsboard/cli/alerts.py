"""``opsboard alerts``: how channels are doing, a test of one, who would be told of what; the outbox is beside it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from opsboard.cli.common import client, echo_json, echo_table, shown_age
from opsboard.cli.outbox import outbox
from opsboard.client.person import me
from opsboard.core.channels import channel_advice, channel_trouble
from opsboard.core.clock import SystemClock
from opsboard.core.errors import ControlError

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.client.sync import Client
    from opsboard.core.deliveries import ChannelHealth
    from opsboard.core.incidents import Urgency
    from opsboard.core.letters import Letter, Trial

_POLL_S = 0.1
_NO_CHANNEL = "nobody is told of anything: no [[channel]] is configured (docs/telling.md)"


@click.group()
def alerts() -> None:
    """How people are told: channels and how they are doing, a test of one, what waits and what is dead."""


alerts.add_command(outbox)


@alerts.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_obj
def channels(options: Options, as_json: bool) -> None:
    """List the channels: what waits, what is dead, when the last message went out. Exit 1 if something is wrong."""
    found = client(options).channels()
    now = SystemClock().now().wall
    if as_json:
        echo_json(found)
    elif not found:
        click.echo(_NO_CHANNEL)
    else:
        echo_table(
            ["CHANNEL", "KIND", "STATE", "WAITING", "OLDEST", "DEAD", "LAST SENT"], [_row(c, now) for c in found]
        )
        for one in found:
            if trouble := channel_trouble(one, now):
                click.echo(f"  {trouble}")
            if advice := channel_advice(one):
                click.echo(f"    {advice}")
    if any(channel_trouble(one, now) for one in found):
        click.get_current_context().exit(1)


def _row(one: ChannelHealth, now: float) -> list[str]:
    state = (
        "broken" if one.broken else "failing" if one.error is not None else "ok" if one.sent is not None else "unused"
    )
    oldest = shown_age(None if one.oldest is None else now - one.oldest)
    sent = "never" if one.sent is None else f"{shown_age(now - one.sent)} ago"
    return [one.name, one.kind, state, str(one.waiting), oldest, str(one.dead), sent]


@alerts.command()
@click.argument("channel")
@click.option(
    "--severity",
    type=click.Choice(["note", "ticket", "page"]),
    default="note",
    show_default=True,
    help="How loud; `page` goes the whole way and may wake somebody.",
)
@click.option("--wait", "wait_s", metavar="SECONDS", default=30.0, show_default=True, type=click.FloatRange(0, 600))
@click.option("--json", "as_json", is_flag=True, help="Both messages as they are in the end, one JSON array.")
@click.pass_obj
def test(options: Options, channel: str, severity: Urgency, wait_s: float, as_json: bool) -> None:
    """Send a test by CHANNEL, and its end; say what became of them. Exit 1 if one was not taken."""
    source = client(options)
    begun = source.test_channel(channel, severity, me())
    end = time.monotonic() + wait_s
    letters = _follow(source, begun, end, quiet=as_json)
    if as_json:
        echo_json(letters)
    failure = _failure(source, begun, letters)
    if failure is not None:
        raise failure
    if not as_json:
        click.echo(f"{channel} ({begun.kind}) took the test and its end: see whether they arrived")


@alerts.command()
@click.argument("detector")
@click.option("--engine", metavar="NAME", help="Of this engine; without it: of the host.")
@click.option(
    "--severity", type=click.Choice(["note", "ticket", "page"]), help="Default: what the configuration gives it."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def route(options: Options, detector: str, engine: str | None, severity: Urgency | None, as_json: bool) -> None:
    """Say who would be told of an incident of DETECTOR, and why. Exit 1 if nobody would."""
    from opsboard.cli.who_hears import Asked, explain, lines

    told = explain(options, Asked(detector=detector, engine=engine, severity=severity))
    if as_json:
        echo_json(told)
    else:
        for line in lines(told):
            click.echo(line)
    if not told.channels:
        click.get_current_context().exit(1)


def _follow(source: Client, begun: Trial, end: float, *, quiet: bool) -> list[Letter]:
    """Return the messages of a test when they are through, or when ``end`` (monotonic s) comes; say each step."""
    said: set[str] = set()
    while True:
        letters = sorted(source.outbox("all", begun.channel, begun.uid), key=lambda one: one.id)
        for line in [] if quiet else map(_told, letters):
            if line is not None and line not in said:
                said.add(line)
                click.echo(line, err=True)
        over = letters and (letters[-1].step == "resolve" or letters[-1].state != "sent") and letters[-1].state != "due"
        if over or time.monotonic() >= end:
            return letters
        time.sleep(_POLL_S)


def _told(letter: Letter) -> str | None:
    what = "the test" if letter.step == "trigger" else "its end"
    if letter.state == "sent":
        return f"{what} was taken"
    if letter.state == "due" and letter.error is not None:
        return f"{what} was not taken, attempt {letter.attempts}: {letter.error}; it is tried again"
    return None


def _failure(source: Client, begun: Trial, letters: list[Letter]) -> ControlError | None:
    """Return what went wrong, and what to do about it; None: both were taken."""
    last = letters[-1] if letters else None
    if last is not None and last.state == "sent" and last.step == "resolve":
        return None
    name = f"{begun.channel} ({begun.kind})"
    if last is None:
        return ControlError(f"{name}: nothing is in the outbox: the daemon does not write")
    what = "the test" if last.step == "trigger" and last.state != "sent" else "the end of the test"
    if last.state in {"due", "sent"}:
        why = f": {last.error}" if last.error else ""
        hint = f"it is tried again by itself for 24 h; `opsboard alerts outbox drop {last.id}` gives it up"
        return ControlError(f"{name} has not taken {what} yet{why}", hint=hint)
    health = next((one for one in source.channels() if one.name == begun.channel), None)
    advice = None if health is None or not health.broken else channel_advice(health)
    return ControlError(
        f"{name} refused {what}: {last.error or last.state}",
        hint=advice
        or "its key and address are taken, this message is not: docs/notifiers tells what the service wants",
    )
