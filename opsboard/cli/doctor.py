"""``opsboard doctor``: check this machine and this installation; each check has a stable id and says what to do."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from opsboard.cli.common import client, driver_found, echo_json, gpus_by_number, loaded, shown_bytes
from opsboard.config import places
from opsboard.core.channels import channel_advice, channel_trouble
from opsboard.core.errors import OpsboardError
from opsboard.core.holders import strangers
from opsboard.core.model import Record
from opsboard.core.version import __version__

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.core.deliveries import ChannelHealth

Level = Literal["ok", "warn", "fail"]
_FIXED_SQLITE = (3, 51, 3)
_FEW_FILES = 1024
_LITTLE_DISK = 2**30


class Finding(Record, frozen=True, kw_only=True):
    """What one check says: ``warn`` is worth knowing, ``fail`` keeps something from working."""

    check: str
    level: Level
    text: str
    hint: str | None = None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a check.")
@click.option(
    "--bundle", type=click.Path(dir_okay=False, path_type=Path), help="Also write what a helper needs to FILE."
)
@click.pass_obj
def doctor(options: Options, as_json: bool, bundle: Path | None) -> None:
    """Check this machine and this installation. Exit 1 if a check fails."""
    findings = [finding for check in CHECKS for finding in check(options)]
    for finding in findings:
        if as_json:
            echo_json(finding)
            continue
        click.echo(f"{finding.level:<5} {finding.check:<16} {finding.text}")
        if finding.hint:
            click.echo(f"{'':<23}{finding.hint}")
    if bundle is not None:
        from opsboard.cli.bundle import write

        write(bundle, options, findings)
        click.echo(f"wrote {bundle}: secrets are redacted; read it before you send it", err=True)
    if any(finding.level == "fail" for finding in findings):
        click.get_current_context().exit(1)


def _python(_options: Options) -> Iterator[Finding]:
    text = f"opsboard {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    if sys.platform == "linux":
        yield Finding(check="platform", level="ok", text=text)
    else:
        yield Finding(check="platform", level="fail", text=text, hint="the daemon and the shim need Linux")


def _sqlite(_options: Options) -> Iterator[Finding]:
    text = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < _FIXED_SQLITE:
        hint = "has the WAL-reset bug (fixed in 3.51.3); opsboard writes over one connection a file and avoids it"
        yield Finding(check="sqlite", level="ok", text=text, hint=hint)
    else:
        yield Finding(check="sqlite", level="ok", text=text)


def _config(options: Options) -> Iterator[Finding]:
    from alerts.routes import gaps
    from opsboard.config.detectors import severities
    from opsboard.core.registry import detectors
    from opsboard.supervise.runners.units import BOOTED

    try:
        found = loaded(options)
    except OpsboardError as error:
        yield Finding(check="config", level="fail", text=error.message, hint=error.hint)
        return
    if found.path is None:
        yield Finding(
            check="config", level="warn", text="no configuration file", hint="`opsboard config init` writes one"
        )
        return
    yield Finding(check="config", level="ok", text=f"{found.path}: {len(found.config.engine)} engines")
    for line in found.assumed:
        yield Finding(check="config", level="warn", text=line)
    for line in gaps(found.config, severities(found.config, detectors().found)):
        yield Finding(check="alert-routes", level="warn", text=line, hint="docs/telling.md")
    for line in gpus_by_number(found.config):
        yield Finding(check="engine-gpus", level="warn", text=line, hint="in a container add the NVIDIA runtime")
    for engine in found.config.engine:
        if engine.begins_by and shutil.which(engine.begins_by[0]) is None:
            text = f"engine {engine.name!r}: command not found: {engine.begins_by[0]}"
            yield Finding(check="engine-command", level="fail", text=text, hint="give its absolute path, or install it")
        if engine.runner == "systemd" and not BOOTED.is_dir():
            text = f'engine {engine.name!r} has `runner` = "systemd", which this machine does not run: no {BOOTED}'
            yield Finding(check="engine-runner", level="fail", text=text, hint='`runner` = "shim" does without')


def _state_dir(options: Options) -> Iterator[Finding]:
    try:
        configured = loaded(options).config.host.state_dir
    except OpsboardError:
        configured = None
    path = places.state_dir(options.state_dir, configured)
    there = next(parent for parent in (path, *path.resolve().parents) if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        hint = "run as the daemon's user, or name another place with --state-dir"
        yield Finding(check="state-dir", level="warn", text=f"{path}: not writable for uid {os.getuid()}", hint=hint)
    free = shutil.disk_usage(there).free
    level: Level = "ok" if free > _LITTLE_DISK else "warn"
    yield Finding(check="disk", level=level, text=f"{path}: {shown_bytes(free)} free")


def _daemon(options: Options) -> Iterator[Finding]:
    try:
        status = client(options, timeout=3.0).status()
    except OpsboardError as error:
        yield Finding(check="daemon", level="warn", text=error.message, hint=error.hint)
        return
    text = f"answers: version {status.daemon.version}, pid {status.daemon.pid}, {len(status.engines)} engines"
    if status.daemon.version != __version__:
        hint = f"this opsboard is {__version__}; restart the daemon (engines stay up)"
        yield Finding(check="daemon", level="warn", text=text, hint=hint)
    else:
        yield Finding(check="daemon", level="ok", text=text)
    for line in strangers(status.gpus):
        yield Finding(check="gpu-memory", level="warn", text=line, hint="no engine can have what it holds")
    for channel in status.channels:
        trouble = channel_trouble(channel, status.time)
        level: Level = "ok" if trouble is None else "fail" if channel.broken else "warn"
        yield Finding(
            check="channel", level=level, text=trouble or _channel_told(channel), hint=channel_advice(channel)
        )
    if not status.daemon.recorded:
        yield Finding(check="recording", level="fail", text=f"NOT RECORDED: {status.daemon.message}")


def _channel_told(channel: ChannelHealth) -> str:
    never = f"nothing was ever sent: `opsboard alerts test {channel.name}`"
    return f"{channel.name} ({channel.kind}): {'takes messages' if channel.sent is not None else never}"


def _driver(_options: Options) -> Iterator[Finding]:
    if driver_found():
        yield Finding(check="nvml", level="ok", text="libnvidia-ml.so.1 found")
    else:
        hint = "GPUs stay unknown; in a container add the NVIDIA runtime"
        yield Finding(check="nvml", level="warn", text="no NVIDIA driver (libnvidia-ml.so.1 not found)", hint=hint)


def _limits(_options: Options) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"open files: {soft} (hard {hard})"
    if hard != resource.RLIM_INFINITY and hard < _FEW_FILES:
        yield Finding(check="open-files", level="warn", text=text, hint="vLLM wants thousands: raise LimitNOFILE")
    else:
        yield Finding(check="open-files", level="ok", text=text)


def _terminal(_options: Options) -> Iterator[Finding]:
    term, encoding = os.environ.get("TERM", "unset"), sys.stdout.encoding or "unknown"
    if encoding.lower().replace("-", "") != "utf8":
        hint = "the board draws with ASCII; set LANG to a UTF-8 locale for better bars"
        yield Finding(check="terminal", level="warn", text=f"TERM={term}, encoding {encoding}", hint=hint)
    else:
        yield Finding(check="terminal", level="ok", text=f"TERM={term}, encoding {encoding}")


CHECKS: tuple[Callable[[Options], Iterator[Finding]], ...] = (
    _python,
    _sqlite,
    _config,
    _state_dir,
    _daemon,
    _driver,
    _limits,
    _terminal,
)
