"""The worker of a channel: takes what waits in the outbox, sends it, then marks it. At least once, never for ever.

What cannot be delivered now waits on a schedule made for pages. A service that does not answer is one for all messages:
its whole channel waits. What a service refuses for good is a dead letter, and whoever is told of those hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, assert_never

from msgspec.structs import replace

from alerts.bucket import Bucket
from alerts.marks import Marks, on_disk
from alerts.notifier import Answer, Later, Notifier, Outcome, Refused, Request, Sent
from opsboard.core.clock import Clock
from opsboard.core.deliveries import Delivery, Message, NewDelivery
from opsboard.core.errors import StoreError
from opsboard.core.text import sanitise

log = logging.getLogger("opsboard.alerts")

SCHEDULE_S = (0.0, 2.0, 5.0, 15.0, 30.0, 60.0, 300.0)
"""How long a channel rests after each failure in a row; the last one goes on."""
GIVEN_UP_S = 86400.0
"""A message that could not be delivered for so long is a dead letter."""
GIVEN_UP_ATTEMPTS = 20
"""But not before so many attempts: a clock that jumps makes nothing old."""
LONGEST_REST_S = 3600.0
"""No service may ask for more."""
BATCH = 20
LOOK_S = 30.0
"""The outbox is looked at this often without anybody saying so."""
DISK_S = 1.0
"""The rest after the outbox could not be read or written."""
WHY_CHARS = 300


class Outbox(Protocol):
    """What is asked of the store. Times are Unix seconds."""

    async def due(self, channel: str, now: float, limit: int) -> list[Delivery]:
        """Return what is to be sent. Raises StoreError."""

    async def next_due(self, channel: str) -> float | None:
        """Return when the next message is to be sent. Raises StoreError."""

    def delivered(self, delivery: Delivery, ref: str | None) -> Future[None]:
        """Mark it as sent."""

    def delayed(self, delivery: Delivery, error: str, not_before: float) -> Future[None]:
        """Let it wait."""

    def given_up(self, delivery: Delivery, error: str) -> Future[None]:
        """Make it a dead letter."""

    def sent_early(self, said: NewDelivery, ref: str | None) -> Future[None]:
        """Mark as sent what was sent before it was on disk."""


class Sender(Protocol):
    """Does the talking (transport.py)."""

    async def send(self, request: Request) -> Answer:
        """Return what came back; never raises for what the network or the service does."""


class Worker:
    """One channel's. ``run`` is its whole life; ``wake`` tells it that something came into the outbox."""

    def __init__(
        self,
        name: str,
        params: Any,
        notifier: Notifier,
        outbox: Outbox,
        *,
        sender: Sender,
        clock: Clock,
        hear: Callable[[str, Delivery, Outcome], None],
    ) -> None:
        """``params`` are the notifier's; ``hear(name, delivery, outcome)`` is told how each attempt went."""
        self.name = name
        self._params = params
        self._notifier = notifier
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._hear = hear
        self._bucket = Bucket(notifier.rate, clock.now().mono)
        self._failures = 0
        self._rest_until = 0.0
        """Monotonic seconds."""
        self._rested = 0.0
        """Until when (Unix s) messages were put off: after the rest that has come, though a clock be set back."""
        self._woken = asyncio.Event()
        self._hurried = asyncio.Event()
        self._early: dict[str, NewDelivery] = {}
        """By uid: what the disk does not take, to be sent from memory."""
        self._refs: dict[str, str | None] = {}
        """By uid: what the service called what was sent from memory."""
        self._marks = Marks()

    def succeed(self, other: Worker) -> None:
        """Go on where another worker of the same channel ends: with what only memory knows."""
        self._early, self._refs, self._marks = other._early, other._refs, other._marks

    def tell_early(self, said: NewDelivery) -> None:
        """Send what the disk does not take, before all else; the newest of an incident."""
        self._early[said.message.uid] = said
        self.wake()

    def wake(self) -> None:
        """Look into the outbox now, unless the channel rests."""
        self._woken.set()

    def hurry(self) -> None:
        """Look into the outbox now, even if the channel rests: somebody mended it, or wants to know."""
        self._rest_until = self._rested = 0.0
        self._hurried.set()
        self._woken.set()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            self._woken.clear()
            try:
                pause = await self._round()
            except StoreError as error:
                log.warning("channel %s: the outbox cannot be used: %s", self.name, error.message)
                pause = DISK_S
            await self._wait(pause)

    async def _wait(self, pause: float) -> None:
        rest = self._rest_until - self._clock.now().mono
        if rest > 0:  # who is only woken meanwhile sends nothing either
            self._hurried.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._hurried.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._woken.wait()

    async def _round(self) -> float:
        """Send what is due; return the seconds to the next look."""
        while self._early:
            if not await self._send_early(next(iter(self._early.values()))):
                return 0.0
        self._marks.look()
        wall = max(self._clock.now().wall, self._rested)
        batch = await self._outbox.due(self.name, wall, BATCH + len(self._marks))
        todo = [one for one in batch if one.message not in self._marks]
        for delivery in todo:
            await self._token()
            if not await self._deliver(delivery) or self._woken.is_set():  # what came may be newer, or a page
                return 0.0
        if todo:
            return 0.0
        if batch:
            return DISK_S
        upcoming = await self._outbox.next_due(self.name)
        wait = LOOK_S if upcoming is None else upcoming - self._clock.now().wall
        return min(LOOK_S, max(DISK_S, wait))

    async def _token(self) -> None:
        await asyncio.sleep(self._bucket.wait_s(self._clock.now().mono))

    async def _send_early(self, said: NewDelivery) -> bool:
        """Send one message from memory; False when the channel has to rest."""
        await self._token()
        uid, wall = said.message.uid, self._clock.now().wall
        delivery = Delivery(
            id=0,
            channel=self.name,
            seq=int(said.message.t * 1000),  # its own among those of the incident, which are counted on disk
            message=said.message,
            created=wall,
            not_before=wall,
            told=uid in self._refs,
            before=self._refs.get(uid),
        )
        outcome = await self._outcome(delivery)
        self._hear(self.name, delivery, outcome)
        self._log(delivery, outcome)
        if isinstance(outcome, Later):
            self._rest(outcome)
            return False
        if self._early.get(uid) is said:
            del self._early[uid]
        if isinstance(outcome, Sent):
            self._failures = 0
            self._refs[uid] = outcome.ref or self._refs.get(uid)
            await self._note(said.message, partial(self._outbox.sent_early, said, outcome.ref))
        if said.message.over:
            self._refs.pop(uid, None)
        return True

    async def _deliver(self, delivery: Delivery) -> bool:
        """Send one message and mark it; False when the channel has to rest."""
        outcome = await self._outcome(delivery)
        now = self._clock.now()
        tired = now.wall - delivery.created > GIVEN_UP_S and delivery.attempts >= GIVEN_UP_ATTEMPTS
        if isinstance(outcome, Later) and tired:
            outcome = Refused(f"not delivered within {GIVEN_UP_S / 3600:.0f} h: {outcome.why}")
        self._hear(self.name, delivery, outcome)
        self._log(delivery, outcome)
        match outcome:
            case Sent(ref):
                self._failures = 0
                if delivery.message.over:
                    self._refs.pop(delivery.message.uid, None)
                await self._note(delivery.message, partial(self._outbox.delivered, delivery, ref))
            case Refused(why):
                await self._note(delivery.message, partial(self._outbox.given_up, delivery, _short(why)))
            case Later(why):
                self._rested = now.wall + self._rest(outcome)
                await on_disk(self._outbox.delayed(delivery, _short(why), self._rested), LOOK_S)
            case _:
                assert_never(outcome)
        return not isinstance(outcome, Later)

    async def _note(self, message: Message, make: Callable[[], Future[None]]) -> None:
        """Mark a message."""
        if (why := await self._marks.add(message, make)) is not None:
            log.warning("channel %s: %s; it is not sent again meanwhile", self.name, why)

    def _rest(self, outcome: Later) -> float:
        """Let the channel rest; return the seconds."""
        rest = self._schedule(outcome.after_s)
        self._rest_until = self._clock.now().mono + rest
        return rest

    def _schedule(self, after_s: float | None) -> float:
        self._failures += 1
        rest = SCHEDULE_S[min(self._failures, len(SCHEDULE_S) - 1)]
        return min(LONGEST_REST_S, max(rest, after_s or 0.0))

    async def _outcome(self, delivery: Delivery) -> Outcome:
        """Send what the notifier makes of a message, in order; a notifier that breaks refuses this message."""
        try:
            attempt = replace(delivery, at=self._clock.now().wall)
            requests: Sequence[Request] = self._notifier.render(self._params, attempt)
        except Exception as error:  # noqa: BLE001  foreign code must not stop the channel
            return Refused(f"the notifier {self._notifier.kind} failed: {sanitise(repr(error), WHY_CHARS)}")
        ref: str | None = None
        for request in requests:
            answer = await self._sender.send(request)
            try:
                outcome = self._notifier.classify(self._params, answer)
            except Exception as error:  # noqa: BLE001  as above
                outcome = Later(f"the notifier {self._notifier.kind} failed: {sanitise(repr(error), WHY_CHARS)}")
            if not isinstance(outcome, Sent):
                return outcome
            ref = ref or outcome.ref
        return Sent(ref)

    def _log(self, delivery: Delivery, outcome: Outcome) -> None:
        number, attempt = delivery.message.number, delivery.attempts + 1
        if isinstance(outcome, Sent):
            log.info("channel %s: incident %d, %s: sent", self.name, number, delivery.message.step)
            return
        level = logging.ERROR if isinstance(outcome, Refused) else logging.WARNING
        what = "refused" if isinstance(outcome, Refused) else "not sent"
        log.log(
            level,
            "channel %s: incident %d, %s, attempt %d: %s: %s",
            *(self.name, number, delivery.message.step, attempt, what, _short(outcome.why)),
        )


def _short(why: str) -> str:
    return sanitise(why, WHY_CHARS)
