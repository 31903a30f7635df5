"""Daemons, shims and engines killed with -9: nothing starts twice, nothing is lost, no stranger is hit."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from opsboard.core.model import EngineState
from opsboard.supervise import keeper
from opsboard.supervise.processes import boot_id, look
from tests.support.herd import Herd, free_port, kill
from tests.support.waiting import wait_until, wait_until_async

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsboard.core.model import LifeView
    from opsboard.supervise.launch import LaunchSpec

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("OPSBOARD_CRASH_ROUNDS", "5"))


class Daemon:
    """The daemon's side in a process of its own."""

    def __init__(self, herd: Herd, name: str, mode: str, value: object = "") -> None:
        places = (str(herd.state_dir), str(herd.runtime_dir))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.daemon_side", *places, name, mode, str(value)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.until("adopted")

    def until(self, words: str) -> str:
        """Return the next line that begins with these words."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(words):
                return line.strip()
        pytest.fail(f"the daemon's side ended before {words!r}")

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def daemon(herd: Herd, name: str, mode: str, value: object = "") -> Iterator[Daemon]:
    herd.state_dir.mkdir(exist_ok=True)
    found = Daemon(herd, name, mode, value)
    try:
        yield found
    finally:
        found.kill()


def adopted(herd: Herd, *specs: LaunchSpec) -> list[LifeView]:
    """Return what a new daemon finds, and let go again."""

    async def main() -> list[LifeView]:
        supervisor = herd.supervisor(*specs)
        await supervisor.adopt_all()
        found = [supervisor.life(spec.name) for spec in specs]
        await supervisor.close()
        return found

    return asyncio.run(main())


def edit(herd: Herd, name: str, **changes: object) -> None:
    path = herd.bundle(name) / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@contextmanager
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of our business."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            yield process
            assert process.poll() is None, "a stranger was hit"
        finally:
            process.kill()


def test_a_daemon_killed_under_a_ready_engine(herd: Herd) -> None:
    port = free_port()
    with daemon(herd, "a", "serve_with_child", port) as first:
        first.say("start")
        pid = first.until("ready").split()[1]
        first.kill()
    with daemon(herd, "a", "serve_with_child", port) as second:
        second.say("restart")
        assert second.until("stopping").split()[1] == pid
        second.until("ready")
    life = adopted(herd, herd.spec("a", "serve_with_child", port))[0]
    assert (life.state, life.restarts) == (EngineState.READY, 1)
    assert len(herd.births("a")) == 2
    assert not herd.doubles("a")


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_daemons_killed_at_any_moment(herd: Herd) -> None:
    """Whatever was under way: never two lives at once, and the last wish is fulfilled in the end."""
    chance = random.Random(7)
    for _ in range(ROUNDS):
        with daemon(herd, "a", "serve_with_child", free_port()) as doomed:
            for word in chance.choices(["start", "stop", "restart"], k=2):
                doomed.say(word)
                time.sleep(chance.uniform(0, 0.25))  # not to wait for something: the moment of the crash
            doomed.kill()
    last = (herd.state_dir / "wish-a").read_text()
    with daemon(herd, "a", "serve_with_child", free_port()) as survivor:
        main = herd.remains("a").main
        if last == "down":
            wait_until(lambda: not herd.remains("a").lives, what="the end of the stop")
        elif main is not None:
            wait_until(lambda: herd.births("a")[-1:] == [_main_pid(herd)], what="the one that lives was born last")
        survivor.say("stop")
        survivor.until("done stop")
    assert not herd.doubles("a")
    assert herd.remains("a").lives is False
    assert [pid for pid in herd.births("a") if look(pid)] == []


def _main_pid(herd: Herd) -> int | None:
    main = herd.remains("a").main
    return main.pid if main is not None else None


def test_a_restart_that_a_crash_interrupted_is_finished(herd: Herd) -> None:
    with daemon(herd, "a", "slow_to_stop", 0.5) as doomed:
        doomed.say("start")
        doomed.until("done start")
        herd.wait_up("a")
        doomed.say("restart")
        doomed.until("stopping")
        wait_until(lambda: herd.record("a", "status.json")["state"] == "stopping", what="the shim has heard it")
        doomed.kill()
    wait_until(lambda: herd.remains("a").shim is None, what="the end of the old life")
    with daemon(herd, "a", "slow_to_stop", 0.5):
        wait_until(lambda: len(herd.births("a")) == 2, what="the new life")
    assert not herd.doubles("a")


def test_a_stop_that_a_crash_interrupted_stays_a_stop(herd: Herd) -> None:
    with daemon(herd, "a", "slow_to_stop", 0.5) as doomed:
        doomed.say("start")
        doomed.until("done start")
        herd.wait_up("a")
        doomed.say("stop")
        doomed.until("stopping")
        wait_until(lambda: herd.record("a", "status.json")["state"] == "stopping", what="the shim has heard it")
        doomed.kill()
    herd.wishes["a"] = "down"
    spec = herd.spec("a", "slow_to_stop", 0.5, autostart=True)

    async def main() -> None:
        supervisor = herd.supervisor(spec)
        await supervisor.adopt_all()
        await wait_until_async(lambda: supervisor.life("a").state is EngineState.STOPPED)
        await supervisor.close()

    asyncio.run(main())
    assert len(herd.births("a")) == 1


@pytest.mark.parametrize(("again", "births"), [(False, 1), (True, 2)])
def test_a_stop_that_the_shim_has_not_heard_yet(herd: Herd, again: bool, births: int) -> None:
    """The daemon died between the operator's word and the shim's ear."""
    spec = herd.spec("a", "idle")
    began = asyncio.run(herd.launch(spec))
    herd.wait_up("a")
    stop = {"protocol": 1, "instance": began.instance, "again": again}
    (herd.bundle("a") / "stop.json").write_text(json.dumps(stop))

    async def story() -> None:
        supervisor = herd.supervisor(spec)
        await supervisor.adopt_all()
        assert supervisor.life("a").state is EngineState.STOPPING
        wanted = EngineState.STARTING if again else EngineState.STOPPED
        await wait_until_async(lambda: supervisor.life("a").state is wanted)
        await wait_until_async(lambda: len(herd.births("a")) == births)
        await supervisor.close()

    asyncio.run(story())
    assert look(began.pid) is None


def test_daemon_and_shim_killed(herd: Herd) -> None:
    """The engine is adopted without a shim: its state is known, and a stop still ends all of it, orphans too."""
    port = free_port()
    spec = herd.spec("a", "serve_with_child", port, stop_timeout_s=2.0)
    with daemon(herd, "a", "serve_with_child", port) as doomed:
        doomed.say("start")
        doomed.until("ready")
        wait_until(lambda: len(herd.remains("a").others) == 1)
        doomed.kill()
    shim = herd.remains("a").shim
    assert shim is not None
    kill(shim.pid)
    life = adopted(herd, spec)[0]
    assert life.state is EngineState.READY
    assert "its shim is gone: how it ends will not be known" in (life.message or "")

    main = herd.remains("a").main
    assert main is not None
    kill(main.pid)  # now only an orphan is left, known from the shim's last record
    orphan = herd.remains("a").others[0]

    async def story() -> None:
        supervisor = herd.supervisor(spec)
        await supervisor.adopt_all()
        found = supervisor.life("a")
        assert found.state is EngineState.FAILED
        assert f"still running: pid {orphan.pid}" in (found.message or "")
        await supervisor.stop("a", "clean up")
        assert supervisor.life("a").state is EngineState.STOPPED
        await supervisor.close()

    asyncio.run(story())
    assert look(orphan.pid) is None


def test_an_end_that_nobody_watched_is_known(herd: Herd) -> None:
    spec = herd.spec("a", "idle")
    asyncio.run(herd.launch(spec))
    herd.wait_up("a")
    kill(herd.births("a")[0])
    wait_until(lambda: herd.remains("a").shim is None)
    life = adopted(herd, spec)[0]
    assert (life.state, life.exit_code) == (EngineState.FAILED, -9)
    assert life.message == "killed by SIGKILL: “up”"


def test_a_recycled_pid_is_not_signalled(herd: Herd) -> None:
    """The recorded pid lives, but began at another time: it is somebody else."""
    spec = herd.spec("a", "idle")
    asyncio.run(herd.launch(spec))
    herd.wait_up("a")
    old = herd.remains("a").main
    shim = herd.remains("a").shim
    assert old is not None
    assert shim is not None
    kill(shim.pid)
    kill(old.pid)
    with stranger() as process:
        somebody = look(process.pid)
        assert somebody is not None
        wrong = {"pid": process.pid, "start_ticks": somebody.start_ticks - 1}
        edit(herd, "a", process=wrong, shim=wrong)
        status = herd.bundle("a") / "status.json"
        status.write_text(json.dumps(json.loads(status.read_text()) | {"processes": [wrong]}))
        _stop_and_start(herd, spec, EngineState.FAILED)


def test_a_record_of_another_boot_is_not_believed(herd: Herd) -> None:
    """Everything fits but the boot id: a pid and its start time repeat after a restart of the host."""
    spec = herd.spec("a", "idle")
    asyncio.run(herd.launch(spec))
    herd.wait_up("a")
    herd.end()
    with stranger() as process:
        somebody = look(process.pid)
        assert somebody is not None
        edit(herd, "a", process=somebody.record(), shim=somebody.record(), boot_id="0" + boot_id()[1:] + "x")
        _stop_and_start(herd, spec, EngineState.STOPPED)


def _stop_and_start(herd: Herd, spec: LaunchSpec, found: EngineState) -> None:
    async def story() -> None:
        supervisor = herd.supervisor(spec)
        await supervisor.adopt_all()
        assert supervisor.life("a").state is found
        await supervisor.stop("a", "test")
        assert supervisor.life("a").state is EngineState.STOPPED
        await supervisor.start("a", "test")
        assert len(herd.births("a")) <= 2
        await supervisor.stop("a", "test")
        await supervisor.close()

    asyncio.run(story())


def test_autostart_and_wishes(herd: Herd) -> None:
    """They start unless an operator stopped them; what runs is adopted whatever the wish."""
    specs = [herd.spec(name, "idle", autostart=name != "c") for name in "abc"]
    asyncio.run(herd.launch(specs[2]))
    herd.wishes |= {"b": "down", "c": "down"}

    async def story() -> None:
        supervisor = herd.supervisor(*specs)
        await supervisor.adopt_all()
        await wait_until_async(lambda: supervisor.life("a").pid is not None)
        assert supervisor.life("a").state is EngineState.STARTING
        assert supervisor.life("b").state is EngineState.STOPPED
        assert supervisor.life("c").state is EngineState.STARTING
        await supervisor.close()

    asyncio.run(story())
    assert [event.subject for event in herd.events if event.kind == "adopted"] == ["engine/c"]


def test_sixteen_engines_at_once(herd: Herd) -> None:
    specs = [msgspec.structs.replace(herd.spec(f"e{number}", "idle"), command=("sleep", "600")) for number in range(16)]

    async def launch_all() -> None:
        await asyncio.gather(*(herd.launch(spec) for spec in specs))

    asyncio.run(launch_all())
    lives = adopted(herd, *specs)
    assert [life.state for life in lives] == [EngineState.STARTING] * 16
    assert all(life.pid == herd.remains(life.engine).main.pid for life in lives)  # type: ignore[union-attr]


def test_an_engine_that_left_the_configuration_is_told(herd: Herd) -> None:
    asyncio.run(herd.launch(herd.spec("old", "idle")))
    adopted(herd, herd.spec("a", "idle"))
    (event,) = herd.events
    assert (event.subject, event.kind) == ("engine/old", "not_configured")
    assert herd.remains("old").main is not None


def test_what_cannot_be_looked_at_is_not_started(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody holds the bundle and says nothing: wait, look again, and only then start."""
    monkeypatch.setattr(keeper, "ADOPT_S", 0.1)
    monkeypatch.setattr(keeper, "ADOPT_AGAIN_S", 0.1)
    herd.bundle("a").mkdir(parents=True)
    lock = (herd.bundle("a") / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)

    async def story() -> None:
        supervisor = herd.supervisor(herd.spec("a", "idle", autostart=True))
        await supervisor.adopt_all()
        assert supervisor.life("a").state is EngineState.FAILED
        assert "could not be looked at" in (supervisor.life("a").message or "")
        assert herd.births("a") == []
        lock.close()
        await wait_until_async(lambda: supervisor.life("a").state is EngineState.STARTING)
        await wait_until_async(lambda: supervisor.life("a").pid is not None)
        await supervisor.close()

    asyncio.run(story())


def test_a_command_that_changed_while_no_daemon_ran_is_told(herd: Herd) -> None:
    asyncio.run(herd.launch(herd.spec("a", "idle")))
    (life,) = adopted(herd, herd.spec("a", "stubborn"))
    assert life.message == "its configuration has changed: applies at the next start"
    (life,) = adopted(herd, herd.spec("a", "idle"))
    assert life.message is None


def test_garbage_in_a_bundle_is_no_life(herd: Herd) -> None:
    herd.bundle("a").mkdir(parents=True)
    for file in ("identity.json", "status.json", "exit.json", "ready.json"):
        (herd.bundle("a") / file).write_bytes(b"\x00{[")
    assert adopted(herd, herd.spec("a", "idle"))[0].state is EngineState.STOPPED
