"""Where files lie.

The configuration, the state directory, the runtime directory and its control socket (CONTRACT, "Files and places").
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from opsboard.core.errors import ConfigError

SYSTEM_SOCKET = Path("/run/opsboard/opsboard.sock")
SOCKET_NAME = "opsboard.sock"
_SOCKET_PATH_LIMIT = 107  # sun_path holds 108 bytes with its NUL (unix(7))


def config_path(option: str | None, env: Mapping[str, str] = os.environ) -> Path | None:
    """Return the configuration file: the option, else ``$OPSBOARD_CONFIG``, else the first usual place that has one.

    None when there is none.     A file that was named but is not there is a ConfigError.
    """
    named = option or env.get("OPSBOARD_CONFIG")
    if named:
        path = Path(named)
        if not _is_there(path, hidden=True):  # whoever reads it tells why it cannot
            origin = "--config" if option else "OPSBOARD_CONFIG"
            raise ConfigError(
                f"{path}: no such file (named by {origin})",
                hint="`opsboard config init` writes one from what runs here",
            )
        return path
    home = Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    usual = (Path("opsboard.toml"), home / "opsboard" / "opsboard.toml", Path("/etc/opsboard/opsboard.toml"))
    return next((path for path in usual if _is_there(path, hidden=False)), None)


def _is_there(path: Path, *, hidden: bool) -> bool:
    """Return whether a file is there; ``hidden`` is the answer where we may not even look."""
    try:
        return path.exists() and (hidden or path.is_file())
    except PermissionError:
        return hidden


def state_dir(
    option: str | None, configured: str | None = None, env: Mapping[str, str] = os.environ, uid: int | None = None
) -> Path:
    """Return the state directory (it may not exist yet)."""
    named = option or configured or env.get("STATE_DIRECTORY", "").split(":")[0]
    if named:
        return Path(named)
    if (os.getuid() if uid is None else uid) == 0:
        return Path("/var/lib/opsboard")
    return Path(env.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "opsboard"


def runtime_dir(env: Mapping[str, str] = os.environ, uid: int | None = None) -> Path:
    """Return the directory for sockets (it may not exist yet)."""
    user = os.getuid() if uid is None else uid
    if env.get("RUNTIME_DIRECTORY"):
        return Path(env["RUNTIME_DIRECTORY"].split(":")[0])
    if user == 0:
        return Path("/run/opsboard")
    if env.get("XDG_RUNTIME_DIR"):
        return Path(env["XDG_RUNTIME_DIR"]) / "opsboard"
    return Path(tempfile.gettempdir()) / f"opsboard-{user}"


def socket_path(
    option: str | None, configured: str | None = None, env: Mapping[str, str] = os.environ, uid: int | None = None
) -> Path:
    """Return the control socket a daemon binds. Raises ConfigError when the path is too long for a socket."""
    path = Path(option or configured or runtime_dir(env, uid) / SOCKET_NAME)
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
        raise ConfigError(
            f"{path}: a socket path may have {_SOCKET_PATH_LIMIT} bytes", hint="name a shorter one with --socket"
        )
    return path


def client_sockets(
    option: str | None, configured: str | None = None, env: Mapping[str, str] = os.environ
) -> list[Path]:
    """Return the control sockets a client tries, in order: the named one alone, else the user's, then the system's."""
    if option or configured:
        return [socket_path(option, configured, env)]
    own = socket_path(None, None, env)
    return [own] if own == SYSTEM_SOCKET else [own, SYSTEM_SOCKET]


def private_dir(path: Path, mode: int = 0o700) -> Path:
    """Make ``path`` with ``mode``, or check that an existing one is ours and that no stranger may write to it."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror or error}", hint="name another place, or make this directory writable"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{path}: expected a directory, found something else")
    if found.st_uid not in (os.getuid(), 0):
        raise ConfigError(
            f"{path}: belongs to uid {found.st_uid}, not to uid {os.getuid()}", hint="remove it or name another place"
        )
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"{path}: others may write to it (mode {stat.S_IMODE(found.st_mode):04o})", hint=f"chmod 700 {path}"
        )
    return path
