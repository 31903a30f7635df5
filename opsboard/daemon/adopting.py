"""Taking over an engine that somebody started by hand, as asked for on the control socket; and letting go of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from opsboard.config.schema import Config
from opsboard.core.clock import Clock
from opsboard.core.errors import Conflict, NotFound, SuperviseError
from opsboard.core.model import Event, Record, Severity
from opsboard.core.text import sanitise
from opsboard.core.wire import Adopted, AdoptRequest, Forgotten
from opsboard.daemon.by_hand import check_peer, check_words, look_at, named, recognise
from opsboard.daemon.taken import TakenOver
from opsboard.httpc.fetch import Fetcher
from opsboard.httpd import Peer
from opsboard.store.state import AuditEntry
from opsboard.supervise import bundle
from opsboard.supervise.adopt import Remains, examine
from opsboard.supervise.takeover import kept, life
from opsboard.supervise.takeover.kept import Kept
from opsboard.supervise.takeover.reproduction import Reproduction, to_launch
from opsboard.supervise.watching import remember_ready
from opsboard.supervise.who import who

T = TypeVar("T")
REASON_CHARS, TARGET_CHARS = 500, 2000
_BY_HAND = "it stays as it is; to have it supervised, stop it and put its command into the configuration"
_NOTES = (bundle.PARKED, bundle.SERVICE, bundle.TRANSACTION, bundle.STOP, bundle.GOLDEN)
"""What an earlier engine of this name may have left."""


class Around(Record, frozen=True, kw_only=True):
    """What adopting needs of the daemon."""

    clock: Clock
    engines: Path
    """``STATE_DIR/engines``."""
    runtime_dir: Path
    config: Callable[[], Config]
    fetcher: Callable[[], Fetcher]
    taken: Callable[[], TakenOver]
    supervised: Callable[[], Mapping[str, int | None]]
    """Main process of each supervised engine by name; None while it does not run."""
    take: Callable[[TakenOver, str], Awaitable[None]]
    """Supervise the one that joined."""
    let_go: Callable[[TakenOver, str | None], None]
    """Supervise the one that left no more; None: the configuration has it."""
    tell: Callable[[Event], object]
    audit: Callable[[AuditEntry], object]
    lock: asyncio.Lock
    """Held while the set of engines changes."""


class Adopting:
    """Takes engines over, one at a time."""

    def __init__(self, around: Around) -> None:
        """Everything is done through ``around``."""
        self._around = around
        self._running: set[asyncio.Task[Any]] = set()

    async def adopt(self, request: AdoptRequest, peer: Peer | None) -> Adopted:
        """Take an engine over; asked again for the same one, say the same again.

        Raises:
            UsageError: the target or the name makes no sense.
            Denied: the process belongs to somebody else than who asks.
            Conflict: it is no engine, or it cannot be started again as it was, with every reason.
        """
        target = sanitise(request.target.strip(), TARGET_CHARS)
        check_words(target, request.name)
        return await self._whoever_waits(self._adopt(target, request, peer))

    async def close(self) -> None:
        """Wait for what is under way: seconds at most."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _whoever_waits(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it to its end, alone, even if who asked has left."""

        async def alone() -> T:
            async with self._around.lock:
                return await work

        task = asyncio.create_task(alone())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may be that nobody looks
        return await asyncio.shield(task)

    async def _adopt(self, target: str, request: AdoptRequest, peer: Peer | None) -> Adopted:
        try:
            return await self._adopt_now(target, request, peer)
        except SuperviseError as error:
            raise Conflict(error.message, hint=error.hint, permanent=error.permanent) from error

    async def _adopt_now(self, target: str, request: AdoptRequest, peer: Peer | None) -> Adopted:
        pid, seen = await look_at(target)
        check_peer(seen, peer)
        known = self._already(pid, request.name)
        if known is not None:
            return _answer(*known, pid=pid, again=True)
        engine = await recognise(self._around.fetcher(), pid, target)
        name, url = named(engine, request.name, self._around.config(), self._around.taken().kept)
        try:
            to_launch(seen, name, url)
        except SuperviseError as error:
            raise Conflict(error.message, hint=f"{error.hint}; {_BY_HAND}" if error.hint else _BY_HAND) from error
        taken = Kept(url=url, reproduction=seen, kind=engine.kind)
        await asyncio.to_thread(self._write_down, name, taken, ready=engine.answers)
        self._note(name, "adopt", request.reason, peer)
        await self._around.take(self._around.taken().also(name, taken), name)
        for text, severity in _story(seen):
            self._tell(name, text, severity)
        return _answer(name, taken, pid=pid)

    async def forget(self, name: str, peer: Peer | None) -> Forgotten:
        """Let go of an engine that was taken over: one that still runs as it was found runs on.

        Raises:
            NotFound: it was not taken over.
            Conflict: opsboard has started it since, and it runs.
        """
        return await self._whoever_waits(self._forget(name, peer))

    async def _forget(self, name: str, peer: Peer | None) -> Forgotten:
        around = self._around
        if name not in around.taken().kept:
            hint = "`opsboard engine list` shows all engines; one of the configuration leaves with its lines there"
            raise NotFound(f"no engine called {sanitise(name, 80)!r} was taken over", hint=hint)
        folder, left = around.engines / name, around.taken().without(name)
        ours = name in around.taken().beside(around.config().engine)
        remains = await asyncio.to_thread(_examined, folder)
        lives = remains is not None and remains.lives
        if ours and remains is not None and lives and not remains.by_hand:
            raise Conflict(f"{name} runs, and opsboard started it", hint=f"opsboard engine stop {name}")
        self._note(name, "forget", None, peer)
        around.let_go(left, name if ours else None)
        await asyncio.to_thread(kept.forget, folder)
        if ours and lives:  # a life that nobody of ours knows any more
            await asyncio.to_thread(bundle.remove, str(folder), bundle.IDENTITY)
        self._tell(name, "not supervised any more" if ours else "supervised as the configuration says")
        return Forgotten(engine=name, supervised=not ours and name in around.supervised(), runs=lives)

    def _already(self, pid: int, name: str | None) -> tuple[str, Kept] | None:
        """Return the engine whose main process this is. Raises Conflict when it is not one that was taken over."""
        found = next((one for one, main in self._around.supervised().items() if main == pid), None)
        if found is None:
            return None
        known = self._around.taken().kept.get(found)
        if known is None or name not in {None, found}:
            raise Conflict(f"pid {pid} is supervised already: it is {found}")
        return found, known

    # --- what is written ---

    def _write_down(self, name: str, known: Kept, *, ready: bool) -> None:
        """Keep it, then its life; what a daemon that dies in between has not written, the next one does."""
        folder = self._around.engines / name
        remains = _examined(folder)
        if remains is not None and remains.lives:
            left = remains.main or remains.others[0]
            hint = f"end it, or give the engine another name: --name {name}-2"
            raise SuperviseError(f"of an earlier engine {name} still runs: {who(left.pid)}", hint=hint)
        kept.keep(known, folder)
        try:
            for note in _NOTES:
                bundle.remove(str(folder), note)
            instance = begin(name, known, self._around.engines, self._around.runtime_dir)
            if ready:
                remember_ready(folder, instance, self._around.clock.now().wall)
        except (OSError, SuperviseError) as error:
            kept.forget(folder)
            if isinstance(error, OSError):
                raise SuperviseError(f"{folder}: cannot be written: {error.strerror}", permanent=False) from error
            raise

    def _note(self, name: str, what: str, reason: str | None, peer: Peer | None) -> None:
        said = None if reason is None else sanitise(reason, REASON_CHARS)
        uid, pid = (None, None) if peer is None else (peer.uid, peer.pid)
        now, subject = self._around.clock.now().wall, f"engine/{name}"
        self._around.audit(AuditEntry(t=now, action=what, subject=subject, uid=uid, pid=pid, reason=said))
        self._tell(name, f"{what} asked by uid {uid} (pid {pid})" + (f": {said}" if said else ""), kind="action")

    def _tell(self, name: str, text: str, severity: Severity = Severity.INFO, kind: str = "taken_over") -> None:
        now = self._around.clock.now().wall
        self._around.tell(Event(t=now, subject=f"engine/{name}", kind=kind, text=sanitise(text), severity=severity))


