"""An engine below a shim of ours: the default, which needs nothing but a kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from opsboard.supervise.adopt import Remains, examine_within
from opsboard.supervise.launch import LaunchSpec, launch, rehearse
from opsboard.supervise.runners.base import LastWords, Place, Tell
from opsboard.supervise.situation import Exited
from opsboard.supervise.stopping import end_life
from opsboard.supervise.watching import ended, how_it_ended


class ShimRunner:
    """Everything is done by the shim (:mod:`opsboard.supervise.shim`); what was taken over has none yet."""

    name = "shim"
    restarts_itself = False
    replaces = False

    async def rehearse(self, spec: LaunchSpec, place: Place) -> None:
        """See :class:`Runner`."""
        await asyncio.to_thread(rehearse, spec, place.bundle, place.runtime_dir)

    async def start(self, spec: LaunchSpec, place: Place, *, instance: str, life: int) -> None:
        """See :class:`Runner`."""
        await launch(spec, place.bundle, place.runtime_dir, instance=instance, life=life)

    async def find(self, _spec: LaunchSpec, place: Place, budget_s: float) -> Remains | None:
        """See :class:`Runner`."""
        return await examine_within(place.bundle, budget_s)

    async def attend(self, _spec: LaunchSpec, _place: Place, _remains: Remains, _tell: Tell) -> None:
        """Do nothing: the shim writes the records and the engine its own log."""

    async def over(self, _spec: LaunchSpec, _place: Place, remains: Remains) -> None:
        """See :class:`Runner`."""
        if remains.main is not None:
            await ended(remains.main)

    async def how_it_ended(self, _spec: LaunchSpec, place: Place, last_words: LastWords) -> Exited:
        """See :class:`Runner`."""
        return await how_it_ended(place.bundle, await asyncio.to_thread(last_words))

    async def end(self, spec: LaunchSpec, place: Place, by: str, tell: Tell, stuck: Callable[[str], None]) -> None:  # noqa: ARG002
        """See :class:`Runner`."""
        await end_life(place.bundle, spec.stop_timeout_s, by, stuck)
