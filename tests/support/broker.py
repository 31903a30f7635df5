"""A real mosquitto (Debian's package) on loopback, and somebody who listens to it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from opsboard.core.errors import MqttError
from opsboard.core.secret import Secret
from opsboard.mqttc.connection import Broker, Connection, Message
from tests.support.herd import connects, free_port
from tests.support.waiting import wait_until

BINARY = shutil.which("mosquitto") or next((path for path in ["/usr/sbin/mosquitto"] if Path(path).exists()), None)
REASON = "no mosquitto here (Debian: mosquitto)"


class Mosquitto:
    """One broker; :meth:`start` and :meth:`stop` as often as wanted, on the same port, with what it has retained."""

    def __init__(self, place: Path, *lines: str) -> None:
        self.place = place
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        place.mkdir(exist_ok=True)
        settings = [f"listener {self.port} 127.0.0.1", f"user {place.owner()}", *(lines or ("allow_anonymous true",))]
        settings += ["persistence true", f"persistence_location {place}/", "log_type all"]
        (place / "mosquitto.conf").write_text("\n".join(settings) + "\n")

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.place / "log").open("ab") as log:
            command = [str(BINARY), "-c", str(self.place / "mosquitto.conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(lambda: connects(self.port), what="mosquitto listens")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


class Ear:
    """Keeps what comes; ``retained`` is what a new listener would get."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.retained: dict[str, bytes] = {}

    def hear(self, message: Message) -> None:
        self.heard.append(message)
        if message.payload:
            self.retained[message.topic] = message.payload
        else:
            self.retained.pop(message.topic, None)

    def json(self, topic: str) -> Any:
        return json.loads(self.retained[topic]) if topic in self.retained else None

    def on(self, topic: str) -> list[Any]:
        """Return all that came on a topic, in order."""
        return [json.loads(one.payload) for one in self.heard if one.topic == topic]


@asynccontextmanager
async def listening(port: int, *patterns: str, user: str | None = None, word: str = "") -> AsyncIterator[Ear]:
    """Listen for as long as the block lasts."""
    ear = Ear()
    async with talking(port, ear, user=user, word=word) as connection:
        assert await connection.subscribe(patterns or ["#"]) is None
        yield ear


@asynccontextmanager
async def talking(
    port: int, ear: Ear | None = None, *, name: str = "ear", user: str | None = None, word: str = ""
) -> AsyncIterator[Connection]:
    """Connect as somebody else."""
    secret = None if user is None else Secret(word)
    broker = Broker(host="127.0.0.1", port=port, tls=False, client_id=name, username=user, password=secret)
    connection = await Connection.open(broker, Message(f"{name}/gone", b"x"))
    tasks = [asyncio.create_task(connection.listen((ear or Ear()).hear)), asyncio.create_task(connection.ping())]
    try:
        yield connection
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError, MqttError):
            await asyncio.gather(*tasks)
        await connection.close()
