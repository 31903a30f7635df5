"""A process as /proc shows it, for judging: an ordinary vLLM in a login session, changed as a test likes."""

from __future__ import annotations

import msgspec

from opsboard.core.secret import Secret
from opsboard.supervise.manners import Manners
from opsboard.supervise.takeover.seen import Account, Ancestor, FileId, Seen

NAMESPACES = {kind: f"{kind}:[1]" for kind in ("mnt", "pid", "net", "user", "ipc", "uts")}
MANNERS = Manners(umask=0o22, nice=0, affinity=(0, 1), oom_score_adj=0, limits={"RLIMIT_NOFILE": (1024, 4096)})
PYTHON = FileId(1, 77)
ALICE = Account(name="alice", gid=1000, groups=(1000, 44))
LOGIN = Ancestor(pid=500, name="bash", argv=("-bash",))

ENGINE = Seen(
    pid=4242,
    start_ticks=99,
    boot_id="a-boot",
    name="vllm",
    uids=(1000,) * 4,
    gids=(1000,) * 4,
    groups=(44, 1000),
    account=ALICE,
    argv=("/venv/bin/python", "/venv/bin/vllm", "serve", "tiny", "--api-key", "hush"),
    environ=Secret("PATH=/venv/bin:/bin\0HF_TOKEN=hush\0SSH_TTY=/dev/pts/3\0"),
    cwd="/home/alice",
    exe="/usr/bin/python3.11",
    exe_id=PYTHON,
    program="/usr/bin/python3.11",
    program_id=PYTHON,
    root="/",
    fds={0: "/dev/pts/3", 1: "/dev/pts/3", 2: "/dev/pts/3"},
    namespaces=NAMESPACES,
    cgroups=("/user.slice/user-1000.slice/session-4.scope",),
    ancestors=(LOGIN,),
    status={"CapEff": "0" * 16, "NoNewPrivs": "0", "Seccomp": "0", "TracerPid": "0", "State": "S (sleeping)"},
    manners=MANNERS,
)
DAEMON = msgspec.structs.replace(
    ENGINE,
    pid=1,
    name="opsboard",
    uids=(0,) * 4,
    gids=(0,) * 4,
    groups=(0,),
    account=Account(name="root", gid=0, groups=(0,)),
    cgroups=("/system.slice/opsboard.service",),
    status=dict(ENGINE.status) | {"CapEff": "000001ffffffffff"},
)


def engine(**changes: object) -> Seen:
    """Return the engine with other fields."""
    return msgspec.structs.replace(ENGINE, **changes)


def daemon_of(user: Account, uid: int, **changes: object) -> Seen:
    """Return a daemon that is not root."""
    return msgspec.structs.replace(
        DAEMON,
        uids=(uid,) * 4,
        gids=(user.gid,) * 4,
        groups=user.groups,
        account=user,
        status=ENGINE.status,
        **changes,
    )
