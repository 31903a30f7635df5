"""An engine that others run, such as Docker or a unit of systemd, through commands of the user's.

``status_command`` decides: 0 is that it runs, and a first line that is a pid names its main process (0: it does not
run, as ``docker inspect`` and ``systemctl show`` have it). With a pid the engine is watched as any other; without one
the command is asked again and again. Whoever else starts it begins a new life, which is taken as it is.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from opsboard.core.errors import SuperviseError
from opsboard.core.model import Severity
from opsboard.supervise import bundle, ports
from opsboard.supervise.adopt import Remains, examine, survivors
from opsboard.supervise.ending import Ending
from opsboard.supervise.launch import READY_S, LaunchSpec, RunsAs, environment, program_of, rehearse_writing, runs_as
from opsboard.supervise.processes import TAG, Family, Process, look
from opsboard.supervise.rotate import rotate
from opsboard.supervise.runners import record
from opsboard.supervise.runners.base import LastWords, Place, Tell
from opsboard.supervise.runners.commands import Said, run, shown
from opsboard.supervise.runners.follower import Follower, last_words_written
from opsboard.supervise.situation import Exited
from opsboard.supervise.stopping import stuck as who_is_stuck
from opsboard.supervise.watching import ended, how_it_ended
from opsboard.supervise.world import log

ASK_S = 10.0
"""What ``status_command`` may take."""
LOOK_S = 2.0
"""How often it is asked of an engine whose main process is not known."""
UP_S = 3.0
"""What may pass between the end of ``start_command`` and a status that says so; after that it has ended already."""
STOP_MORE_S = 15.0
"""What ``stop_command`` may take beyond ``stop_timeout``; after that it is asked again."""
SETTLE_S = 0.4
"""After an end: what Docker or systemd mostly take to start it again; later it is found before a start of ours."""
_AGAIN_S = 0.25
_STEP_S = 0.1
_RECORD_S = 1.0
_PATIENCE_S = 10.0
_MISSES = 2
"""So many answers in a row must say that it does not run, where only answers tell."""
SINCE = "{since}"
"""In a word of ``logs_command``: from when on, in Unix seconds."""


class Status(NamedTuple):
    """What ``status_command`` says. ``runs`` is None when it could not be asked."""

    runs: bool | None
    process: Process | None = None
    said: str = ""


class CommandRunner:
    """Runs nothing itself."""

    name = "command"
    restarts_itself = True
    replaces = False

    async def rehearse(self, spec: LaunchSpec, place: Place) -> None:
        """See :class:`Runner`."""
        env, _ = await _as_whom(spec)
        for argv in filter(None, (spec.command, spec.stop_command, spec.status_command, spec.logs_command)):
            await asyncio.to_thread(program_of, msgspec.structs.replace(spec, command=argv), env)
        await asyncio.to_thread(rehearse_writing, place.bundle, env)

    async def start(self, spec: LaunchSpec, place: Place, *, instance: str, life: int) -> None:
        """See :class:`Runner`."""
        await asyncio.to_thread(ports.check, spec.url)
        env, account = await _as_whom(spec)
        _begin(spec, place, instance=instance, life=life)
        try:
            said = await run(spec.command, deadline_s=spec.ready_timeout_s, env=env, runs_as=account)
            if not said.ok:
                raise SuperviseError(f"start_command {said}", hint=f"it is: {shown(spec.command)}", permanent=False)
            status = await _up(spec)
        except SuperviseError as error:
            record.never_began(place.bundle, instance, error)
            raise
        if status.process is not None:
            record.know(place.bundle, instance, process=status.process.record())

    async def find(self, spec: LaunchSpec, place: Place, budget_s: float) -> Remains | None:
        """See :class:`Runner`."""
        remains = await asyncio.to_thread(examine, place.bundle)
        if remains is not None and remains.main is not None:
            return remains
        status = await _ask(spec, _commands(place).get("status", spec.status_command), budget_s)
        if status.runs is None:
            raise OSError(f"status_command {status.said}")
        if not status.runs:
            return remains
        if remains is not None and status.process is None and _is_open(remains):
            return msgspec.structs.replace(remains, running=True)
        life = 1 if remains is None else remains.life + 1
        if record.is_news(place.bundle, remains, status.process):
            _begin(spec, place, instance=str(uuid.uuid4()), life=life, process=status.process)
        found = await asyncio.to_thread(examine, place.bundle)
        return found and msgspec.structs.replace(found, running=status.process is None)

    async def attend(self, spec: LaunchSpec, place: Place, remains: Remains, tell: Tell) -> None:
        """See :class:`Runner`."""
        commands = _commands(place)
        async with asyncio.TaskGroup() as group:
            group.create_task(_keep_records(spec, place, remains))
            if logs := commands.get("logs", ()):
                argv = tuple(logs)
                env, account = await _as_whom(spec)
                follower = Follower(
                    place.bundle,
                    lambda since: [word.replace(SINCE, f"{since:.3f}") for word in argv],
                    env=env,
                    runs_as=account,
                )
                group.create_task(follower.follow(remains.started))
            else:
                tell("no_logs", "no logs_command: its log and what it says at its end are not known", Severity.INFO)

    async def over(self, spec: LaunchSpec, place: Place, remains: Remains) -> None:
        """See :class:`Runner`."""
        if remains.main is not None:
            await ended(remains.main)
            return
        misses = 0 if remains.running else _MISSES
        while misses < _MISSES:
            await asyncio.sleep(LOOK_S)
            status = await _ask(spec, _commands(place).get("status", spec.status_command))
            misses = misses + 1 if status.runs is False else 0

    async def how_it_ended(self, spec: LaunchSpec, place: Place, last_words: LastWords) -> Exited | Remains:
        """See :class:`Runner`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLE_S
        before = bundle.read(str(place.bundle), bundle.IDENTITY) or {}
        await last_words_written(place.bundle / bundle.LOG, int(before.get("log_offset", 0)))
        while True:
            try:
                found = await self.find(spec, place, ASK_S)
            except (OSError, TimeoutError):
                found = None
            if found is not None and found.alive and found.instance != before.get("instance"):
                return found
            if loop.time() >= end:
                break
            await asyncio.sleep(_AGAIN_S)
        try:
            record.ended(place.bundle, str(before.get("instance")), result="its status_command tells no exit status")
        except OSError as error:
            log.warning("engine %s: its end is not written down: %s", spec.name, error)
        return await how_it_ended(place.bundle, await asyncio.to_thread(last_words))

    async def end(self, spec: LaunchSpec, place: Place, by: str, tell: Tell, stuck: Callable[[str], None]) -> None:
        """See :class:`Runner`."""
        remains = await asyncio.to_thread(examine, place.bundle)
        if remains is None:
            return
        while (left := await self._end_once(spec, place, remains, tell, stuck)) is not None:
            stuck(f"stop_command has not ended it: {left}")
        if remains.exit is None:
            record.ended(place.bundle, remains.instance, asked_by=by)

    async def _end_once(
        self, spec: LaunchSpec, place: Place, remains: Remains, tell: Tell, stuck: Callable[[str], None]
    ) -> str | None:
        """Ask ``stop_command``, then KILL who provably is of the life; return what still says that it runs."""
        loop = asyncio.get_running_loop()
        stop = tuple(_commands(place).get("stop", spec.stop_command))
        kill_at = loop.time() + spec.stop_timeout_s
        known = [process for process in (remains.main, *remains.others) if process is not None]
        asking = asyncio.ensure_future(_stop(spec, stop))
        try:
            told = False
            ending = Ending(remains.group or 0, 0.0, kill_at)
            while (left := await asyncio.to_thread(survivors, known)) or not asking.done():
                known = left or known
                if left and loop.time() >= kill_at:
                    ending.step(left, loop.time())
                    if ending.killed_at is not None and loop.time() - ending.killed_at > _PATIENCE_S:
                        stuck(who_is_stuck(left))
                if left and asking.done() and not told:
                    told = True
                    names = ", ".join(f"pid {process.pid} ({process.name})" for process in left[:4])
                    seconds = max(0.0, kill_at - loop.time())
                    text = f"stop_command {asking.result()}, and {names} runs on: KILL in {seconds:.0f} s"
                    tell("stop_leaves", text, Severity.WARNING)
                await asyncio.sleep(_STEP_S)
        finally:
            asking.cancel()
        status = await _ask(spec, _commands(place).get("status", spec.status_command))
        while status.runs is not False and loop.time() < kill_at:
            await asyncio.sleep(_AGAIN_S)
            status = await _ask(spec, _commands(place).get("status", spec.status_command))
        if status.runs is False or (status.runs is None and remains.main is not None):
            return None
        return f"stop_command {asking.result()}; status_command {status.said}"


