"""Who listens to the board: each subscriber gets the newest state and never a backlog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

MIN_GAP_S = 0.1
"""Changes closer together than this travel as one."""


class Newest:
    """Hands the newest state to any number of subscribers.

    A slow one misses states in between; one that reads nothing is ended by the server's write deadline. Making a state
    costs something, so it is made once for all of them and only when somebody listens.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        """``make`` returns the present state as one line with its end."""
        self._make = make
        self._line = b""
        self._version = 0
        self._changed = asyncio.Event()
        self._pending: asyncio.TimerHandle | None = None
        self.count = 0

    def publish(self) -> None:
        """Hand out the present state now."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        if not self.count:
            return
        self._line = self._make()
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def publish_soon(self) -> None:
        """Hand out the present state within ``MIN_GAP_S``."""
        if self._pending is None and self.count:
            self._pending = asyncio.get_running_loop().call_later(MIN_GAP_S, self._publish_pending)

    def _publish_pending(self) -> None:
        self._pending = None
        self.publish()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the present state, then each newest one, until the caller stops."""
        self.count += 1
        try:
            seen = self._version  # before the first write, which may be slow
            yield self._make()
            while True:
                if seen == self._version:
                    await self._changed.wait()
                seen = self._version
                yield self._line
        finally:
            self.count -= 1
