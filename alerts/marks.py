"""What went out, or never will, and what the disk knows of that: a message without its mark must not be sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from opsboard.core.deliveries import Message
from opsboard.core.errors import StoreError

MARK_S = 2.0
"""How long the next message waits for the mark of the last one; then it is waited for beside it."""


class _Mark(NamedTuple):
    message: Message
    make: Callable[[], Future[None]]
    written: Future[None]


class Marks:
    """Those of one channel that are not on disk yet."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waiting: list[_Mark] = []

    def __len__(self) -> int:
        """Return how many."""
        return len(self._waiting)

    def __contains__(self, message: Message) -> bool:
        """Tell whether a message waits for its mark."""
        return any(mark.message == message for mark in self._waiting)

    async def add(self, message: Message, make: Callable[[], Future[None]]) -> str | None:
        """Mark a message; return why that is the first one that the disk does not take, None where it is not."""
        written = make()
        try:
            await on_disk(written, 0.0 if self._waiting else MARK_S)
        except StoreError as error:
            self._waiting.append(_Mark(message, make, written))
            return error.message if len(self._waiting) == 1 else None
        return None

    def look(self) -> None:
        """Forget those that are on disk by now, and make those again that were refused."""
        self._waiting = [
            mark._replace(written=mark.make()) if mark.written.done() else mark
            for mark in self._waiting
            if not mark.written.done() or mark.written.exception() is not None
        ]


async def on_disk(written: Future[None], limit_s: float) -> None:
    """Wait until it is written. Raises StoreError when that fails, or not within ``limit_s`` seconds."""
    try:
        async with asyncio.timeout(limit_s):
            await asyncio.shield(asyncio.wrap_future(written))
    except TimeoutError:
        raise StoreError("the disk does not take what was delivered", permanent=False) from None
