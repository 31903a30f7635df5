"""Tells people: what is new of an incident enters the outbox with it, and a worker a channel sends it.

A channel that cannot deliver is an incident of its own, told by the others; they hear of its pages, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Any, Protocol

from msgspec.structs import replace

from alerts.delivery import WHY_CHARS, Worker
from alerts.delivery import Outbox as Waiting
from alerts.incidents import Claim
from alerts.mending import eased
from alerts.message import About
from alerts.notifier import Later, Outcome, Refused
from alerts.routes import routes
from alerts.telling import Manners, Telling
from alerts.transport import Transport
from alerts.trial import trial_ends
from opsboard.config.channels import ChannelSetting, channel_settings
from opsboard.config.load import Loaded
from opsboard.config.schema import Config
from opsboard.core.clock import Clock, Now
from opsboard.core.deliveries import ChannelHealth, Delivery, Message, NewDelivery
from opsboard.core.errors import StoreError
from opsboard.core.incidents import Incident, Urgency
from opsboard.core.quiet import quiet
from opsboard.core.registry import notifiers
from opsboard.core.text import sanitise
from opsboard.daemon.flow import Flow
from opsboard.daemon.mqtt import Mqtt
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.sparks import Past, Sparks
from opsboard.daemon.supervising import heed
from opsboard.daemon.tasks import on_grid
from opsboard.daemon.taskset import TaskSet

log = logging.getLogger("opsboard.alerts")

LOOK_S = 5.0
PATIENCE_S = 5.0
"""A page that is not on disk by then is sent from memory."""
TROUBLE_S = 120.0
"""A channel that has failed for so long, with something to tell, is an incident."""


class Outbox(Waiting, Protocol):
    """What is asked of the store's."""

    def add(self, deliveries: Sequence[NewDelivery]) -> Future[None]:
        """Put messages in."""

    async def last_told(self) -> list[tuple[str, Message]]:
        """Return the last message to each channel of each incident that is open."""

    async def last_sent(self) -> dict[str, float]:
        """Return when the last message of each channel went out."""

    async def counts(self) -> dict[str, tuple[int, float | None, int]]:
        """Return what waits, since when, and what is dead, by channel."""


class Kept(Past, Protocol):
    """What is asked of the store itself."""

    @property
    def outbox(self) -> Outbox:
        """Where messages wait."""


class _Channel:
    """What is known of one."""

    def __init__(self, setting: ChannelSetting, worker: Worker) -> None:
        self.setting = setting
        self.worker = worker
        self.resend_s: float | None = notifiers().found[setting.kind].resend_s
        self.health = ChannelHealth(name=setting.name, kind=setting.kind)
        self.failing: float | None = None
        """Since when (Unix s) nothing goes out; None: the last message did."""

    def heard(self, **news: Any) -> None:
        """Take in what is new of how it is doing."""
        self.health = replace(self.health, **news)


