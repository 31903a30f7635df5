"""What is there of an engine: read from its bundle, checked against the processes that live now.

A pid is believed only together with its start time and the boot it belongs to. Records of another boot, and pids that
belong to somebody else by now, are never signalled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from opsboard.core.model import Record
from opsboard.supervise import bundle
from opsboard.supervise.processes import Identity, Process, below, boot_id, everybody, inside, look, tagged

EVER = 4096
"""An engine that forks for each request must not fill our memory; those that hold a GPU live as long as it."""
_AGAIN_S = 0.05


class Exit(Record, frozen=True, kw_only=True):
    """How a main process ended. ``code`` like a returncode (negative = signal); ``message`` when it never began."""

    code: int | None
    ended: float
    asked_by: str | None
    message: str | None
    passing: bool = False
    """Time may cure what kept it from beginning."""
    result: str | None = None
    """What systemd makes of it, where it says more than the code."""


class Remains(Record, frozen=True, kw_only=True):
    """What a bundle and the kernel say together about the last life of an engine.

    ``main``, ``shim`` and ``others`` (all other processes of the life) live; ``started`` is Unix seconds.
    """

    directory: str
    identity: Mapping[str, Any] = {}
    """Its record, as it was written."""
    instance: str
    life: int
    started: float
    log_offset: int
    socket: str
    argv_sha256: str
    same_boot: bool
    shim: Process | None = None
    main: Process | None = None
    others: tuple[Process, ...] = ()
    url: str | None = None
    """Where it listens, whatever the configuration says by now."""
    group: int | None = None
    """Process group of the life, which is the main process's pid."""
    ending: bool = False
    """Somebody, or the last daemon, was ending it."""
    again: bool | None = None
    """An operator wanted it ended: True when another life was to follow. None: nobody did."""
    was_ready: bool = False
    ready_since: float | None = None
    """Unix seconds; None when it was not ready."""
    exit: Exit | None = None
    settled: bool = True
    """False while a shim is between its own start and the engine's."""
    by_hand: bool = False
    """Somebody started it and it was taken over where it ran; ``output`` is the file it writes to, if it is one."""
    output: str | None = None
    running: bool = False
    """Those who run it say that it runs, and name no process."""

    @property
    def alive(self) -> bool:
        """True when it runs as it should: with its main process, or without any that we could know."""
        return self.main is not None or self.running

    @property
    def lives(self) -> bool:
        """True when anything of the life runs."""
        return self.alive or bool(self.others)

    @property
    def runner(self) -> str:
        """What began it."""
        return runner_in(self.identity)

    @property
    def who(self) -> str:
        """What runs, in words."""
        main = self.main or next(iter(self.others), None)
        return "by its status_command" if main is None else f"as pid {main.pid}"


def runner_in(identity: Mapping[str, Any]) -> str:
    """Return what began a life; one of which nothing is said was begun by a shim, or taken over."""
    return str(identity.get("runner", "shim"))


def examine(directory: Path, boot: str | None = None) -> Remains | None:
    """Return what is there now, None when the bundle holds no life. Reads files and /proc, blocks for milliseconds.

    Raises OSError when it cannot be found out, with EBADMSG when a record is damaged: then nothing may be taken for
    gone.
    """
    try:
        return _examine(str(directory), boot)
    except (AttributeError, TypeError, ValueError) as error:
        why = f"a record in {directory} is damaged, mend or remove it: {error}"
        raise OSError(errno.EBADMSG, why) from error


def _examine(place: str, boot: str | None) -> Remains | None:
    identity = bundle.read(place, bundle.IDENTITY)
    if identity is None or not isinstance(identity.get("instance"), str):
        return None
    instance = identity["instance"]
    same_boot = identity.get("boot_id") == (boot or boot_id())
    ready = bundle.read(place, bundle.READY) or {}
    stop = bundle.read(place, bundle.STOP) or {}
    asked = stop.get("instance") == instance
    process = identity.get("process") or {}
    remains = Remains(
        directory=place,
        identity=identity,
        instance=instance,
        life=int(identity.get("life", 1)),
        started=float(identity.get("started", 0.0)),
        log_offset=int(identity.get("log_offset", 0)),
        socket=str(identity.get("socket", "")),
        argv_sha256=str(identity.get("argv_sha256", "")),
        url=str(identity["url"]) if identity.get("url") else None,
        same_boot=same_boot,
        group=_number(process.get("pid")),
        ending=asked,
        again=bool(stop.get("again")) if asked else None,
        was_ready=ready.get("instance") == instance,
        ready_since=_seconds(ready.get("since")) if ready.get("instance") == instance else None,
        exit=_exit(bundle.read(place, bundle.EXIT), instance),
        by_hand=bool(identity.get("taken_over")),
        output=str(identity["output"]) if identity.get("output") else None,
    )
    if not same_boot:
        return remains
    return _living(remains, identity, bundle.read(place, bundle.STATUS) or {})


