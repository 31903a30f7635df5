"""An engine as a transient unit of systemd: its own control group, its output in the journal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from opsboard.core.errors import SuperviseError
from opsboard.core.model import Severity
from opsboard.supervise import bundle, ports
from opsboard.supervise.adopt import Remains, examine
from opsboard.supervise.launch import (
    LaunchSpec,
    environment,
    program_of,
    rehearse_writing,
    runs_as,
)
from opsboard.supervise.processes import inside, look
from opsboard.supervise.rotate import rotate
from opsboard.supervise.runners import record, units
from opsboard.supervise.runners.base import LastWords, Place, Tell
from opsboard.supervise.runners.environment_file import quoted
from opsboard.supervise.runners.follower import Follower, last_words_written
from opsboard.supervise.runners.units import Unit
from opsboard.supervise.situation import Exited
from opsboard.supervise.stopping import wait_for_end
from opsboard.supervise.watching import ended, how_it_ended
from opsboard.supervise.world import log

LOOK_S = 1.0
_STEP_S = 0.05
_SETTLE_S = 2.0
"""What systemd may take to see an exit that we saw at the same moment."""
_SOMEBODY = "somebody's `systemctl stop`"


class SystemdRunner:
    """systemd is its parent: it signals the whole control group, keeps the exit status, and writes the journal."""

    name = "systemd"
    restarts_itself = False
    replaces = False

    async def rehearse(self, spec: LaunchSpec, place: Place) -> None:
        """See :class:`Runner`."""
        env = environment(spec, "", os.environ)
        text = quoted(env)
        runs_as(spec)
        await asyncio.to_thread(program_of, spec, env)
        await asyncio.to_thread(rehearse_writing, place.bundle, text)
        unit = await units.show(units.name_of(spec.name))
        if unit.runs and unit.stop_asked:
            raise SuperviseError(f"it is being ended by {_SOMEBODY}", permanent=False)

    async def start(self, spec: LaunchSpec, place: Place, *, instance: str, life: int) -> None:
        """See :class:`Runner`."""
        await asyncio.to_thread(ports.check, spec.url)
        env = environment(spec, instance, os.environ)
        text, program = quoted(env), await asyncio.to_thread(program_of, spec, env)
        settings = _settings(spec, instance)
        name = units.name_of(spec.name)
        before = await units.show(name)
        if before.runs:
            raise SuperviseError(
                f"{name} is {before.active} already (pid {before.main_pid}), and not by this opsboard",
                hint=f"systemctl stop {name}",
                permanent=False,
            )
        await units.forget(name)
        record.begin(place.bundle, spec, instance=instance, life=life, unit=name)
        file = place.bundle / bundle.ENVIRONMENT
        try:
            _write(file, text)
            await units.begin(name, (program, *spec.command[1:]), settings=settings, environment=file)
        except SuperviseError as error:
            record.never_began(place.bundle, instance, error)
            raise
        finally:
            file.unlink(missing_ok=True)
        _know(place.bundle, instance, await units.show(name))

    async def find(self, _spec: LaunchSpec, place: Place, budget_s: float) -> Remains | None:
        """See :class:`Runner`."""
        async with asyncio.timeout(budget_s):
            remains = await asyncio.to_thread(examine, place.bundle)
            identity = bundle.read(str(place.bundle), bundle.IDENTITY) or {}
            over = remains is not None and remains.same_boot and remains.main is None and remains.exit is None
            if not over or remains is None or identity.get("runner") != self.name:
                return remains
            try:
                unit = await units.show(identity["unit"])
            except SuperviseError as error:
                raise OSError(error.message) from error
            if remains.instance in unit.description and unit.main_pid is not None:
                _know(place.bundle, remains.instance, unit)
            elif identity.get("process") is not None or remains.instance in unit.description:
                await self._record_end(place, remains.instance, unit)
            return await asyncio.to_thread(examine, place.bundle)

    async def attend(self, spec: LaunchSpec, place: Place, remains: Remains, _tell: Tell) -> None:
        """See :class:`Runner`."""
        identity = bundle.read(str(place.bundle), bundle.IDENTITY) or {}
        follower = Follower(place.bundle, lambda since: _journal(str(identity.get("invocation")), since))
        async with asyncio.TaskGroup() as group:
            group.create_task(follower.follow(remains.started))
            group.create_task(_keep_records(spec, place.bundle, remains.instance, identity.get("cgroup")))

    async def over(self, _spec: LaunchSpec, _place: Place, remains: Remains) -> None:
        """See :class:`Runner`."""
        if remains.main is not None:
            await ended(remains.main)

    async def how_it_ended(self, _spec: LaunchSpec, place: Place, last_words: LastWords) -> Exited:
        """See :class:`Runner`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _SETTLE_S
        identity = bundle.read(str(place.bundle), bundle.IDENTITY) or {}
        try:
            unit = await units.show(str(identity.get("unit")))
            while unit.main_pid is not None and loop.time() < end:
                await asyncio.sleep(_STEP_S)
                unit = await units.show(str(identity.get("unit")))
            await last_words_written(place.bundle / bundle.LOG, int(identity.get("log_offset", 0)))
            await self._record_end(place, str(identity.get("instance")), unit)
        except (SuperviseError, OSError) as error:
            log.warning("engine %s: how it ended is not known: %s", place.bundle.name, error)
        return await how_it_ended(place.bundle, await asyncio.to_thread(last_words))

    async def end(self, spec: LaunchSpec, place: Place, by: str, tell: Tell, stuck: Callable[[str], None]) -> None:
        """See :class:`Runner`."""
        remains = await asyncio.to_thread(examine, place.bundle)
        identity = bundle.read(str(place.bundle), bundle.IDENTITY) or {}
        name = str(identity.get("unit"))
        if remains is None or not remains.same_boot:
            return
        asked = False
        try:
            unit = await units.show(name)
            ours = remains.instance in unit.description
            asked = ours and unit.runs and (await units.systemctl("stop", "--no-block", name)).ok
        except SuperviseError as error:
            tell(
                "systemd", f"systemd is not to be asked, its processes are signalled: {error.message}", Severity.WARNING
            )
        await wait_for_end(remains, spec.stop_timeout_s, stuck, asked=asked, cgroup=identity.get("cgroup"))
        try:
            await self._record_end(place, remains.instance, await units.show(name), by=by)
        except SuperviseError as error:
            log.warning("engine %s: %s", spec.name, error.message)

    async def _record_end(self, place: Place, instance: str, unit: Unit, by: str | None = None) -> None:
        """Write down what systemd knows of an end, once, and let it forget the unit when nothing of it is left."""
        ours = instance in unit.description
        known = bundle.read(str(place.bundle), bundle.EXIT) or {}
        if known.get("instance") != instance:
            asked_by = by or (None if ours and not unit.stop_asked else _SOMEBODY)
            code, result = (unit.code, unit.why) if ours else (None, None)
            record.ended(place.bundle, instance, code=code, asked_by=asked_by, result=result)
        if ours and not unit.runs:
            await units.forget(unit.name)


