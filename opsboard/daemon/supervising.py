"""What supervision asks of this daemon: the board, the store, the driver and the canaries behind one face."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

from opsboard.core.clock import Clock
from opsboard.core.model import Restart, Transaction
from opsboard.daemon.canaries import Canaries
from opsboard.daemon.gpu_room import GpuRoom
from opsboard.daemon.pipeline import PipelineState
from opsboard.store.store import Store
from opsboard.supervise.world import Inflight, Surroundings

log = logging.getLogger("opsboard.daemon")

FRESH_S = 3.0
"""A page older than this says nothing of what is under way."""


def surroundings(
    state: PipelineState,
    store: Store,
    clock: Clock,
    *,
    space: GpuRoom,
    canaries: Canaries,
    serving_others: Callable[[str], str | None],
) -> Surroundings:
    """Join them. ``serving_others(name)`` says why an engine must not be taken out of service."""

    def inflight(name: str) -> Inflight | None:
        track = state.engines.get(name)
        if track is None or track.view is None or track.good_mono is None:
            return None
        running, waiting = track.view.running, track.view.waiting
        if running is None or clock.now().mono - track.good_mono > FRESH_S:
            return None
        return Inflight(running + (waiting or 0.0), track.good_mono)

    def version(name: str) -> str | None:
        track = state.engines.get(name)
        return None if track is None or track.view is None else track.view.version

    def on_taken_back(restart: Restart) -> None:
        heed(store.take_back(restart))

    def on_forgiven(name: str) -> None:
        heed(store.forgive(name))

    def on_transaction(transaction: Transaction) -> None:
        heed(store.transaction(transaction))

    return Surroundings(
        room=space.room,
        cleared=space.cleared,
        wedged=space.wedged,
        golden=canaries.golden,
        inflight=inflight,
        version=version,
        serving_others=serving_others,
        on_restart=store.restart,
        on_taken_back=on_taken_back,
        on_forgiven=on_forgiven,
        on_transaction=on_transaction,
    )


def heed(written: Future[None]) -> None:
    """Log a write that fails; nobody waits for it."""

    def look(done: Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            log.warning("not recorded: %s", error)

    written.add_done_callback(look)
