"""Records of supervision: a life and its phases, what restarts it step by step, and what of that counts."""

from __future__ import annotations

from opsboard.core.words import EngineState, Record


class Phase(Record, frozen=True, kw_only=True):
    """One step of an engine's start-up. ``seconds`` so far (or in all), ``last_seconds`` what it took last time."""

    name: str
    started: float
    seconds: float | None = None
    last_seconds: float | None = None


class Step(Record, frozen=True, kw_only=True):
    """One step of a restart: drain, end, clear, launch, start, canary or serving; of a sleep or waking: sleep, wake.

    ``started`` is Unix seconds; ``seconds`` what it took; ``text`` one line for people. ``outcome`` is ``ok``,
    ``skipped``, ``cut`` (a drain that ended while requests were under way, or may have been), ``differs`` (an answer
    that is not the golden one), ``aborted`` or ``failed``. Seconds and outcome are None while it is under way.
    """

    name: str
    started: float
    seconds: float | None = None
    outcome: str | None = None
    text: str | None = None


class Transaction(Record, frozen=True, kw_only=True):
    """One start, restart, sleep or wake from its first step to its last. Unix seconds.

    ``automatic``: nobody asked for it; ``cause`` says why. ``outcome`` is ``ok``, ``aborted`` or ``failed``, None
    while it is under way.
    """

    id: str
    engine: str
    kind: str
    """``start``, ``restart``, ``sleep`` or ``wake``."""
    began: float
    cause: str | None = None
    automatic: bool = False
    steps: tuple[Step, ...] = ()
    ended: float | None = None
    outcome: str | None = None


class Restart(Record, frozen=True, kw_only=True):
    """One restart that opsboard decided by itself, at ``t`` (Unix s); ``gpus`` are the engine's, by uuid or number.

    ``served_s``: how long the life before it had served. ``forgiven``: a person has looked at the engine since, so that
    it does not count any more.
    """

    engine: str
    t: float
    cause: str
    gpus: tuple[str, ...] = ()
    served_s: float = 0.0
    forgiven: bool = False


class Rolling(Record, frozen=True, kw_only=True):
    """A rolling restart: ``engines`` one after the other; ``done`` of them serve again. All times in Unix seconds.

    ``now``: without draining, and whatever that takes away; ``uid`` asked for it. ``outcome`` is ``ok``, ``failed`` or
    ``cancelled``, None while it is under way; ``error`` says why it stopped.
    """

    id: str
    engines: tuple[str, ...]
    reason: str
    began: float
    changed: float
    """When it last came further."""
    now: bool = False
    uid: int | None = None
    done: int = 0
    begun: bool = False
    """The restart of the engine at hand was begun."""
    old: float | None = None
    """When the life began that this restart ends; None: there was none."""
    down: tuple[str, ...] = ()
    """Those that were stopped when it was asked for: being stopped does not speak against their restart."""
    ended: float | None = None
    outcome: str | None = None
    error: str | None = None

    @property
    def at(self) -> str | None:
        """The engine at hand; None when all serve again."""
        return self.engines[self.done] if self.done < len(self.engines) else None

    @property
    def untouched(self) -> tuple[str, ...]:
        """Those whose restart has not begun."""
        return self.engines[self.done + self.begun :]


class Transition(Record, frozen=True, kw_only=True):
    """An engine came into ``state`` at ``t`` (Unix s), because of ``reason``; ``message`` is what was said of it."""

    t: float
    engine: str
    state: EngineState
    reason: str | None = None
    message: str | None = None


class LifeView(Record, frozen=True, kw_only=True):
    """What supervision knows of an engine. Sent whenever it changes.

    ``progress`` 0..1 of the start-up; ``message`` one line for people, ``hint`` what they can do about it; ``cause``
    why it came into this state;
    ``exit_code`` of the last life (negative = signal, None = unknown); ``until`` (Unix s) when what it waits for
    happens: the next start, the end of a drain.
    """

    engine: str
    state: EngineState
    since: float
    supervised: bool
    pid: int | None = None
    pgid: int | None = None
    started: float | None = None
    url: str | None = None
    """Where the life that runs listens: the configuration may name another place for the next one."""
    restarts: int = 0
    """Lives begun after the first one since the daemon's records began."""
    phase: str | None = None
    progress: float | None = None
    phases: tuple[Phase, ...] = ()
    message: str | None = None
    hint: str | None = None
    cause: str | None = None
    exit_code: int | None = None
    transaction: Transaction | None = None
    """The start or restart under way, or the last one."""
    until: float | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of that."""
        return () if self.transaction is None else self.transaction.steps
