"""``opsboard``: the lazy command group, the options all verbs share, and the one place where errors become exit codes.

Exit codes (CONTRACT): 0 done, 1 it failed or something is wrong, 2 usage or configuration error, 3 daemon not
reachable.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from opsboard.core.errors import OpsboardError
from opsboard.core.version import __version__

VERBS = {
    "alerts": ("opsboard.cli.alerts:alerts", "How people are told: channels, a test, the outbox, who hears of what."),
    "backtest": ("opsboard.cli.backtest:backtest", "Judge recorded readings: what would the daemon have found?"),
    "config": ("opsboard.cli.config:config", "Write, check and explain the configuration."),
    "daemon": ("opsboard.cli.daemon:daemon", "Run the daemon, or install it as a service."),
    "demo": (
        "opsboard.cli.demo:demo",
        "Everything at once: a daemon, three simulated engines with traffic, the board.",
    ),
    "doctor": ("opsboard.cli.doctor:doctor", "Check this machine and this installation."),
    "engine": ("opsboard.cli.engine:engine", "List, start, stop and restart engines; read their logs."),
    "incident": ("opsboard.cli.incident:incident", "What went wrong: list, show, acknowledge, note, silence, resolve."),
    "record": ("opsboard.cli.record:record", "Write readings to a file."),
    "shim": ("opsboard.cli.shim:shim", "Internal: the parent process of one engine."),
    "silence": ("opsboard.cli.silence:silence", "Keep incidents quiet for a while: list, add, expire."),
    "sim": ("opsboard.cli.sim:sim", "Run one simulated engine."),
    "status": ("opsboard.cli.status:status", "What all engines and GPUs do now, as text or JSON."),
}
HIDDEN = frozenset({"shim"})


class LazyGroup(click.Group):
    """A group that imports a verb's module only when the verb is called: ``status`` must not pay for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs shown in the help."""
        return sorted(VERBS.keys() - HIDDEN)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one verb."""
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; for a wrong one name the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, VERBS[name][1]) for name in self.list_commands(ctx)])


class Options:
    """What was said before the verb; verbs get it as ``ctx.obj``."""

    def __init__(self, config: str | None, socket: str | None, state_dir: str | None) -> None:
        """Keep the three options as given."""
        self.config = config
        self.socket = socket
        self.state_dir = state_dir


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"opsboard {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", metavar="FILE", help="Configuration file.")
@click.option("--socket", metavar="PATH", help="Control socket of the daemon.")
@click.option("--state-dir", metavar="DIR", help="State directory of the daemon.")
@click.option(
    "--url", metavar="URL", multiple=True, help="Look at this engine, read-only, without a daemon. Repeatable."
)
@click.option("--readonly", is_flag=True, help="The board shows and never acts.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII characters only.")
@click.option("--mouse", is_flag=True, help="Let the mouse work the board (text selection then needs Shift).")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def cli(
    ctx: click.Context,
    config: str | None,
    socket: str | None,
    state_dir: str | None,
    url: tuple[str, ...],
    readonly: bool,
    ascii_only: bool,
    mouse: bool,
) -> None:
    """Live operations for LLM inference servers: supervise, watch, record.

    Without a command: the terminal board of the local daemon. With no daemon it looks for engines and GPUs itself and
    shows them read-only.
    """
    ctx.obj = Options(config, socket, state_dir)
    if ctx.invoked_subcommand is None:
        from opsboard.cli.board import show

        ctx.exit(show(ctx.obj, urls=url, readonly=readonly, ascii_only=ascii_only, mouse=mouse))


def report(error: OpsboardError) -> int:
    """Tell a person what happened and what to do; return the exit code."""
    click.echo(f"opsboard: {error.message}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
    return error.exit_code


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        code: Any = cli.main(args=argv, prog_name="opsboard", standalone_mode=False)
    except OpsboardError as error:
        code = report(error)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        # the reader of our output left: what is still buffered must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
