"""Engines that others run too: what they begin is taken as it is, and what is only observed can be restarted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from opsboard.core.errors import SuperviseError
from opsboard.core.model import EngineState
from opsboard.supervise import looks, ports
from opsboard.supervise.runners import command, restart
from tests.contract.test_runners import under, until
from tests.support.herd import free_port, kill
from tests.support.waiting import wait_until_async
from tests.support.ways import WAYS, stand_in

if TYPE_CHECKING:
    from pathlib import Path

    from opsboard.supervise.launch import LaunchSpec
    from opsboard.supervise.supervisor import Supervisor
    from tests.support.herd import Herd


@pytest.fixture(autouse=True)
def little_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch)
    for module, name, seconds in (
        (command, "UP_S", 0.3), (command, "SETTLE_S", 0.6), (command, "LOOK_S", 0.05), (looks, "OTHERS_S", 0.1),
        (restart, "SETTLE_S", 0.2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, seconds)


def docker(spec: LaunchSpec) -> None:
    """Start it as somebody else does."""
    subprocess.run(spec.command, check=True, env=dict(os.environ), capture_output=True)


def test_what_others_begin_is_a_life_too(herd: Herd) -> None:
    """Found by a first daemon, after a crash that Docker answers itself, and after a stop of ours."""
    spec = WAYS["command"].of(herd.spec("a", "serve", free_port(), restart="on-failure"))
    docker(spec)

    async def story(supervisor: Supervisor) -> None:
        first = await until(supervisor, EngineState.READY)
        assert [first.pid] == herd.births("a")
        await asyncio.to_thread(kill, herd.births("a")[0])
        await asyncio.to_thread(docker, spec)
        await wait_until_async(lambda: supervisor.life("a").pid not in {None, first.pid}, what="the second life")
        second = await until(supervisor, EngineState.READY)
        assert second.restarts == 1
        await supervisor.stop("a", "down")
        await asyncio.to_thread(docker, spec)
        third = await until(supervisor, EngineState.READY)
        told = [event.text for event in herd.events if event.kind == "began_elsewhere"]
        assert told == [f"runs as pid {life.pid}, begun by somebody else" for life in (second, third)]
        await supervisor.stop("a", "down again")

    under(herd, spec, story)
    assert not herd.doubles("a")
    assert len(herd.births("a")) == 3


def test_without_a_pid_the_status_is_asked_again_and_again(herd: Herd) -> None:
    spec = WAYS["command"].of(herd.spec("a", "serve", free_port()))
    silent = ("sh", "-c", "docker inspect --format {{.State.Pid}} a | grep -qx '[1-9][0-9]*'")
    spec = msgspec.structs.replace(spec, status_command=silent)

    async def begin(supervisor: Supervisor) -> None:
        await supervisor.start("a", "up")
        life = await until(supervisor, EngineState.READY)
        assert life.pid is None
        assert life.started is not None

    async def go_on(supervisor: Supervisor) -> None:
        assert supervisor.life("a").state is EngineState.READY
        assert "found running by its status_command" in [event.text for event in herd.events]
        await asyncio.to_thread(kill, herd.births("a")[0])
        await until(supervisor, EngineState.FAILED)
        await supervisor.start("a", "again")
        await until(supervisor, EngineState.READY)
        await supervisor.stop("a", "down")
        assert supervisor.life("a").state is EngineState.STOPPED

    under(herd, spec, begin)
    under(herd, spec, go_on)
    assert len(herd.births("a")) == 2


def test_a_start_command_that_fails_is_quoted(herd: Herd) -> None:
    spec = WAYS["command"].of(herd.spec("a", "serve", free_port()))
    wrong = ("sh", "-c", "echo Cannot connect to the Docker daemon; exit 125")
    spec = msgspec.structs.replace(spec, command=wrong)

    async def story(supervisor: Supervisor) -> None:
        with pytest.raises(SuperviseError, match="start_command ended with code 125: “Cannot connect to the Docker"):
            await supervisor.start("a", "up")

    under(herd, spec, story)


def observed(herd: Herd, port: int, how: str) -> LaunchSpec:
    """Return an engine that is only observed; ``how`` is what the script does between the end and the beginning."""
    begin = f"{sys.executable} -S {herd.spec('a', 'serve', port).command[2]} serve {port}"
    script = f"kill -KILL $(tail -n 1 births); {how} cd {herd.work('a')}; setsid {begin} >/dev/null 2>&1 &"
    restart_it = ("sh", "-c", f"cd {herd.work('a')}; {script}")
    spec = herd.spec("a", "serve", port, command=restart_it, runner="restart", ready_timeout_s=3.0)
    return msgspec.structs.replace(spec, cwd=None)


def test_the_restart_of_an_observed_engine(herd: Herd) -> None:
    port = free_port()
    spec = observed(herd, port, "")
    begun = subprocess.Popen(herd.spec("a", "serve", port).command, cwd=herd.work("a"), stdout=subprocess.DEVNULL)

    async def story(supervisor: Supervisor) -> None:
        try:
            first = await until(supervisor, EngineState.READY)
            assert (first.pid, first.supervised) == (begun.pid, False)
            await supervisor.restart("a", "asked")
            begun.wait()
            second = await until(supervisor, EngineState.READY)
            assert second.pid == herd.births("a")[1]
            assert [step.name for step in second.steps][:1] == ["end"]
            supervisor.apply([msgspec.structs.replace(spec, command=("sh", "-c", "echo no such unit; exit 5"))])
            with pytest.raises(SuperviseError, match="restart_command ended with code 5: “no such unit”"):
                await supervisor.restart("a", "asked")
            back = await until(supervisor, EngineState.READY)
            assert back.pid == second.pid, "it was never ended, and is seen again"
            supervisor.apply([msgspec.structs.replace(spec, command=("true",), ready_timeout_s=0.2)])
            with pytest.raises(SuperviseError, match=f"restart_command ended with 0, and pid {second.pid} runs on"):
                await supervisor.restart("a", "asked")
            supervisor.apply([])
        finally:
            for pid in herd.births("a")[1:]:
                os.kill(pid, signal.SIGKILL)

    async def main() -> None:
        supervisor = herd.supervisor(spec)
        await wait_until_async(lambda: herd.births("a") and _listens(port), what="somebody's engine")
        await supervisor.adopt_all()
        try:
            await story(supervisor)
        finally:
            await supervisor.close()

    asyncio.run(main())
    assert not herd.doubles("a")


def _listens(port: int) -> bool:
    return ports.listener(f"http://127.0.0.1:{port}") is not None


def test_an_observed_engine_is_restarted_by_itself_only_where_that_is_asked_for(herd: Herd) -> None:
    port = free_port()
    spec = msgspec.structs.replace(observed(herd, port, ""), restart="on-failure")

    async def story(supervisor: Supervisor) -> None:
        await wait_until_async(lambda: supervisor.life("a").state is EngineState.STOPPED)
        begun = subprocess.Popen(herd.spec("a", "serve", port).command, cwd=herd.work("a"), stdout=subprocess.DEVNULL)
        try:
            assert (await until(supervisor, EngineState.READY)).pid == begun.pid, "seen, and not begun by us"
            begun.kill()
            begun.wait()
            await wait_until_async(lambda: len(herd.births("a")) == 2, what="its restart_command")
            await wait_until_async(lambda: supervisor.life("a").pid == herd.births("a")[1], what="the new life")
            assert (await until(supervisor, EngineState.READY)).restarts == 1
        finally:
            begun.kill()
            begun.wait()
            for pid in herd.births("a")[1:]:
                os.kill(pid, signal.SIGKILL)

    under(herd, spec, story)
