"""A scheduler for the real vLLM whose steps take as long as a GPU's: `--scheduler-cls paced.PacedScheduler`.

The tiny model steps in 3 ms on a CPU, faster than one API server can stream: its event loop would be what clients
measure. This file is imported by vLLM's own interpreter, with this folder on PYTHONPATH.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

STEP_S = 0.012
"""A step of a 7B model on one large GPU takes 12-20 ms; with the tiny model's own 4 ms this is one."""
_HANG = os.environ.get("PACED_HANG")


class PacedScheduler(AsyncScheduler):  # type: ignore[misc]  # vLLM's types are not in this environment
    """vLLM's own scheduler, with a pause before each step that has something to do.

    It hangs for ever in the step that finds the file ``PACED_HANG``, which it removes: the next life does not hang.
    """

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        if self.running or self.waiting:
            time.sleep(STEP_S)
            _hang_if_told()
        return super().schedule(*args, **kwargs)


def _hang_if_told() -> None:
    if _HANG is None or not Path(_HANG).exists():
        return
    # As in a collective that never ends: Python runs no signal handler, so TERM does nothing.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    Path(_HANG).unlink()
    while True:
        time.sleep(60)
