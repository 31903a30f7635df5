"""``opsboard engine``: the life of engines, by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from opsboard.cli.common import client, echo_json, echo_table, shown, shown_age
from opsboard.core.clock import SystemClock
from opsboard.core.errors import ControlError, UsageError

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.client.sync import Client
    from opsboard.core.wire import EngineDetail

_DONE = {"start": ("ready", "asleep"), "restart": ("ready", "asleep"), "stop": ("stopped",)}
_FAILED = ("failed", "parked")
_POLL_S = 0.25
_GLANCE_S, _GLANCE_POLL_S = 1.0, 0.05  # a launch answers within 0.1 s
_WAIT_S = 3600.0  # the engine's own ready_timeout and stop_timeout end the wait long before


@click.group()
def engine() -> None:
    """List, start, stop and restart engines; read their logs."""


@engine.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array of engines.")
@click.pass_obj
def list_engines(options: Options, as_json: bool) -> None:
    """List the engines the daemon knows."""
    engines = client(options).status().engines
    if as_json:
        echo_json(engines)
        return
    now = SystemClock().now().wall
    rows = [
        [
            item.name,
            item.kind or "--",
            "supervised" if item.supervised else "observed",
            item.state,
            shown(item.pid),
            shown_age(None if item.state_since is None else now - item.state_since),
            item.url or "--",
            item.message or "",
        ]
        for item in engines
    ]
    echo_table(["NAME", "KIND", "BY", "STATE", "PID", "SINCE", "URL", ""], rows)


def _action(kind: str, summary: str) -> Callable[..., None]:
    @engine.command(kind, help=summary, short_help=summary.partition(":")[0].rstrip(".") + ".")
    @click.argument("names", metavar="NAME...", nargs=-1)
    @click.option("--all", "every", is_flag=True, help="Every supervised engine.")
    @click.option("--reason", metavar="TEXT", help="Kept on the engine's timeline.")
    @click.option("--wait", is_flag=True, help="Return when it is done; exit 1 if it failed.")
    @click.pass_obj
    def run(options: Options, names: tuple[str, ...], every: bool, reason: str | None, wait: bool) -> None:
        source = client(options)
        for name in _targets(source, names, every):
            before = source.engine(name)
            source.action(name, kind, reason)
            if wait:
                _wait_for(source, name, kind, before)
            else:
                _glance_at(source, name, kind, before)
                click.echo(f"{name}: {kind} accepted")

    return run


start = _action("start", "Start engines.")
stop = _action("stop", "Stop engines: TERM to the group, then KILL; done when every process is gone.")
restart = _action("restart", "Stop and start engines.")


def _targets(source: Client, names: tuple[str, ...], every: bool) -> list[str]:
    if bool(names) == every:
        raise UsageError("name the engines, or say --all", hint="`opsboard engine list` shows their names")
    return [item.name for item in source.status().engines if item.supervised] if every else list(names)


def _glance_at(source: Client, name: str, kind: str, before: EngineDetail) -> None:
    """Return when the action has begun; raise ControlError when it failed at once, as most failures do."""
    deadline = time.monotonic() + _GLANCE_S
    while kind != "stop" and time.monotonic() < deadline:
        detail = source.engine(name)
        _raise_failure(name, detail, before)
        now = detail.engine
        if now.state == "stopping" or (now.pid is not None and (kind == "start" or now.pid != before.engine.pid)):
            return
        time.sleep(_GLANCE_POLL_S)


def _raise_failure(name: str, now: EngineDetail, before: EngineDetail) -> None:
    """Raise ControlError when the timeline has told since ``before`` that the action failed."""
    for event in now.events:
        if event.kind == "action_failed" and event not in before.events:
            raise ControlError(f"{name}: {event.text}")


def _wait_for(source: Client, name: str, kind: str, detail: EngineDetail) -> None:
    before = detail.engine
    deadline = time.monotonic() + _WAIT_S
    said = ""
    while time.monotonic() < deadline:
        new = source.engine(name)
        _raise_failure(name, new, detail)
        now = new.engine
        line = now.state if now.phase is None else f"{now.state}: {now.phase}"
        moved = now.state_since != before.state_since or (kind != "restart" and now.state == before.state)
        if moved and now.state in _DONE[kind] and (kind != "restart" or now.pid != before.pid):
            click.echo(f"{name}: {now.state}")
            return
        if line != said:
            click.echo(f"{name}: {line}", err=True)
            said = line
        if moved and now.state in _FAILED:
            raise ControlError(
                f"{name}: {now.state}: {now.message or 'no reason known'}", hint=f"opsboard engine logs {name}"
            )
        time.sleep(_POLL_S)
    raise ControlError(f"{name}: still {said} after {_WAIT_S:.0f} s")


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
