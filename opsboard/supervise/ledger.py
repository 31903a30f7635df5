"""The restarts that count against the budgets of this host, of all engines together."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable

import msgspec

from opsboard.core.model import Restart
from opsboard.supervise.budget import Budget, Decision, decide

OBSERVE_S = 30.0
"""How long automation only looks after an unclean end of the daemon: what crashes it must not crash the engines."""


class Ledger:
    """In memory; who adds to it writes it down too. ``not_before`` is seconds of the monotonic clock."""

    def __init__(
        self,
        budget: Budget,
        history: Iterable[Restart] = (),
        *,
        not_before: float = float("-inf"),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Begin with what was written down before."""
        self._budget = budget
        self._restarts = list(history)
        self.not_before = not_before
        self._jitter = jitter

    def decide(self, engine: str, gpus: Collection[str], wall: float) -> Decision:
        """Tell whether an engine may be restarted at ``wall`` (Unix s), and after which pause."""
        return decide(self._budget, self._restarts, engine, gpus, now=wall, jitter=self._jitter())

    def add(self, restart: Restart) -> None:
        """Count a restart, and forget those that no window can hold any more."""
        old = restart.t - self._budget.window_s
        self._restarts = [one for one in self._restarts if one.t >= old] + [restart]

    def take_back(self, restart: Restart) -> None:
        """Forget one that did not happen."""
        self._restarts = [one for one in self._restarts if one is not restart]

    def forgive(self, engine: str) -> None:
        """Begin anew for an engine that a person has looked at."""
        self._restarts = [
            msgspec.structs.replace(one, forgiven=True) if one.engine == engine else one for one in self._restarts
        ]
