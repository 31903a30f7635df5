"""``opsboard engine adopt`` and ``forget``: engines that somebody started by hand."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from opsboard.cli.common import client, echo_json

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.core.wire import Adopted

_PATIENCE_S = 40.0  # the daemon's own deadline is 10 s for looking, and some for each of what follows


@click.command()
@click.argument("target", metavar="URL|PID")
@click.option("--name", metavar="NAME", help="Name on the board; default: after its model.")
@click.option("--reason", metavar="TEXT", help="Kept on the engine's timeline.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def adopt(options: Options, target: str, name: str | None, reason: str | None, as_json: bool) -> None:
    """Take over an engine that somebody started by hand: it runs on, and is supervised from now on.

    Nothing is signalled or restarted by that. Refused, with every reason, where it could not be started again as it is.
    """
    adopted = client(options, timeout=_PATIENCE_S).adopt(target, name, reason)
    if as_json:
        echo_json(adopted)
    else:
        _show(adopted)


@click.command()
@click.argument("name")
@click.pass_obj
def forget(options: Options, name: str) -> None:
    """Let go of an engine that was taken over: it runs on if opsboard has not restarted it since, else stop it first.

    What was kept of it, with its environment, is removed.
    """
    forgotten = client(options, timeout=_PATIENCE_S).forget(name)
    if forgotten.supervised:
        click.echo(f"{name}: supervised as the configuration says; what was kept of the one taken over is removed")
    else:
        click.echo(f"{name}: not supervised any more{'; it runs on' if forgotten.runs else ''}")


def _show(adopted: Adopted) -> None:
    before = " (as before)" if adopted.again else ""
    click.echo(f"{adopted.engine}: pid {adopted.pid} at {adopted.url} is supervised from now on{before}")
    who = f" as {adopted.user}" if adopted.user is not None else ""
    click.echo(f"  a restart runs{who}: {shlex.join(adopted.command)}")
    for lack in adopted.lacks:
        click.echo(f"  not after a restart: {lack}")
    for warning in adopted.warnings:
        click.echo(f"  note: {warning}")
    if adopted.dropped:
        click.echo(f"  variables left out: {', '.join(adopted.dropped)}")
