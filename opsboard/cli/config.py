"""``opsboard config``: write, check, explain, print and reload the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from opsboard.cli.common import client, echo_json, gpus_by_number, loaded
from opsboard.core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.config.explain import Line


@click.group()
def config() -> None:
    """Write, check and explain the configuration."""


@config.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), default="opsboard.toml")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(path: Path, force: bool) -> None:
    """Write a configuration from the engines and GPUs found on this machine (PATH `-` writes to the screen)."""
    import asyncio

    from opsboard.cli.found import look, render

    if str(path) != "-" and path.exists() and not force:
        raise ConfigError(f"{path}: is already there", hint="--force writes over it; `opsboard config check` reads it")
    text = render(*asyncio.run(look()))
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    path.chmod(0o600)
    click.echo(f"wrote {path}; now `opsboard config check` and `opsboard daemon`")


@config.command()
@click.pass_obj
def check(options: Options) -> None:
    """Read the configuration; say what was assumed. Exit 2 with one message if it is wrong."""
    from alerts import routes
    from opsboard.config.detectors import severities
    from opsboard.config.policies import in_words
    from opsboard.core.registry import detectors

    found = loaded(options)
    if found.path is None:
        raise ConfigError("no configuration file", hint="`opsboard config init` writes one from what runs here")
    loud = severities(found.config, detectors().found)
    supervised = sum(item.supervised for item in found.config.engine)
    click.echo(f"{found.path}: good: {len(found.config.engine)} engines, {supervised} of them supervised")
    for line in in_words(found.config):
        click.echo(f"  {line}")
    for line in routes.in_words(found.config):
        click.echo(f"  {line}")
    for line in found.assumed:
        click.echo(f"  assumed: {line}")
    for line in (*gpus_by_number(found.config), *routes.gaps(found.config, loud)):
        click.echo(f"  warning: {line}")


@config.command()
@click.argument("key", default="")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def explain(options: Options, key: str, as_json: bool) -> None:
    """Say for every key (or those beginning with KEY) its value, where it comes from and what it means."""
    from opsboard.config.explain import explain as explained
    from opsboard.config.explain import nearest

    found = loaded(options)
    lines = list(explained(found, key))
    if not lines:
        near = nearest(found, key)
        hint = "`opsboard config explain` lists them all" if near is None else f"did you mean `{near}`?"
        raise UsageError(f"no key begins with {key!r}", hint=hint)
    for line in lines:
        if as_json:
            echo_json(line)
        else:
            click.echo(f"{_told(line)}\n    {line.help}")


def _told(line: Line) -> str:
    if line.value is not None:
        return f"{line.key} = {line.value}   [{line.origin}]"
    default = {"": "", "required": ", required"}.get(line.default, f", default {line.default}")
    section = f"; no {line.key.partition('.')[0]} is configured" if line.origin == "no section" else ""
    return f"{line.key}   [not set{default}{section}]"


@config.command("print")
@click.pass_obj
def print_config(options: Options) -> None:
    """Print the effective configuration as TOML. Secrets are redacted."""
    from opsboard.config.explain import print_toml

    click.echo(print_toml(loaded(options).config), nl=False)


@config.command()
@click.pass_obj
def reload(options: Options) -> None:
    """Let the daemon read its file again: all of it is applied, or nothing."""
    client(options, timeout=30.0).reload()
    click.echo("reloaded")
