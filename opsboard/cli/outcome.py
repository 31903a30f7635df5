"""How an asked-for action ends, seen from its engine, and what is said until then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opsboard.core.clock import SystemClock
from opsboard.core.errors import ControlError
from opsboard.core.model import state_word
from opsboard.core.waiting import step_told, told

if TYPE_CHECKING:
    from opsboard.core.model import Step
    from opsboard.core.wire import Engine, EngineDetail

_DONE = {
    "start": ("ready", "asleep"),
    "restart": ("ready", "asleep"),
    "stop": ("stopped",),
    "drain": ("draining",),
    "undrain": ("ready", "asleep"),
    "sleep": ("asleep",),
    "wake": ("ready",),
}
_KEPT_ASLEEP = ("asleep", "stopped")
"""How a start of a standby ends: one that cannot sleep is stopped."""
_FAILED = ("failed", "parked")
_BLIND_HINT = "it is out of service; its page does not tell, or cannot be read: `opsboard status` shows why"


class Asked:
    """An action that the daemon took on, and the engine as it was ``before``."""

    def __init__(self, kind: str, before: EngineDetail, *, turn_comes: bool = False) -> None:
        """``kind`` is the action's; ``turn_comes``: it begins later, and until then there is nothing to say."""
        self.name = before.engine.name
        self.said = state_word(before.engine.state) if turn_comes else ""
        self._kind = kind
        self._before = before
        self._told: set[float] = set()

    def begun(self, now: EngineDetail) -> bool:
        """Tell whether it has begun. Raises ControlError when it failed at once, as most failures do."""
        self._raise_failure(now)
        pid, before = now.engine.pid, self._before.engine.pid
        if now.engine.state == "backing_off" and self._kind in {"start", "restart"} and self._moved(now.engine):
            self.said = told(now.engine, SystemClock().now().wall)
            return True
        match self._kind:
            case "stop":
                return True
            case "drain" | "undrain":
                return now.engine.state in _DONE[self._kind]
            case "sleep":
                return now.engine.state in ("draining", "asleep")
            case "wake":
                return now.engine.state in ("ready", "starting")
            case "start":
                return pid is not None or now.engine.state == "stopping"
            case _:
                return bool(self._own_steps(now)) or (pid is not None and pid != before)

    def done(self, now: EngineDetail) -> bool:
        """Tell whether it is done, and write what the engine does until then. Raises ControlError when it failed."""
        self._raise_failure(now)
        self._tell_steps(now)
        if self._is_done(now):
            click.echo(f"{self.name}: {state_word(now.engine.state)}")
            return True
        self._raise_end(now)
        self._tell_state(now.engine)
        return False

    def _is_done(self, now: EngineDetail) -> bool:
        engine = now.engine
        kept = engine.standby and self._kind in ("start", "restart")
        if engine.state not in (_KEPT_ASLEEP if kept else _DONE[self._kind]):
            return False
        match self._kind:
            case "drain":
                return _quiet(engine)
            case "restart" if engine.state == "stopped":  # a standby that cannot sleep, and perhaps did not run before
                return self._moved(engine) and bool(self._own_steps(now))
            case "restart":
                return self._moved(engine) and engine.pid != self._before.engine.pid
            case "start" if engine.state == "stopped":
                return self._moved(engine)
            case _:
                return True

    def _moved(self, engine: Engine) -> bool:
        return engine.state_since != self._before.engine.state_since

    def _raise_end(self, now: EngineDetail) -> None:
        """Raise ControlError when nothing more will come of it."""
        engine, steps = now.engine, self._own_steps(now)
        if steps and steps[-1].outcome == "aborted":
            raise ControlError(f"{self.name}: {self._kind} aborted: {steps[-1].text or 'no reason known'}")
        if self._kind == "drain" and engine.state == "draining" and _blind(engine):
            raise ControlError(f"{self.name}: draining, but it is not known what is under way", hint=_BLIND_HINT)
        over = engine.state in _FAILED and (self._moved(engine) or self._kind == "undrain")
        anew = self._kind == "restart" and engine.pid != self._before.engine.pid is not None
        doubted = anew and engine.state == "draining" and not engine.standby
        if over or doubted:
            message = f"{self.name}: {state_word(engine.state)}: {engine.message or 'no reason known'}"
            raise ControlError(message, hint=engine.hint or f"opsboard engine logs {self.name}")

    def _tell_state(self, engine: Engine) -> None:
        more = engine.phase or (engine.message if engine.state == "backing_off" else None)
        if self._kind == "drain" and engine.state == "draining":
            more = _under_way(engine)
        line = state_word(engine.state) + ("" if more is None else f": {more}")
        if line != self.said:
            click.echo(f"{self.name}: {line}", err=True)
            self.said = line

    def _tell_steps(self, now: EngineDetail) -> None:
        """Write each step of a start or restart when it is over, with what it took; also of those tried again."""
        for step in self._own_steps(now):
            if step.outcome is None or step.started in self._told:
                continue
            self._told.add(step.started)
            took = "" if step.seconds is None else f"{step.seconds:.1f} s"
            click.echo(f"{self.name}: {step.name:<8}{took:>8}  {step_told(step)}".rstrip(), err=True)

    def _own_steps(self, now: EngineDetail) -> tuple[Step, ...]:
        """Return the steps that belong to what was asked: those of an earlier restart began before it."""
        old, new = self._before.transaction, now.transaction
        return () if old and new and old[0].started == new[0].started else new

    def _raise_failure(self, now: EngineDetail) -> None:
        """Raise ControlError when the timeline has told that the action failed."""
        for event in now.events:
            if event.kind == "action_failed" and event not in self._before.events:
                raise ControlError(f"{self.name}: {event.text}")


def _quiet(engine: Engine) -> bool:
    """Tell whether nothing is under way by a page that was read after it left service."""
    age_s, since = engine.reading.age_s, engine.state_since
    if age_s is None or since is None or SystemClock().now().wall - age_s < since:
        return False
    return engine.running == 0 and not engine.waiting


def _under_way(engine: Engine) -> str | None:
    """Say what is under way."""
    if engine.running is None:
        return "it is not known what is under way"
    return f"{engine.running:g} running, {engine.waiting or 0:g} waiting"


def _blind(engine: Engine) -> bool:
    """Tell whether its page has not told what is under way for as long as a drain may take."""
    waited = SystemClock().now().wall - (engine.state_since or 0.0)
    return engine.running is None and waited > (engine.drain_timeout_s or 0.0)
