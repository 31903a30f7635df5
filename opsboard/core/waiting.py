"""What an engine waits for, in words."""

from __future__ import annotations

import math

from opsboard.core.model import EngineState, Rolling, Step
from opsboard.core.wire import Engine

_WAITS = {
    EngineState.BACKING_OFF.value: ("tries again in {} s", "tries again now"),
    EngineState.DRAINING.value: ("drains for {} s more at most", "the time to drain is over"),
}
_EXPLAINED = {state.value for state in (EngineState.FAILED, EngineState.PARKED)} | _WAITS.keys()


def waits_for(engine: Engine, now: float) -> str | None:
    """Say what happens to an engine next, and in how many seconds; None where nothing is due. ``now`` is Unix s."""
    words = _WAITS.get(engine.state)
    if words is None or engine.until is None:
        return None
    later, over = words
    left = math.ceil(engine.until - now)
    return later.format(left) if left > 0 else over


def told(engine: Engine, now: float) -> str:
    """Return all there is to say of an engine that does not simply serve: what comes next, why, what to do."""
    return "; ".join(part for part in (waiting(engine, now), engine.hint) if part)


def waiting(engine: Engine, now: float) -> str:
    """Return what comes next of an engine that does not simply serve, and why; empty where there is nothing to say."""
    return "; ".join(part for part in (waits_for(engine, now), reason(engine)) if part)


def step_told(step: Step) -> str:
    """Return what became of a step, unless it went well, and what is said of it."""
    text, outcome = step.text or "", step.outcome
    if outcome in {None, "ok"} or str(outcome) in text:
        return text
    return f"{outcome}: {text}" if text else str(outcome)


def reason(engine: Engine) -> str:
    """Return in one line why an engine does not simply serve; empty where there is nothing to say."""
    return engine.message or (engine.cause if engine.state in _EXPLAINED else None) or ""


def rolling_told(rolling: Rolling) -> str:
    """Return how far a rolling restart is, or how it ended."""
    parts = [f"rolling restart: {rolling.done} of {len(rolling.engines)} done"]
    if rolling.outcome is not None:
        parts += [rolling.error or rolling.outcome]
        return ", ".join(parts)
    if rolling.begun:
        parts += [f"now {rolling.at}"]
    parts += [f"next: {name}" for name in rolling.untouched[:1]]
    return ", ".join(parts)
