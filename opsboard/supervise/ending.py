"""How a life is ended: TERM, a deadline, KILL, until every process of it is gone.

Standard library only: the shim uses it too.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

from opsboard.supervise.processes import Process, send

LEFTOVER_S = 5.0
"""What others may take after the main process has gone. vLLM gives its workers as long."""


class Ending:
    """One end. Call :meth:`step` several times a second with who is left, until nobody is.

    ``main`` is the pid of the process that was started; it leads its own process group. All times are seconds of a
    monotonic clock.
    """

    def __init__(self, main: int, grace_s: float, now: float) -> None:
        """Begin at ``now``; KILL comes ``grace_s`` later."""
        self.kill_at = now + grace_s
        self.killed_at: float | None = None
        """When the first KILL was sent, None before."""
        self._main = main
        self._asked: set[tuple[int, int]] = set()

    def hurry(self, grace_s: float, now: float) -> None:
        """Let KILL come earlier; never later."""
        self.kill_at = min(self.kill_at, now + grace_s)

    def step(self, members: Iterable[Process], now: float) -> None:
        """Send what is due to those who are left. TERM once each, KILL at every step."""
        left = list(members)
        if all(process.pid != self._main for process in left):
            self.hurry(LEFTOVER_S, now)
        if now >= self.kill_at:
            if left:
                self.killed_at = now if self.killed_at is None else self.killed_at
            self._send(left, signal.SIGKILL, group=True)
            return
        first = not self._asked
        new = [process for process in left if (process.pid, process.start_ticks) not in self._asked]
        self._asked.update((process.pid, process.start_ticks) for process in new)
        self._send(new, signal.SIGTERM, group=first)
        self._send([process for process in new if process.state in "Tt"], signal.SIGCONT, group=False)

    def _send(self, targets: list[Process], number: signal.Signals, *, group: bool) -> None:
        """Signal the group as one, so that nobody slips out by forking, and each of those outside of it.

        The group's id cannot belong to anybody else as long as one verified member lives in it.
        """
        as_one = group and self._main > 0 and any(process.group == self._main for process in targets)
        if as_one:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._main, number)
        for process in targets:
            if not (as_one and process.group == self._main):
                with contextlib.suppress(OSError):  # it changed its user, or cannot be looked at: KILL tries again
                    send(process, number)
