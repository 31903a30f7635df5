"""``opsboard engine``: the life of engines, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import msgspec

from opsboard.cli.adopt import adopt, forget
from opsboard.cli.asking import act, cancel, everyone, roll
from opsboard.cli.common import client, echo_json, echo_notes, echo_table, shown, shown_age
from opsboard.core.clock import SystemClock
from opsboard.core.errors import NotFound, UsageError
from opsboard.core.model import state_word
from opsboard.core.waiting import rolling_told
from opsboard.core.wire import EngineDetail

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.client.sync import Client
    from opsboard.core.wire import Engine


@click.group()
def engine() -> None:
    """List, start, stop and restart engines; take over what runs; read their logs."""


engine.add_command(adopt)
engine.add_command(forget)


@engine.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of engines.")
@click.pass_obj
def list_engines(options: Options, as_json: bool) -> None:
    """List the engines the daemon knows."""
    source = client(options)
    board = source.status()
    engines = board.engines
    if as_json:
        echo_json([_whole(source, item) for item in engines])
        return
    now = SystemClock().now().wall
    rows = [
        [
            item.name,
            item.kind or "--",
            "supervised" if item.supervised else "observed",
            state_word(item.state),
            shown(item.pid),
            shown_age(None if item.state_since is None else now - item.state_since),
            item.url or "--",
            _phase(item),
        ]
        for item in engines
    ]
    echo_table(["NAME", "KIND", "BY", "STATE", "PID", "SINCE", "URL", ""], rows)
    echo_notes(engines, now)
    if board.rolling is not None:
        click.echo(f"{rolling_told(board.rolling)} ({board.rolling.reason}; `opsboard engine restart --cancel`)")


def _phase(item: Engine) -> str:
    """Say how far a start is."""
    if item.phase is None:
        return ""
    return item.phase if item.progress is None else f"{item.phase} {item.progress:.0%}"


def _whole(source: Client, item: Engine) -> dict[str, object]:
    """Return an engine as on the board, with its timeline and the steps of its last restart."""
    try:
        detail = source.engine(item.name)
    except NotFound:  # it left the configuration just now
        detail = EngineDetail(engine=item)
    more = {"timeline": detail.timeline, "transaction": detail.transaction}
    return msgspec.structs.asdict(item) | more


def _action(kind: str, summary: str, *flags: tuple[str, str]) -> Callable[..., None]:
    @engine.command(kind, help=summary, short_help=summary.partition(":")[0].rstrip(".") + ".")
    @click.argument("names", metavar="NAME...", nargs=-1)
    @click.option("--all", "every", is_flag=True, help="Every supervised engine.")
    @click.option("--reason", metavar="TEXT", help="Kept on the engine's timeline.")
    @click.option("--wait", is_flag=True, help="Return when all of them are done; exit 1 if one failed.")
    @click.pass_obj
    def run(
        options: Options,
        names: tuple[str, ...],
        every: bool,
        reason: str | None,
        wait: bool,
        now: bool = False,
        rolling: bool = False,
        call_off: bool = False,
    ) -> None:
        source = client(options)
        if call_off:
            if names or every or now or rolling:
                raise UsageError("--cancel stands alone", hint="it calls off the one rolling restart under way")
            cancel(source)
            return
        targets = _targets(source, names, every, kind)
        if rolling and len(targets) > 1:
            roll(source, targets, reason, wait=wait, now=now)
        else:
            act(source, targets, kind, reason, wait=wait, now=now)

    for name, told_of in flags:
        words = (name, "call_off") if name == "--cancel" else (name,)
        run = click.option(*words, is_flag=True, help=told_of)(run)
    return run


start = _action(
    "start", "Start engines: a parked one gets a fresh budget of restarts, a drained one is back in service."
)
stop = _action("stop", "Stop engines: TERM to the group, then KILL; done when every process is gone.")
restart = _action(
    "restart",
    "Restart engines: drain, stop, start, prove; refused for the last healthy target of a route.",
    ("--now", "Without draining, and even if it is the last healthy target of a route."),
    ("--rolling", "One after the other; stop at the first that fails. The daemon's, also over its restarts."),
    ("--cancel", "Call off the rolling restart under way: the engine at hand finishes, the others are left alone."),
)
drain = _action(
    "drain",
    "Take engines out of service: they run on; refused for the last healthy target of a route.",
    ("--now", "Even if it is the last healthy target of a route."),
)
undrain = _action("undrain", "Bring drained engines back.")
sleep = _action(
    "sleep",
    "Put engines to sleep: out of service, nothing under way, weights off the GPU; refused for the last healthy target "
    "of a route.",
    ("--now", "Even if it is the last healthy target of a route."),
)
wake = _action("wake", "Wake engines, or start stopped ones: in service when they have given their golden answer.")


def _targets(source: Client, names: tuple[str, ...], every: bool, kind: str) -> list[str]:
    if bool(names) == every:
        raise UsageError("name the engines, or say --all", hint="`opsboard engine list` shows their names")
    if not every:
        return list(dict.fromkeys(names))
    return everyone(source.status().engines, kind)


@engine.command()
@click.argument("name")
@click.option("-n", "--lines", default=100, show_default=True, help="Lines from the end.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written.")
@click.pass_obj
def logs(options: Options, name: str, lines: int, follow: bool) -> None:
    """Show the log of an engine that opsboard supervises."""
    silent = True
    for line in client(options).logs(name, lines, follow=follow):
        silent = False
        click.echo(line)
    if silent and lines > 0:
        click.echo(f"{name} has written nothing yet; `opsboard engine list` tells how it is", err=True)
