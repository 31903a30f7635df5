"""Idempotency keys: what was asked with one is done once, and answered the same again, over daemon restarts too."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress

import msgspec

from opsboard.core.errors import Conflict, StoreError, UsageError
from opsboard.core.model import Record
from opsboard.core.wire import ActionAccepted, ActionRequest
from opsboard.daemon.supervising import heed
from opsboard.store.state import KEYS_KEPT

log = logging.getLogger("opsboard.daemon")

KEY_CHARS = 200
WRITE_S = 1.0
"""How long an answer waits for the disk: what was begun is answered whatever the disk does."""


class Kept(Record, frozen=True, kw_only=True):
    """What was asked of an engine with a key, without its reason, and the answer."""

    kind: str
    now: bool
    then: tuple[str, ...]
    answer: ActionAccepted


class Keys:
    """The newest keys. A refusal uses none up: what was refused may be asked again with the same one."""

    def __init__(self, known: Mapping[str, str], keep: Callable[[str, str], Future[None]]) -> None:
        """``known`` are answers by key, oldest first, as ``keep(key, answer)`` got them before."""
        self._keep = keep
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._asked: dict[str, tuple[str, ActionRequest, asyncio.Task[ActionAccepted]]] = {}
        for key, answer in known.items():
            try:
                self._kept[key] = msgspec.json.decode(answer, type=Kept)
            except msgspec.MsgspecError:
                log.warning("what was answered to an idempotency key is not understood any more: %.40s", answer)

    async def once(
        self, name: str, request: ActionRequest, ask: Callable[[], Awaitable[ActionAccepted]]
    ) -> ActionAccepted:
        """Return what ``ask()`` answers, or answered before to the same request with the same key.

        Raises what ``ask()`` does; Conflict: the key was used for something else; UsageError: it is too long.
        """
        key = request.idempotency_key
        if not key:
            return await ask()
        if len(key) > KEY_CHARS:
            raise UsageError(f"an idempotency key has at most {KEY_CHARS} characters, found {len(key)}")
        if (kept := self._kept.get(key)) is not None:
            _check_same((kept.kind, kept.answer.engine, kept.now, kept.then), name, request)
            return kept.answer
        if (asked := self._asked.get(key)) is not None:
            other, before, task = asked
            _check_same((before.kind, other, before.now, before.then), name, request)
            return await asyncio.shield(task)
        task = asyncio.ensure_future(self._first(key, request, ask))
        self._asked[key] = (name, request, task)
        task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)  # who asks may leave; it is answered to whoever asks again

    async def _first(
        self, key: str, request: ActionRequest, ask: Callable[[], Awaitable[ActionAccepted]]
    ) -> ActionAccepted:
        answer = await ask()
        kept = Kept(kind=request.kind, now=request.now, then=request.then, answer=answer)
        self._kept[key] = kept
        if len(self._kept) > KEYS_KEPT:
            self._kept.popitem(last=False)
        written = self._keep(key, msgspec.json.encode(kept).decode())
        heed(written)
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(WRITE_S):
                await asyncio.shield(asyncio.wrap_future(written))
        return answer

    def _forget(self, key: str, done: asyncio.Task[ActionAccepted]) -> None:
        self._asked.pop(key, None)
        if not done.cancelled():
            done.exception()  # it may be that nobody waits any more


def _check_same(before: tuple[str, str, bool, tuple[str, ...]], name: str, request: ActionRequest) -> None:
    if before != (request.kind, name, request.now, request.then):
        kind, engine, *_ = before
        raise Conflict(f"the idempotency key was used for another request: {kind} of {engine}", hint="use a new key")
