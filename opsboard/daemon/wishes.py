"""What operators want of engines, on its way to the disk: told where it does not get there in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future

from opsboard.core.errors import StoreError
from opsboard.core.model import Severity
from opsboard.core.text import sanitise
from opsboard.store.state import Wish

WRITE_S = 5.0
_DID = {"up": "started", "down": "stopped"}


class Wishes:
    """Writes each wish down and looks after it; the wish itself waits for no disk."""

    def __init__(
        self, write: Callable[[str, Wish], Future[None]], tell: Callable[[str, str, Severity, str], None]
    ) -> None:
        """``write`` is done when it is on disk; ``tell(kind, text, severity, subject)`` puts a line on a timeline."""
        self._write = write
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()

    def remember(self, engine: str, wish: Wish) -> None:
        """Write a wish down; returns at once."""
        task = asyncio.get_running_loop().create_task(self._see_to(engine, wish, self._write(engine, wish)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Look after none any more; what waits for the disk still does."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _see_to(self, engine: str, wish: Wish, written: Future[None]) -> None:
        waiting = asyncio.wrap_future(written)
        what, subject = f"that a person {_DID[wish]} it", f"engine/{engine}"
        try:
            async with asyncio.timeout(WRITE_S):
                await asyncio.shield(waiting)
            return
        except TimeoutError:
            why = f"the disk has not taken it for {WRITE_S:g} s"
        except StoreError as error:
            why = sanitise(error.message)
        text = f"{what} is not written down: {why}; a daemon that has to begin anew would not know of it"
        self._tell("not_remembered", text, Severity.WARNING, subject)
        with contextlib.suppress(StoreError):
            await asyncio.shield(waiting)
            self._tell("remembered", f"{what} is written down now", Severity.INFO, subject)
