"""When an engine serves, and whether two pages of it are of the same process. Shared by all who compare readings."""

from __future__ import annotations

import re

from opsboard.core.model import EngineState, EngineView, LifeView

SERVES = frozenset({EngineState.READY, EngineState.DRAINING})
"""States in which an engine answers requests."""

EXITS_WITH_0 = "vLLM exits with 0 when its engine has died, and when somebody else ends it"

PROCESS_START_SLACK_S = 2.0
"""``process_start_time_seconds`` moves a little when the wall clock is slewed; a restart moves it by more."""


def other_process(old: EngineView, new: EngineView) -> bool | None:
    """Tell whether ``new`` was served by another process than ``old``; None where the pages do not tell."""
    if old.process_start is None or new.process_start is None:
        return None
    return abs(new.process_start - old.process_start) > PROCESS_START_SLACK_S


_SPENT = re.compile(r"restarted \d+ times within ")


def spent_its_budget(life: LifeView) -> bool:
    """Tell whether an engine is parked because it was restarted too often, as ``supervise.budget`` words it."""
    return life.state is EngineState.PARKED and _SPENT.search(life.message or "") is not None
