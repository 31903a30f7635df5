"""What ``/pause`` and ``/sleep`` do to a scheduler, and what it says of itself (``vllm/v1/engine/core.py``).

A paused engine takes requests and keeps them waiting; those under way go on (``wait``), have ended before (``abort``)
or stand still (``keep``). A sleeping one is paused, too.
"""

from __future__ import annotations

from opsboard.sim.model import EngineModel
from opsboard.sim.pipe import Utility


class Pause:
    """The pause of one EngineCore. ``frozen``: no step may begin."""

    def __init__(self, model: EngineModel) -> None:
        self.frozen = False
        self._model = model
        self._asleep = False

    def call(self, utility: Utility) -> bool | None:
        """Do what is asked and return the answer; None while requests under way have to end first."""
        match utility.name:
            case "pause" | "sleep":
                self._model.admits = False
                self.frozen = utility.mode == "keep"
                if utility.mode == "wait" and self._model.can_step:
                    return None
                self._asleep |= utility.name == "sleep" and utility.level > 0
                return True
            case "resume" | "wake_up":
                self._asleep &= utility.name == "resume"
                self._model.admits = not self._asleep
                self.frozen = False
                return not self._asleep
            case "reset_prefix_cache":
                return self._model.pool.reset()
            case "is_paused":
                return not self._model.admits
            case _:  # is_sleeping
                return not self._model.admits or self._asleep
