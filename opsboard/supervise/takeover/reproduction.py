"""All that a copy of a running process needs, and all that it cannot have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from opsboard.core.errors import SuperviseError
from opsboard.core.model import Record
from opsboard.core.secret import Secret, without_secrets
from opsboard.core.text import sanitise
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.manners import Manners
from opsboard.supervise.processes import alive, boot_id
from opsboard.supervise.takeover import identity, program, surroundings, variables
from opsboard.supervise.takeover.gap import Gap
from opsboard.supervise.takeover.seen import Seen, see


class Reproduction(Record, frozen=True, kw_only=True):
    """A process as it would be started again. ``pid``, ``start_ticks`` and ``boot_id`` name the one that runs.

    ``argv`` may hold secrets (``--api-key``): show :attr:`shown`. ``dropped`` names variables of an old session.
    """

    pid: int
    start_ticks: int
    boot_id: str
    argv: tuple[str, ...]
    cwd: str | None
    exe: str | None
    env: Mapping[str, Secret]
    user: str | None
    """Whom a copy runs as; None is the daemon's own user."""
    uid: int | None
    gid: int | None
    groups: tuple[int, ...]
    manners: Manners
    output: str | None = None
    """The file it writes its log to, if it is one."""
    cannot: tuple[Gap, ...] = ()
    warnings: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def fatal(self) -> tuple[Gap, ...]:
        """What forbids a copy."""
        return tuple(gap for gap in self.cannot if gap.fatal)

    @property
    def shown(self) -> tuple[str, ...]:
        """The command line without its secrets, safe to show."""
        return tuple(sanitise(word) for word in without_secrets(self.argv))

    @property
    def lives(self) -> bool:
        """Tell whether this very process still runs."""
        return self.boot_id == boot_id() and alive(self.pid, self.start_ticks)

    def __repr__(self) -> str:
        """Show no argument that is a secret."""
        return f"Reproduction(pid={self.pid}, shown={self.shown}, cannot={self.cannot})"


def reproduce(pid: int) -> Reproduction:
    """Return what a copy of ``pid`` needs and lacks. Blocks for milliseconds.

    Raises:
        SuperviseError: it is gone, or another process took its pid while we looked.
    """
    return judge(see(pid), see_ourselves())


def see_ourselves() -> Seen:
    """Return how the daemon looks, from which a copy inherits."""
    return see(os.getpid())


def judge(seen: Seen, ours: Seen) -> Reproduction:
    """Return what a copy of ``seen``, started by the process ``ours``, needs and lacks."""
    environment = variables.judge(seen)
    output = next((seen.fds[n] for n in (2, 1) if seen.fds and seen.fds.get(n, "").startswith("/")), None)
    return Reproduction(
        pid=seen.pid,
        start_ticks=seen.start_ticks,
        boot_id=seen.boot_id,
        argv=seen.argv,
        cwd=seen.cwd,
        exe=seen.exe,
        env=environment.kept,
        user=identity.user_of(seen, ours),
        uid=seen.uids[0] if seen.uids else None,
        gid=seen.gids[0] if seen.gids else None,
        groups=seen.groups,
        manners=seen.manners,
        output=None if output is None or output.startswith("/dev/") else output,
        cannot=(
            *surroundings.gaps(seen, ours),
            *program.gaps(seen),
            *environment.gaps,
            *identity.gaps(seen, ours),
        ),
        warnings=(
            *program.warnings(seen),
            *environment.warnings,
            *identity.warnings(seen, ours),
            *surroundings.warnings(seen, ours),
        ),
        dropped=environment.dropped,
    )


def to_launch(reproduction: Reproduction, name: str, url: str, **settings: Any) -> LaunchSpec:
    """Return how the engine ``name`` is started again as it was; ``settings`` are further fields of the spec.

    Raises:
        SuperviseError: it cannot be, with every reason and the first hint.
    """
    if reproduction.fatal:
        why = "; ".join(gap.text for gap in reproduction.fatal)
        hint = next((gap.hint for gap in reproduction.fatal if gap.hint is not None), None)
        raise SuperviseError(f"engine {name} (pid {reproduction.pid}) cannot be reproduced: {why}", hint=hint)
    return msgspec.structs.replace(
        LaunchSpec(
            name=name,
            command=reproduction.argv,
            url=url,
            env=dict(reproduction.env),
            inherits=False,
            manners=reproduction.manners,
            cwd=reproduction.cwd,
            user=reproduction.user,
            gpus=_gpus(reproduction.env),
        ),
        **settings,
    )


def api_key(reproduction: Reproduction) -> Secret | None:
    """Return the key that a vLLM asks its clients for, None when it asks for none.

    The first of ``--api-key KEY [KEY ...]``, which passes over VLLM_API_KEY
    (vllm/entrypoints/serve/middleware/register.py).
    """
    for place, word in enumerate(reproduction.argv):
        option, equals, value = word.partition("=")
        if option in {"--api-key", "--api_key"}:
            value = value if equals else next(iter(reproduction.argv[place + 1 : place + 2]), "")
            return Secret(value) if value else None
    found = reproduction.env.get("VLLM_API_KEY")
    return found if found is not None and found.reveal() else None


def _gpus(env: Mapping[str, Secret]) -> tuple[str, ...] | None:
    """Return the GPUs that the environment names for certain; None leaves it to the environment alone.

    Numbers count cards as NVML does only with CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    visible = env.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    words = tuple(visible.reveal().split(","))
    order = env.get("CUDA_DEVICE_ORDER")
    ordered = order is not None and order.reveal() == "PCI_BUS_ID"
    certain = all(word.startswith(("GPU-", "MIG-")) or (ordered and word.isdigit()) for word in words)
    return words if certain else None
