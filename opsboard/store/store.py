"""The store's face: what the daemon calls. Writes return at once, writer threads do them; reads are awaited."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import msgspec

from opsboard.core.aside import Aside
from opsboard.core.clock import Clock
from opsboard.core.deliveries import NewDelivery
from opsboard.core.errors import StoreError
from opsboard.core.incidents import Curve, Incident
from opsboard.core.model import Event, LifeView, Restart, Rolling, Sample, Severity, Transaction, Transition
from opsboard.core.policy_runs import PolicyRun
from opsboard.core.silences import Silence
from opsboard.core.wire import History
from opsboard.store import incident_table, outbox_table, policy_table, silence_table, state, supervision
from opsboard.store.incident_table import KeptIncidents
from opsboard.store.outbox import Outbox
from opsboard.store.retention import StoreLimits
from opsboard.store.series_file import SeriesFile
from opsboard.store.state import AuditEntry, Wish
from opsboard.store.state_file import StateFile
from opsboard.store.statedir import Lock, size_of

__all__ = ["AuditEntry", "Store", "StoreHealth", "StoreLimits", "Wish"]

T = TypeVar("T")

READ_S = 15.0
READERS = 4
"""Reads at once: each that hangs on a sick disk keeps a thread."""
CLOSE_S = 10.0
START_S = 0.25
"""How long opening, and so the adoption of engines, waits for the check of series.db.

After that it goes on behind, and samples wait in memory.
"""
OWN_WRITES_S = 0.5
"""How long a read waits for changes asked for before it."""
STUCK_S = 10.0


class StoreHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How recording is doing. Bytes are of the files as they are now; ``lag_s`` is the age of what waits for the disk.

    ``recorded`` is False while something cannot be written; ``message`` says why, or what became of a damaged file.
    """

    recorded: bool
    message: str | None = None
    dropped: int = 0
    """Samples and events given up since the start."""
    lag_s: float = 0.0
    series: int = 0
    series_bytes: int = 0
    wal_bytes: int = 0
    state_bytes: int = 0


