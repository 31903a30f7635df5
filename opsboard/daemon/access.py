"""Where the control socket lies and who may connect: the directory, the modes, the groups."""

from __future__ import annotations

import contextlib
import grp
import os
import stat
from collections.abc import Callable
from pathlib import Path

from opsboard.config.places import private_dir
from opsboard.config.schema import Control
from opsboard.core.errors import ConfigError
from opsboard.core.model import Record
from opsboard.daemon.rights import Right, rights
from opsboard.httpd import Peer


class Access(Record, frozen=True, kw_only=True):
    """The mode and group of the socket, and what a peer may do. ``gid`` None: the daemon's own user and root only."""

    mode: int
    gid: int | None
    allowed: Callable[[Peer | None], Right]


def open_access(control: Control, directory: Path) -> Access:
    """Make the socket's directory and return who may use it. Raises ConfigError (no such group, not our directory).

    A file has one group: with both configured it is ``read_group``, so operators have to be members of it too.
    """
    read_gid, operate_gid = _gid("read_group", control.read_group), _gid("operate_group", control.operate_group)
    gid = operate_gid if read_gid is None else read_gid
    private_dir(directory)
    if gid is not None:
        _let_in(directory, gid)
    own_uid = os.geteuid()

    def allowed(peer: Peer | None) -> Right:
        if peer is None:
            return Right.NONE
        groups = {peer.gid, *peer.groups}
        return rights(peer.uid, groups, own_uid=own_uid, read_gid=read_gid, operate_gid=operate_gid)

    return Access(mode=0o600 if gid is None else 0o660, gid=gid, allowed=allowed)


def _gid(key: str, group: str | None) -> int | None:
    if group is None:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        hint = f"groupadd --system {group}"
        raise ConfigError(f"[control] {key}: this machine has no group {group!r}", hint=hint) from None


def _let_in(directory: Path, gid: int) -> None:
    """Open our own directory to the group; a shared one such as /tmp is left as it is."""
    found = directory.stat()
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
        return
    try:
        os.chown(directory, -1, gid)
    except PermissionError:
        hint = "only root, or a member of that group, can give the socket to it"
        raise ConfigError(f"{directory}: cannot be given to group {gid}", hint=hint) from None
    with contextlib.suppress(PermissionError):
        directory.chmod(0o750)
