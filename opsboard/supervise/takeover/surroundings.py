"""Who else has a say in a process's life: a container, a systemd unit, a parent that would start it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from opsboard.core.text import sanitise
from opsboard.supervise.takeover.gap import Gap, fatal, small
from opsboard.supervise.takeover.seen import Ancestor, Seen

_HEX = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?=/|$)")
_LXC = re.compile(r"/(?:lxc(?:\.payload)?[./]|machine\.slice/systemd-nspawn@)([\w-]+)")
_UNIT = re.compile(r"[^/]+\.service")
_MANAGER = re.compile(r"user@\d+\.service")
_STARTERS = frozenset({"cron.service", "crond.service", "atd.service", "ssh.service", "sshd.service"})
"""Units whose children are other people's processes, which they do not start again."""
_RESTARTERS = {
    "supervisord": "supervisorctl",
    "runsv": "sv",
    "s6-supervise": "s6-svc",
    "supervise": "svc",
    "circusd": "circusctl",
    "monit": "monit",
    "pm2": "pm2",
    "process-compose": "process-compose",
    "overmind": "overmind",
    "llama-swap": "llama-swap",
    "raylet": "ray",
    "torchrun": "torchrun",
    "nodemon": "nodemon",
    "watchexec": "watchexec",
    "watchmedo": "watchmedo",
    "opsboard-shim": "opsboard",
}
"""Names of parents that start an end of theirs again, and what one asks for it."""
_JOBS = {"slurmstepd": "Slurm", "pbs_mom": "PBS", "sge_shepherd": "Grid Engine", "condor_starter": "HTCondor"}
_LOGINS = frozenset({"sshd", "sshd-session", "login", "tmux: server", "screen", "SCREEN", "mosh-server"})
_WRAPPERS = frozenset(
    {"uv", "sudo", "su", "runuser", "setpriv", "time", "timeout", "conda", "nsys", "tini", "dumb-init"}
)
"""Programs that start one child and wait for it."""
_LOOPS = re.compile(r"(?m)(?:^|[;&|\s])(?:while|until|for)\s")
_OWN_WORLD = ("mnt", "pid", "net", "user")
_WORDS = {"mnt": "file systems", "pid": "process numbers", "net": "network", "user": "users", "ipc": "shared memory"}


def gaps(seen: Seen, ours: Seen) -> Iterator[Gap]:
    """Yield who else would act, and in which world of its own the process lives. ``ours`` is the daemon."""
    boxed = container(seen, ours)
    if boxed is not None:
        engine, name = boxed
        yield fatal(
            "container",
            f"it runs in the {engine} container {name[:12]}, whose image and settings are not to be seen from here",
            _restart_of(engine, name),
        )
    else:
        yield from _namespaces(seen, ours)
        unit = systemd_unit(seen, ours)
        if unit is not None:
            name, command = unit
            alone = not any(set(above.cgroups) & set(seen.cgroups) - {"/"} for above in seen.ancestors)
            role = "is" if alone else "is a part of"
            yield fatal("systemd unit", f"it {role} {name}, which systemd starts, stops and limits", command)
    yield from _parents(seen.ancestors)


def warnings(seen: Seen, ours: Seen) -> Iterator[str]:
    """Yield what is of no consequence for most."""
    if container(seen, ours) is None and seen.cgroups and ours.cgroups and set(seen.cgroups) != set(ours.cgroups):
        place = max(seen.cgroups, key=len)
        yield f"its memory and CPU limits are those of the cgroup {sanitise(place, 200)}; the copy has the daemon's"
    for ancestor in _waiting(seen.ancestors):
        if ancestor.script:
            yield f"pid {ancestor.pid} ({_who(ancestor)}) runs a script that goes on when the engine ends"


def container(seen: Seen, ours: Seen) -> tuple[str, str] | None:
    """Return ``(engine, id)`` of the container of a process; None where there is none, or where we are in it too."""
    for path in seen.cgroups:
        if path in ours.cgroups and seen.namespaces.get("mnt") == ours.namespaces.get("mnt"):
            continue
        found = list(_HEX.finditer(path))
        if found:
            return _engine_of(path), found[-1][1]
        boxed = _LXC.search(path)
        if boxed:
            return "LXC" if "lxc" in path else "systemd-nspawn", boxed[1]
    return None


