"""``opsboard daemon``: run headless in the foreground, or install it as a systemd service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opsboard.cli.common import loaded
from opsboard.config import places

if TYPE_CHECKING:
    from opsboard.cli.main import Options


@click.group(invoke_without_command=True)
@click.option("--url", multiple=True, hidden=True, help="Observe this engine (private daemon of a board).")
@click.option("--private", is_flag=True, hidden=True, help="Only look, and find engines by itself.")
@click.option("--parent-pid", type=int, hidden=True, help="End when this process is gone.")
@click.option("--stop-engines", is_flag=True, hidden=True, help="Stop every engine at the end (the demo).")
@click.pass_context
def daemon(ctx: click.Context, url: tuple[str, ...], private: bool, parent_pid: int | None, stop_engines: bool) -> None:
    """Run the daemon in the foreground.

    It logs to standard error; SIGTERM leaves the engines running, SIGHUP reloads.
    """
    if ctx.invoked_subcommand is not None:
        return
    options: Options = ctx.obj
    config = loaded(options)
    from opsboard.daemon.main import run

    ctx.exit(
        run(
            config,
            state_dir=places.state_dir(options.state_dir, config.config.host.state_dir),
            socket=places.socket_path(options.socket, config.config.control.socket),
            read_only=private,
            urls=url,
            parent_pid=parent_pid,
            stop_engines=stop_engines,
        )
    )


@daemon.command()
@click.option("--user", "user_unit", is_flag=True, help="A unit of your own user instead of the system's.")
@click.option("--print", "print_only", is_flag=True, help="Show the unit and write nothing.")
@click.pass_obj
def install(options: Options, user_unit: bool, print_only: bool) -> None:
    """Write the systemd unit, so that the daemon starts at boot and its restart touches no engine."""
    from opsboard.daemon import unit

    config = places.config_path(options.config)
    text = unit.render(config=config.resolve() if config else None, user=user_unit)
    if print_only:
        click.echo(text, nl=False)
        return
    for line in unit.install(text, user=user_unit):
        click.echo(line)


@daemon.command()
@click.option("--user", "user_unit", is_flag=True, help="The unit of your own user.")
def uninstall(user_unit: bool) -> None:
    """Remove the systemd unit. Engines, state and configuration stay."""
    from opsboard.daemon import unit

    for line in unit.uninstall(user=user_unit):
        click.echo(line)
