"""What operators ask for: refused at once, or taken on, carried out behind, told on the timeline, kept for audit."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Protocol

from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, ControlError, Denied, OpsboardError, UsageError
from opsboard.core.model import Event, Record, Rolling, Severity
from opsboard.core.nearest import no_engine
from opsboard.core.text import sanitise
from opsboard.core.wire import ActionAccepted, ActionRequest
from opsboard.daemon.keys import Keys
from opsboard.daemon.pipeline import EngineSpec
from opsboard.httpd import Peer
from opsboard.store.state import AuditEntry
from opsboard.supervise.world import Begins

KINDS = ("start", "stop", "restart", "drain", "undrain", "sleep", "wake")
WITH_NOW = ("restart", "drain", "sleep")
_RESTART = 'opsboard engine restart {name} is possible; the others need a `command`, or `runner` = "command"'
FAILED = "action_failed"
"""Kind of the event that says so; clients look for it."""
REASON_CHARS = 500
ASK_S = 5.0
"""How long an answer waits for it to be known whether an action can begin; a failure after that is told."""


class Hands(Protocol):
    """What can start and stop engines: the supervisor.

    ``begins`` is called when nothing speaks against what is asked, before anything is done; until then errors refuse.
    """

    async def start(self, name: str, reason: str, *, begins: Begins) -> None:
        """Start an engine; returns when it was begun."""

    async def stop(self, name: str, reason: str, *, begins: Begins) -> None:
        """Stop an engine; returns when no process of it is left."""

    async def restart(self, name: str, reason: str, *, now: bool = False, begins: Begins) -> None:
        """Drain, stop, then start; ``now``: without draining, and whatever it takes away."""

    async def drain(self, name: str, reason: str, *, now: bool = False, begins: Begins) -> None:
        """Take an engine out of service and leave it running; ``now``: whatever that takes away."""

    async def undrain(self, name: str, reason: str, *, begins: Begins) -> None:
        """Bring it back."""


class Beds(Protocol):
    """What puts engines to sleep and wakes them."""

    async def sleep(self, name: str, reason: str, *, now: bool = False, begins: Begins) -> None:
        """Take an engine out of service and put it to sleep; ``now``: whatever that takes away."""

    async def wake(self, name: str, reason: str, *, begins: Begins) -> None:
        """Wake it, or start it; returns when it serves."""


class Rolls(Protocol):
    """What restarts several engines, one at a time."""

    async def run(
        self, names: Iterable[str], reason: str, *, id: str, now: bool, uid: int | None, begins: Begins
    ) -> None:
        """Restart one after the other; stop at the first that does not come back."""

    def cancel(self, who: str) -> Rolling:
        """Call off what is under way. Raises Conflict: nothing is."""


class Crew(Record, frozen=True, kw_only=True):
    """Who carries actions out."""

    hands: Hands
    beds: Beds
    rolls: Rolls


class Actions:
    """Takes actions on and carries them out, each in a task of its own."""

    def __init__(
        self,
        clock: Clock,
        specs: Mapping[str, EngineSpec],
        crew: Crew | None,
        on_event: Callable[[Event], object],
        audit: Callable[[AuditEntry], object],
        *,
        keys: Keys,
    ) -> None:
        """``crew`` None: a daemon that only looks."""
        self._clock = clock
        self._specs = specs
        self._crew = crew
        self._on_event = on_event
        self._audit = audit
        self._keys = keys
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, name: str, request: ActionRequest, peer: Peer | None) -> ActionAccepted:
        """Return when an action has begun, or after ``ASK_S``, when it is still being found out whether it can be.

        The same ``idempotency_key`` again returns the first answer and does nothing. Raises UsageError, NotFound,
        Denied; Conflict with what refuses it: nothing was done.
        """
        _check(name, request)
        if self._crew is None:
            raise Denied("this daemon only looks", hint="run `opsboard daemon` with a configuration to operate engines")
        crew = self._crew
        return await self._keys.once(name, request, lambda: self._ask(crew, name, request, peer))

    def cancel_rolling(self, peer: Peer | None) -> Rolling:
        """Call off the rolling restart under way. Raises Denied, Conflict."""
        if self._crew is None:
            raise Denied("this daemon only looks", hint="run `opsboard daemon` with a configuration to operate engines")
        uid, pid = _who(peer)
        roll = self._crew.rolls.cancel(f"uid {uid} (pid {pid})")
        now = self._clock.now().wall
        self._audit(AuditEntry(t=now, action="cancel rolling restart", subject="host", uid=uid, pid=pid, reason=None))
        return roll

    async def reload(self, load: Callable[[], Awaitable[None]], peer: Peer | None) -> None:
        """Read the configuration again, as somebody asked. Raises what is wrong with it."""
        uid, pid = _who(peer)
        await load()
        self._audit(
            AuditEntry(t=self._clock.now().wall, action="reload", subject="host", uid=uid, pid=pid, reason=None)
        )

    async def close(self) -> None:
        """Stop waiting for what is still being carried out; the shims, and the next daemon, go on with it."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _ask(self, crew: Crew, name: str, request: ActionRequest, peer: Peer | None) -> ActionAccepted:
        for one in (name, *request.then):
            self._check_engine(one, request.kind)
        accepted = ActionAccepted(id=uuid.uuid4().hex, kind=request.kind, engine=name)
        reason = None if request.reason is None else sanitise(request.reason, REASON_CHARS)
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begun.add_done_callback(lambda done: done.cancelled() or done.exception())  # who asked may have left

        def begins() -> None:
            if not begun.done():
                begun.set_result(None)
                self._note(accepted, request, peer, reason)

        uid, _ = _who(peer)
        work = _work(crew, request, accepted, reason or "asked by hand", uid=uid, begins=begins)
        task = asyncio.get_running_loop().create_task(self._carry_out(work, accepted, begun))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.wait({begun, task}, timeout=ASK_S, return_when=asyncio.FIRST_COMPLETED)
        begins()  # it has been done already, or its refusal will be told
        await begun
        return accepted

    async def _carry_out(
        self, work: Coroutine[None, None, None], accepted: ActionAccepted, begun: asyncio.Future[None]
    ) -> None:
        try:
            await work
        except OpsboardError as error:
            if not begun.done():
                begun.set_exception(_refusal(error))
                return
            hint = f" ({error.hint})" if error.hint else ""
            self._tell(accepted.engine, f"{accepted.kind} failed: {error.message}{hint}", Severity.ERROR, FAILED)
        except Exception as error:  # noqa: BLE001  whatever the supervisor does, the operator is told
            text = f"{accepted.kind} failed: {sanitise(repr(error))}"
            self._tell(accepted.engine, text, Severity.ERROR, FAILED)

    def _check_engine(self, name: str, kind: str) -> None:
        spec = self._specs.get(name)
        if spec is None:
            raise no_engine(name, self._specs)
        if spec.restartable and kind != "restart":
            why = "its configuration has only a `restart_command`"
            raise Conflict(f"{name} is observed, and opsboard cannot {kind} it: {why}", hint=_RESTART.format(name=name))
        if not spec.supervised and not spec.restartable:
            hint = "take it over (`opsboard engine adopt URL`), or give it a `command` in the configuration"
            raise Conflict(f"{name} is observed: opsboard did not start it and cannot {kind} it", hint=hint)

    def _note(self, accepted: ActionAccepted, request: ActionRequest, peer: Peer | None, reason: str | None) -> None:
        uid, pid = _who(peer)
        now = self._clock.now().wall
        how = " now" if request.now else ""
        why = f": {reason}" if reason else ""
        for name in (accepted.engine, *request.then):
            subject = f"engine/{name}"
            self._audit(AuditEntry(t=now, action=accepted.kind + how, subject=subject, uid=uid, pid=pid, reason=reason))
            who = "" if peer is None else f" by uid {uid} (pid {pid})"
            self._tell(name, f"{accepted.kind}{how} asked{who}{why}", Severity.INFO)

    def _tell(self, name: str, text: str, severity: Severity, kind: str = "action") -> None:
        self._on_event(
            Event(
                t=self._clock.now().wall,
                subject=f"engine/{name}",
                kind=kind,
                text=sanitise(text),
                severity=severity,
            )
        )


