"""What others may begin of an engine is looked out for, by one look at a time."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsboard.core.clock import SystemClock
from opsboard.supervise import keeper as keepers
from opsboard.supervise.launch import LaunchSpec, RunsAs
from opsboard.supervise.runners import command
from opsboard.supervise.runners.base import Place
from opsboard.supervise.supervisor import Supervisor
from tests.support.in_loop import in_loop
from tests.support.waiting import wait_until_async

SHIM = LaunchSpec(name="a", command=("serve",), url="http://127.0.0.1:9")
BY_COMMAND = msgspec.structs.replace(
    SHIM, runner="command", stop_command=("stop",), status_command=("status",), restart="never"
)


class Looks:
    """Counts looks and those who look out, and finds nothing out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks = self.outlooks = 0
        self.unknown = True
        monkeypatch.setattr(keepers, "ADOPT_AGAIN_S", 0.0)
        monkeypatch.setattr(keepers, "find", self._find)
        monkeypatch.setattr(keepers, "look_out", self._look_out)

    async def _find(self, *_: object) -> None:
        self.looks += 1
        if self.unknown:
            raise OSError("no answer")

    async def _look_out(self, *_: object) -> None:
        self.outlooks += 1
        await asyncio.Event().wait()


async def _nothing(_name: str) -> Any:
    return {}


def supervisor(tmp_path: Path, spec: LaunchSpec) -> Supervisor:
    return Supervisor(
        tmp_path,
        tmp_path,
        SystemClock(),
        [spec],
        ready_probe=_nothing,
        on_life=lambda _life: None,
        on_event=lambda _event: None,
        phase_seconds=_nothing,
        on_wish=lambda _name, _wish: None,
        wishes={},
    )


@in_loop
async def test_one_looks_out_however_often_it_could_not_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, engines = Looks(monkeypatch), supervisor(tmp_path, BY_COMMAND)
    await engines.adopt_all()
    await wait_until_async(lambda: looks.looks > 3, what="it is looked at again and again")
    assert looks.outlooks == 1
    await engines.close()


@in_loop
async def test_it_begins_when_the_configuration_hands_an_engine_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, engines = Looks(monkeypatch), supervisor(tmp_path, SHIM)
    looks.unknown = False
    await engines.adopt_all()
    for spec in (SHIM, BY_COMMAND, BY_COMMAND):
        engines.apply([spec])
    await wait_until_async(lambda: looks.outlooks > 0, what="it is looked out for")
    await engines.close()
    assert looks.outlooks == 1


@in_loop
async def test_a_directory_server_that_knows_the_user_is_not_asked_on_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[threading.Thread] = []

    def account(_spec: LaunchSpec) -> RunsAs:
        asked.append(threading.current_thread())
        return RunsAs(None, None, None)

    monkeypatch.setattr(command, "runs_as", account)
    spec = msgspec.structs.replace(BY_COMMAND, status_command=("false",))
    assert await command.CommandRunner().find(spec, Place(tmp_path / "a", tmp_path), 10.0) is None
    assert asked
    assert threading.main_thread() not in asked


@in_loop
async def test_there_is_no_log_where_nothing_brings_one(tmp_path: Path) -> None:
    log = tmp_path / "engines" / "a" / "engine.log"
    log.parent.mkdir(parents=True)
    for spec in (BY_COMMAND, msgspec.structs.replace(BY_COMMAND, logs_command=("logs",))):
        engines, brought = supervisor(tmp_path, spec), bool(spec.logs_command)
        assert engines.log_path("a") == (log if brought else None)
        log.touch()
        assert engines.log_path("a") == (log if brought else None), "every runner makes the file"
        log.write_text("of a life that a shim began\n")
        assert engines.log_path("a") == log
        log.unlink()
        await engines.close()