class Store:
    """``state.db`` and ``series.db`` of one state directory. Make one with :meth:`open`."""

    def __init__(self, lock: Lock, state_file: StateFile, series_file: SeriesFile, clock: Clock) -> None:
        """Join the parts; :meth:`open` builds them."""
        self._lock = lock
        self._state = state_file
        self._series = series_file
        self._clock = clock
        self._lives = state.LifeLog()
        self._readers = Aside("read", READERS)
        self.outbox = Outbox(clock, self._change, self._ask)
        self._last: Future[None] | None = None

    @classmethod
    def open(
        cls, state_dir: Path, clock: Clock, limits: StoreLimits | None = None, *, host: str | None = None
    ) -> Store:
        """Open both files, mending what an unclean end left; ``host`` names this machine in the views.

        Blocks: call it before the loop runs or in a thread. Raises StateDirLocked, NewerSchema, DiskFull, StoreError.
        """
        limits = limits or StoreLimits()
        lock = Lock(state_dir)
        with contextlib.ExitStack() as undo:
            undo.callback(lock.release)
            state_file = StateFile(state_dir / "state.db", clock, keep_s=limits.hour_s)
            undo.callback(state_file.close, CLOSE_S)

            def say(kind: str, text: str) -> None:
                event = Event(t=clock.now().wall, subject="host", kind=kind, text=text, severity=Severity.ERROR)
                state_file.submit(lambda connection: state.add_event(connection, event))

            if state_file.notice:
                say("state_damaged", state_file.notice)
            series_file = SeriesFile(
                state_dir / "series.db",
                clock,
                limits,
                host=host or os.uname().nodename,
                check=state_file.unclean,
                say=say,
            )
            undo.pop_all()
        series_file.ready.wait(START_S)
        return cls(lock, state_file, series_file, clock)

    def apply(self, limits: StoreLimits) -> None:
        """Use other limits from now on (a reloaded configuration)."""
        self._series.limits = limits
        self._state.keep_s = limits.hour_s

    # --- samples ------------------------------------------------------------------------------------------------------

    def append(self, wall: float, samples: Sequence[Sample]) -> None:
        """Record samples of one moment (Unix seconds). Never blocks; ``health().dropped`` counts what is not kept."""
        self._series.append(wall, samples)

    async def history(self, series: str, start: float, end: float, step: float) -> History:
        """Return ``[start, end)`` in steps of ``step`` seconds, or more where points would be too many.

        Empty for a series that is not known. Raises StoreError, also when the disk does not answer.
        """
        return await self._aside(lambda: self._series.history(series, start, end, step))

    async def series(self) -> list[str]:
        """Return the names of all series that were ever recorded."""
        return await self._aside(self._series.log.names)

    # --- timelines and decisions --------------------------------------------------------------------------------------

    def event(self, event: Event) -> Future[None]:
        """Record an event. The future is done when it is on disk; cancelled, also by a waiter, it is taken back."""
        return self._change(lambda connection: state.add_event(connection, event))

    async def events(self, subject: str | None = None, limit: int = 100) -> list[Event]:
        """Return the newest events, oldest first. Raises StoreError."""
        return await self._ask(lambda connection: state.read_events(connection, subject, limit))

    def life(self, life: LifeView) -> None:
        """Record what supervision says of an engine; views that change nothing durable cost nothing."""
        if self._lives.changed(life):
            now = self._clock.now().wall
            self._change(lambda connection: state.write_life(connection, life, now))

    async def phase_seconds(self, engine: str) -> dict[str, float]:
        """Return the seconds each phase took in the last start that became ready. Raises StoreError."""
        return await self._ask(lambda connection: state.read_phase_seconds(connection, engine))

    def wish(self, engine: str, wish: Wish) -> Future[None]:
        """Remember what the operator wants; done when it is on disk."""
        t = self._clock.now().wall
        return self._change(lambda connection: state.set_wish(connection, engine, wish, t))

    async def wishes(self) -> dict[str, Wish]:
        """Return the last wish for each engine. Raises StoreError."""
        return await self._ask(state.read_wishes)

    def audit(self, entry: AuditEntry) -> Future[None]:
        """Remember who asked for what; done when it is on disk."""
        return self._change(lambda connection: state.add_audit(connection, entry))

    async def audits(self, limit: int = 100) -> list[AuditEntry]:
        """Return the newest audit entries, oldest first. Raises StoreError."""
        return await self._ask(lambda connection: state.read_audit(connection, limit))

    def key(self, key: str, answer: str) -> Future[None]:
        """Remember what was answered to an idempotency key; done when it is on disk."""
        t = self._clock.now().wall
        return self._change(lambda connection: state.put_key(connection, key, t, answer))

    async def keys(self) -> dict[str, str]:
        """Return the answers by key, oldest first. Raises StoreError."""
        return await self._ask(state.read_keys)

    # --- supervision --------------------------------------------------------------------------------------------------

    @property
    def unclean(self) -> bool:
        """The run before this one did not end by closing the store."""
        return self._state.unclean

    async def restart(self, restart: Restart) -> None:
        """Count a restart that nobody asked for; returns when it is on disk. Raises StoreError when it cannot be."""
        written = self._change(lambda connection: supervision.add_restart(connection, restart))
        await asyncio.shield(asyncio.wrap_future(written))

    async def restarts(self, since: float) -> list[Restart]:
        """Return what was counted from ``since`` (Unix s) on, oldest first. Raises StoreError."""
        return await self._ask(lambda connection: supervision.read_restarts(connection, since))

    def forgive(self, engine: str) -> Future[None]:
        """Let what was counted for an engine count no more."""
        return self._change(lambda connection: supervision.forgive(connection, engine))

    def take_back(self, restart: Restart) -> Future[None]:
        """Let a restart that was not begun count no more."""
        return self._change(lambda connection: supervision.take_back(connection, restart))

    def transaction(self, transaction: Transaction) -> Future[None]:
        """Keep a start or restart that is over."""
        return self._change(lambda connection: supervision.put_transaction(connection, transaction))

    async def transactions(
        self, engine: str, limit: int = 20, *, kinds: Sequence[str] = ("start", "restart")
    ) -> list[Transaction]:
        """Return the newest starts and restarts of an engine, or other ``kinds``, oldest first. Raises StoreError."""
        return await self._ask(lambda connection: supervision.read_transactions(connection, engine, limit, kinds))

    def rolling(self, rolling: Rolling) -> Future[None]:
        """Keep how far a rolling restart is."""
        return self._change(lambda connection: supervision.put_rolling(connection, rolling))

    async def last_rolling(self) -> Rolling | None:
        """Return the rolling restart that was asked for last. Raises StoreError."""
        return await self._ask(supervision.read_rolling)

    async def transitions(self, engine: str, limit: int = 100) -> list[Transition]:
        """Return the newest changes of an engine's state, oldest first. Raises StoreError."""
        return await self._ask(lambda connection: supervision.read_transitions(connection, engine, limit))

    # --- incidents ----------------------------------------------------------------------------------------------------

    def incident(self, incident: Incident, told: Sequence[NewDelivery] = ()) -> Future[None]:
        """Keep an incident as it is now, for ever, and what is to be told of it, both or neither.

        Done when it is on disk.
        """
        t = self._clock.now().wall

        def work(connection: sqlite3.Connection) -> None:
            incident_table.put(connection, incident)
            outbox_table.add(connection, told, t)

        return self._change(work)

    async def kept_incidents(self) -> KeptIncidents:
        """Return what the next daemon needs to go on with. Raises StoreError."""
        return await self._ask(incident_table.read_kept)

    async def incidents(
        self, *, limit: int = 100, only_open: bool = False, subject: str | None = None
    ) -> list[Incident]:
        """Return the newest incidents, newest first. Raises StoreError."""
        return await self._ask(
            lambda connection: incident_table.read(connection, limit, only_open=only_open, subject=subject)
        )

    async def one_incident(self, name: int | str) -> Incident | None:
        """Return one by its number or its uid. Raises StoreError."""
        return await self._ask(lambda connection: incident_table.read_one(connection, name))

    def policy_run(self, run: PolicyRun, incident: Incident | None) -> Future[None]:
        """Keep what a policy decided, with its incident; done when both are on disk."""

        def work(connection: sqlite3.Connection) -> None:
            policy_table.put(connection, run)
            if incident is not None:
                incident_table.put(connection, incident)

        return self._change(work)

    async def policy_runs(self, since: float) -> list[PolicyRun]:
        """Return those under way and those from ``since`` (Unix s) on, oldest first. Raises StoreError."""
        return await self._ask(lambda connection: policy_table.read(connection, since))

    def curves(self, uid: str, curves: Sequence[Curve]) -> Future[None]:
        """Keep series with an incident, for ever."""
        return self._change(lambda connection: incident_table.put_curves(connection, uid, curves))

    async def curves_of(self, uid: str) -> list[Curve]:
        """Return the series that were kept with an incident. Raises StoreError."""
        return await self._ask(lambda connection: incident_table.read_curves(connection, uid))

    # --- silences -----------------------------------------------------------------------------------------------------

    def silence(self, silence: Silence) -> Future[None]:
        """Keep a silence as it is now; done when it is on disk."""
        return self._change(lambda connection: silence_table.put(connection, silence))

    async def silences(self, since: float, limit: int = 1000) -> list[Silence]:
        """Return the newest that had not ended at ``since`` (Unix s), the oldest first. Raises StoreError."""
        return await self._ask(lambda connection: silence_table.read(connection, since, limit))

    async def next_silence(self) -> int:
        """Return the number of the next silence. Raises StoreError."""
        return await self._ask(silence_table.next_id)

    # --- the store itself ---------------------------------------------------------------------------------------------

    def health(self) -> StoreHealth:
        """Return how recording is doing; cheap enough for every tick."""
        series, kept = self._series, self._state
        lag = max(series.lag_s(), kept.writer.lag_s())
        trouble = kept.writer.trouble or series.writer.trouble
        message = trouble.message if trouble else None
        if trouble is None and lag > STUCK_S:
            message = f"{series.path.parent}: the disk has not taken a write for {lag:.0f} s"
        return StoreHealth(
            recorded=message is None,
            message=message or kept.notice or series.notice or kept.warning,
            dropped=series.log.dropped + series.log.refused + kept.writer.dropped,
            lag_s=lag,
            series=series.log.count,
            series_bytes=size_of(series.path),
            wal_bytes=size_of(series.path.with_name("series.db-wal")),
            state_bytes=size_of(kept.path),
        )

    async def close(self) -> None:
        """Write what is there, note the clean end, let go of the directory.

        Raises StoreError when the disk is stuck.
        """
        ended = await asyncio.to_thread(lambda: (self._series.close(CLOSE_S), self._state.close(CLOSE_S)))
        self._lock.release()
        if not all(ended):
            raise StoreError(f"{self._state.path.parent}: the disk did not take the last writes within {CLOSE_S:g} s")

    def _change(self, work: Callable[..., None]) -> Future[None]:
        self._last = self._state.submit(work)
        return self._last

    async def _aside(self, work: Callable[[], T]) -> T:
        try:
            return await self._readers.do(work, READ_S)
        except TimeoutError:
            raise StoreError(f"the disk did not answer within {READ_S:g} s", permanent=False) from None

    async def _ask(self, work: Callable[..., T]) -> T:
        if self._last is not None and not self._last.done():
            await asyncio.wait([asyncio.wrap_future(self._last)], timeout=OWN_WRITES_S)
        return await self._aside(lambda: self._state.read(work))
