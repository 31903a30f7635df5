"""Virtual time for asyncio: the loop's clock jumps to the next deadline instead of waiting for it.

A day of a 1 Hz loop runs in about a second, with exact timestamps. Threads and sockets take no part in it: while
one of them works, the clock jumps on. Tests that need them use fakes, or real time with a deadline.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

from opsboard.core.clock import Now

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

WALL_START = 1_700_000_000.0
REAL_LIMIT_S = 5.0


class Deadlock(AssertionError):
    """Nothing is scheduled and no real I/O came: the code under test waits for ever."""


class VirtualTimeSelector(selectors.DefaultSelector):
    """A selector that advances ``elapsed`` (seconds) by the time it was asked to wait."""

    def __init__(self, real_limit_s: float) -> None:
        super().__init__()
        self.elapsed = 0.0
        self._real_limit_s = real_limit_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is not None:
            self.elapsed += timeout
            return []
        ready = super().select(self._real_limit_s)  # only a thread or a socket can wake the loop now
        if not ready:
            msg = f"no timer is set and nothing happened in {self._real_limit_s:g} s of real time"
            raise Deadlock(msg)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose ``time()`` starts at 0 and moves only when every task waits."""

    def __init__(self, real_limit_s: float = REAL_LIMIT_S) -> None:
        self._virtual = VirtualTimeSelector(real_limit_s)
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.elapsed

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        # Threads end in real time: a virtual timeout would be over before they could.
        await super().shutdown_default_executor()


class LoopClock:
    """A ``Clock`` on the running loop: ``mono`` is the loop's time, ``wall`` starts at ``wall_start``."""

    def __init__(self, wall_start: float = WALL_START) -> None:
        self._wall_start = wall_start

    def now(self) -> Now:
        elapsed = asyncio.get_running_loop().time()
        return Now(wall=self._wall_start + elapsed, mono=elapsed)


def run(main: Coroutine[Any, Any, T], *, real_limit_s: float = REAL_LIMIT_S) -> T:
    """Run ``main`` to its end in virtual time, like ``asyncio.run``; raise ``Deadlock`` when it hangs."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(real_limit_s)) as runner:
        return runner.run(main)
