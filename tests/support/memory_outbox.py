"""An outbox that is only memory, and a messenger whose channels take or refuse what a test says."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from alerts.trial import trial_ends
from opsboard.core.deliveries import ChannelHealth, Delivery, NewDelivery, State

if TYPE_CHECKING:
    from opsboard.core.clock import Clock

T = TypeVar("T")


class MemoryOutbox:
    """Letters and mouth in one. ``refuses`` and ``away`` say why channels do not take what is sent."""

    host, ssh = "gpu-a", "ann@gpu-a"

    def __init__(self, clock: Clock, *channels: ChannelHealth) -> None:
        self.clock = clock
        self.rows: dict[int, Delivery] = {}
        self.known = {one.name: one for one in channels}
        self.refuses: dict[str, str] = {}
        self.away: dict[str, str] = {}
        self.hurried: list[str] = []

    def health(self) -> list[ChannelHealth]:
        return list(self.known.values())

    def put(self, deliveries: Sequence[NewDelivery]) -> Future[None]:
        for new in deliveries:
            number = len(self.rows) + 1
            seq = 1 + sum(row.message.uid == new.message.uid for row in self.rows.values())
            self.rows[number] = Delivery(
                id=number, channel=new.channel, seq=seq, message=new.message, created=new.not_before,
                not_before=new.not_before,
            )  # fmt: skip
        return _done(None)

    def hurry(self, channel: str) -> None:
        self.hurried.append(channel)
        for row in [row for row in self.rows.values() if row.channel == channel and row.state == "due"]:
            self._send(row)

    def _send(self, row: Delivery) -> None:
        now = self.clock.now().wall
        if why := self.away.get(row.channel):
            self.rows[row.id] = replace(row, attempts=row.attempts + 1, error=why)
        elif why := self.refuses.get(row.channel):
            self.rows[row.id] = replace(row, state="dead", attempts=row.attempts + 1, error=why, done=now)
            self.known[row.channel] = replace(self.known[row.channel], broken=True, error=why, dead=1)
        else:
            self.rows[row.id] = replace(row, state="sent", done=now)
            last = trial_ends(row, now)
            if last is not None:
                self.put([last])
                self._send(self.rows[len(self.rows)])

    async def listed(
        self, states: Sequence[State], limit: int, channel: str | None = None, uid: str | None = None
    ) -> list[Delivery]:
        found = [
            row
            for row in reversed(self.rows.values())
            if row.state in states and channel in {None, row.channel} and uid in {None, row.message.uid}
        ]
        return found[:limit]

    async def one(self, number: int) -> Delivery | None:
        return self.rows.get(number)

    async def overtaken(self, number: int) -> bool:
        one = self.rows[number]
        return any(
            row.state == "sent" and row.seq > one.seq and row.message.uid == one.message.uid
            for row in self.rows.values()
        )

    def put_back(self, number: int) -> Future[bool]:
        return self._change(number, "due", ("dead", "dropped", "due"))

    def drop(self, number: int) -> Future[bool]:
        return self._change(number, "dropped", ("due", "dead"))

    def _change(self, number: int, to: State, allowed: Sequence[State]) -> Future[bool]:
        row = self.rows.get(number)
        if row is None or row.state not in allowed:
            return _done(False)
        self.rows[number] = replace(row, state=to)
        return _done(True)


def _done(value: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(value)
    return future
