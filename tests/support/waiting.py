"""Wait for a condition with a deadline: the only way tests wait for other processes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

DEADLINE_S = 20.0
POLL_S = 0.02


class NeverHappened(AssertionError):
    """The condition did not hold before the deadline."""


def wait_until(condition: Callable[[], T], deadline: float = DEADLINE_S, what: str = "") -> T:
    """Return the condition's first truthy value; after ``deadline`` seconds raise ``NeverHappened``."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            raise _never(condition, deadline, what)
        time.sleep(POLL_S)
    return value


async def wait_until_async(condition: Callable[[], T], deadline: float = DEADLINE_S, what: str = "") -> T:
    """Like ``wait_until``, for tests inside an event loop: other tasks run between the polls."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while not (value := condition()):
        if loop.time() > end:
            raise _never(condition, deadline, what)
        await asyncio.sleep(POLL_S)
    return value


def _never(condition: Callable[[], object], deadline: float, what: str) -> NeverHappened:
    name = what or getattr(condition, "__qualname__", repr(condition))
    return NeverHappened(f"{name}: not within {deadline:g} s")