def _check(name: str, request: ActionRequest) -> None:
    """Raise UsageError for what no engine can be asked."""
    if request.kind not in KINDS:
        raise UsageError(f"no action is called {sanitise(request.kind, 40)!r}", hint=f"one of {', '.join(KINDS)}")
    if request.now and request.kind not in WITH_NOW:
        raise UsageError(f"`now` says nothing about {request.kind}", hint=f"it goes with {', '.join(WITH_NOW)}")
    if request.then and request.kind != "restart":
        raise UsageError("`then` is of a rolling restart", hint=f"ask each engine to {request.kind}")
    if len({name, *request.then}) != 1 + len(request.then):
        raise UsageError("an engine is named twice in a rolling restart", hint="name each once")


def _refusal(error: OpsboardError) -> OpsboardError:
    """Return what is answered instead of 202: whatever stands in the way is a conflict with the present state."""
    if isinstance(error, ControlError | UsageError):
        return error
    return Conflict(error.message, hint=error.hint, permanent=error.permanent)


def _who(peer: Peer | None) -> tuple[int | None, int | None]:
    return (None, None) if peer is None else (peer.uid, peer.pid)


def _work(
    crew: Crew, request: ActionRequest, accepted: ActionAccepted, reason: str, *, uid: int | None, begins: Begins
) -> Coroutine[None, None, None]:
    """Return what carries an action out."""
    name, now, hands = accepted.engine, request.now, crew.hands
    match request.kind:
        case "sleep":
            return crew.beds.sleep(name, reason, now=now, begins=begins)
        case "wake":
            return crew.beds.wake(name, reason, begins=begins)
        case "start":
            return hands.start(name, reason, begins=begins)
        case "stop":
            return hands.stop(name, reason, begins=begins)
        case "drain":
            return hands.drain(name, reason, now=now, begins=begins)
        case "undrain":
            return hands.undrain(name, reason, begins=begins)
        case _ if request.then:
            names = (name, *request.then)
            return crew.rolls.run(names, reason, id=accepted.id, now=now, uid=uid, begins=begins)
        case _:
            return hands.restart(name, reason, now=now, begins=begins)
