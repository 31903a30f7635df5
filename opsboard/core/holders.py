"""Who holds memory of a GPU and is no engine's, in words."""

from __future__ import annotations

from collections.abc import Iterable

from opsboard.core.model import GpuProcess
from opsboard.core.wire import Gpu

GIB = 1 << 30


def strangers(gpus: Iterable[Gpu]) -> list[str]:
    """Return a line for each that was looked up, card by card, the largest first."""
    return [
        f"GPU {gpu.index}: {stranger(process)}"
        for gpu in gpus
        for process in sorted(gpu.processes, key=lambda one: -(one.memory_bytes or 0))
        if is_strange(process)
    ]


def is_strange(process: GpuProcess) -> bool:
    """Tell whether a process was looked up because it is no engine's."""
    return process.engine is None and (process.name is not None or process.left is not None)


def stranger(process: GpuProcess) -> str:
    """Say what a process holds, who it is and whose."""
    user = None if process.user is None else f"user {process.user}"
    known = ", ".join(part for part in (process.name, user) if part)
    held = f"{(process.memory_bytes or 0) / GIB:.1f} GiB by pid {process.pid}"
    said = f"{held} ({known})" if known else held
    if process.left is None:
        return f"{said}, not ours"
    return f"{said}, left of the last life of {process.left}: `opsboard engine stop {process.left}` ends it"