def begin(name: str, known: Kept, engines: Path, runtime_dir: Path) -> str:
    """Write down the life of what was taken over; return its instance.

    Blocks shortly; raises SuperviseError, and OSError when what is there cannot be found out.
    """
    folder = engines / name
    before = examine(folder)
    number = 1 if before is None else before.life + 1
    return life.begin(known.reproduction, folder, runtime_dir, name=name, url=known.url, life=number)


def _examined(folder: Path) -> Remains | None:
    """Return what is there of an engine. Raises SuperviseError when it cannot be found out."""
    try:
        return examine(folder)
    except OSError as error:
        raise SuperviseError(f"{folder}: cannot be looked at: {error}", permanent=False) from error


def resume(taken: TakenOver, engines: Path, runtime_dir: Path) -> Iterator[SuperviseError]:
    """Write down the lives that the last daemon was about to; yield what went wrong. Blocks shortly."""
    for name, known in taken.kept.items():
        try:
            remains = examine(engines / name)
            if (remains is None or not remains.lives) and known.reproduction.lives:
                begin(name, known, engines, runtime_dir)
        except SuperviseError as error:
            yield error
        except OSError as error:
            yield SuperviseError(f"{engines / name}: cannot be looked at: {error}", permanent=False)


def _story(seen: Reproduction) -> Iterator[tuple[str, Severity]]:
    """Yield what the timeline keeps: what a restart will lack."""
    yield f"taken over as pid {seen.pid}", Severity.INFO
    for gap in seen.cannot:
        yield f"after a restart: {gap.text}", Severity.WARNING
    for warning in seen.warnings:
        yield warning, Severity.WARNING
    if seen.dropped:
        yield f"after a restart without these variables: {', '.join(seen.dropped)}", Severity.INFO


def _answer(name: str, known: Kept, *, pid: int, again: bool = False) -> Adopted:
    seen = known.reproduction
    return Adopted(
        engine=name,
        pid=pid,
        url=known.url,
        command=seen.shown,
        user=seen.user,
        lacks=tuple(gap.text for gap in seen.cannot),
        warnings=seen.warnings,
        dropped=seen.dropped,
        again=again,
    )
