"""The line of /proc/PID/stat (proc(5)), read in one place. Standard library only: the shim stands on it too."""

from __future__ import annotations

from typing import NamedTuple


class Stat(NamedTuple):
    """What the line says, as far as it matters here. Times in clock ticks (``SC_CLK_TCK`` a second)."""

    comm: str
    """The name as the kernel cuts it: 15 bytes."""
    state: str
    """One letter: R, S, D, Z (zombie), X (dead), ..."""
    parent: int
    group: int
    cpu_ticks: int
    """User and system time."""
    start_ticks: int
    """Since boot; with the pid and the boot id it names a process for ever."""

    @property
    def ended(self) -> bool:
        """True for a zombie: it holds a pid and an exit status, nothing else."""
        return self.state in "ZX"


def parse(data: bytes) -> Stat | None:
    """Return what one stat line says, None when it is none (the process went while it was read)."""
    head, _, tail = data.rpartition(b")")  # the name may hold blanks and brackets
    fields = tail.split()
    if len(fields) < 20:
        return None
    return Stat(
        comm=head.partition(b"(")[2].decode("utf-8", "replace"),
        state=fields[0].decode("ascii", "replace"),
        parent=int(fields[1]),
        group=int(fields[2]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start_ticks=int(fields[19]),
    )
