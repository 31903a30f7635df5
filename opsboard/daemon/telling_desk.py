"""Where people ask how channels are doing and what waits in the outbox, try a channel, retry and drop."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar, get_args

from alerts.trial import trial
from opsboard.core.clock import Clock
from opsboard.core.deliveries import ChannelHealth, Delivery, NewDelivery, State
from opsboard.core.errors import Conflict, NotFound, StoreError, UsageError
from opsboard.core.letters import Letter, LetterRequest, Trial, TrialRequest, letter
from opsboard.core.text import sanitise
from opsboard.daemon.named import named
from opsboard.httpd import Peer
from opsboard.store.state import AuditEntry

VERBS = ("retry", "drop")
STATES: tuple[State, ...] = get_args(State)
WAITS: tuple[State, ...] = ("due", "dead")
LISTED, MAX_LISTED = 100, 10_000
REASON_CHARS = 500
WRITE_S = 5.0
"""How long an answer waits for the disk."""

T = TypeVar("T")


class Letters(Protocol):
    """What is asked of the outbox."""

    async def listed(
        self, states: Sequence[State], limit: int, channel: str | None = None, uid: str | None = None
    ) -> list[Delivery]:
        """Return the newest, newest first."""

    async def one(self, number: int) -> Delivery | None:
        """Return one by its number."""

    async def overtaken(self, number: int) -> bool:
        """Tell whether newer news of the same incident went to its channel."""

    def put_back(self, number: int) -> Future[bool]:
        """Send it now."""

    def drop(self, number: int) -> Future[bool]:
        """Give it up."""


class Mouth(Protocol):
    """What is asked of the messenger."""

    @property
    def host(self) -> str:
        """This host's name."""

    @property
    def ssh(self) -> str | None:
        """What people write after ``ssh`` to get here."""

    def health(self) -> list[ChannelHealth]:
        """Return how each channel is doing."""

    def put(self, deliveries: Sequence[NewDelivery]) -> Future[None]:
        """Put messages into the outbox, and send them once they are on disk."""

    def hurry(self, channel: str) -> None:
        """Send what is due, even while the channel rests."""


class Auditor(Protocol):
    """What is asked of the store."""

    def audit(self, entry: AuditEntry) -> Future[None]:
        """Remember who asked for what."""


class TellingDesk:
    """Lists channels and messages; tries, retries, drops. What is changed is on disk when the answer comes."""

    def __init__(self, clock: Clock, mouth: Mouth, letters: Letters, auditor: Auditor) -> None:
        """Everything it says comes from what is handed in here."""
        self._clock = clock
        self._mouth = mouth
        self._letters = letters
        self._auditor = auditor

    def channels(self) -> list[ChannelHealth]:
        """Return how each channel is doing."""
        return self._mouth.health()

    async def listed(self, query: Mapping[str, str]) -> list[Letter]:
        """Return the newest messages, newest first: what waits and what is dead, or those in the ``state`` asked for.

        Raises UsageError, StoreError.
        """
        said, limit = query.get("state", ",".join(WAITS)), query.get("limit", str(LISTED))
        states = STATES if said == "all" else tuple(state for state in STATES if state in said.split(","))
        if not states or (said != "all" and set(said.split(",")) - set(STATES)):
            raise UsageError(f"no such state: {sanitise(said, 40)!r}", hint=f"there are: {', '.join(STATES)}; or all")
        if not limit.isdecimal() or len(limit) > len(str(MAX_LISTED)) or not 1 <= int(limit) <= MAX_LISTED:
            raise UsageError(f"expected `limit` between 1 and {MAX_LISTED}, found {sanitise(limit, 40)!r}")
        found = await self._letters.listed(states, int(limit), query.get("channel"), query.get("incident"))
        return [letter(one) for one in found]

    async def act(self, name: str, verb: str, said: LetterRequest, peer: Peer | None) -> Letter:
        """Retry or drop a message; returns it as it is then. Raises NotFound, Conflict, StoreError."""
        one = await self._find(name)
        if verb == "retry":
            if one.state in {"sent", "superseded"}:
                raise Conflict(f"message {one.id} is {one.state} already")
            if one.channel not in {channel.name for channel in self.channels()}:
                hint = f"it is sent when there is one again; `opsboard alerts outbox drop {one.id}` gives it up"
                raise Conflict(f"there is no channel {one.channel!r} now", hint=hint)
            if await self._letters.overtaken(one.id):
                text = f"newer news of incident {one.message.number} went to {one.channel} since message {one.id}"
                raise Conflict(text, hint=f"`opsboard alerts outbox drop {one.id}` gives it up")
            done = await _written(self._letters.put_back(one.id))
            self._mouth.hurry(one.channel)
        else:
            done = await _written(self._letters.drop(one.id))
        if not done:
            raise Conflict(f"message {one.id} is {one.state} already")
        self._audit(f"message {verb}", one.channel, said.reason, peer)
        return letter(await self._find(name))

    async def test(self, name: str, said: TrialRequest, peer: Peer | None) -> Trial:
        """Begin a test of a channel: the message that begins it goes out now, the other when it was taken.

        A test that still waits there or is dead is given up. Raises NotFound, StoreError.
        """
        channel = next((one for one in self.channels() if one.name == name), None)
        if channel is None:
            raise self._no_channel(name)
        for older in await self._letters.listed(WAITS, MAX_LISTED, name):
            if older.message.test and not older.message.over:
                await _written(self._letters.drop(older.id))
        now = self._clock.now().wall
        by = named(said.by, peer)
        first = trial(name, host=self._mouth.host, ssh=self._mouth.ssh, by=by, severity=said.severity, t=now)
        await _written(self._mouth.put([first]))
        self._mouth.hurry(name)
        self._audit("channel test", name, None, peer)
        return Trial(channel=name, kind=channel.kind, uid=first.message.uid)

    async def _find(self, name: str) -> Delivery:
        one = await self._letters.one(int(name)) if name.isdecimal() and len(name) < 18 else None
        if one is None:
            hint = "`opsboard alerts outbox list --state all` lists them"
            raise NotFound(f"there is no message {sanitise(name, 40)} in the outbox", hint=hint)
        return one

    def _no_channel(self, name: str) -> NotFound:
        names = [one.name for one in self.channels()]
        near = difflib.get_close_matches(name, names, n=1)
        known = f"there are: {', '.join(names)}" if names else "no [[channel]] is configured: docs/telling.md"
        hint = f"did you mean {near[0]!r}?" if near else known
        return NotFound(f"there is no channel {sanitise(name, 64)!r}", hint=hint)

    def _audit(self, action: str, channel: str, reason: str | None, peer: Peer | None) -> None:
        uid, pid = (None, None) if peer is None else (peer.uid, peer.pid)
        why = sanitise((reason or "").strip(), REASON_CHARS) or None
        entry = AuditEntry(
            t=self._clock.now().wall, action=action, subject=f"channel/{channel}", uid=uid, pid=pid, reason=why
        )
        self._auditor.audit(entry)


async def _written(future: Future[T]) -> T:
    try:
        async with asyncio.timeout(WRITE_S):
            return await asyncio.shield(asyncio.wrap_future(future))
    except TimeoutError:
        raise StoreError("the disk did not take it in time: ask again", permanent=False) from None
