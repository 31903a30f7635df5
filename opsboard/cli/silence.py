"""``opsboard silence``: keep incidents quiet for a while; they stay on the board, and their ends are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opsboard.cli.common import client, echo_json, echo_table, shown_age
from opsboard.client.person import me
from opsboard.config.units import parse_seconds
from opsboard.core.clock import SystemClock

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.core.incidents import Urgency
    from opsboard.core.silences import Silence


@click.group()
def silence() -> None:
    """Keep incidents quiet for a while: list, add, expire."""


@silence.command("list")
@click.option("--all", "every", is_flag=True, help="Also those that are over.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_obj
def list_silences(options: Options, every: bool, as_json: bool) -> None:
    """List those that stand, or will."""
    found = client(options).silences(every=every)
    if as_json:
        echo_json(found)
        return
    if not found:
        click.echo("no silence stands (`--all` lists those that are over)" if not every else "no silences")
        return
    now = SystemClock().now().wall
    rows = [[str(one.id), _standing(one, now), one.told, one.by, one.comment] for one in found]
    echo_table(["ID", "", "WHAT", "BY", ""], rows)


@silence.command()
@click.argument("comment", nargs=-1, required=True)
@click.option("--for", "duration", required=True, metavar="DURATION", help='How long: "30m", "2h", "3d".')
@click.option("--engine", multiple=True, metavar="PATTERN", help="Of these engines; `*` and `?` stand for anything.")
@click.option("--detector", multiple=True, metavar="PATTERN", help="Of these detectors, e.g. kv_leak.")
@click.option("--subject", multiple=True, metavar="PATTERN", help="Of these subjects: engine/NAME, gpu/UUID, host.")
@click.option("--severity", multiple=True, type=click.Choice(["page", "ticket", "note"]), help="Only so loud.")
@click.option("--in", "later", metavar="DURATION", help="It begins so much later; else now.")
@click.option("--json", "as_json", is_flag=True, help="The silence as JSON.")
@click.pass_obj
def add(
    options: Options,
    comment: tuple[str, ...],
    duration: str,
    engine: tuple[str, ...],
    detector: tuple[str, ...],
    subject: tuple[str, ...],
    severity: tuple[Urgency, ...],
    later: str | None,
    as_json: bool,
) -> None:
    """Keep incidents quiet: what fits every option given. COMMENT says why."""
    from opsboard.core.wire import SilenceRequest

    now = SystemClock().now().wall
    said = SilenceRequest(
        comment=" ".join(comment),
        duration_s=_seconds("--for", duration),
        severities=severity,
        detectors=detector,
        subjects=(*(f"engine/{pattern}" for pattern in engine), *subject),
        start=None if later is None else now + _seconds("--in", later),
        by=me(),
    )
    one = client(options).silence(said)
    if as_json:
        echo_json(one)
    else:
        click.echo(f"silence {one.id}  {one.told}  {_standing(one, max(now, one.start) if later is None else now)}")


@silence.command()
@click.argument("id", metavar="ID", type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="The silence as JSON.")
@click.pass_obj
def expire(options: Options, id: int, as_json: bool) -> None:
    """End one now: what is still open and was kept quiet is told."""
    one = client(options).expire_silence(id)
    if as_json:
        echo_json(one)
    else:
        click.echo(f"silence {one.id} is over")


def _standing(one: Silence, now: float) -> str:
    if now >= one.end:
        return f"over for {shown_age(now - one.end)}"
    if now < one.start:
        return f"in {shown_age(one.start - now)} for {shown_age(one.end - one.start)}"
    return f"{shown_age(one.end - now)} left"


def _seconds(option: str, text: str) -> float:
    try:
        return float(parse_seconds(text))
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None
