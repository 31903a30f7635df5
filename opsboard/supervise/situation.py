"""The words of the machine: where an engine is, what can happen to it, what is to be done. Records only."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from opsboard.core.model import EngineState, FatalVerdict, Record
from opsboard.core.model import Restart as Counted
from opsboard.supervise.budget import Allowed, Decision

GOES_ON = "goes on with a restart that the end of the last daemon interrupted"
"""Why an engine waits whose restart by ourselves lost its daemon between its old life and its new one."""
SERVING = frozenset({EngineState.READY, EngineState.DRAINING})
"""States of a life that has become ready."""


class Body(StrEnum):
    """What there is of an engine, whatever it is called outside."""

    NOTHING = "nothing"
    LAUNCHING = "launching"
    """A LAUNCH is out: there may be a process at any moment."""
    ALIVE = "alive"
    ENDING = "ending"
    """An END is out."""
    LEFT = "left"
    """The main process is gone; others of its life are not, or may not be."""


class Command(StrEnum):
    """What the keeper has to carry out."""

    LAUNCH = "launch"
    END = "end"
    DRAIN = "drain"
    """Say :class:`Drained` when nothing is under way in the engine any more."""
    PROVE = "prove"
    """Ask it the question whose answer is known."""
    PREPARE = "prepare"
    """Look whether there is room for a restart by ourselves, and write down that it counts."""


class Terms(Record, frozen=True, kw_only=True):
    """What holds for an engine at this moment: its configuration, and what the budgets allow.

    The defaults are supervision by hand: nothing is restarted by itself, nothing is drained.
    """

    restart: Literal["on-failure", "always", "never"] = "never"
    drain_timeout_s: float = 0.0
    decision: Decision = Allowed()
    not_before: float = float("-inf")
    """Automation only looks until then, seconds of the monotonic clock."""


BY_HAND = Terms()


class Situation(Record, frozen=True, kw_only=True):
    """All that is remembered. ``since`` is Unix seconds; ``*_by`` and ``retry_at`` are of the monotonic clock."""

    since: float
    state: EngineState = EngineState.STOPPED
    body: Body = Body.NOTHING
    wanted: bool = False
    """The operator's last wish: it shall run."""
    drained: bool = False
    """The operator's last wish: it shall run, but get no requests."""
    doubt: str | None = None
    """Why this life of it shall get no requests, though no operator said so."""
    automatic: bool = False
    """What is under way was our own decision."""
    message: str | None = None
    cause: str | None = None
    """Why it came into this state."""
    exit_code: int | None = None
    ready_by: float | None = None
    ready_timeout_s: float = 0.0
    drain_by: float | None = None
    """It is drained for a restart, until then at most."""
    retry_at: float | None = None
    """When automation looks again."""
    preparing: bool = False
    proving: bool = False
    broken: bool = False
    """A detector is sure that this life does not work: its requests will not end."""
    served_from: float | None = None
    """Since when this life serves, monotonic seconds; None: it does not."""
    served_s: float = 0.0
    """How long the life that serves no more has served."""

    @property
    def busy(self) -> bool:
        """True while an operator's wish is being carried out: a launch, an end or a drain is out."""
        ending = self.body is Body.ENDING and self.state is not EngineState.PARKED
        return ending or self.body is Body.LAUNCHING or self.drain_by is not None

    @property
    def sound(self) -> bool:
        """True when it serves, or would if it had not been taken out of service."""
        out = self.drained and self.doubt is None and self.drain_by is None
        return self.state is EngineState.READY or (self.state is EngineState.DRAINING and out)

    def served(self, mono: float) -> float:
        """Return how long this life, or the last one, has served by ``mono`` (monotonic seconds)."""
        return self.served_s if self.served_from is None else mono - self.served_from

    @property
    def until(self) -> float | None:
        """When it goes on by itself at the latest, monotonic seconds; None: it does not, or it is just starting."""
        return self.drain_by if self.drain_by is not None else self.retry_at

    @property
    def due(self) -> float | None:
        """When a :class:`Tick` changes something, monotonic seconds; None: it does not."""
        return self.until if self.ready_by is None else self.ready_by


# --- what operators want


class Start(Record, frozen=True):
    """An operator wants it to run, and to serve."""

    reason: str = ""


class Stop(Record, frozen=True):
    """An operator wants it not to run."""

    reason: str = ""


