"""Publishes over MQTT what is true now and what happens, for machines: dashboards, homes, other hosts.

States are no messages that wait: each second what is true is compared with what this connection has said, so a broker
that was away for an hour costs nothing meanwhile and hears the present state when it is back. Only events wait, the
newest ``EVENTS`` of them. What people must hear goes through the outbox to channels instead.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from opsboard.config import schema
from opsboard.core.clock import Clock, Now
from opsboard.core.errors import Conflict
from opsboard.core.model import Event
from opsboard.core.wire import ActionAccepted, ActionRequest
from opsboard.daemon.flow import Flow
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.taskset import TaskSet

if TYPE_CHECKING:
    from opsboard.daemon.mqtt_commands import Act
    from opsboard.daemon.mqtt_publisher import Publisher


class Mqtt:
    """Publishes while it is configured; without, nothing of it is loaded."""

    def __init__(self, clock: Clock, state: PipelineState, flow: Flow, tasks: TaskSet) -> None:
        """Publish nothing yet."""
        self._clock = clock
        self._state = state
        self._flow = flow
        self._tasks = tasks
        self._config: schema.Mqtt | None = None
        self._publisher: Publisher | None = None
        self.wrong: Callable[[Now], str | None] = lambda _now: None
        """Says what keeps people from being told."""
        self.act: Act | None = None
        """Takes commands on; None: nothing does yet."""

    def configure(self, path: Path | None, config: schema.Mqtt | None) -> None:
        """Begin, end, or go on with another configuration. Raises ConfigError."""
        if config == self._config:
            return
        self._config = config
        if config is None:
            self._publisher = None
            self._flow.on_event = lambda _event: None
            self._tasks.remove("mqtt")
            return
        from opsboard.daemon.mqtt_publisher import Publisher  # noqa: PLC0415  costs memory that most daemons can save

        before = self._publisher
        publisher = self._publisher = Publisher(
            self._clock,
            self._state,
            path,
            config,
            wrong=lambda now: self.wrong(now),  # noqa: PLW0108  it is said later
            tell=self._flow.tell,
            act=self._act,
            after=before.ended if before is not None and before.begun else None,
        )
        self._flow.on_event = self._hear
        self._tasks.add("mqtt", publisher.run)

    async def _act(self, name: str, request: ActionRequest, peer: None) -> ActionAccepted:
        if self.act is None:
            raise Conflict("the daemon has only begun", hint="try again")
        return await self.act(name, request, peer)

    def _hear(self, event: Event) -> None:
        if self._publisher is not None:
            self._publisher.hear(event)
