"""Who is on our GPUs and should not be: what a life of ours left behind, and strangers.

An orphan is a process that provably belongs to a life of ours whose main process is gone: it is ended with the
engine's next stop or start. Everybody else is a stranger: shown as "not ours", never touched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from opsboard.core.model import GpuView, Record
from opsboard.supervise import bundle
from opsboard.supervise.adopt import Remains, examine, processes_of
from opsboard.supervise.processes import Process
from opsboard.supervise.who import Who, who

log = logging.getLogger("opsboard.supervise")

GIB = 1 << 30


class Orphan(Record, frozen=True, kw_only=True):
    """A process of a life that is over. ``proof`` says in words why it is ours."""

    engine: str
    pid: int
    name: str
    proof: str

    def __str__(self) -> str:
        """Name it."""
        return f"pid {self.pid} ({self.name})"


class Holder(Record, frozen=True, kw_only=True):
    """A process that holds memory of a GPU, and whose it is.

    ``memory_bytes`` is None where the driver cannot tell: then the pid may be one of another PID namespace, and nothing
    else is said of it.
    """

    who: Who
    gpu: str
    """The uuid of the card or MIG instance."""
    memory_bytes: int | None = None
    engine: str | None = None
    """The engine it serves, or served when it is ``left`` of a life that is over; None: not ours."""
    left: bool = False

    def __str__(self) -> str:
        """Say what it holds and whose it is."""
        held = "unknown memory" if self.memory_bytes is None else gib(self.memory_bytes)
        if self.memory_bytes is None:
            return f"{held} by {self.who}, perhaps of another PID namespace, not ours"
        if self.left:
            return f"{held} by {self.who}, left of the last life of {self.engine}"
        return f"{held} by {self.who}, {'not ours' if self.engine is None else f'engine {self.engine}'}"


class Ours(Record, frozen=True, kw_only=True):
    """The processes of all engines of this state directory: those that serve, by engine, and those left behind."""

    serving: Mapping[str, Collection[int]]
    left: tuple[Orphan, ...] = ()


def ours(engines: Path) -> Ours:
    """Return who of the lives in the directory ``engines`` runs now. Reads files and /proc, blocks for milliseconds."""
    serving: dict[str, list[int]] = {}
    left: list[Orphan] = []
    for folder in sorted(engines.iterdir()) if engines.is_dir() else ():
        try:
            remains = examine(folder)
            recorded = processes_of(bundle.read(str(folder), bundle.STATUS) or {})
        except OSError as error:  # one engine's disk stops no other engine's start
            log.warning("%s: cannot be looked at: %s", folder, error)
            continue
        if remains is None:
            continue
        left += orphans(folder.name, remains, recorded)
        if remains.main is not None:
            serving[folder.name] = [remains.main.pid, *(process.pid for process in remains.others)]
    return Ours(serving=serving, left=tuple(left))


def orphans(engine: str, remains: Remains, recorded: Iterable[Mapping[str, object]]) -> list[Orphan]:
    """Return who is left of the last life of ``engine``; ``recorded`` are the processes that its shim wrote down.

    Nobody while the main process lives, and nobody of an earlier boot: its pids name others by now.
    """
    if remains.main is not None or not remains.same_boot:
        return []
    known = {(record.get("pid"), record.get("start_ticks")) for record in recorded}
    return [
        Orphan(engine=engine, pid=process.pid, name=process.name, proof=_proof(process, remains, known))
        for process in remains.others
    ]


def _proof(process: Process, remains: Remains, known: Collection[tuple[object, object]]) -> str:
    if (process.pid, process.start_ticks) in known:
        return f"pid and start time are in the record of life {remains.life}, made in this boot"
    return f"it descends from life {remains.life} or carries its mark"


def holders(gpus: Iterable[GpuView], known: Ours, look: Callable[[int], Who] = who) -> list[Holder]:
    """Return who holds memory of ``gpus``, card by card, the largest first. ``look`` says who a process is."""
    serving = {pid: engine for engine, pids in known.serving.items() for pid in pids}
    orphaned = {orphan.pid: orphan.engine for orphan in known.left}
    return [
        Holder(who=Who(pid=process.pid), gpu=gpu.uuid)
        if process.memory_bytes is None
        else Holder(
            who=look(process.pid),
            gpu=gpu.uuid,
            memory_bytes=process.memory_bytes,
            engine=orphaned.get(process.pid) or serving.get(process.pid),
            left=process.pid in orphaned,
        )
        for gpu in gpus
        for process in sorted(gpu.processes, key=lambda one: -(one.memory_bytes or 0))
    ]


def gib(size: int) -> str:
    """Return bytes as people compare them with the size of a card."""
    return f"{size / GIB:.1f} GiB"