async def _up(spec: LaunchSpec) -> Status:
    """Return what is said when it runs, or does not in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + UP_S
    while not (status := await _ask(spec, spec.status_command)).runs and loop.time() < end:  # noqa: ASYNC110
        await asyncio.sleep(_AGAIN_S)
    return status


async def _ask(spec: LaunchSpec, argv: Sequence[str], deadline_s: float = ASK_S) -> Status:
    try:
        env, account = await _as_whom(spec)
        said = await run(argv, deadline_s=deadline_s, env=env, runs_as=account)
    except SuperviseError as error:
        return Status(None, said=error.message)
    return read_status(said)


def read_status(said: Said) -> Status:
    """Return what an answer of ``status_command`` means."""
    if said.code is None:
        return Status(None, said=str(said))
    if not said.ok:
        return Status(runs=False, said=str(said))
    if not said.first_line.isdecimal():
        return Status(runs=True, said="says that it runs")
    process = look(int(said.first_line))
    word = "says that it runs" if process else "names no process that runs"
    return Status(runs=process is not None, process=process, said=f"{word}: “{said.first_line[:20]}”")


async def _stop(spec: LaunchSpec, argv: Sequence[str]) -> str:
    try:
        deadline_s = spec.stop_timeout_s + STOP_MORE_S
        env, account = await _as_whom(spec)
        return str(await run(argv, deadline_s=deadline_s, env=env, runs_as=account))
    except SuperviseError as error:
        return error.message


def _begin(spec: LaunchSpec, place: Place, *, instance: str, life: int, process: Process | None = None) -> None:
    commands = {"stop": spec.stop_command, "status": spec.status_command, "logs": spec.logs_command}
    record.begin(place.bundle, spec, instance=instance, life=life, process=process, commands=commands)


def _commands(place: Place) -> Mapping[str, Sequence[str]]:
    """Return the commands of the life that is there, which may be others than those of its next one."""
    found = (bundle.read(str(place.bundle), bundle.IDENTITY) or {}).get("commands")
    return found if isinstance(found, dict) else {}


def _is_open(remains: Remains) -> bool:
    """Tell whether a life without a known process may be the one that runs."""
    return remains.same_boot and remains.exit is None and remains.group is None and not remains.by_hand


async def _as_whom(spec: LaunchSpec) -> tuple[dict[str, str], RunsAs]:
    """Return in which environment and as whom its commands run; a directory server may be asked for its user.

    Raises SuperviseError: there is no such user, or no answer.
    """
    try:
        async with asyncio.timeout(READY_S):
            return await asyncio.to_thread(lambda: (_environment(spec), runs_as(spec)))
    except TimeoutError:
        raise SuperviseError(f"no answer within {READY_S:g} s about user {spec.user}", permanent=False) from None


def _environment(spec: LaunchSpec) -> dict[str, str]:
    """Return an environment without the mark of a life: what a command leaves running need not be the engine's."""
    env = environment(spec, "", os.environ)
    del env[TAG]
    return env


async def _keep_records(spec: LaunchSpec, place: Place, remains: Remains) -> None:
    """Write down who descends from the main process, and keep the log small."""
    family = None if remains.main is None else Family(remains.main.pid)
    main = remains.main
    while True:
        try:
            if family is not None and main is not None and main.same_as(look(main.pid)):
                changed = await asyncio.to_thread(family.refresh)
                if changed or not bundle.read(str(place.bundle), bundle.STATUS):
                    record.processes(place.bundle, remains.instance, [main, *family.members.values()])
            await asyncio.to_thread(rotate, str(place.bundle / bundle.LOG), spec.log_bytes, spec.log_files)
        except OSError as error:
            log.warning("engine %s: its records are not kept: %s", spec.name, error)
        await asyncio.sleep(_RECORD_S)
