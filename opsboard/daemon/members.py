"""Who belongs to a supervised engine, from the moment it serves.

Its shim writes down who its processes are once a second. One that dies before it was written down would never have been
seen, so that nobody misses it: who descends from the main process when the engine begins to serve counts at once.
"""

from __future__ import annotations

from collections.abc import Callable

from collectors.process import ProcessIdentity, alive, descendants, identity
from opsboard.core.lives import SERVES
from opsboard.core.model import LifeView


class Members:
    """The processes of one engine. Blocks: it reads the engine's bundle and /proc."""

    def __init__(self, recorded: Callable[[], list[int]]) -> None:
        """``recorded`` returns the pids that the shim has written down; it may raise OSError."""
        self._recorded = recorded
        self._looked_in: float | None = None
        self._others: tuple[ProcessIdentity, ...] = ()

    def pids(self, life: LifeView | None) -> list[int]:
        """Return all pids of the engine, which is in ``life``; the main one first. Raises OSError."""
        if life is not None and life.pid and life.state in SERVES and life.started != self._looked_in:
            self._looked_in = life.started
            found = map(identity, descendants(life.pid))
            self._others = tuple(one for one in found if one is not None)
        recorded = self._recorded()
        self._others = tuple(one for one in self._others if one.pid not in recorded and alive(one))
        return [*recorded, *(one.pid for one in self._others)]
