"""As whom a process runs and with which rights, held against what a copy can have."""

from __future__ import annotations

from collections.abc import Iterator

from opsboard.core.text import sanitise
from opsboard.supervise.manners import UNLIMITED, Manners
from opsboard.supervise.takeover.gap import Gap, fatal, small
from opsboard.supervise.takeover.seen import Seen

_CAPABILITIES = ("CapEff", "CapAmb")
_AS_ROOT = "run the daemon as root"
ROOT = 0


def user_of(seen: Seen, ours: Seen) -> str | None:
    """Return the user a copy is started as; None keeps the daemon's own."""
    if ours.uids[:1] != (ROOT,):
        return None
    return seen.account.name if seen.account is not None else None


def gaps(seen: Seen, ours: Seen) -> Iterator[Gap]:
    """Yield what a copy cannot have of the owner, the groups, the capabilities, the manners."""
    if not seen.uids or not seen.gids:
        yield fatal("user", "its owner may not be seen", _AS_ROOT)
        return
    yield from _user(seen, ours)
    yield from _groups(seen, ours)
    yield from _rights(seen, ours)
    yield from _manners(seen.manners, ours.manners, root=ours.uids[0] == ROOT)


def warnings(seen: Seen, ours: Seen) -> Iterator[str]:
    """Yield how a copy would be freer or more watched than the process is."""
    for field, what in (("NoNewPrivs", "may gain no rights (no_new_privs)"), ("Seccomp", "has a seccomp filter")):
        if seen.status.get(field, "0") != "0" and seen.status.get(field) != ours.status.get(field):
            yield f"it {what}; the copy has none of that"
    if seen.label != ours.label:
        yield f"its security label is {sanitise(seen.label or 'none', 80)}; the copy's is {ours.label or 'none'}"
    tracer = seen.status.get("TracerPid", "0")
    if tracer != "0":
        yield f"pid {tracer} traces it (a debugger or a profiler)"
    if seen.status.get("State", "").startswith(("T", "t")):
        yield "it is suspended (SIGSTOP)"


def _user(seen: Seen, ours: Seen) -> Iterator[Gap]:
    uid = seen.uids[0]
    name = seen.account.name if seen.account is not None else f"uid {uid}"
    if len(set(seen.uids)) > 1 or len(set(seen.gids)) > 1:
        yield fatal("user", "it runs with the rights of several users (set-user-ID)")
    elif ours.uids[0] == ROOT:
        if seen.account is None:
            yield fatal("user", f"uid {uid} has no name here", "give it an entry in the user database")
    elif uid != ours.uids[0]:
        yield fatal("user", f"it runs as {name}, and the daemon is not root", f"{_AS_ROOT} or as {name}")


def _groups(seen: Seen, ours: Seen) -> Iterator[Gap]:
    if ours.uids[0] != ROOT:
        gid, groups = ours.gids[0], set(ours.groups)
    elif seen.account is not None:
        gid, groups = seen.account.gid, set(seen.account.groups)
    else:
        return
    if seen.gids[0] != gid:
        yield small("group", f"its group is {seen.gids[0]}, the copy's {gid}: files it writes belong to that one")
    lacking = sorted(set(seen.groups) - groups - {gid})
    if lacking:
        yield small(
            "groups",
            f"the copy is not in the groups {', '.join(map(str, lacking))}, which may open devices and files to it",
            "add the engine's user to them",
        )


def _rights(seen: Seen, ours: Seen) -> Iterator[Gap]:
    had = {field: int(seen.status.get(field, "0") or "0", 16) for field in _CAPABILITIES}
    effective = int(ours.status.get("CapEff", "0") or "0", 16)
    if seen.uids[0] != ROOT and any(had.values()):
        yield small(
            "capabilities",
            f"it has capabilities (CapEff {had['CapEff']:x}) that a copy of an ordinary user has not",
            "give them to its program with setcap, or drop what needs them",
        )
    elif seen.uids[0] == ROOT and (lacking := had["CapEff"] & ~effective):
        yield small("capabilities", f"it has capabilities ({lacking:x}) that the daemon cannot hand on")


def _manners(wanted: Manners, ours: Manners, *, root: bool) -> Iterator[Gap]:
    """Yield what nobody but root may raise. All else the copy gets."""
    if root:
        return
    for name, (soft, hard) in sorted(wanted.limits.items()):
        most = ours.limits.get(name, (soft, hard))[1]
        if most != UNLIMITED and (hard == UNLIMITED or hard > most):
            said = name.removeprefix("RLIMIT_").lower()
            usable = "" if UNLIMITED != soft <= most else f", and {_limit(soft)} was in use"
            yield small(f"limit {said}", f"it was {_limit(hard)}{usable}; the daemon may give {most}", "raise it there")
    if None not in {wanted.nice, ours.nice} and (wanted.nice or 0) < (ours.nice or 0):
        yield small("priority", f"nice {wanted.nice} is beyond what the daemon may give ({ours.nice})")
    if None not in {wanted.oom_score_adj, ours.oom_score_adj}:
        score, least = wanted.oom_score_adj or 0, ours.oom_score_adj or 0
        if score < least:
            yield small("OOM score", f"{score} protects it from being killed for memory; the copy has {least}")


def _limit(value: int) -> str:
    return "unlimited" if value == UNLIMITED else str(value)
