"""``opsboard record``: readings to a file, as the daemon collects them."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import click
import msgspec

from opsboard.cli.common import client
from opsboard.core.errors import UsageError
from opsboard.core.wire import RECORDING_SCHEMA

if TYPE_CHECKING:
    from opsboard.cli.main import Options

_OTHERS = frozenset({".zst", ".bz2", ".zip", ".br", ".lz4", ".7z"})


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
    with _open(out, force) as file, contextlib.suppress(KeyboardInterrupt):
        file.write(msgspec.json.encode({"schema": RECORDING_SCHEMA}) + b"\n")
        for line in source.record(seconds):
            file.write(line + b"\n")
            lines += 1
    nothing = "; no engine is being read" if not lines else ""
    click.echo(f"{out}: {lines} readings in {time.monotonic() - started:.0f} s{nothing}")


def _open(path: Path, force: bool) -> BinaryIO:
    if path.exists() and not force:
        raise UsageError(f"{path}: is already there", hint="--force writes over it")
    if path.suffix in _OTHERS:
        raise UsageError(f"{path}: opsboard does not write {path.suffix}", hint="name it .gz, .xz, or without either")
    try:
        if path.suffix == ".gz":
            return cast("BinaryIO", gzip.open(path, "wb"))
        if path.suffix == ".xz":
            return cast("BinaryIO", lzma.open(path, "wb"))
        return path.open("wb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
