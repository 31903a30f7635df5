"""Where people ask about incidents and say what they know: memory first, the store for what is long over."""

from __future__ import annotations

import asyncio
import glob
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack
from typing import Protocol

from alerts.incidents import Change
from opsboard.config.units import parse_seconds
from opsboard.core import wire
from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, NotFound, StoreError, UsageError
from opsboard.core.incidents import Curve, Incident
from opsboard.core.text import sanitise
from opsboard.daemon import board
from opsboard.daemon.flow import Flow
from opsboard.daemon.freezing import Freezer
from opsboard.daemon.named import named
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.silence_desk import SilenceDesk
from opsboard.daemon.supervising import heed
from opsboard.httpd import Peer
from opsboard.store.state import AuditEntry
from opsboard.store.store import Store

VERBS = ("ack", "note", "resolve", "silence")
LISTED, MAX_LISTED = 100, 10_000
TEXT_CHARS = 2000
WRITE_S = 5.0
"""How long an answer waits for the disk; what is said is then shown, and written when it can be."""


class Kept(Protocol):
    """What is asked of the store."""

    async def incidents(
        self, *, limit: int = 100, only_open: bool = False, subject: str | None = None
    ) -> list[Incident]:
        """Return the newest incidents, newest first."""

    async def one_incident(self, name: int | str) -> Incident | None:
        """Return one by its number or its uid."""

    async def curves_of(self, uid: str) -> list[Curve]:
        """Return the series kept with one."""

    def audit(self, entry: AuditEntry) -> Future[None]:
        """Remember who said what."""


class Desk:
    """Lists incidents, shows one, takes in what people say of it."""

    def __init__(
        self,
        clock: Clock,
        state: PipelineState,
        kept: Kept,
        carry_out: Callable[[Change], Future[None]],
        silences: SilenceDesk,
    ) -> None:
        """``carry_out`` writes a change down and tells it. ``silences``: where people silence them."""
        self.silences = silences
        self._clock = clock
        self._state = state
        self._kept = kept
        self._carry_out = carry_out

    async def listed(self, query: Mapping[str, str]) -> list[wire.Incident]:
        """Return what is open, or with ``all=1`` the newest ``limit``, newest first; of one ``subject``, or of all.

        Raises UsageError, StoreError.
        """
        every = query.get("all", "0") not in {"0", "", "false"}
        subject, said = query.get("subject") or None, query.get("limit", str(LISTED))
        if not said.isdecimal() or len(said) > len(str(MAX_LISTED)) or not 1 <= int(said) <= MAX_LISTED:
            raise UsageError(f"expected `limit` between 1 and {MAX_LISTED}, found {sanitise(said, 40)!r}")
        if not every:
            going = [one for one in reversed(self._state.incidents.open) if subject in {None, one.subject}]
            return [self._shown(one) for one in going[: int(said)]]
        found = await self._kept.incidents(limit=int(said), subject=subject)
        return [self._shown(self._state.incidents.find(one.id) or one) for one in found]

    async def detail(self, name: str) -> wire.IncidentDetail:
        """Return one whole. Raises NotFound, StoreError."""
        one = await self._find(name)
        curves: list[Curve] = []
        try:
            curves = await self._kept.curves_of(one.uid)
        except StoreError:
            if not one.open:
                raise
        return wire.IncidentDetail(
            incident=self._shown(one),
            first_summary=one.first_summary,
            first_evidence=dict(one.first_evidence),
            timeline=one.timeline,
            left_out=one.left_out,
            curves=tuple(curves),
        )

    async def act(self, name: str, verb: str, said: wire.IncidentRequest, peer: Peer | None) -> wire.Incident:
        """Take in what somebody says; returns when it is on disk. Raises NotFound, UsageError, Conflict, StoreError."""
        one = await self._find(name)
        text = sanitise((said.text or "").strip(), TEXT_CHARS)
        if verb == "note" and not text:
            raise UsageError("a note needs a text", hint=f"opsboard incident note {one.id} TEXT")
        if verb != "note" and not one.open:
            raise Conflict(f"incident {one.id} is resolved already", hint=f"opsboard incident note {one.id} TEXT")
        if verb == "silence":
            text = await self._silence(one, text, said.by, peer)
        now, by = self._clock.now(), named(said.by, peer)
        rules = self._state.incidents
        todo = {"ack": rules.acknowledge, "note": rules.note, "resolve": rules.resolve, "silence": rules.silence}[verb]
        change = todo(one, now, by, text)
        written = self._carry_out(change)
        uid, pid = (None, None) if peer is None else (peer.uid, peer.pid)
        entry = AuditEntry(
            t=now.wall, action=f"incident {verb}", subject=f"incident/{one.id}", uid=uid, pid=pid, reason=text or None
        )
        self._kept.audit(entry)
        heed(written)
        try:
            async with asyncio.timeout(WRITE_S):
                await asyncio.shield(asyncio.wrap_future(written))
        except TimeoutError:
            raise StoreError("the disk did not take it yet: it is shown, and written when it can be") from None
        return self._shown(change.incident)

    async def _silence(self, one: Incident, text: str, by: str | None, peer: Peer | None) -> str:
        """Silence what is like it, for as long as the first word says; return what its timeline says."""
        duration, _, comment = text.partition(" ")
        try:
            duration_s = float(parse_seconds(duration))
        except ValueError as error:
            raise UsageError(str(error), hint=f"opsboard incident silence {one.id} 2h WHY") from None
        wanted = wire.SilenceRequest(
            comment=comment.strip() or f"incident {one.id}",
            duration_s=duration_s,
            detectors=(glob.escape(one.detector),),
            subjects=(glob.escape(one.subject),),
            by=by,
        )
        silence = await self.silences.add(wanted, peer)
        return f"for {duration}, silence {silence.id}: {silence.comment}"

    def _shown(self, one: Incident) -> wire.Incident:
        return board.incident(one, board.silenced_until(self._state, one, self._clock.now().wall))

    async def _find(self, name: str) -> Incident:
        number = int(name) if name.isdecimal() and len(name) < 18 else None
        one = None if number is None else self._state.incidents.find(number)
        one = one or await self._kept.one_incident(name if number is None else number)
        if one is None:
            raise NotFound(f"there is no incident {sanitise(name, 40)}", hint="`opsboard incident list --all`")
        return self._state.incidents.find(one.id) or one


async def open_desk(clock: Clock, state: PipelineState, store: Store, flow: Flow, ending: AsyncExitStack) -> Desk:
    """Go on with what the last daemon left, keep series with new incidents, and return who answers for them."""
    kept = await store.kept_incidents()
    state.incidents.resume(kept.going, kept.last, kept.next_id)
    freezer = Freezer(clock, store, state.host)
    ending.push_async_callback(freezer.close)
    flow.on_incident = freezer.hear
    for one in state.incidents.open:
        freezer.hear(one)
    silences = SilenceDesk(clock, state.silences, store)
    await silences.resume()
    return Desk(clock, state, store, flow.incident, silences)