def _living(remains: Remains, identity: Mapping[str, Any], status: Mapping[str, Any]) -> Remains:
    """Add who of the recorded processes lives."""
    shim = _alive(identity.get("shim"))
    main = _alive(identity.get("process"))
    recorded = processes_of(status) if status.get("instance") == remains.instance else []
    known = [process for record in recorded if (process := _alive(record)) is not None]
    if shim is None:  # nobody keeps the record up to date any more
        table = everybody()
        roots = {process.pid for process in known} | ({main.pid} if main else set())
        known += below(roots, table) + tagged(remains.instance) + inside(identity.get("cgroup"))
    elif main is None and remains.group is not None:  # the record may be a second old, or the disk full
        known += below({shim.pid}, everybody())
    others = {process.pid: process for process in known}
    if main is None and shim is None and remains.group is None and remains.exit is None and others:
        main = min(others.values(), key=lambda process: process.start_ticks)  # its shim died before it could write
    if main is not None:
        others.pop(main.pid, None)
    return msgspec.structs.replace(
        remains,
        shim=shim,
        main=main,
        others=tuple(others.values()),
        group=main.pid if main is not None else remains.group,
        ending=remains.ending or (shim is not None and status.get("state") == "stopping"),
        settled=shim is None or main is not None or remains.exit is not None or remains.group is not None,
    )


async def examine_within(directory: Path, budget_s: float) -> Remains | None:
    """Like :func:`examine`, off the loop, waiting for a shim that is just starting. Raises TimeoutError, OSError."""
    async with asyncio.timeout(budget_s):
        while True:
            remains = await asyncio.to_thread(examine, directory)
            starting = await asyncio.to_thread(_locked, directory)
            unknown = starting if remains is None or remains.shim is None else not remains.settled
            if not unknown:
                return remains
            await asyncio.sleep(_AGAIN_S)


def write_again(remains: Remains) -> None:
    """Write down who runs, where somebody has removed that: who is not written down is not ended. Raises OSError."""
    if remains.identity and bundle.read(remains.directory, bundle.IDENTITY) is None:
        Path(remains.directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        bundle.write(remains.directory, bundle.IDENTITY, remains.identity, sync=True)


class Roster:
    """The processes of a life as its shim records them, for those who ask every second: read only when it changes.

    A record that is not there or is no record leaves the last one: it is looked at who of it lives. For any thread.
    """

    def __init__(self, directory: Path) -> None:
        """Look into the bundle ``directory``."""
        self._directory = str(directory)
        self._seen = 0
        self._recorded: list[dict[str, Any]] = []
        self._ever: dict[Identity, None] = {}

    def living(self) -> list[Process]:
        """Return who of the recorded processes lives now; empty without a record. Raises OSError: it is not known."""
        self._refresh()
        return [process for record in self._recorded if (process := _alive(record)) is not None]

    def recorded(self) -> list[Identity]:
        """Return all that were recorded since :meth:`forget`, living or not: the last :data:`EVER` of them."""
        with contextlib.suppress(OSError):
            self._refresh()
        return list(self._ever)

    def forget(self) -> None:
        """Begin anew: another life has begun."""
        self._ever = {}

    def _refresh(self) -> None:
        try:
            changed = os.stat(f"{self._directory}/{bundle.STATUS}").st_mtime_ns  # noqa: PTH116  asked every second
        except FileNotFoundError:
            return
        if changed == self._seen:
            return
        status = bundle.read(self._directory, bundle.STATUS)
        self._seen = changed
        if status is not None:
            self._recorded = processes_of(status)
            self._remember()

    def _remember(self) -> None:
        ever = self._ever.copy()  # others read it meanwhile
        for record in self._recorded:
            match record:
                case {"pid": int(pid), "start_ticks": int(start_ticks)}:
                    ever.pop((pid, start_ticks), None)  # the last one seen comes last
                    ever[pid, start_ticks] = None
        self._ever = dict.fromkeys(list(ever)[-EVER:])


def survivors(known: Iterable[Process]) -> list[Process]:
    """Return who of the processes of a life without a shim runs now, and their children. Raises OSError."""
    table = everybody()
    living = [now for process in known if process.same_as(now := table.get(process.pid)) and now is not None]
    found = [*living, *below({process.pid for process in living}, table)]
    return list({process.pid: process for process in found}.values())


def _alive(record: object) -> Process | None:
    """Return the recorded process if it is the one that lives under its pid. Raises OSError."""
    if not isinstance(record, dict) or not isinstance(record.get("pid"), int):
        return None
    found = look(record["pid"])
    return found if found is not None and found.start_ticks == record.get("start_ticks") else None


def _number(value: object) -> int | None:
    if value is None or isinstance(value, int):
        return value
    raise TypeError(f"{value!r} is no number")


def processes_of(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the processes that a ``status.json`` records; what is no record of one names nobody."""
    recorded = status.get("processes")
    return [record for record in recorded if isinstance(record, dict)] if isinstance(recorded, list) else []


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _exit(record: dict[str, Any] | None, instance: str) -> Exit | None:
    if record is None or record.get("instance") != instance:
        return None
    code, asked_by, message = record.get("code"), record.get("asked_by"), record.get("message")
    return Exit(
        code=code if isinstance(code, int) else None,
        ended=float(record.get("ended", 0.0)),
        asked_by=str(asked_by) if asked_by else None,
        message=str(message) if message else None,
        passing=bool(record.get("passing")),
        result=record.get("result"),
    )


def _locked(directory: Path) -> bool:
    """Tell whether a shim holds the bundle. Raises OSError."""
    try:
        lock = os.open(directory / bundle.LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
