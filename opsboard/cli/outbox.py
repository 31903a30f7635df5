"""``opsboard alerts outbox``: what waits to be told, what could not be; sending it again, giving it up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from opsboard.cli.common import client, echo_json, echo_table, shown_age
from opsboard.core.clock import SystemClock
from opsboard.core.errors import ControlError, NotReachable, UsageError

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.client.sync import Client
    from opsboard.core.letters import Letter

_EVERY = 10_000


@click.group()
def outbox() -> None:
    """What waits to be told, and what could not be: list it, send it again, give it up."""


@outbox.command("list")
@click.option("--channel", metavar="NAME", help="Of this channel only.")
@click.option("--state", help="due, sent, superseded, dead, dropped (commas between), or all. Default: due,dead.")
@click.option("-n", "--limit", default=100, show_default=True, type=click.IntRange(1, _EVERY), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_obj
def list_letters(options: Options, channel: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List messages, newest first."""
    found = client(options).outbox(state, channel, limit=limit)
    if as_json:
        echo_json(found)
        return
    if not found:
        click.echo("nothing waits and nothing is dead" if state is None else "there are no such messages")
        return
    now = SystemClock().now().wall
    echo_table(["ID", "CHANNEL", "STATE", "INCIDENT", "WHAT", "AGE", "TRIES", ""], [_row(one, now) for one in found])
    for one in found:
        if one.error is not None:
            click.echo(f"  {one.id}: {one.error}")


def _changes(verb: str, summary: str, states: str) -> Callable[..., None]:
    @outbox.command(verb, help=summary)
    @click.argument("ids", metavar="ID...", nargs=-1, type=click.IntRange(1))
    @click.option("--all", "every", is_flag=True, help="All there are, or of one channel (--channel).")
    @click.option("--channel", metavar="NAME", help="With --all: of this channel only.")
    @click.option("--reason", metavar="TEXT", help="Kept for audit.")
    @click.option("--json", "as_json", is_flag=True, help="The messages as they are then, one JSON array.")
    @click.pass_obj
    def run(
        options: Options, ids: tuple[int, ...], every: bool, channel: str | None, reason: str | None, as_json: bool
    ) -> None:
        if bool(ids) == every or (channel is not None and not every):
            raise UsageError(f"expected numbers of messages, or --all to {verb} every one (of one --channel)")
        source = client(options)
        chosen = [one.id for one in source.outbox(states, channel, limit=_EVERY)] if every else list(ids)
        done, failed = _each(source, chosen, verb, reason)
        if as_json:
            echo_json(done)
        elif every and not chosen:
            click.echo("there is nothing to " + verb)
        if failed is not None:
            raise failed

    return run


retry = _changes("retry", "Send messages now: dead ones, dropped ones, and those that wait for their turn.", "dead")
drop = _changes("drop", "Give messages up: dead ones, and those that wait.", "due,dead")


def _each(source: Client, ids: list[int], verb: str, reason: str | None) -> tuple[list[Letter], ControlError | None]:
    """Ask for each; return those done and the last refusal. What is refused does not keep the others from it."""
    done: list[Letter] = []
    failed: ControlError | None = None
    for number in ids:
        try:
            one = source.letter(number, verb, reason)
        except NotReachable:
            raise
        except ControlError as error:
            if failed is not None:
                click.echo(f"opsboard: {failed.message}", err=True)
            failed = error
        else:
            done.append(one)
            click.echo(f"message {one.id} to {one.channel}: {_WORDS[verb]}", err=True)
    return done, failed


_WORDS = {"retry": "is sent now (`opsboard alerts outbox list` shows whether it is taken)", "drop": "given up"}


def _row(one: Letter, now: float) -> list[str]:
    return [
        str(one.id),
        one.channel,
        one.state,
        "test" if one.test else str(one.incident),
        f"{one.severity} {one.step}",
        shown_age(now - one.created),
        str(one.attempts),
        one.summary if one.step in {"trigger", "resolve"} else one.news,
    ]
