"""What operators ask for: taken on at once, carried out behind, told on the timeline, kept for audit."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from typing import Protocol

from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, Denied, NotFound, OpsboardError, UsageError
from opsboard.core.model import Event, Severity
from opsboard.core.text import sanitise
from opsboard.core.wire import ActionAccepted, ActionRequest
from opsboard.daemon.pipeline import EngineSpec
from opsboard.httpd import Peer
from opsboard.store.state import AuditEntry

KINDS = ("start", "stop", "restart", "drain", "undrain", "sleep", "wake")
WITH_NOW = ("restart", "drain", "sleep")
FAILED = "action_failed"
"""Kind of the event that says so; clients look for it."""
REASON_CHARS = 500
KEYS_REMEMBERED = 1000


class Hands(Protocol):
    """What can start and stop engines: the supervisor."""

    async def start(self, name: str, reason: str) -> None:
        """Start an engine; returns when it was begun."""

    async def stop(self, name: str, reason: str) -> None:
        """Stop an engine; returns when no process of it is left."""

    async def restart(self, name: str, reason: str, *, now: bool = False) -> None:
        """Drain, stop, then start; ``now``: without draining, and whatever it takes away."""

    async def restart_rolling(self, names: Iterable[str], reason: str, *, now: bool = False) -> None:
        """Restart one after the other; stop at the first that fails."""

    async def drain(self, name: str, reason: str, *, now: bool = False) -> None:
        """Take an engine out of service and leave it running; ``now``: whatever that takes away."""

    async def undrain(self, name: str, reason: str) -> None:
        """Bring it back."""


class Beds(Protocol):
    """What puts engines to sleep and wakes them."""

    async def sleep(self, name: str, reason: str, *, now: bool = False) -> None:
        """Take an engine out of service and put it to sleep; ``now``: whatever that takes away."""

    async def wake(self, name: str, reason: str) -> None:
        """Wake it, or start it; returns when it serves."""


class Actions:
    """Takes actions on and carries them out, each in a task of its own."""

    def __init__(
        self,
        clock: Clock,
        find: Callable[[str], EngineSpec | None],
        hands: Hands | None,
        on_event: Callable[[Event], object],
        audit: Callable[[AuditEntry], object],
        *,
        beds: Beds | None = None,
    ) -> None:
        """``hands`` and ``beds`` None: a daemon that only looks."""
        self._clock = clock
        self._find = find
        self._hands = hands
        self._beds = beds
        self._on_event = on_event
        self._audit = audit
        self._keys: OrderedDict[str, ActionAccepted] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()

    def ask(self, name: str, request: ActionRequest, peer: Peer | None) -> ActionAccepted:
        """Take an action on. Raises UsageError, NotFound, Denied, Conflict.

        The same ``idempotency_key`` again returns the first answer and does nothing.
        """
        _check(request)
        for one in (name, *request.then):
            self._check_engine(one, request.kind)
        if self._hands is None or self._beds is None:
            raise Denied("this daemon only looks", hint="run `opsboard daemon` with a configuration to operate engines")
        known = self._keys.get(request.idempotency_key) if request.idempotency_key else None
        if known is not None:
            if (known.engine, known.kind) != (name, request.kind):
                raise Conflict(f"the idempotency key was used for {known.kind} of {known.engine}", hint="use a new key")
            return known
        accepted = ActionAccepted(id=uuid.uuid4().hex, kind=request.kind, engine=name)
        self._remember(request.idempotency_key, accepted)
        reason = None if request.reason is None else sanitise(request.reason, REASON_CHARS)
        self._note(accepted, request, peer, reason)
        self._begin(_work(self._hands, self._beds, request, name, reason or "asked by hand"), accepted)
        return accepted

    async def close(self) -> None:
        """Stop waiting for what is still being carried out; the shims go on with it."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _check_engine(self, name: str, kind: str) -> None:
        spec = self._find(name)
        if spec is None:
            raise NotFound(f"no engine is called {sanitise(name, 80)!r}", hint="`opsboard engine list` shows them")
        if not spec.supervised and self._hands is not None:
            hint = "take it over (`opsboard engine adopt URL`), or give it a `command` in the configuration"
            raise Conflict(f"{name} is observed: opsboard did not start it and cannot {kind} it", hint=hint)

    def _remember(self, key: str | None, accepted: ActionAccepted) -> None:
        if key:
            self._keys[key] = accepted
            if len(self._keys) > KEYS_REMEMBERED:
                self._keys.popitem(last=False)

    def _note(self, accepted: ActionAccepted, request: ActionRequest, peer: Peer | None, reason: str | None) -> None:
        uid, pid = (None, None) if peer is None else (peer.uid, peer.pid)
        now = self._clock.now().wall
        how = " now" if request.now else ""
        why = f": {reason}" if reason else ""
        for name in (accepted.engine, *request.then):
            subject = f"engine/{name}"
            self._audit(AuditEntry(t=now, action=accepted.kind + how, subject=subject, uid=uid, pid=pid, reason=reason))
            self._tell(name, f"{accepted.kind}{how} asked by uid {uid} (pid {pid}){why}", Severity.INFO)

    def _begin(self, work: Coroutine[None, None, None], accepted: ActionAccepted) -> None:
        task = asyncio.get_running_loop().create_task(self._carry_out(work, accepted))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _carry_out(self, work: Coroutine[None, None, None], accepted: ActionAccepted) -> None:
        try:
            await work
        except OpsboardError as error:
            hint = f" ({error.hint})" if error.hint else ""
            self._tell(accepted.engine, f"{accepted.kind} failed: {error.message}{hint}", Severity.ERROR, FAILED)
        except Exception as error:  # noqa: BLE001  whatever the supervisor does, the operator is told
            text = f"{accepted.kind} failed: {sanitise(repr(error))}"
            self._tell(accepted.engine, text, Severity.ERROR, FAILED)

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


def _check(request: ActionRequest) -> None:
    """Raise UsageError for what no engine can be asked."""
    if request.kind not in KINDS:
        raise UsageError(f"no action is called {sanitise(request.kind, 40)!r}", hint=f"one of {', '.join(KINDS)}")
    if request.now and request.kind not in WITH_NOW:
        raise UsageError(f"`now` says nothing about {request.kind}", hint=f"it goes with {', '.join(WITH_NOW)}")
    if request.then and request.kind != "restart":
        raise UsageError("`then` is of a rolling restart", hint=f"ask each engine to {request.kind}")


def _work(hands: Hands, beds: Beds, request: ActionRequest, name: str, reason: str) -> Coroutine[None, None, None]:
    """Return what carries an action out."""
    match request.kind:
        case "sleep":
            return beds.sleep(name, reason, now=request.now)
        case "wake":
            return beds.wake(name, reason)
        case "start":
            return hands.start(name, reason)
        case "stop":
            return hands.stop(name, reason)
        case "drain":
            return hands.drain(name, reason, now=request.now)
        case "undrain":
            return hands.undrain(name, reason)
        case _ if request.then:
            return hands.restart_rolling((name, *request.then), reason, now=request.now)
        case _:
            return hands.restart(name, reason, now=request.now)
