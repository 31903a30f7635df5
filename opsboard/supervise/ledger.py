"""The restarts that count against the budgets of this host, of all engines together."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable

import msgspec

from opsboard.core.clock import Now
from opsboard.core.model import Restart
from opsboard.supervise.budget import FUTILE_S, Budget, Decision, decide

OBSERVE_S = 30.0
"""How long automation only looks after an unclean end of the daemon: what crashes it must not crash the engines."""


class Ledger:
    """In memory; who adds to it writes it down too. ``not_before`` is seconds of the monotonic clock.

    Restarts are dated anew by the monotonic clock: setting the other one, back or forward, opens no budget.
    """

    def __init__(
        self,
        budget: Budget,
        history: Iterable[Restart] = (),
        *,
        now: Now,
        not_before: float = float("-inf"),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Begin with what was written down before. What is dated later than ``now`` is as old as it is young."""
        self._budget = budget
        self._restarts = [(one, now.mono - abs(now.wall - one.t)) for one in history]
        self.not_before = not_before
        self._jitter = jitter

    def decide(self, engine: str, gpus: Collection[str], mono: float, served_s: float = 0.0) -> Decision:
        """Tell whether an engine whose last life has served ``served_s`` may be restarted at ``mono``."""
        jitter, dated = self._jitter(), [msgspec.structs.replace(one, t=at) for one, at in self._restarts]
        return decide(self._budget, dated, engine, gpus, served_s=served_s, now=mono, jitter=jitter)

    def add(self, restart: Restart, mono: float) -> None:
        """Count a restart, and forget those that no window can hold any more."""
        old = mono - max(self._budget.window_s, FUTILE_S)
        self._restarts = [(one, at) for one, at in self._restarts if at >= old] + [(restart, mono)]

    def take_back(self, restart: Restart) -> None:
        """Forget one that did not happen."""
        self._restarts = [(one, at) for one, at in self._restarts if one is not restart]

    def forgive(self, engine: str) -> None:
        """Let what an engine has spent count for nobody any more: a person has looked at it."""
        self._restarts = [
            (msgspec.structs.replace(one, forgiven=True) if one.engine == engine else one, at)
            for one, at in self._restarts
        ]
