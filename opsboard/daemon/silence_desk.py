"""Where people silence incidents: what they say holds at once, and is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future
from math import isfinite
from typing import Protocol

from msgspec.structs import replace

from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, NotFound, StoreError, UsageError
from opsboard.core.silences import Silence, Silences
from opsboard.core.text import sanitise
from opsboard.core.wire import SilenceRequest
from opsboard.daemon.named import named
from opsboard.daemon.supervising import heed
from opsboard.httpd import Peer
from opsboard.store.state import AuditEntry

COMMENT_CHARS, PATTERN_CHARS = 500, 200
MATCHERS, STANDING = 50, 200
"""Patterns in one, and silences at once: nobody looks through more."""
LONGEST_S = 30 * 86400.0
LISTED = 1000
WRITE_S = 5.0


class Kept(Protocol):
    """What is asked of the store."""

    def silence(self, silence: Silence) -> Future[None]:
        """Keep one as it is now."""

    async def silences(self, since: float, limit: int = LISTED) -> list[Silence]:
        """Return the newest that had not ended at ``since``."""

    async def next_silence(self) -> int:
        """Return the number of the next one."""

    def audit(self, entry: AuditEntry) -> Future[None]:
        """Remember who said what."""


class SilenceDesk:
    """Lists silences, adds one, ends one."""

    def __init__(self, clock: Clock, silences: Silences, kept: Kept) -> None:
        """``silences`` are those that hold."""
        self._clock = clock
        self._silences = silences
        self._kept = kept
        self._one = asyncio.Lock()

    async def resume(self) -> None:
        """Go on with those of the last daemon. Raises StoreError."""
        for one in await self._kept.silences(self._clock.now().wall):
            self._silences.put(one)

    async def listed(self, query: Mapping[str, str]) -> list[Silence]:
        """Return those that stand or will, or with ``all=1`` the newest ever, oldest first. Raises StoreError."""
        if query.get("all", "0") in {"0", "", "false"}:
            return self._silences.listed(self._clock.now().wall)
        return await self._kept.silences(float("-inf"))

    async def add(self, said: SilenceRequest, peer: Peer | None) -> Silence:
        """Take one; returns when it is on disk. Raises UsageError, Conflict, StoreError."""
        now = self._clock.now()
        comment = sanitise(said.comment.strip(), COMMENT_CHARS)
        if not comment:
            raise UsageError("a silence needs a comment: why may this be quiet?")
        start = now.wall if said.start is None else said.start
        if not isfinite(said.duration_s) or not 0 < said.duration_s <= LONGEST_S:
            raise UsageError(f"expected a duration of more than 0 s and at most {LONGEST_S / 86400:.0f} days")
        if not now.wall - LONGEST_S <= start <= now.wall + LONGEST_S or start + said.duration_s <= now.wall:
            raise UsageError("expected a beginning within 30 days, and an end that is not over")
        if not (said.detectors or said.subjects):
            raise UsageError(
                "a silence needs a detector or a subject", hint="`--subject '*'` silences everything, if you mean that"
            )
        async with self._one:
            standing = self._silences.listed(now.wall)
            if len(standing) >= STANDING:
                raise Conflict(f"there are {STANDING} silences already", hint="`opsboard silence expire ID` ends one")
            one = Silence(
                id=max([await self._kept.next_silence(), *(other.id + 1 for other in standing)]),
                severities=said.severities,
                detectors=_patterns(said.detectors),
                subjects=_patterns(said.subjects),
                by=named(said.by, peer),
                comment=comment,
                start=start,
                end=start + said.duration_s,
            )
            await self._keep(one, "silence add", peer, f"{one.told}: {comment}")
        return one

    async def expire(self, name: str, peer: Peer | None) -> Silence:
        """End one now. Raises NotFound, StoreError."""
        one = self._silences.find(int(name)) if name.isdecimal() and len(name) < 18 else None
        t = self._clock.now().wall
        if one is None or one.end <= t:
            raise NotFound(f"no silence {sanitise(name, 40)} stands", hint="`opsboard silence list`")
        over = replace(one, start=min(one.start, t), end=t)
        await self._keep(over, "silence expire", peer, None)
        return over

    async def _keep(self, one: Silence, action: str, peer: Peer | None, reason: str | None) -> None:
        written = self._kept.silence(one)
        uid, pid = (None, None) if peer is None else (peer.uid, peer.pid)
        t = self._clock.now().wall
        self._kept.audit(AuditEntry(t=t, action=action, subject=f"silence/{one.id}", uid=uid, pid=pid, reason=reason))
        self._silences.put(one)
        heed(written)
        try:
            async with asyncio.timeout(WRITE_S):
                await asyncio.shield(asyncio.wrap_future(written))
        except TimeoutError:
            raise StoreError("the disk did not take it yet: it holds, and is written when it can be") from None


def _patterns(said: tuple[str, ...]) -> tuple[str, ...]:
    if len(said) > MATCHERS or any(not pattern.strip() or len(pattern) > PATTERN_CHARS for pattern in said):
        raise UsageError(f"expected at most {MATCHERS} patterns of 1 to {PATTERN_CHARS} characters")
    return tuple(sanitise(pattern.strip(), PATTERN_CHARS) for pattern in said)
