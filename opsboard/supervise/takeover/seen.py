"""What /proc says of a process that might be started again: read once, as one record, judged elsewhere."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from collectors import procfs
from opsboard.core.errors import SuperviseError
from opsboard.core.model import Record
from opsboard.core.secret import Secret
from opsboard.core.text import sanitise
from opsboard.supervise import manners
from opsboard.supervise.processes import boot_id
from opsboard.supervise.takeover.script import script_of

NAMESPACES = ("mnt", "pid", "net", "user", "ipc", "uts")
_ARGUMENTS_BYTES = 8 << 20  # beyond what execve takes: a quarter of the stack limit, 6 MiB at most
_ANCESTORS = 64
_LOOKS = 3  # a process that was just forked becomes another program once
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish", "busybox", "ash"})
_STATUS = re.compile(r"^(\w+):[ \t]*(.*?)[ \t]*$", re.MULTILINE)


class FileId(Record, frozen=True):
    """A file and no other of this name."""

    device: int
    inode: int


class Ancestor(Record, frozen=True, kw_only=True):
    """A process above the engine. ``script`` is what a shell runs, where it could be read."""

    pid: int
    name: str
    argv: tuple[str, ...]
    cgroups: tuple[str, ...] = ()
    script: str | None = None

    @property
    def is_shell(self) -> bool:
        """True for a shell, by its name."""
        return self.name.lstrip("-") in _SHELLS


class Account(Record, frozen=True, kw_only=True):
    """What the user database says of the owner."""

    name: str
    gid: int
    groups: tuple[int, ...]


class Seen(Record, frozen=True, kw_only=True):
    """One process as the kernel shows it. None where we may not see. Texts are as they are: sanitise before showing."""

    pid: int
    start_ticks: int
    boot_id: str
    name: str
    uids: tuple[int, ...]
    """Real, effective, saved, file system."""
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    account: Account | None = None
    argv: tuple[str, ...] = ()
    environ: Secret | None = None
    """NUL-separated, as it is in the memory of the process, which may have written over it."""
    cwd: str | None = None
    exe: str | None = None
    exe_id: FileId | None = None
    """The file it runs ..."""
    program: str | None = None
    """... and where ``argv[0]`` leads now, by its PATH and its directory, links followed,"""
    program_id: FileId | None = None
    missing: tuple[str, ...] = ()
    """files that its start needs and that are not there."""
    root: str | None = None
    fds: Mapping[int, str] | None = None
    namespaces: Mapping[str, str] = {}
    cgroups: tuple[str, ...] = ()
    ancestors: tuple[Ancestor, ...] = ()
    """Parent first."""
    status: Mapping[str, str] = {}
    """Lines of /proc/PID/status: CapEff, CapBnd, Seccomp, NoNewPrivs, TracerPid, State, ..."""
    label: str | None = None
    """Of AppArmor or SELinux."""
    manners: manners.Manners = manners.Manners()


def see(pid: int, proc_root: str = procfs.PROC) -> Seen:
    """Read everything about one process. Blocks for milliseconds.

    Raises:
        SuperviseError: it is gone, or became another one whenever we looked.
    """
    for _ in range(_LOOKS):
        seen = _look(pid, proc_root)
        if (_stat(pid, proc_root), _argv(pid, proc_root)) == (seen.start_ticks, seen.argv):
            return seen
    raise SuperviseError(f"pid {pid} became another process while it was read", permanent=False)


def _look(pid: int, proc_root: str) -> Seen:
    before = _stat(pid, proc_root)
    status = dict(_STATUS.findall(_text(pid, "status", proc_root)))
    argv = _argv(pid, proc_root)
    environ = _bytes(pid, "environ", proc_root)
    uids, gids = _numbers(status.get("Uid")), _numbers(status.get("Gid"))
    cwd, exe = _link(pid, "cwd", proc_root), _link(pid, "exe", proc_root)
    program = _program(argv, cwd, environ)
    return Seen(
        pid=pid,
        start_ticks=before,
        boot_id=boot_id(),
        name=status.get("Name", ""),
        uids=uids,
        gids=gids,
        groups=_numbers(status.get("Groups")),
        account=_account(uids[0]) if uids else None,
        argv=argv,
        environ=None if environ is None else Secret(os.fsdecode(environ)),
        cwd=cwd,
        exe=exe,
        exe_id=_id(f"{proc_root}/{pid}/exe"),
        program=program,
        program_id=_id(program) if program is not None else None,
        missing=_missing(argv, cwd),
        root=_link(pid, "root", proc_root),
        fds=_fds(pid, proc_root),
        namespaces=namespaces(pid, proc_root),
        cgroups=_cgroups(pid, proc_root),
        ancestors=_ancestors(pid, proc_root),
        status=status,
        label=_text(pid, "attr/current", proc_root).strip("\0\n ") or None,
        manners=manners.read(pid, proc_root),
    )


def namespaces(pid: int, proc_root: str = procfs.PROC) -> dict[str, str]:
    """Return the names of the namespaces of a process; those we may not see are left out."""
    found = {kind: _link(pid, f"ns/{kind}", proc_root) for kind in NAMESPACES}
    return {kind: name for kind, name in found.items() if name is not None}


def _stat(pid: int, proc_root: str) -> int:
    try:
        line = procfs.stat(pid, proc_root)
    except OSError as error:
        raise SuperviseError(f"pid {pid} cannot be read: {error.strerror}") from error
    if line is None or line.ended:
        raise SuperviseError(f"no process has the pid {pid}")
    return line.start_ticks


def _argv(pid: int, proc_root: str) -> tuple[str, ...]:
    data = _bytes(pid, "cmdline", proc_root) or b""
    data = data.removesuffix(b"\0")  # one end of a word: empty words at the end are words
    return tuple(os.fsdecode(word) for word in data.split(b"\0")) if data else ()


def _ancestors(pid: int, proc_root: str) -> tuple[Ancestor, ...]:
    """Return who is above a process, up to but without the first process of the machine."""
    found: list[Ancestor] = []
    while len(found) < _ANCESTORS:
        line = procfs.stat(pid, proc_root)
        if line is None or line.parent <= 1:
            break
        pid = line.parent
        above = procfs.stat(pid, proc_root)
        if above is None:
            break
        argv = _argv(pid, proc_root)
        ancestor = Ancestor(pid=pid, name=above.comm, argv=argv, cgroups=_cgroups(pid, proc_root))
        if ancestor.is_shell:
            ancestor = Ancestor(
                pid=pid,
                name=above.comm,
                argv=argv,
                cgroups=ancestor.cgroups,
                script=script_of(argv, _link(pid, "cwd", proc_root), f"{proc_root}/{pid}"),
            )
        found.append(ancestor)
    return tuple(found)


def _program(argv: tuple[str, ...], cwd: str | None, environ: bytes | None) -> str | None:
    """Return the file that starting ``argv`` there would run, links followed; None when there is none."""
    if not argv or not argv[0]:
        return None
    if "/" in argv[0]:
        found = shutil.which(os.path.join(cwd or "/", argv[0]))  # noqa: PTH118  an absolute one stays as it is
    else:
        words = (environ or b"").split(b"\0")
        folders = next((os.fsdecode(word[5:]) for word in words if word.startswith(b"PATH=")), os.defpath)
        found = shutil.which(argv[0], path=folders)
    return None if found is None else str(Path(found).resolve())


def _missing(argv: tuple[str, ...], cwd: str | None) -> tuple[str, ...]:
    """Return the script that an interpreter was started with, if it is gone."""
    if len(argv) < 2 or not Path(argv[0]).name.startswith(("python", "pypy")) or argv[1].startswith("-"):
        return ()
    return () if Path(cwd or "/", argv[1]).exists() else (argv[1],)


def _account(uid: int) -> Account | None:
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        return None
    groups = os.getgrouplist(found.pw_name, found.pw_gid)
    return Account(name=found.pw_name, gid=found.pw_gid, groups=tuple(sorted(set(groups))))


def _fds(pid: int, proc_root: str) -> dict[int, str] | None:
    try:
        names = os.listdir(f"{proc_root}/{pid}/fd")  # noqa: PTH208  names only
    except OSError:
        return None
    found = {int(name): _link(pid, f"fd/{name}", proc_root) for name in names if int(name) <= 2}
    return {number: target for number, target in found.items() if target is not None}


def _cgroups(pid: int, proc_root: str) -> tuple[str, ...]:
    lines = (line.split(":", 2) for line in _text(pid, "cgroup", proc_root).splitlines())
    return tuple(sorted({fields[2] for fields in lines if len(fields) == 3}))


def _id(path: str) -> FileId | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return FileId(found.st_dev, found.st_ino)


def _link(pid: int, name: str, proc_root: str) -> str | None:
    try:
        return os.readlink(f"{proc_root}/{pid}/{name}")  # noqa: PTH115  a link to no file
    except OSError:
        return None


def _bytes(pid: int, name: str, proc_root: str) -> bytes | None:
    try:
        return procfs.read_bytes(f"{proc_root}/{pid}/{name}", _ARGUMENTS_BYTES, whole=True)
    except OSError:
        return None


def _text(pid: int, name: str, proc_root: str) -> str:
    return sanitised_lines(_bytes(pid, name, proc_root) or b"")


def sanitised_lines(data: bytes) -> str:
    """Return text of the kernel's with each line made safe to show."""
    return "\n".join(sanitise(line, 4096) for line in data.decode("utf-8", "replace").split("\n"))


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(word) for word in (text or "").split() if word.isdigit())
