"""The outbox as the workers of channels and people use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any

from opsboard.core.clock import Clock
from opsboard.core.deliveries import Delivery, Message, NewDelivery, State
from opsboard.store import outbox_table


class Outbox:
    """One store's. Changes return at once and are done when they are on disk; reads may raise StoreError."""

    def __init__(
        self,
        clock: Clock,
        change: Callable[[Callable[..., Any]], Future[Any]],
        ask: Callable[[Callable[..., Any]], Awaitable[Any]],
    ) -> None:
        """``change`` queues a job of the writer thread, ``ask`` reads after what was queued."""
        self._clock = clock
        self._change = change
        self._ask = ask

    def add(self, deliveries: Sequence[NewDelivery]) -> Future[None]:
        """Put in messages that belong to no change of an incident."""
        t = self._clock.now().wall
        return self._change(lambda connection: outbox_table.add(connection, deliveries, t))

    async def due(self, channel: str, now: float, limit: int) -> list[Delivery]:
        """Return what is to be sent, pages first."""
        found: list[Delivery] = await self._ask(lambda connection: outbox_table.due(connection, channel, now, limit))
        return found

    async def next_due(self, channel: str) -> float | None:
        """Return when (Unix s) the next message is to be sent; None: none waits."""
        found: float | None = await self._ask(lambda connection: outbox_table.next_due(connection, channel))
        return found

    def delivered(self, delivery: Delivery, ref: str | None) -> Future[None]:
        """Mark a message as sent; ``ref`` is what the service calls it."""
        t = self._clock.now().wall
        return self._change(lambda connection: outbox_table.sent(connection, delivery, ref, t))

    def delayed(self, delivery: Delivery, error: str, not_before: float) -> Future[None]:
        """Let a message wait until ``not_before`` (Unix s)."""
        return self._change(lambda connection: outbox_table.later(connection, delivery, error, not_before))

    def given_up(self, delivery: Delivery, error: str) -> Future[None]:
        """Make a message a dead letter."""
        t = self._clock.now().wall
        return self._change(lambda connection: outbox_table.dead(connection, delivery, error, t))

    def sent_early(self, said: NewDelivery, ref: str | None) -> Future[None]:
        """Mark a message as sent that went out before it was on disk."""
        t = self._clock.now().wall
        return self._change(lambda connection: outbox_table.sent_early(connection, said, ref, t))

    def put_back(self, number: int) -> Future[bool]:
        """Let a dead, dropped or waiting message be sent now; False when there is none."""
        t = self._clock.now().wall
        return self._change(lambda connection: outbox_table.put_back(connection, number, t))

    def drop(self, number: int) -> Future[bool]:
        """Give up what waits or is dead, as somebody asked; False when there is none."""
        t = self._clock.now().wall
        return self._change(lambda connection: outbox_table.drop(connection, number, t))

    async def listed(
        self, states: Sequence[State], limit: int, channel: str | None = None, uid: str | None = None
    ) -> list[Delivery]:
        """Return the newest messages in one of these states, newest first; of a channel or an incident, or of all."""
        found: list[Delivery] = await self._ask(
            lambda connection: outbox_table.read(connection, states, limit, channel, uid)
        )
        return found

    async def one(self, number: int) -> Delivery | None:
        """Return one message; None: there is none of this number."""
        found: Delivery | None = await self._ask(lambda connection: outbox_table.one(connection, number))
        return found

    async def overtaken(self, number: int) -> bool:
        """Tell whether newer news of the same incident went to the message's channel."""
        found: bool = await self._ask(lambda connection: outbox_table.overtaken(connection, number))
        return found

    async def last_sent(self) -> dict[str, float]:
        """Return of each channel when (Unix s) the last message went out."""
        found: dict[str, float] = await self._ask(outbox_table.last_sent)
        return found

    async def last_told(self) -> list[tuple[str, Message]]:
        """Return the last message to each channel of each incident that is open."""
        found: list[tuple[str, Message]] = await self._ask(outbox_table.last_told)
        return found

    async def counts(self) -> dict[str, tuple[int, float | None, int]]:
        """Return of each channel how many wait, since when the oldest does (Unix s), and how many are dead."""
        found: dict[str, tuple[int, float | None, int]] = await self._ask(outbox_table.counts)
        return found
