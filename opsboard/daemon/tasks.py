"""How the daemon's tasks live: each on its own deadline grid, restarted with a back-off until its budget is spent.

``asyncio.TaskGroup`` cancels all siblings when one fails: right for a wiring error, wrong for a flaky source. So the
group holds only :func:`supervised` wrappers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from opsboard.core.errors import OpsboardError
from opsboard.core.model import Record
from opsboard.core.text import sanitise

log = logging.getLogger("opsboard.tasks")


class TaskGaveUp(OpsboardError):
    """A task failed too often: the daemon stops loudly and its manager starts it again. Engines live on."""

    code = "task_gave_up"


class Policy(Record, frozen=True, kw_only=True):
    """How often a task may fail. Seconds; ``budget`` failures within ``window_s`` are one too many."""

    first_s: float = 0.5
    cap_s: float = 30.0
    healthy_s: float = 60.0
    """A run this long resets the back-off."""
    budget: int = 20
    window_s: float = 600.0


class TaskBook:
    """What became of the tasks: restarts by name (for the exporter) and the last error."""

    def __init__(self) -> None:
        self.restarts: Counter[str] = Counter()
        self.last_error: str | None = None

    def failed(self, name: str, error: Exception) -> None:
        """Record one failure and log it with its traceback."""
        self.restarts[name] += 1
        self.last_error = sanitise(f"{name}: {type(error).__name__}: {error}")
        log.error("task %s failed: %s", name, sanitise(str(error)), exc_info=error)


async def supervised(
    name: str,
    factory: Callable[[], Awaitable[None]],
    book: TaskBook,
    policy: Policy | None = None,
    jitter: Callable[[], float] = random.random,
) -> None:
    """Run ``factory()`` until it returns; on an exception back off and run it again.

    The n-th pause in a row is between half of and the full ``first_s * 2**(n-1)``, at most ``cap_s``.

    Raises:
        TaskGaveUp: the budget of failures is spent.
    """
    policy = policy or Policy()
    loop = asyncio.get_running_loop()
    failures: deque[float] = deque(maxlen=policy.budget)
    in_a_row = 0
    while True:
        began = loop.time()
        try:
            await factory()
        except Exception as error:
            book.failed(name, error)
            ended = loop.time()
            failures.append(ended)
            if len(failures) == policy.budget and ended - failures[0] <= policy.window_s:
                raise TaskGaveUp(
                    f"task {name} failed {policy.budget} times in {ended - failures[0]:.0f} s, "
                    f"last: {sanitise(str(error))}",
                    hint="see the daemon's log; engines are not touched by this",
                ) from error
            in_a_row = 1 if ended - began >= policy.healthy_s else in_a_row + 1
            pause = min(policy.cap_s, policy.first_s * 2.0 ** min(in_a_row - 1, 30))
            await asyncio.sleep(pause * (0.5 + 0.5 * jitter()))
        else:
            return


class Lag:
    """How late the grids wake: the worst of the last two periods of ``period_s``, and the slots skipped in all."""

    def __init__(self, period_s: float = 30.0) -> None:
        self._period_s = period_s
        self._began = -math.inf
        self._worst = self._worst_before = 0.0
        self.skipped = 0

    def note(self, mono: float, late_s: float, skipped: int = 0) -> None:
        """Record that a wake at ``mono`` came ``late_s`` after its deadline, ``skipped`` slots having passed unused."""
        if mono - self._began >= self._period_s:
            self._began, self._worst_before, self._worst = mono, self._worst, 0.0
        self._worst = max(self._worst, late_s)
        self.skipped += skipped

    @property
    def worst_s(self) -> float:
        """Worst lateness in seconds of the last one to two periods."""
        return max(self._worst, self._worst_before)


async def on_grid(
    interval_s: float, tick: Callable[[], Awaitable[None]], *, phase: float = 0.0, lag: Lag | None = None
) -> None:
    """Call ``tick`` at ``start + (phase + n) * interval_s`` for ever, without drift.

    ``phase`` in 0..1 spreads targets over the interval. A tick that takes longer than the interval skips the slots it
    missed: a slow target delays only itself and is never called twice in a row to catch up.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + phase * interval_s
    while True:
        await asyncio.sleep(deadline - loop.time())
        woke = loop.time()
        if lag is not None:
            lag.note(woke, max(0.0, woke - deadline))
        await tick()
        deadline += interval_s
        behind = loop.time() - deadline
        if behind > 0:
            skipped = math.ceil(behind / interval_s)
            deadline += skipped * interval_s
            if lag is not None:
                lag.note(loop.time(), 0.0, skipped)
