"""What verbs share: finding the daemon, loading the configuration, writing tables and JSON."""

from __future__ import annotations

import ctypes
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from opsboard.config import places
from opsboard.core.waiting import told

if TYPE_CHECKING:
    from pathlib import Path

    from opsboard.cli.main import Options
    from opsboard.client.sync import Client
    from opsboard.config.load import Loaded
    from opsboard.config.schema import Config
    from opsboard.core.wire import Engine


def client(options: Options, timeout: float = 10.0) -> Client:
    """Return a client of the daemon that the options and the configuration name. It raises NotReachable when used."""
    from opsboard.client.sync import Client

    return Client(control_sockets(options), timeout=timeout)


def control_sockets(options: Options) -> list[Path]:
    """Return the sockets to try, in order."""
    from opsboard.config.load import configured_socket

    configured = None if options.socket else configured_socket(places.config_path(options.config))
    return places.client_sockets(options.socket, configured)


def loaded(options: Options, file: str | None = None, only: Container[str] | None = None) -> Loaded:
    """Load ``file``, else the configuration that the options name, or ``only`` some sections. Raises ConfigError."""
    from opsboard.config.load import load
    from opsboard.core.registry import detectors, dialects, notifiers

    path = places.config_path(file or options.config)
    return load(path, kinds=dialects().found, detectors=detectors().found, notifiers=notifiers().found, only=only)


def driver_found() -> bool:
    """Say whether the NVIDIA driver's library is there; whether it answers only the daemon finds out."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def gpus_by_number(config: Config) -> list[str]:
    """Return a line for every engine whose ``gpus`` nothing on this machine can turn into uuids."""
    wanted = [engine for engine in config.engine if engine.supervised and engine.gpus]
    if not wanted or driver_found():
        return []
    return [
        f"engine {engine.name!r}: gpus = {list(engine.gpus or ())} without an NVIDIA driver here: "
        "passed on by number, and nothing shows whether there are such GPUs"
        for engine in wanted
    ]


def echo_json(value: Any) -> None:
    """Write one JSON object on one line."""
    click.echo(msgspec.json.encode(value).decode())


def echo_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table with aligned columns, two spaces between them."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def echo_notes(engines: Sequence[Engine], now: float) -> None:
    """Write below a table of engines what its columns have no room for; ``now`` is Unix seconds."""
    for engine in engines:
        if note := told(engine, now) or engine.reading.error:
            click.echo(f"  {engine.name}: {note}")


def shown(value: float | None, unit: str = "", scale: float = 1.0, digits: int = 0) -> str:
    """Write a number, or ``--`` for unknown."""
    return "--" if value is None else f"{value * scale:.{digits}f}{unit}"


def shown_bytes(value: float | None) -> str:
    """Write a size with three significant digits, or ``--``."""
    if value is None:
        return "--"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def shown_age(seconds: float | None) -> str:
    """Write an age coarsely: 42s, 12m, 3h10m, 2d4h; ``--`` for unknown."""
    if seconds is None:
        return "--"
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"