def systemd_unit(seen: Seen, ours: Seen) -> tuple[str, str] | None:
    """Return the name of the service that a process belongs to and how it is restarted; None where there is none.

    A process below cron or below a login shell of the daemon's own unit is no unit's main process.
    """
    for path in seen.cgroups:
        units = [name for name in _UNIT.findall(path) if not _MANAGER.fullmatch(name)]
        if not units or path in ours.cgroups or units[-1] in _STARTERS:
            continue
        name = sanitise(units[-1], 200)
        words = ["systemctl", "restart", name]
        if _MANAGER.search(path):
            who = seen.account.name if seen.account is not None else str(seen.uids[0] if seen.uids else "")
            words = ["systemctl", "--user", "--machine", f"{who}@", "restart", name]
        return name, _setting(words)
    return None


def _engine_of(path: str) -> str:
    if "kubepods" in path:
        return "Kubernetes"
    return "Podman" if "libpod" in path else "Docker" if "docker" in path else "container engine's"


def _restart_of(engine: str, name: str) -> str:
    if engine == "Kubernetes":
        return "let Kubernetes restart it: kubectl delete pod, or kubectl rollout restart"
    return _setting(["podman" if engine == "Podman" else "docker", "restart", name[:12]])


def _setting(words: Sequence[str]) -> str:
    return f"it is restarted with: {shlex.join(words)}"


def _namespaces(seen: Seen, ours: Seen) -> Iterator[Gap]:
    other = [kind for kind, name in seen.namespaces.items() if ours.namespaces.get(kind, name) != name]
    strict = [_WORDS[kind] for kind in other if kind in _OWN_WORLD]
    if strict:
        yield fatal(
            "namespaces",
            f"it lives in a world of its own ({', '.join(strict)}), made by a sandbox or a unit's settings",
            "let what made that world restart it",
        )
    elif "ipc" in other:
        yield small("namespaces", "it has shared memory of its own, the copy has the daemon's")
    if seen.root not in {None, ours.root}:
        yield fatal("root directory", f"its root directory is {sanitise(seen.root or '')} (chroot)")


def _parents(ancestors: Sequence[Ancestor]) -> Iterator[Gap]:
    for ancestor in takewhile(_starts_things, ancestors):
        program = restarter(ancestor)
        if program is not None:
            yield fatal(
                "parent",
                f"{_who(ancestor)} (pid {ancestor.pid}) would start it again beside a copy",
                "it is supervised by opsboard already" if program == "opsboard" else f"restart it through {program}",
            )
        elif ancestor.name in _JOBS:
            yield fatal(
                "parent",
                f"it is part of a job of {_JOBS[ancestor.name]} (pid {ancestor.pid}), which owns its GPUs and its time",
                "start it again as a job",
            )
    for ancestor in _waiting(ancestors):
        if _LOOPS.search(ancestor.script or ""):
            yield fatal(
                "parent",
                f"{_who(ancestor)} (pid {ancestor.pid}) runs a script with a loop, which may start it again",
                "end that script before the engine is taken over, or let it go on restarting the engine",
            )


def _starts_things(ancestor: Ancestor) -> bool:
    """False where a person comes in: what stands above a login or a shell that is typed into starts nothing again."""
    return ancestor.name not in _LOGINS and not (ancestor.is_shell and ancestor.script is None)


def _waiting(ancestors: Sequence[Ancestor]) -> Iterator[Ancestor]:
    """Yield the shells that wait for the process, straight or by a program that only waits itself."""
    for ancestor in takewhile(_starts_things, ancestors):
        if ancestor.is_shell:
            yield ancestor
        elif ancestor.name not in _WRAPPERS:
            return


def restarter(ancestor: Ancestor) -> str | None:
    """Return what one asks to restart a child of this process, None when it starts nobody again."""
    words = [ancestor.name, *(Path(word).name for word in ancestor.argv[:2])]
    if ancestor.argv and ancestor.argv[0].startswith("PM2 "):
        return "pm2"
    return next((_RESTARTERS[word] for word in words if word in _RESTARTERS), None)


def _who(ancestor: Ancestor) -> str:
    script = next((word for word in ancestor.argv[1:] if not word.startswith("-")), None)
    if ancestor.is_shell and script is not None and not any("c" in w for w in ancestor.argv[1:2] if w.startswith("-")):
        return f"{sanitise(ancestor.name, 40)} {sanitise(script, 120)}"
    return sanitise(ancestor.name, 40)