class Messenger:
    """All channels of the daemon."""

    def __init__(self, clock: Clock, state: PipelineState, store: Kept, flow: Flow, tasks: TaskSet) -> None:
        """Tell nobody yet; :meth:`begin` does."""
        self._clock = clock
        self._state = state
        self._outbox = store.outbox
        self._sparks = Sparks(store, state.host)
        self._flow = flow
        self._tasks = tasks
        self._transport = Transport(clock)
        self._channels: dict[str, _Channel] = {}
        self._config = Config()
        self._telling = Telling((), (), self._about, state.silences, ease=self._eased)
        self.mqtt = Mqtt(clock, state, flow, tasks)

    async def begin(self, loaded: Loaded, ending: AsyncExitStack) -> None:
        """Go on with what the last daemon told, and tell what it did not."""
        ending.push_async_callback(self._transport.close)
        self._telling.resume(await self._outbox.last_told())
        self.configure(loaded)
        for name, t in (await self._outbox.last_sent()).items():
            if name in self._channels:
                self._channels[name].heard(sent=t)
        self._flow.announce, self._flow.on_told = self.announce, self.follow
        self._tasks.add("channels", lambda: on_grid(LOOK_S, self.look))
        for one in self._state.incidents.open:
            self._add(self.announce(one))

    def configure(self, loaded: Loaded) -> None:
        """Take the channels of a configuration; what waits for one that is gone waits until it is back."""
        self._config = config = loaded.config
        channels = channel_settings(loaded.path, config, notifiers().found)
        before, self._channels = self._channels, {}
        for setting in channels:
            worker = Worker(
                setting.name,
                setting.params,
                notifiers().found[setting.kind],
                self._outbox,
                sender=self._transport,
                clock=self._clock,
                hear=self._hear,
            )
            channel = self._channels[setting.name] = _Channel(setting, worker)
            known = before.get(setting.name)
            if known is not None:
                worker.succeed(known.worker)
            if known is not None and known.setting == setting:
                channel.health, channel.failing = known.health, known.failing
        said = config.alerts
        read = {one.name for one in channels if notifiers().found[one.kind].groups and said.group_wait}
        manners = Manners(
            repeat_s=said.repeat,
            quiet=quiet(said.quiet_hours, said.time_zone),
            group_wait_s=said.group_wait,
            groups=frozenset(read),
        )
        self._state.channels = set(self._channels)
        self._telling.configure([one.name for one in channels], routes(config), manners)
        self.mqtt.configure(loaded.path, config.mqtt)
        self._tasks.replace("tell:", {f"tell:{name}": one.worker.run for name, one in self._channels.items()})

    # --- what is told -------------------------------------------------------------------------------------------------

    def announce(self, incident: Incident) -> Sequence[NewDelivery]:
        """Return what is to be told of an incident that changed; it goes to disk with it."""
        return self._telling.hear(incident, self._clock.now().wall)

    def _eased(self, incident: Incident, t: float) -> Incident:
        """Return it as loud as people are to hear it."""
        kind, _, name = incident.subject.partition("/")
        track = self._state.engines.get(name) if kind == "engine" else None
        return eased(incident, None if track is None else track.state, t, self._config.alerts.mending)

    def follow(self, deliveries: Sequence[NewDelivery], written: Future[None]) -> None:
        """Send messages once they are on disk; a page that the disk does not take is sent all the same."""
        self._flow.when_written(written, lambda: self.wake(deliveries))
        pages = [one for one in deliveries if one.message.severity == "page"]
        if pages:
            asyncio.get_running_loop().call_later(PATIENCE_S, self._tell_early, pages, written)

    def _tell_early(self, pages: Sequence[NewDelivery], written: Future[None]) -> None:
        if written.done() and not written.cancelled() and written.exception() is None:
            return
        for one in pages:
            channel = self._channels.get(one.channel)
            if channel is not None:
                channel.worker.tell_early(one)

    def wake(self, deliveries: Sequence[NewDelivery]) -> None:
        """Send what is on disk now."""
        for name in {one.channel for one in deliveries}:
            channel = self._channels.get(name)
            if channel is not None:
                channel.worker.wake()

    def health(self) -> list[ChannelHealth]:
        """Return how each channel is doing."""
        return [one.health for one in self._channels.values()]

    def _about(self, incident: Incident) -> About:
        kind, _, name = incident.subject.partition("/")
        track = self._state.engines.get(name) if kind == "engine" else None
        view = None if track is None else track.view
        alerts = self._config.alerts
        return About(
            host=self._state.host,
            model=None if view is None else view.model,
            runbook=alerts.runbook,
            ssh=alerts.ssh,
            spark=self._sparks.of(incident),
        )

    @property
    def host(self) -> str:
        """This host's name, as messages say it."""
        return self._state.host

    @property
    def ssh(self) -> str | None:
        """What people write after ``ssh`` to get here."""
        return self._config.alerts.ssh

    def put(self, deliveries: Sequence[NewDelivery]) -> Future[None]:
        """Put messages into the outbox, and send them once they are on disk."""
        written = self._outbox.add(deliveries)
        heed(written)
        self.follow(deliveries, written)
        return written

    def hurry(self, channel: str) -> None:
        """Send what is due, even while the channel rests."""
        if channel in self._channels:
            self._channels[channel].worker.hurry()

    def _add(self, deliveries: Sequence[NewDelivery]) -> None:
        if deliveries:
            self.put(deliveries)

    # --- how it goes --------------------------------------------------------------------------------------------------

    def _hear(self, name: str, delivery: Delivery, outcome: Outcome) -> None:
        """Take in how an attempt went."""
        channel = self._channels.get(name)
        if channel is None:
            return
        now = self._clock.now()
        if not isinstance(outcome, Later | Refused):
            channel.failing = None
            channel.heard(sent=now.wall, error=None, broken=False, delivered=channel.health.delivered + 1)
            last = trial_ends(delivery, now.wall)
            self._add([] if last is None else [last])
            return
        channel.failing = now.wall if channel.failing is None else channel.failing
        broken = isinstance(outcome, Refused) and outcome.channel
        channel.heard(error=sanitise(outcome.why, WHY_CHARS), broken=broken, failed=channel.health.failed + 1)
        if isinstance(outcome, Refused):
            self._escalate(delivery, now)
        self._judge(channel, now)

    def _escalate(self, delivery: Delivery, now: Now) -> None:
        """Let other channels tell what one never will."""
        one = self._state.incidents.find(delivery.message.number)
        if delivery.message.severity == "page" and one is not None:
            self._add(self._telling.escalate(one, now.wall))

    async def look(self) -> None:
        """See how the channels are doing, and tell what time makes due; called every ``LOOK_S``."""
        now = self._clock.now()
        self._tell_due(now)
        try:
            counts = await self._outbox.counts()
        except StoreError as error:  # what is wrong with the disk is told elsewhere; this task must not give up
            log.warning("what waits in the outbox is not known: %s", error.message)
            return
        for name, channel in self._channels.items():
            waiting, oldest, dead = counts.get(name, (0, None, 0))
            channel.heard(waiting=waiting, oldest=oldest, dead=dead)
            self._judge(channel, now)
        if self._channels:
            await self._sparks.look(self._state.incidents.open, now.wall)

    def _tell_due(self, now: Now) -> None:
        going = self._state.incidents.open
        self._add(self._telling.look(going, now.wall))
        every_s = {name: one.resend_s for name, one in self._channels.items() if one.resend_s is not None}
        for incident in going if every_s else ():
            self._add(self._telling.resend(incident, every_s, now.wall))

    def _judge(self, channel: _Channel, now: Now) -> None:
        subject = f"channel/{channel.setting.name}"
        failing, health = channel.failing, channel.health
        troubled = failing is not None and (health.broken or now.wall - failing >= TROUBLE_S)
        claims: list[Claim] = []
        if troubled and failing is not None:
            severity: Urgency = "ticket" if len(self._channels) > 1 else "page"
            claims.append(
                Claim(
                    detector="channel_broken",
                    subject=subject,
                    severity=severity,
                    summary=f"nothing can be told by {channel.setting.name} ({health.kind}): {health.error}",
                    since=failing,
                    confirmed=True,
                    evidence={
                        "messages_waiting": health.waiting,
                        "messages_dead": health.dead,
                        "error": health.error,
                    },
                )
            )
        for change in self._state.incidents.see(subject, claims, now):
            heed(self._flow.incident(change))
