"""Who may do what on the control socket."""

from __future__ import annotations

import pytest

from opsboard.daemon.rights import Right, rights

DAEMON, READERS, SRE, OTHERS = 990, 2001, 2002, 2003
ALL = Right.READ | Right.OPERATE


@pytest.mark.parametrize(
    ("uid", "groups", "read_gid", "operate_gid", "expected"),
    [
        (0, [0], None, None, ALL),
        (DAEMON, [DAEMON], None, None, ALL),
        (1000, [1000], None, None, Right.NONE),
        (1000, [1000, 0], None, None, Right.NONE),
        (1000, [1000, READERS], READERS, SRE, Right.READ),
        (1000, [1000, SRE], READERS, SRE, ALL),
        (1000, [1000, READERS, SRE], READERS, SRE, ALL),
        (1000, [SRE], None, SRE, ALL),
        (1000, [READERS], READERS, None, Right.READ),
        (1000, [OTHERS], READERS, SRE, Right.NONE),
        (1000, [], READERS, SRE, Right.NONE),
    ],
)
def test_rights(uid: int, groups: list[int], read_gid: int | None, operate_gid: int | None, expected: Right) -> None:
    assert rights(uid, groups, own_uid=DAEMON, read_gid=read_gid, operate_gid=operate_gid) == expected
