"""The processes of an engine: who they are, what memory and CPU they use; and the identity of a process over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial

from collectors import procfs
from collectors.procfs import descendants
from opsboard.core.aside import Brief
from opsboard.core.clock import Clock, SystemClock
from opsboard.core.model import Outcome, ProcessReading, ProcessView, Record
from opsboard.core.text import sanitise

__all__ = ["ProcessIdentity", "ProcessReader", "RoleOf", "alive", "descendants", "identity"]

RoleOf = Callable[[str, Sequence[str]], str | None]
"""Maps a process's name and arguments to its role in an engine, None when it is none (``Dialect.process_role``)."""

_COMM_LIMIT = 15  # TASK_COMM_LEN of the kernel, less the final NUL
WALK_EVERY_S = 5.0
"""The tree is walked anew this often, and at once when a known process is gone; in between only known ones are read."""


ARGV_S = 0.1
"""What reading a process's arguments may take. They lie in its memory, whose lock a process in state D may hold."""


class ProcessIdentity(Record, frozen=True, kw_only=True):
    """One process and no other: a pid is used again, a pid with its start and its boot is not."""

    pid: int
    start_ticks: int
    boot_id: str


@lru_cache(maxsize=8)
def _boot_id(root: str) -> str:
    return procfs.boot_id(root)


def identity(pid: int, proc_root: str = procfs.PROC) -> ProcessIdentity | None:
    """Return who runs under ``pid`` now, None when nobody lives there (a zombie does not live)."""
    line = procfs.stat(pid, proc_root)
    if line is None or line.ended:
        return None
    return ProcessIdentity(pid=pid, start_ticks=line.start_ticks, boot_id=_boot_id(proc_root))


def alive(known: ProcessIdentity, proc_root: str = procfs.PROC) -> bool:
    """Tell whether exactly this process still runs; another under its pid, or of an earlier boot, does not count."""
    return identity(known.pid, proc_root) == known


class _Seen(Record, frozen=True):
    """What one look leaves for the next: who it was (start_ticks), and its CPU time at a moment."""

    start_ticks: int
    cpu_ticks: int
    mono: float
    name: str
    role: str


class _Tree(Record, frozen=True):
    """The pids of an engine as the last walk found them."""

    root: int
    walked: float
    pids: tuple[int, ...]


class ProcessReader:
    """Reads the processes of engines from /proc; remembers one look per engine for CPU use."""

    def __init__(self, proc_root: str = procfs.PROC, clock: Clock | None = None) -> None:
        """Read below ``proc_root``; ``clock`` gives the time between two looks."""
        self._root = proc_root
        self._clock = clock or SystemClock()
        self._boot_time: float | None = None
        self._trees: dict[str, _Tree] = {}
        self._seen: dict[str, dict[int, _Seen]] = {}
        self._arguments: dict[str, Brief] = {}

    def read(self, engine: str, pids: int | Iterable[int], role_of: RoleOf) -> ProcessReading:
        """Return the processes of ``engine``: an int is the root of their tree, an iterable names them all.

        NO_DATA when none of them lives, FAILED when /proc does not let us look; never raises for either.
        """
        mono = self._clock.now().mono
        try:
            if isinstance(pids, int):
                found, walked = self._pids_below(engine, pids, mono)
            else:
                found, walked = tuple(pids), True
            views = self._look(engine, found, role_of, mono, fresh=walked)
            if not walked and len(views) < len(found):  # someone left: who is there now?
                del self._trees[engine]
                found, _ = self._pids_below(engine, found[0], mono)
                views = self._look(engine, found, role_of, mono, fresh=True)
            zombies = tuple(pid for pid in found if self._zombie(pid)) if len(views) < len(found) else ()
        except OSError as error:
            self.forget(engine)
            return ProcessReading(engine=engine, outcome=Outcome.FAILED, error=f"cannot read {self._root}: {error}")
        if not views:
            self.forget(engine)
            who = f"process {pids} has ended" if isinstance(pids, int) else "no process is running"
            return ProcessReading(engine=engine, outcome=Outcome.NO_DATA, zombies=zombies, error=who)
        return ProcessReading(engine=engine, outcome=Outcome.OK, processes=views, zombies=zombies)

    def forget(self, engine: str) -> None:
        """Drop what is remembered of an engine that is gone."""
        self._trees.pop(engine, None)
        self._seen.pop(engine, None)
        self._arguments.pop(engine, None)

    def _pids_below(self, engine: str, root: int, mono: float) -> tuple[tuple[int, ...], bool]:
        tree = self._trees.get(engine)
        if tree is not None and tree.root == root and mono - tree.walked < WALK_EVERY_S:
            return tree.pids, False
        below = (root, *descendants(root, self._root))
        self._trees[engine] = _Tree(root, mono, below)
        return below, True

    def _look(
        self, engine: str, pids: tuple[int, ...], role_of: RoleOf, mono: float, *, fresh: bool
    ) -> tuple[ProcessView, ...]:
        before = self._seen.get(engine, {})
        after: dict[int, _Seen] = {}
        views: list[ProcessView] = []
        for pid in pids:
            line = procfs.stat(pid, self._root)
            if line is None or line.ended:
                continue
            used = procfs.memory(pid, self._root)
            if used is None:
                continue
            old = before.get(pid)
            if old is not None and old.start_ticks != line.start_ticks:
                old = None
            if old is not None and not fresh:
                name, role = old.name, old.role
            else:  # processes rename themselves some time after they began
                name, role = self._who(engine, pid, line.comm, role_of, old)
            after[pid] = _Seen(line.start_ticks, line.cpu_ticks, mono, name, role)
            views.append(
                ProcessView(
                    pid=pid,
                    started=self._started(line.start_ticks),
                    name=name,
                    role=role,
                    rss_bytes=used.rss,
                    rss_anon_bytes=used.rss_anon,
                    swap_bytes=used.swap,
                    cpu_ratio=_cpu_ratio(old, line.cpu_ticks, mono),
                )
            )
        self._seen[engine] = after
        return tuple(views)

    def _zombie(self, pid: int) -> bool:
        line = procfs.stat(pid, self._root)
        return line is not None and line.ended

    def _who(self, engine: str, pid: int, comm: str, role_of: RoleOf, old: _Seen | None) -> tuple[str, str]:
        brief = self._arguments.get(engine)
        if brief is None:
            brief = self._arguments[engine] = Brief(f"arguments of {engine}")
        try:
            arguments = brief.do(partial(procfs.argv, pid, self._root), ARGV_S)
        except TimeoutError:
            if old is not None:
                return old.name, old.role
            arguments = ()
        role = role_of(comm, arguments) or "other"
        title = arguments[0] if arguments else ""
        whole = title if len(comm) >= _COMM_LIMIT and title.startswith(comm) else comm  # a title that the kernel cut
        return sanitise(whole, 80), role

    def _started(self, start_ticks: int) -> float:
        if self._boot_time is None:
            self._boot_time = procfs.boot_time(self._root)
        return self._boot_time + start_ticks / procfs.TICKS_PER_SECOND


def _cpu_ratio(old: _Seen | None, cpu_ticks: int, mono: float) -> float | None:
    """Cores used since the last look; the kernel counts in ticks of 10 ms, so two looks within 50 ms say nothing."""
    if old is None or mono - old.mono < 0.05:
        return None
    return max(0, cpu_ticks - old.cpu_ticks) / procfs.TICKS_PER_SECOND / (mono - old.mono)
