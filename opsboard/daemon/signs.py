"""Signs of life: to the service manager, and to whoever watches from outside that this host has not fallen silent.

The manager kills a daemon that stands still; a full disk is no reason for that. Who watches from outside (a dead man's
switch) hears nothing while any part of the way from a reading to a message is broken.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable

from alerts.timeline import told_s
from alerts.transport import refused_address
from opsboard.config.schema import Heartbeat
from opsboard.core.clock import Clock, Now
from opsboard.core.deliveries import ChannelHealth
from opsboard.core.errors import FetchError
from opsboard.daemon.health import Health
from opsboard.daemon.notify import Notifier
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.tasks import on_grid
from opsboard.daemon.taskset import TaskSet
from opsboard.httpc.fetch import Fetcher, Limits
from opsboard.store.store import StoreHealth

log = logging.getLogger("opsboard.daemon")

STATUS_LINE_S = 10.0
BEHIND_S = 30.0
"""The disk is behind by more: what is seen is not written down."""
UNTOLD_S = 600.0
"""A message waits for longer: people are not told."""
ANSWER_BYTES = 4096


class Signs:
    """Gives them. What is wrong is one sentence for people."""

    def __init__(
        self,
        clock: Clock,
        state: PipelineState,
        health: Health,
        *,
        store: Callable[[], StoreHealth],
        channels: Callable[[], Iterable[ChannelHealth]],
        notifier: Notifier,
    ) -> None:
        """Give none yet; :meth:`configure` begins."""
        self._clock = clock
        self._state = state
        self._health = health
        self._store = store
        self._channels = channels
        self._notifier = notifier
        self._heartbeat: Heartbeat | None = None
        self._fetcher = Fetcher(
            Limits(body_bytes=ANSWER_BYTES, error_bytes=ANSWER_BYTES, cut=True, total_s=10.0),
            refused=refused_address,
            environment=os.environ,
        )
        self._silent: str | None = None

    def configure(self, heartbeat: Heartbeat | None, tasks: TaskSet) -> None:
        """Begin, or go on with another configuration."""
        if self._notifier.active:
            every_s = min(STATUS_LINE_S, (self._notifier.watchdog_s or STATUS_LINE_S * 3) / 3)
            tasks.add("manager", lambda: on_grid(every_s, self._tell_manager))
        self._heartbeat = heartbeat
        if heartbeat is None:
            tasks.remove("heartbeat")
        else:
            tasks.add("heartbeat", lambda: on_grid(heartbeat.every, self._beat))

    def turning(self) -> bool:
        """Return whether readings come in: what the manager asks."""
        return self._health.healthy(self._clock.now())

    def wrong(self, now: Now) -> str | None:
        """Return the first thing that keeps what is seen from being told; None: all is well."""
        if not self._health.healthy(now):
            return "nothing is collected"
        store = self._store()
        if not store.recorded:
            return store.message or "nothing can be written down"
        if store.lag_s > BEHIND_S:
            return f"the disk is {told_s(store.lag_s)} behind"
        for channel in self._channels():
            if channel.oldest is not None and now.wall - channel.oldest > UNTOLD_S:
                why = f": {channel.error}" if channel.error else ""
                return f"{channel.name} could not be told for {told_s(now.wall - channel.oldest)}{why}"
        return None

    async def _tell_manager(self) -> None:
        states = [track.state for track in self._state.engines.values()]
        ready = sum(state == "ready" for state in states)
        self._notifier.status(f"{ready} of {len(states)} engines ready")
        if self.turning():
            self._notifier.feed()

    async def _beat(self) -> None:
        """Say that all is well, or why not where that is understood; a watcher that is away is only logged."""
        beat = self._heartbeat
        if beat is None:
            return
        wrong = self.wrong(self._clock.now())
        if wrong != self._silent:
            log.log(*((logging.WARNING, "no heartbeat: %s", wrong) if wrong else (logging.INFO, "heartbeat")))
            self._silent = wrong
        if wrong is not None and not beat.fail:
            return
        address = beat.url.reveal().rstrip("/") + ("/fail" if wrong is not None else "")
        try:
            reply = await self._fetcher.send("POST", address, (wrong or "").encode(), headers={"Accept": "*/*"})
        except FetchError as error:
            log.warning("the heartbeat was not taken: %s", error.message)
            return
        if not 200 <= reply.status < 300:
            log.warning("the heartbeat was not taken: HTTP %d", reply.status)
