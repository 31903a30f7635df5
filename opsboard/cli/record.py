"""``opsboard record``: readings to a file, as the daemon collects them."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from opsboard.cli.common import client
from opsboard.recording.files import create
from opsboard.recording.lines import Header

if TYPE_CHECKING:
    from opsboard.cli.main import Options


@click.command()
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="How long; default: until interrupted.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.pass_obj
def record(options: Options, out: Path, seconds: float | None, force: bool) -> None:
    """Write readings to OUT: JSON lines, plain, or compressed when OUT ends in .gz or .xz."""
    source = client(options)
    lines = 0
    started = time.monotonic()
    with create(out, force=force) as file, contextlib.suppress(KeyboardInterrupt):
        file.write(msgspec.json.encode(Header()) + b"\n")
        for line in source.record(seconds):
            file.write(line + b"\n")
            lines += 1
    nothing = "; no engine is being read" if not lines else ""
    click.echo(f"{out}: {lines} readings in {time.monotonic() - started:.0f} s{nothing}")
