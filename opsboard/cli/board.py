"""``opsboard`` without a verb: the terminal board, of the local daemon or of a private one that only looks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from opsboard.cli.common import control_sockets
from opsboard.client.sync import Client
from opsboard.core.errors import NotReachable, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opsboard.cli.main import Options


def show(options: Options, *, urls: Sequence[str], readonly: bool, ascii_only: bool, mouse: bool) -> int:
    """Open the board and return its exit code. Raises UsageError when there is no terminal to draw on."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "the board needs a terminal, and standard input or output is none",
            hint="`opsboard status --json` is for programs, `opsboard daemon` runs headless",
        )
    if not urls:
        socket = _live_socket(options)
        if socket is not None:
            return _run(socket, readonly, ascii_only, mouse)
    from opsboard.cli.private import child_daemon, scratch

    arguments = ["--private"]
    for url in urls:
        arguments += ["--url", url]
    config = None if urls else _config_for_private(options)
    with scratch("opsboard-look-") as root, child_daemon(root, arguments, config) as socket:
        return _run(socket, readonly, ascii_only, mouse)


def _live_socket(options: Options) -> Path | None:
    """Return the socket on which a daemon answers; a socket that was named must."""
    for path in control_sockets(options):
        try:
            Client(path).status()
        except NotReachable:
            if options.socket:
                raise
        else:
            return path
    return None


def _config_for_private(options: Options) -> Path | None:
    from opsboard.config.places import config_path

    path = config_path(options.config)
    if path is not None:
        click.echo(f"no daemon answers: a read-only look at what {path} names and what else runs here", err=True)
    return path


def _run(socket: Path, readonly: bool, ascii_only: bool, mouse: bool) -> int:
    from opsboard.tui.app import run

    return run(socket, readonly=readonly, ascii=True if ascii_only else None, mouse=mouse)
