"""The environment of a process: is it still the one it was started with, and which of it belongs to an old session?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from opsboard.core.secret import Secret
from opsboard.core.text import sanitise
from opsboard.supervise.processes import TAG
from opsboard.supervise.takeover.gap import Gap, fatal, small
from opsboard.supervise.takeover.seen import Seen

_NAME = re.compile(r"[A-Za-z_][\w.%()-]*\Z", re.ASCII)  # BASH_FUNC_x%% too
_SESSION = re.compile(
    r"SSH_\w+|DISPLAY|WAYLAND_DISPLAY|XAUTHORITY|XDG_(SESSION_\w+|RUNTIME_DIR|SEAT(_PATH)?|VTNR)|DESKTOP_SESSION"
    r"|DBUS_SESSION_BUS_ADDRESS|GNOME_\w+|KONSOLE_\w+|KITTY_\w+|VSCODE_\w+|WINDOWID|GPG_(AGENT_INFO|TTY)|MAIL"
    r"|TERM|TERM_\w+|COLORTERM|COLUMNS|LINES|VTE_VERSION|TMUX(_PANE)?|STY|WINDOW|SHLVL|OLDPWD|_|PS[1-4]|LS_COLORS"
    r"|SUDO_\w+|INVOCATION_ID|JOURNAL_STREAM|MAINPID|MANAGERPID|SYSTEMD_EXEC_PID|NOTIFY_SOCKET|WATCHDOG_(PID|USEC)"
    rf"|LISTEN_(PID|FDS|FDNAMES|PIDFDID)|CREDENTIALS_DIRECTORY|MEMORY_PRESSURE_\w+|{TAG}\Z"
)
"""Names that speak of a terminal, a login, a parent or one start: wrong in any other process."""


class Variables(NamedTuple):
    """``kept`` goes into a copy, ``dropped`` names what does not."""

    kept: Mapping[str, Secret]
    dropped: tuple[str, ...]
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...]


def judge(seen: Seen) -> Variables:
    """Return what of the environment a copy gets; every value is a secret, since nobody can tell which are not."""
    nothing = Variables({}, (), (), ())
    if seen.environ is None:
        return nothing._replace(
            gaps=(
                fatal(
                    "environment",
                    "it may not be read: the process belongs to another user, or hides it",
                    "run the daemon as root or as the engine's user",
                ),
            )
        )
    found = parse(seen.environ.reveal())
    if found is None:
        return nothing._replace(
            gaps=(
                fatal(
                    "environment",
                    "the process wrote its title over it (setproctitle), so nobody can read it any more",
                    "write the engine's `command` and `env` into the configuration",
                ),
            )
        )
    dropped = tuple(sorted(name for name in found if _SESSION.fullmatch(name)))
    kept = {name: Secret(value) for name, value in found.items() if name not in dropped}
    return Variables(kept, tuple(sanitise(name, 80) for name in dropped), _gaps(found), _warnings(kept))


def parse(text: str) -> dict[str, str] | None:
    """Return names and values of a NUL-separated environment; None when it was written over.

    setproctitle fills what it does not need of arguments and environment with NULs, or the title reaches into them:
    then empty words, or words that are no ``NAME=value``, stand where variables stood. The first of two values counts,
    as it does for getenv(3).
    """
    words = text.removesuffix("\0").split("\0") if text else []
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not _NAME.match(name):
            return None
        found.setdefault(name, value)
    return found


def _gaps(found: Mapping[str, str]) -> tuple[Gap, ...]:
    gaps: list[Gap] = []
    if found.get("LISTEN_FDS", "0") != "0":
        gaps.append(
            fatal(
                "sockets",
                "it was handed open sockets (LISTEN_FDS), which only their owner can hand to another one",
                "let that one restart it: systemctl restart UNIT",
            )
        )
    if "CREDENTIALS_DIRECTORY" in found:
        gaps.append(small("credentials", "systemd gave it files (CREDENTIALS_DIRECTORY) that end with its unit"))
    return tuple(gaps)


def _warnings(kept: Mapping[str, Secret]) -> tuple[str, ...]:
    preloads = [name for name in ("LD_PRELOAD", "LD_AUDIT") if name in kept and kept[name].reveal()]
    fleeting = [
        name
        for name in ("VIRTUAL_ENV", "TMPDIR", "HF_HOME")
        if name in kept and kept[name].reveal().startswith("/run/user/")
    ]
    return (
        *(f"{name} is kept: the copy loads the same libraries into itself" for name in preloads),
        *(f"{name} lies in /run/user, which is emptied when its user logs out" for name in fleeting),
    )