def _settings(spec: LaunchSpec, instance: str) -> list[str]:
    """Return the properties of the unit. Everybody may read them."""
    account = runs_as(spec)
    found = [
        f"Description=opsboard engine {spec.name} ({instance})",
        f"TimeoutStopSec={spec.stop_timeout_s:.3f}s",
        *("StandardInput=null", "StandardOutput=journal", "StandardError=journal"),
        "LogRateLimitIntervalSec=0",
    ]
    if account.uid is not None:
        found += [f"User={account.uid}", f"Group={account.gid}"]
    if spec.cwd is not None:
        found.append(f"WorkingDirectory={spec.cwd}")
    return found


def _know(directory: Path, instance: str, unit: Unit) -> None:
    """Write down which processes a unit has; one that has ended already keeps only its pid, which names nobody."""
    pid = unit.main_pid or unit.last_pid
    process = None if pid is None else look(pid)
    found = process.record() if process is not None else {"pid": pid, "start_ticks": None}
    record.know(directory, instance, process=found, cgroup=unit.cgroup, invocation=unit.invocation)
    if unit.cgroup is not None:
        record.processes(directory, instance, inside(unit.cgroup))


async def _keep_records(spec: LaunchSpec, directory: Path, instance: str, cgroup: str | None) -> None:
    """Write down who belongs to the unit when that changes, and keep the log small."""
    before: set[tuple[int, int]] | None = None
    while True:
        try:
            found = inside(cgroup)
            now = {(process.pid, process.start_ticks) for process in found}
            if found and now != before:
                record.processes(directory, instance, found)
                before = now
            await asyncio.to_thread(rotate, str(directory / bundle.LOG), spec.log_bytes, spec.log_files)
        except OSError as error:
            log.warning("engine %s: its records are not kept: %s", spec.name, error)
        await asyncio.sleep(LOOK_S)


def _journal(invocation: str, since: float) -> Sequence[str]:
    """Return what prints the journal of one start of a unit, and nothing else."""
    match = f"_SYSTEMD_INVOCATION_ID={invocation}"
    return ("journalctl", "--follow", "--no-tail", "--output=cat", f"--since=@{since:.6f}", match)


def _write(path: Path, text: str) -> None:
    try:
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:  # noqa: PTH123
            file.write(text)
    except OSError as error:
        raise SuperviseError(f"{path}: cannot be written: {error.strerror}", permanent=False) from error
