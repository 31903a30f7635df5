"""A rolling restart: engines one at a time, the next only when the one before serves again, over daemon restarts too.

There is one at a time on a host. It stops at the first engine that does not come back, that somebody stopped
meanwhile (the later wish counts) or whose restart was called off; those after it are told and left alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, NotFound, OpsboardError, SuperviseError
from opsboard.core.model import EngineState, LifeView, Rolling, Severity
from opsboard.core.text import sanitise
from opsboard.core.waiting import rolling_told
from opsboard.supervise.world import Begins, Wish, log, nobody

OK, FAILED, CANCELLED = "ok", "failed", "cancelled"
CANCEL = "`opsboard engine restart --cancel` calls it off"
PATIENCE_S = 15.0
"""How long another target of a route may take to be seen serving before the next restart is given up."""
LOOK_S = 0.5
FORGET_S = 3600.0
"""Not gone on with when nothing was heard of it for so long: by then somebody may have gone another way."""
_AS_IT_WAS = frozenset({EngineState.READY, EngineState.DRAINING, EngineState.STOPPED})
"""States in which an engine with its old life shows that its restart was lost with the last daemon."""


class Engines(Protocol):
    """What restarts one engine: the supervisor."""

    not_before: float
    """Seconds of the monotonic clock: after an unclean end nothing is begun until then."""

    def life(self, name: str) -> LifeView:
        """Return what is known of an engine. Raises NotFound."""

    def wish(self, name: str) -> Wish | None:
        """Return what an operator wanted of it last."""

    async def restart(self, name: str, reason: str, *, now: bool = False, begins: Begins = nobody) -> None:
        """Restart it; raises Conflict, SuperviseError, NotFound."""

    async def begun(self, name: str) -> bool:
        """Return when nothing is under way: True when it serves again."""


class RollingRestarts:
    """Carries out one at a time, and keeps how far it is."""

    def __init__(
        self,
        clock: Clock,
        engines: Engines,
        *,
        keep: Callable[[Rolling], object],
        tell: Callable[[str, str, Severity, str], object],
    ) -> None:
        """``keep`` writes down how far it is; ``tell(kind, text, severity, subject)`` puts a line on a timeline."""
        self._clock = clock
        self._engines = engines
        self._keep = keep
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self.last: Rolling | None = None
        """The one under way, or else the last one that was."""

    @property
    def under_way(self) -> Rolling | None:
        """The one under way."""
        return self.last if self.last is not None and self.last.outcome is None else None

    async def run(
        self,
        names: Iterable[str],
        reason: str,
        *,
        id: str,
        now: bool = False,
        uid: int | None = None,
        begins: Begins = nobody,
    ) -> None:
        """Restart engines one after the other; return when it is over, however it ended.

        Raises Conflict when another one is under way, and what refuses the restart of the first: then nothing was done.
        """
        if (other := self.under_way) is not None:
            raise Conflict(f"another is under way: {rolling_told(other)}", hint=CANCEL)
        names, wall, before = tuple(names), self._clock.now().wall, self.last
        down = tuple(name for name in names if self._engines.wish(name) == "down")
        self.last = mine = Rolling(
            id=id, engines=names, reason=reason, began=wall, changed=wall, now=now, uid=uid, down=down
        )

        def first() -> None:
            begins()
            self._say(f"rolling restart of {len(names)} engines, one at a time: {', '.join(names)}: {reason}")

        try:
            await self._go(id, first, patient=False)
        except BaseException as error:
            if self.last is mine:  # nothing was done
                self.last = before
            elif isinstance(error, Exception) and self._now(id) is not None:
                self._stop(f"failed: {sanitise(repr(error))}")
            raise

    def resume(self, kept: Rolling | None) -> None:
        """Go on with what the last daemon kept, behind; engines have been adopted."""
        self.last = kept
        if kept is None or kept.outcome is not None:
            return
        away_s = self._clock.now().wall - kept.changed
        if away_s > FORGET_S:
            self._stop(f"was given up: nothing was heard of it for {away_s / 3600:.1f} h")
        else:
            self._task = asyncio.get_running_loop().create_task(self._resume(kept))

    def cancel(self, who: str) -> Rolling:
        """Call it off; the engine at hand finishes its restart. Returns how far it was; raises Conflict."""
        if self.under_way is None:
            raise Conflict("no rolling restart is under way", hint="`opsboard engine undrain` calls off a single one")
        return self._stop(f"was called off by {who}", CANCELLED)

    async def close(self) -> None:
        """Let go; the next daemon goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # --- one after the other

    async def _resume(self, kept: Rolling) -> None:
        wait_s = self._engines.not_before - self._clock.now().mono
        later = f" in {wait_s:.0f} s, as the last daemon did not end in order" if wait_s > 0 else ""
        self._say(f"goes on after a restart of the daemon{later}: {rolling_told(kept)}", Severity.WARNING)
        try:
            await self._go(kept.id, nobody, patient=True)
        except Exception as error:  # noqa: BLE001  whatever happens, people are told
            log.exception("the rolling restart failed")
            if self._now(kept.id) is not None:
                self._stop(f"failed: {sanitise(repr(error))}")

    def _now(self, id: str) -> Rolling | None:
        """Return how far this one is; None when it is over, or was called off, whatever has been asked for since."""
        roll = self.under_way
        return roll if roll is not None and roll.id == id else None

    async def _go(self, id: str, first: Begins, *, patient: bool) -> None:
        """Do all that is left; raises only what refuses a first one before anything was done."""
        while (roll := self._now(id)) is not None and (name := roll.at) is not None:
            try:
                await self._renew(roll, name, first, patient=patient or roll.done > 0)
            except (SuperviseError, Conflict, NotFound) as error:
                now = self._now(id)
                if not patient and (roll if now is None else now).untouched == roll.engines:
                    raise
                if now is not None:  # else it was called off, and the engine's own timeline tells
                    self._failed(name, error)
            else:
                self._came_back(id)

    def _came_back(self, id: str) -> None:
        roll = self._now(id)
        if roll is None:  # called off meanwhile
            return
        roll = self._change(done=roll.done + 1, begun=False, old=None)
        if roll.at is not None:
            self._say(rolling_told(roll))
            return
        self._over(OK, None)
        self._say(f"rolling restart: all {len(roll.engines)} serve again, in {roll.changed - roll.began:.0f} s")

    def _failed(self, name: str, error: OpsboardError) -> None:
        said = f"{error.message} ({error.hint})" if error.hint else error.message
        self._tell("action_failed", f"restart failed: {said}", Severity.ERROR, f"engine/{name}")
        self._stop(f"stopped at {name}: {error.message}", but=name)

    async def _renew(self, roll: Rolling, name: str, first: Begins, *, patient: bool) -> None:
        """Give an engine a new life, unless the last daemon has; raises why it does not serve."""
        if not await self._renewed(roll, name):
            if self._engines.wish(name) == "down" and name not in roll.down:
                raise SuperviseError(f"{name} was stopped meanwhile")
            if patient:
                await self._look_back(roll)
                await self._until(roll.id, self._engines.not_before)
            roll = await self._begin(roll, name, first, patient=patient)
        sound, life = await self._engines.begun(name), self._engines.life(name)
        if not sound:
            raise SuperviseError(f"{name} is {life.state.word}: {life.message or 'no reason known'}")
        if roll.old is not None and life.started == roll.old:
            raise SuperviseError(f"its restart was called off: {life.cause or 'no reason known'}")

    async def _renewed(self, roll: Rolling, name: str) -> bool:
        """Tell whether a restart that another daemon began has led to anything."""
        if not roll.begun:
            return False
        await self._engines.begun(name)
        life = self._engines.life(name)
        return not (life.started == roll.old and life.state in _AS_IT_WAS)

    async def _look_back(self, roll: Rolling) -> None:
        """Raise SuperviseError when the one before has stopped to serve, unless somebody wanted that."""
        if not roll.done or self._engines.wish(before := roll.engines[roll.done - 1]) == "down":
            return
        if not await self._engines.begun(before):
            raise SuperviseError(f"{before}, which was restarted before it, is {self._engines.life(before).state.word}")

    async def _begin(self, roll: Rolling, name: str, first: Begins, *, patient: bool) -> Rolling:
        """Begin a restart; where another target is not seen to serve yet, a moment later. Returns the course then."""
        old = self._engines.life(name).started

        def begins() -> None:
            if self._now(roll.id) is None:
                raise Conflict("the rolling restart was called off")
            if not patient:
                first()
            self._change(begun=True, old=old)

        end = self._clock.now().mono + PATIENCE_S
        while True:
            try:
                await self._engines.restart(name, roll.reason, now=roll.now, begins=begins)
            except Conflict:
                if not patient or self._now(roll.id) is None or self._clock.now().mono >= end:
                    raise
                await asyncio.sleep(LOOK_S)
            else:
                return msgspec.structs.replace(roll, begun=True, old=old)

    async def _until(self, id: str, mono: float) -> None:
        while self._now(id) is not None and (left := mono - self._clock.now().mono) > 0:  # noqa: ASYNC110  a deadline
            await asyncio.sleep(min(left, LOOK_S))

    # --- what is kept and told

    def _change(self, **changes: Any) -> Rolling:
        assert self.last is not None  # noqa: S101  only what is there changes
        self.last = msgspec.structs.replace(self.last, changed=self._clock.now().wall, **changes)
        self._keep(self.last)
        return self.last

    def _over(self, outcome: str, error: str | None) -> Rolling:
        return self._change(outcome=outcome, error=error, ended=self._clock.now().wall)

    def _stop(self, why: str, outcome: str = FAILED, *, but: str | None = None) -> Rolling:
        """End it, and tell those whose turn does not come, ``but`` one that knows."""
        roll = self._over(outcome, why)
        for name in roll.untouched:
            if name != but:
                text = f"not restarted: the rolling restart {why}"
                self._tell("rolling_stopped", text, Severity.WARNING, f"engine/{name}")
        self._say(f"the rolling restart {why}", Severity.INFO if outcome == CANCELLED else Severity.WARNING)
        return roll

    def _say(self, text: str, severity: Severity = Severity.INFO) -> None:
        self._tell("rolling", text, severity, "host")
