"""What supervision asks of GPUs, answered from this daemon's driver and from what it last saw."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from opsboard.core.clock import Clock
from opsboard.daemon.collecting import Gpus
from opsboard.daemon.pipeline import PipelineState
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.room import memory_freed, room
from opsboard.supervise.wedged import wedged


class GpuRoom:
    """The GPU side of :class:`~opsboard.supervise.world.Surroundings`."""

    def __init__(self, gpus: Gpus, state: PipelineState, state_dir: Path, clock: Clock) -> None:
        """``gpus`` asks the driver; bundles of engines lie in ``state_dir/engines``."""
        self._gpus = gpus
        self._state = state
        self._engines = state_dir / "engines"
        self._clock = clock

    async def room(self, spec: LaunchSpec) -> None:
        """Raise NoRoom when an engine cannot be started now."""
        track = self._state.engines.get(spec.name)
        version = track.view.version if track is not None and track.view is not None else None
        pids = self._state.pids_by_engine
        await room(spec, self._gpus.read, engines=self._engines, pids_by_engine=pids, version=version)

    async def cleared(self, pids: Collection[int], gpus: Sequence[str] | None, deadline_s: float) -> str | None:
        """Return None once ``pids`` hold no GPU memory any more, after ``deadline_s`` seconds who holds it."""
        return await memory_freed(pids, gpus, self._gpus.read, deadline_s)

    def wedged(self, gpus: Sequence[str] | None) -> str | None:
        """Return what a person must do to one of ``gpus`` before anything can run on it, by the newest reading."""
        known = self._state.gpus
        return None if known is None else wedged(known.gpus, gpus, self._clock.now().wall)
