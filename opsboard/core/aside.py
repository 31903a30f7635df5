"""Threads apart, for work that may hang: a sick disk or a stuck process holds up nobody but those who ask for it.

``asyncio.to_thread`` shares a handful of threads among all: a few calls that never return, and nothing is started,
ended or looked at any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """At most ``most`` threads for one kind of work. They hold up no exit: what hangs ends with the process."""

    def __init__(self, name: str, most: int = 1) -> None:
        """``name`` is that of its threads."""
        self._name = f"aside:{name}"
        self._free = asyncio.Semaphore(most)

    async def do(self, work: Callable[[], T], within_s: float) -> T:
        """Do ``work`` and return what it returns; raise what it raises.

        Raises TimeoutError when it is not done in time or no thread was free. What has begun goes on and keeps its
        thread until it ends, so that no more of them than ``most`` ever hang.
        """
        async with asyncio.timeout(within_s):
            await self._free.acquire()
            return await asyncio.shield(self._begin(work))

    def _begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001  whoever waits is to get it, whatever it is
                tell(done.set_exception, error)
            else:
                tell(done.set_result, result)

        def tell(settle: Callable[..., None], value: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._over, settle, value)

        try:
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except BaseException:
            self._free.release()
            raise
        return done

    def _over(self, settle: Callable[[object], None], value: object) -> None:
        self._free.release()
        settle(value)
