"""The supervisor with real processes: every state and message an operator can meet."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from opsboard.core.errors import NotFound, SuperviseError
from opsboard.core.model import EngineState, Severity
from opsboard.core.secret import Secret
from opsboard.supervise.processes import look
from tests.support.herd import free_port, kill
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opsboard.core.model import LifeView
    from opsboard.supervise.launch import LaunchSpec
    from opsboard.supervise.supervisor import Supervisor
    from tests.support.herd import Herd


def with_supervisor(herd: Herd, *specs: LaunchSpec, story: Callable[[Supervisor], Awaitable[None]]) -> None:
    """Run a story under a supervisor that has looked for what is there."""

    async def main() -> None:
        supervisor = herd.supervisor(*specs)
        await supervisor.adopt_all()
        try:
            await story(supervisor)
        finally:
            await supervisor.close()

    asyncio.run(main())


async def until(supervisor: Supervisor, name: str, state: EngineState) -> LifeView:
    await wait_until_async(lambda: supervisor.life(name).state is state, what=f"{name} {state}")
    return supervisor.life(name)


def states(herd: Herd, name: str) -> list[str]:
    """Return the states told for an engine, each once in a row."""
    found: list[str] = []
    for life in herd.lives:
        if life.engine == name and found[-1:] != [life.state.value]:
            found.append(life.state.value)
    return found


def test_start_ready_restart_stop(herd: Herd) -> None:
    port = free_port()

    async def story(supervisor: Supervisor) -> None:
        assert supervisor.life("a").state is EngineState.STOPPED
        await supervisor.start("a", "first")
        assert supervisor.life("a").state is EngineState.STARTING
        first = await until(supervisor, "a", EngineState.READY)
        assert first.pid == first.pgid == herd.births("a")[0]
        assert [phase.name for phase in first.phases] == ["start", "configure", "load"]
        assert all(phase.seconds is not None for phase in first.phases)
        assert (first.phase, first.progress, first.restarts, first.message) == (None, None, 0, None)
        assert supervisor.processes("a")[0] == first.pid
        await wait_until_async(lambda: len(supervisor.processes("a")) == 2)

        await supervisor.restart("a", "second")
        second = await until(supervisor, "a", EngineState.READY)
        assert second.pid != first.pid
        assert second.restarts == 1
        await supervisor.stop("a", "done")
        assert supervisor.life("a").state is EngineState.STOPPED
        assert supervisor.life("a").pid is None
        assert supervisor.processes("a") == []

    with_supervisor(herd, herd.spec("a", "serve_with_child", port), story=story)
    assert states(herd, "a") == [
        *("stopped", "starting", "ready"),
        *("stopping", "starting", "ready"),
        *("stopping", "stopped"),
    ]
    assert herd.wishes == {"a": "down"}
    assert herd.remains("a").lives is False


def test_every_start_tells_what_its_configuration_lacks(herd: Herd) -> None:
    async def story(supervisor: Supervisor) -> None:
        assert herd.events == []
        for wish in (supervisor.start, supervisor.restart):
            await wish("a", "asked")
        await supervisor.stop("a", "done")

    with_supervisor(herd, herd.spec("a", "idle", gpus=("0",), warning="by number"), story=story)
    told = [(event.subject, event.severity, event.text) for event in herd.events if event.kind == "start_warning"]
    assert told == [("engine/a", Severity.WARNING, "by number")] * 2


def test_every_failed_start_says_why(herd: Herd) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    specs = [
        herd.spec("missing", "idle", command=("no-such-engine",)),
        herd.spec("taken", "serve", taken.getsockname()[1]),
        herd.spec("bound", "serve", bound.getsockname()[1]),
        herd.spec("twice", "idle", gpus=("GPU-1",), env={"CUDA_VISIBLE_DEVICES": "7"}),
    ]

    async def story(supervisor: Supervisor) -> None:
        for name, why in {
            "missing": "command not found: no-such-engine",
            "taken": rf"port {taken.getsockname()[1]} is taken by pid {os.getpid()} \(",
            "bound": rf"port {bound.getsockname()[1]} is taken by a process that has bound it and does not listen yet",
            "twice": "env sets CUDA_VISIBLE_DEVICES=7, but gpus means GPU-1",
        }.items():
            with pytest.raises(SuperviseError, match=why):
                await supervisor.start(name, "test")
            life = supervisor.life(name)
            assert life.state is EngineState.FAILED
            assert why.replace("\\", "")[:20] in (life.message or "")
            assert herd.births(name) == []
            await supervisor.stop(name, "never mind")
            assert supervisor.life(name).state is EngineState.STOPPED
            assert supervisor.life(name).message is None

    with taken, bound:
        with_supervisor(herd, *specs, story=story)


@pytest.mark.parametrize("code", [0, 3])
def test_an_engine_that_dies_at_once(herd: Herd, code: int) -> None:
    """Exit code 0 too: nobody asked for it. Its log is quoted, without what could harm a terminal."""

    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "test")
        life = await until(supervisor, "a", EngineState.FAILED)
        assert life.exit_code == code
        assert life.message is not None
        assert life.message.startswith(f"exited by itself with code {code}")
        assert ": “CUDA out of memory: tried to" in life.message
        assert "the GPU is full" in life.message
        assert "\x1b" not in life.message
        assert life.pid is None
        with pytest.raises(NotFound):
            supervisor.life("b")

    with_supervisor(herd, herd.spec("a", "die", code), story=story)


def test_an_engine_killed_from_outside(herd: Herd) -> None:
    """Its children survive it; a new start ends them first."""

    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "test")
        life = await until(supervisor, "a", EngineState.READY)
        await wait_until_async(lambda: len(supervisor.processes("a")) == 2)
        _, orphan = supervisor.processes("a")
        assert life.pid is not None
        os.kill(life.pid, signal.SIGKILL)
        life = await until(supervisor, "a", EngineState.FAILED)
        assert life.exit_code == -signal.SIGKILL
        assert (life.message or "").startswith(f"killed by SIGKILL; still running: pid {orphan}")
        assert supervisor.processes("a") == [orphan]
        await supervisor.start("a", "again")
        assert look(orphan) is None
        await until(supervisor, "a", EngineState.READY)

    with_supervisor(herd, herd.spec("a", "serve_with_child", free_port(), stop_timeout_s=1), story=story)


def test_an_engine_that_never_becomes_ready(herd: Herd) -> None:
    """It is called failed and left running, so that one can look at it; it may still become ready."""
    hold = herd.state_dir / "hold"
    hold.parent.mkdir()
    hold.write_text("start")

    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "test")
        life = await until(supervisor, "a", EngineState.FAILED)
        assert life.message == "not ready after 0.2 s"
        assert (life.hint or "").startswith("its processes still run")
        assert life.pid == herd.births("a")[0]
        with pytest.raises(SuperviseError, match=f"a still runs as pid {life.pid}"):
            await supervisor.start("a", "test")
        hold.unlink()
        await until(supervisor, "a", EngineState.READY)

    with_supervisor(herd, herd.spec("a", "three_deep", free_port(), ready_timeout_s=0.2), story=story)


def test_a_log_of_10_mb_a_second_during_the_start(herd: Herd) -> None:
    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "test")
        await wait_until_async(lambda: len(list(herd.bundle("a").glob("engine.log.*"))) > 1)
        assert supervisor.life("a").state is EngineState.STARTING
        await supervisor.stop("a", "test")
        assert supervisor.life("a").state is EngineState.STOPPED

    with_supervisor(herd, herd.spec("a", "spam", 10_000_000, log_bytes=1_000_000), story=story)


def test_stop_during_a_start(herd: Herd) -> None:
    async def story(supervisor: Supervisor) -> None:
        starting = asyncio.ensure_future(supervisor.start("a", "up"))
        await wait_until_async(lambda: supervisor.life("a").state is EngineState.STARTING)
        await supervisor.stop("a", "no, down")
        await starting
        assert supervisor.life("a").state is EngineState.STOPPED
        assert herd.remains("a").lives is False

    with_supervisor(herd, herd.spec("a", "idle"), story=story)


def test_start_during_a_slow_stop_waits(herd: Herd) -> None:
    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "up")
        await wait_until_async(lambda: "up\n" in herd.log("a"))
        stopping = asyncio.ensure_future(supervisor.stop("a", "down"))
        await until(supervisor, "a", EngineState.STOPPING)
        await supervisor.start("a", "up again")
        await stopping
        assert supervisor.life("a").state is EngineState.STARTING
        assert len(herd.births("a")) <= 2
        assert "starts again when the last process" in "".join(life.message or "" for life in herd.lives)

    with_supervisor(herd, herd.spec("a", "slow_to_stop", 0.7), story=story)
    assert not herd.doubles("a")


def test_two_restarts_at_once_make_one(herd: Herd) -> None:
    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "up")
        await until(supervisor, "a", EngineState.READY)
        await asyncio.gather(*(supervisor.restart("a", "both") for _ in range(2)))
        await until(supervisor, "a", EngineState.READY)
        assert len(herd.births("a")) == 2

    with_supervisor(herd, herd.spec("a", "serve", free_port()), story=story)
    assert not herd.doubles("a")


def test_a_shim_killed_in_the_middle_of_a_stop(herd: Herd) -> None:
    """The daemon goes on by hand until everybody is gone."""

    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "up")
        await wait_until_async(lambda: "up\n" in herd.log("a"))
        family = supervisor.processes("a")
        stopping = asyncio.ensure_future(supervisor.stop("a", "down"))
        await wait_until_async(lambda: herd.record("a", "status.json")["state"] == "stopping")
        shim = herd.remains("a").shim
        assert shim is not None
        await asyncio.to_thread(kill, shim.pid)
        await stopping
        assert supervisor.life("a").state is EngineState.STOPPED
        assert [pid for pid in family if look(pid)] == []

    with_supervisor(herd, herd.spec("a", "stubborn", stop_timeout_s=1), story=story)


def test_a_lost_shim_is_told_and_stop_still_works(herd: Herd) -> None:
    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "up")
        life = await until(supervisor, "a", EngineState.READY)
        shim = herd.remains("a").shim
        assert shim is not None
        await asyncio.to_thread(kill, shim.pid)
        await wait_until_async(lambda: "its shim is gone" in (supervisor.life("a").message or ""))
        assert supervisor.life("a").state is EngineState.READY
        assert supervisor.life("a").pid == life.pid
        assert [event.kind for event in herd.events] == ["shim_gone"]
        await supervisor.stop("a", "down")
        assert supervisor.life("a").state is EngineState.STOPPED
        assert supervisor.life("a").exit_code is None, "nobody was there to see it"
        assert herd.remains("a").lives is False

    with_supervisor(herd, herd.spec("a", "serve_with_child", free_port()), story=story)


def test_a_restart_that_cannot_succeed_leaves_the_engine_running(herd: Herd) -> None:
    port = free_port()

    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "up")
        first = await until(supervisor, "a", EngineState.READY)
        supervisor.apply([herd.spec("a", "serve", port, command=("no-such-engine",))])
        with pytest.raises(SuperviseError, match="left running, it could not be started again: no-such-engine"):
            await supervisor.restart("a", "apply")
        life = supervisor.life("a")
        assert (life.state, life.pid) == (EngineState.READY, first.pid)
        await supervisor.stop("a", "done")

    with_supervisor(herd, herd.spec("a", "serve", port), story=story)


def test_a_reload(herd: Herd) -> None:
    """New engines appear, running ones cannot leave, a changed command waits for the next start."""
    port = free_port()
    a, b = herd.spec("a", "serve", port), herd.spec("b", "idle", autostart=True)

    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "up")
        await until(supervisor, "a", EngineState.READY)
        with pytest.raises(SuperviseError, match="a: still running"):
            supervisor.apply([b])
        with pytest.raises(NotFound):
            supervisor.life("b")
        supervisor.apply([herd.spec("a", "serve", port, env={"KEY": Secret("hush")}), b])
        await until(supervisor, "b", EngineState.STARTING)
        assert supervisor.life("a").message == "its configuration has changed: applies at the next start"
        await supervisor.restart("a", "apply")
        assert supervisor.life("a").message is None
        await supervisor.stop("a", "leaves")
        supervisor.apply([b])
        with pytest.raises(NotFound):
            supervisor.life("a")

    with_supervisor(herd, a, story=story)
    assert "hush" not in repr(herd.lives) + repr(herd.events)
