"""Who may do what on the control socket: a pure function of SO_PEERCRED and the configured groups."""

from __future__ import annotations

from collections.abc import Collection
from enum import Flag, auto

ROOT = 0


class Right(Flag):
    """What a peer may do."""

    NONE = 0
    READ = auto()
    """See the board, the history, the logs."""
    OPERATE = auto()
    """Start, stop and restart engines, reload the configuration."""


def rights(uid: int, groups: Collection[int], *, own_uid: int, read_gid: int | None, operate_gid: int | None) -> Right:
    """Return what a peer may do.

    Root and the daemon's own user may do all; members of the operate group too; members of the read group may look.
    ``groups`` are the peer's primary and supplementary group ids.
    """
    if uid in {ROOT, own_uid} or (operate_gid is not None and operate_gid in groups):
        return Right.READ | Right.OPERATE
    if read_gid is not None and read_gid in groups:
        return Right.READ
    return Right.NONE
