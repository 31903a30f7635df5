"""One connection after another to one broker: the present state first, then its changes, and what happens.

And, where a key for them is configured, commands (mqtt_commands.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from opsboard.config.check_mqtt import broker_place
from opsboard.config.schema import Mqtt
from opsboard.core.clock import Clock, Now
from opsboard.core.errors import MqttError
from opsboard.core.model import Event, Severity
from opsboard.core.text import sanitise
from opsboard.daemon import mqtt_topics as topics
from opsboard.daemon.home_assistant import discovery, left_over
from opsboard.daemon.mqtt_commands import Act, Commands
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.tasks import on_grid
from opsboard.mqttc.connection import WINDOW, Broker, Connection, Message

log = logging.getLogger("opsboard.mqtt")

EVERY_S = 1.0
"""A topic is published no more often."""
HEARTBEAT_S = 60.0
EVENTS, EVENTS_A_LOOK = 1000, 200
"""How many wait while the broker is away, and how many go out between two looks at the state."""
READ_S = 4.0
SETTLE_S = 15.0
"""From then on engines and GPUs are known, and what an earlier daemon left of others is cleared."""
STRAYS = 10_000
FIRST_S, MOST_S, HEALTHY_S = 1.0, 60.0, 60.0
"""Pauses between attempts, doubled each time; a connection that lasted so long begins them anew."""
AWAY_S = 30.0
"""The timeline says that the broker is away when it has been for so long."""


class Publisher:
    """What is published as one configuration has it."""

    def __init__(
        self,
        clock: Clock,
        state: PipelineState,
        path: Path | None,
        config: Mqtt,
        *,
        wrong: Callable[[Now], str | None],
        tell: Callable[[str, str, Severity], None],
        act: Act,
        after: asyncio.Event | None = None,
    ) -> None:
        """``path`` is the configuration's; ``after`` is set when an earlier one has said good-bye.

        Raises ConfigError.
        """
        host, port, tls = broker_place(path, config)
        here = Path() if path is None else path.parent
        self._id = config.id or topics.level(state.host)
        self._broker = Broker(
            host=host,
            port=port,
            tls=tls,
            client_id=self._id,
            username=config.username,
            password=config.password,
            ca=None if config.ca is None else str(here / config.ca),
            cert=None if config.cert is None else str(here / config.cert),
            key=None if config.key is None else str(here / config.key),
        )
        self._base = f"{config.prefix}/v1/{self._id}"
        key = config.command_key
        self._commands = None if key is None else Commands(key, self._base, clock, act)
        self._discovery = config.discovery_prefix if config.home_assistant else None
        self._clock, self._state, self._wrong, self._tell = clock, state, wrong, tell
        self._after = after
        self.begun = False
        self.ended = asyncio.Event()
        """Set when nothing more is published."""
        self._said: dict[str, Message] = {}
        """What this connection has published, by topic."""
        self._refused: set[str] = set()
        """Kinds of topics that the broker did not take; each is logged once a connection."""
        self._strays: set[str] = set()
        self._events: deque[Message] = deque(maxlen=EVENTS)
        self._dropped = 0
        self._began = clock.now().mono
        self._beaten: float | None = None
        self._lost: float | None = None
        """Since when (monotonic s) there is no connection; None: there is one."""
        self._why = ""
        """The last reason for that, as logged."""
        self._told = ""
        """What the timeline says: ``connected`` or ``away``."""
        self._anew = False
        """Home Assistant has begun anew."""

    def hear(self, event: Event) -> None:
        """Take an event that is to be published; the oldest ones are given up when too many wait."""
        if len(self._events) == EVENTS:
            self._dropped += 1
        self._events.append(topics.event(self._base, self._state.host, event))

    async def run(self) -> None:
        """Publish for ever."""
        self.begun = True
        pause_s = FIRST_S
        try:
            if self._after is not None:
                await self._after.wait()
            await self._read_once()
            while True:
                began = self._clock.now().mono
                try:
                    await self._connected()
                except MqttError as error:
                    if self._clock.now().mono - began >= HEALTHY_S:
                        pause_s = FIRST_S
                    self._away(error.message)
                await asyncio.sleep(pause_s * (0.5 + 0.5 * random.random()))
                pause_s = min(MOST_S, pause_s * 2)
        finally:
            self.ended.set()

    async def _read_once(self) -> None:
        """Wait for what the first readings say, but not for long: until then every engine is unreachable."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_S):
                while any(one.last is None and one.life is None for one in self._state.engines.values()):  # noqa: ASYNC110
                    await asyncio.sleep(READ_S / 20)

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _connected(self) -> None:
        """Publish until the connection is gone. Raises MqttError then."""
        death = topics.online(self._base, here=False)
        connection = await Connection.open(self._broker, death)
        self._said.clear()
        self._refused.clear()
        self._lost, self._why = None, ""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(connection.listen(self._hear))
                group.create_task(connection.ping())
                group.create_task(self._publish(connection))
                if self._commands is not None:
                    group.create_task(self._commands.obey(connection.publish))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None  # one ends the others
        finally:
            await connection.close(death)

    async def _publish(self, connection: Connection) -> None:
        patterns = [*topics.ours(self._base)]
        if self._discovery is not None:
            patterns += [f"{self._discovery}/status", f"{self._discovery}/device/+/config"]
        if self._commands is not None:
            patterns.append(self._commands.topic)
        self._note(patterns[0], await connection.subscribe(patterns))
        self._say("connected", f"{self._broker} hears of this host by MQTT, at {self._base}", Severity.INFO)
        await on_grid(EVERY_S, lambda: self._look(connection))

    async def _look(self, connection: Connection) -> None:
        """Publish what has changed, then what has happened."""
        now = self._clock.now()
        wrong = self._wrong(now)
        if self._anew:
            self._anew = False
            self._said = {topic: one for topic, one in self._said.items() if topic.startswith(f"{self._base}/")}
        wanted = self._wanted(now, wrong)
        changed = [message for topic, message in wanted.items() if self._said.get(topic) != message]
        cleared = [topic for topic in self._said if topic not in wanted]
        if now.mono - self._began >= SETTLE_S:
            cleared += [topic for topic in self._strays if topic not in wanted and topic not in self._said]
            self._strays.clear()
        await self._send(connection, changed)
        await self._send(connection, [Message(topic, b"", 1, retain=True) for topic in cleared])
        self._said = wanted
        await self._send_events(connection)
        if wrong is None and (self._beaten is None or now.mono - self._beaten >= HEARTBEAT_S):
            self._beaten = now.mono
            await self._send(connection, [topics.heartbeat(self._base, now)])

    def _wanted(self, now: Now, wrong: str | None) -> dict[str, Message]:
        wanted = topics.retained(self._base, self._state, now, wrong)
        if self._discovery is not None:
            wanted |= discovery(self._discovery, self._base, self._id, self._state)
        return wanted

    async def _send_events(self, connection: Connection) -> None:
        if self._dropped:
            text = f"{self._dropped} older events were given up while the broker was away"
            now, self._dropped = self._clock.now().wall, 0
            one = Event(t=now, subject="host", kind="mqtt_dropped", text=text, severity=Severity.WARNING)
            await self._send(connection, [topics.event(self._base, self._state.host, one)])
        for _ in range(0, min(len(self._events), EVENTS_A_LOOK), WINDOW):
            batch, dropped = list(islice(self._events, WINDOW)), self._dropped
            await self._send(connection, batch)
            for _ in range(len(batch) - (self._dropped - dropped)):  # those that were given up meanwhile are gone
                self._events.popleft()

    async def _send(self, connection: Connection, messages: Iterable[Message]) -> None:
        """Publish in order, as many at once as may wait for their acknowledgement."""
        waiting = iter(messages)
        while batch := list(islice(waiting, WINDOW)):
            answers = await asyncio.gather(*(connection.publish(message) for message in batch))
            for message, why in zip(batch, answers, strict=True):
                self._note(message.topic, why)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        """Take what the broker has retained, and that Home Assistant has begun anew."""
        topic, found = message.topic, self._discovery
        if self._commands is not None and topic == self._commands.topic:
            self._commands.hear(message)
            return
        if found is not None and topic == f"{found}/status":
            if message.payload == b"online" and not message.retain:
                self._anew = True
            return
        if not message.retain or not message.payload or len(self._strays) >= STRAYS:
            return
        ours = topic.startswith(f"{self._base}/")
        if ours or (found is not None and left_over(topic, message.payload, found, self._base)):
            self._strays.add(topic)

    # --- how it goes --------------------------------------------------------------------------------------------------

    def _note(self, topic: str, why: str | None) -> None:
        kind = topic.removeprefix(f"{self._base}/").partition("/")[0]
        if why is not None and kind not in self._refused:
            self._refused.add(kind)
            log.warning("%s does not take %s: %s", self._broker, sanitise(topic), why)

    def _away(self, why: str) -> None:
        now = self._clock.now().mono
        if why != self._why:
            self._why = why
            log.warning("MQTT: %s", why)
        self._lost = now if self._lost is None else self._lost
        if now - self._lost >= AWAY_S or not self._told:
            self._say("away", f"MQTT: {why}; it hears the present state when it is back", Severity.WARNING)

    def _say(self, what: str, text: str, severity: Severity) -> None:
        """Put a line on the timeline, unless it says so already."""
        if self._told != what:
            self._told = what
            self._tell("mqtt", text, severity)
