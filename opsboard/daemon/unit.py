"""The systemd unit: a restart of the daemon must touch no engine."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

from opsboard.core.errors import OpsboardError

NAME = "opsboard.service"
SYSTEM_DIR = Path("/etc/systemd/system")
_DEADLINE_S = 30.0

_UNIT = """\
[Unit]
Description=opsboard: live operations for LLM inference servers
Wants=network-online.target
After=network-online.target nvidia-persistenced.service
# A full disk may last for days: never stop trying.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=2
WatchdogSec=60
TimeoutStopSec=30
# Engines live in this unit's cgroup and outlive the daemon: only the daemon itself is signalled,
# and an engine that runs out of memory takes nobody along.
KillMode=process
OOMPolicy=continue
# The sockets of the engines' shims lie here: they must survive a restart.
RuntimeDirectory=opsboard
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
{system_only}# Engines inherit these.
LimitNOFILE=65536
LimitMEMLOCK=infinity
TasksMax=infinity

[Install]
WantedBy={target}
"""

# Engines inherit hardening too. PrivateTmp would take /tmp from running ones at every restart, ProtectSystem their
# model caches, ProtectKernelModules the work of nvidia-modprobe, DevicePolicy the cards, NoNewPrivileges their sudo.
_SYSTEM_ONLY = """\
StateDirectory=opsboard
StateDirectoryMode=0700
LockPersonality=yes
RestrictSUIDSGID=yes
ProtectKernelTunables=yes
SystemCallArchitectures=native
"""


def render(*, config: Path | None, user: bool = False, python: str = sys.executable) -> str:
    """Return the text of the unit: the system's, or one of the calling user. ``config`` None: found as usual."""
    words = [python, "-P", "-m", "opsboard", *(["--config", str(config)] if config else []), "daemon"]
    return _UNIT.format(
        command=" ".join(_word(word) for word in words),
        system_only="" if user else _SYSTEM_ONLY,
        target="default.target" if user else "multi-user.target",
    )


def install(text: str, *, user: bool = False, directory: Path | None = None) -> list[str]:
    """Write the unit and let systemd read it; return lines for people: what was done and what is left to do."""
    path = (directory or _directory(user=user)) / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    except OSError as error:
        hint = "use --user for a unit of your own, or run this as root" if not user else None
        raise OpsboardError(f"{path}: cannot be written: {error.strerror}", hint=hint) from error
    systemctl = "systemctl --user" if user else "systemctl"
    lines = [f"wrote {path}", _reload(user=user), f"now: {systemctl} enable --now {NAME}"]
    if user:
        lines.append(
            f"units of a user end with the last login unless they linger: loginctl enable-linger {getpass.getuser()}"
        )
    return lines


def uninstall(*, user: bool = False, directory: Path | None = None) -> list[str]:
    """Stop and forget the unit; engines, state and configuration stay. Return lines for people."""
    path = (directory or _directory(user=user)) / NAME
    if not path.exists():
        return [f"{path}: is not there, nothing to do"]
    stopped = _systemctl(["disable", "--now", NAME], user=user)
    try:
        path.unlink()
    except OSError as error:
        raise OpsboardError(f"{path}: cannot be removed: {error.strerror}", hint="run this as root") from error
    lines = [f"removed {path}", _reload(user=user), "running engines were not touched"]
    return lines if stopped is None else [f"systemctl disable --now: {stopped}", *lines]


def _directory(*, user: bool) -> Path:
    if not user:
        return SYSTEM_DIR
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _reload(*, user: bool) -> str:
    failed = _systemctl(["daemon-reload"], user=user)
    return "systemd has read it" if failed is None else f"systemd did not read it ({failed})"


def _systemctl(arguments: list[str], *, user: bool) -> str | None:
    """Run systemctl; return why it failed, None when it did not."""
    command = ["systemctl", *(["--user"] if user else []), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip() or f"exit {done.returncode}")


def _word(word: str) -> str:
    """Quote one word as systemd.syntax(7) reads it: specifiers, variables and escapes are taken literally."""
    literal = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return literal if literal and not set(literal) & set(" \t'\";") else f'"{literal}"'