class Restart(Record, frozen=True):
    """An operator wants a new life of it, ``now`` or when nothing is under way in this one."""

    reason: str = ""
    now: bool = False


class Drain(Record, frozen=True):
    """An operator wants it to run but to get no requests."""

    reason: str = ""


class Undrain(Record, frozen=True):
    """An operator wants it to get requests again; a restart that still drains is called off."""

    reason: str = ""


Wish = Start | Stop | Restart | Drain | Undrain


# --- what happens


class Launched(Record, frozen=True):
    """A LAUNCH is done; the engine has ``ready_timeout_s`` to serve."""

    ready_timeout_s: float


class LaunchFailed(Record, frozen=True):
    """A LAUNCH is done and nothing runs, for the reason in ``message``; or what is ``left`` of the last life does."""

    message: str
    verdict: FatalVerdict = FatalVerdict.RETRY
    left: bool = False


class Reborn(Record, frozen=True):
    """Others have begun a new life where the last one ended, or where we were about to; it has as long to serve."""

    ready_timeout_s: float


class Answers(Record, frozen=True):
    """The engine says that it serves; it has not proven it."""


class Ready(Record, frozen=True):
    """The engine serves. ``doubt`` is why it shall get no requests all the same."""

    doubt: str | None = None


class Unproven(Record, frozen=True):
    """The engine says that it serves, and does not."""

    message: str


class Exited(Record, frozen=True, kw_only=True):
    """The main process is gone. ``left`` are pids of its life that are not; ``asked_by`` who ended it, if not we."""

    code: int | None = None
    left: Sequence[int] = ()
    asked_by: str | None = None
    last_words: str | None = None
    result: str | None = None
    """What its runner makes of it, where it says more than the code."""
    verdict: FatalVerdict = FatalVerdict.RETRY
    """What its last words ask for."""


class Gone(Record, frozen=True):
    """Every process of the life is gone: an END is done, or those that were left have gone by themselves."""


class Survived(Record, frozen=True):
    """An END goes on, but KILL has not helped so far."""

    message: str


class Drained(Record, frozen=True):
    """Nothing is under way in it any more."""


class Accused(Record, frozen=True, kw_only=True):
    """A detector is sure that it does not work, or (``planned``) a new life is due: nobody asked for either."""

    cause: str
    planned: bool = False


class Acquitted(Record, frozen=True):
    """No detector is sure any more that it does not work."""


class Prepared(Record, frozen=True):
    """A PREPARE is done: there is room, and the restart is counted."""

    restart: Counted | None = None


class Unprepared(Record, frozen=True):
    """A PREPARE is done: there is no room, nothing can be written down, or something of the last life is ``left``."""

    message: str
    verdict: FatalVerdict = FatalVerdict.WAIT
    left: bool = False


class Tick(Record, frozen=True):
    """Time passes."""


Event = (
    Wish
    | Launched
    | LaunchFailed
    | Reborn
    | Answers
    | Ready
    | Unproven
    | Exited
    | Gone
    | Survived
    | Drained
    | Accused
    | Acquitted
    | Prepared
    | Unprepared
    | Tick
)


# --- what a daemon finds when it starts


class Found(Record, frozen=True, kw_only=True):
    """What there is of an engine. ``age_s`` is the age of the main process in seconds."""

    alive: bool = False
    left: Sequence[int] = ()
    unsure: str | None = None
    """Why it could not be looked at: then something may run."""
    ending: bool = False
    was_ready: bool = False
    age_s: float = 0.0
    ended: Exited | None = None
    """How the last life of this boot ended, when it has."""
    never_began: str | None = None
    """Why the last launch failed, when it did."""
    passing: bool = False
    """Time may have cured that."""
    ended_by_us: bool = False
    """We ended the last life, or were about to begin one; with a wish to run, that was to follow."""
    automatic: bool = False
    """What the last daemon was about was its own decision."""
    cause: str | None = None
    """Why it was about it."""
    waiting: str | None = None
    """Why the last daemon was to try again later."""
    parked: str | None = None
    """Why it is left alone until a person starts it."""
    drained: bool = False
    """An operator took it out of service."""
    doubt: str | None = None
    """Why the life that runs was not let into service."""
    drain_left_s: float | None = None
    """The last daemon was draining it for a restart, and had so long to go on."""
    since: float | None = None
    """When it became ready, ended or was parked, Unix seconds, where that was written down."""
    served_s: float = 0.0
    """How long the last life has served, where that was written down."""
