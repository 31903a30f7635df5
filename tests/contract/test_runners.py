"""What every runner must do, over all there are: real processes, and real systemd where it runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsboard.core.errors import SuperviseError
from opsboard.core.model import EngineState
from opsboard.core.secret import Secret
from opsboard.supervise.processes import look
from opsboard.supervise.runners import command
from opsboard.supervise.runners.registry import RUNNERS
from tests.support.herd import Herd, free_port, kill
from tests.support.waiting import wait_until, wait_until_async
from tests.support.ways import WAYS, Way, stand_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opsboard.core.model import LifeView
    from opsboard.supervise.launch import LaunchSpec
    from opsboard.supervise.supervisor import Supervisor

SECRET = 'hush: $HOME `x` "q" \\ \n and more'
REAL = Path("/run/systemd/system").is_dir() and os.geteuid() == 0
OWN_SYSTEMD = Path(__file__).parents[1] / "support" / "own_systemd.sh"


@pytest.fixture(params=[*WAYS, *(["real systemd"] if REAL else [])])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    if request.param == "real systemd":
        return Way("systemd")
    stand_in(tmp_path, monkeypatch)
    monkeypatch.setattr(command, "UP_S", 0.3)
    monkeypatch.setattr(command, "SETTLE_S", 0.3)
    return WAYS[request.param]


@pytest.mark.skipif(REAL, reason="systemd runs here: all of this is tested with it")
def test_a_life_beside_a_systemd_of_our_own() -> None:
    """The others too: ``tests/support/own_systemd.sh python -m pytest tests/contract/test_runners.py -k real``."""
    missing = [name for name in ("unshare", "nsenter", "systemd-run") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing or not Path("/usr/lib/systemd/systemd").exists():
        pytest.skip(f"no systemd can be run here: {'not root' if os.geteuid() else f'missing: {missing}'}")
    can = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    if can.returncode != 0:
        pytest.skip(f"no namespaces here: {can.stderr.decode().strip()}")
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "over_an_adoption and real",
    ]
    ran = subprocess.run(
        ["sh", OWN_SYSTEMD, *words], capture_output=True, text=True, check=False, cwd=OWN_SYSTEMD.parents[2], timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def under(herd: Herd, spec: LaunchSpec, story: Callable[[Supervisor], Awaitable[None]]) -> None:
    async def main() -> None:
        supervisor = herd.supervisor(spec)
        await supervisor.adopt_all()
        try:
            await story(supervisor)
        finally:
            await supervisor.close()

    asyncio.run(main())


async def until(supervisor: Supervisor, state: EngineState) -> LifeView:
    try:
        await wait_until_async(lambda: supervisor.life("a").state is state)
    except AssertionError:
        raise AssertionError(f"not {state}: {supervisor.life('a')}") from None
    return supervisor.life("a")


def test_every_runner_is_tested() -> None:
    assert WAYS.keys() | {"restart"} == RUNNERS.keys(), "restart begins and ends nothing: tests/acceptance"


def test_a_life_from_its_start_over_an_adoption_to_its_stop(herd: Herd, way: Way) -> None:
    spec = way.of(herd.spec("a", "serve_with_child", free_port(), env={"TOKEN": Secret(SECRET)}))

    async def begin(supervisor: Supervisor) -> None:
        await asyncio.gather(supervisor.start("a", "one"), supervisor.start("a", "the same"))
        first = await until(supervisor, EngineState.READY)
        assert herd.births("a") == [first.pid]
        await wait_until_async(lambda: len(supervisor.processes("a")) == 2, what="both processes")
        await wait_until_async(lambda: "startup complete" in herd.log("a"), what="the log")
        assert herd.log("a").count("up\n") == 1
        assert SECRET.encode() in Path(f"/proc/{first.pid}/environ").read_bytes()
        assert b"hush" not in b"".join(map(argv_of, everybody()))
        assert [name for name in herd.bundle("a").iterdir() if "hush" in name.read_text(errors="replace")] == []

    async def go_on(supervisor: Supervisor) -> None:
        assert supervisor.life("a").state is EngineState.READY
        assert [supervisor.life("a").pid] == herd.births("a")
        assert [event.text for event in herd.events if event.kind == "adopted"] == [
            f"found running as pid {supervisor.life('a').pid}"
        ]
        await supervisor.restart("a", "again")
        second = await until(supervisor, EngineState.READY)
        assert herd.births("a")[1:] == [second.pid]
        assert second.restarts == 1
        await supervisor.stop("a", "done")
        assert supervisor.life("a").state is EngineState.STOPPED
        assert supervisor.processes("a") == []
        assert [pid for pid in herd.births("a") if look(pid)] == []

    under(herd, spec, begin)
    under(herd, spec, go_on)
    assert not herd.doubles("a")


def everybody() -> list[str]:
    return [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]


def argv_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_crash_with_its_code_and_its_last_words(herd: Herd, way: Way) -> None:
    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "test")
        life = await until(supervisor, EngineState.FAILED)
        assert life.exit_code == (3 if way.tells_codes else None)
        assert "CUDA out of memory" in (life.message or "")
        assert ("with code 3" if way.tells_codes else "exit status unknown") in (life.message or "")
        assert life.pid is None

    under(herd, way.of(herd.spec("a", "die", 3)), story)
    assert len(herd.births("a")) == 1


def test_what_ignores_term_is_killed_with_all_it_began(herd: Herd, way: Way) -> None:
    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "test")
        await wait_until_async(lambda: len(supervisor.processes("a")) == 4, what="the whole family")
        family = supervisor.processes("a")
        await supervisor.stop("a", "now")
        assert [pid for pid in family if look(pid)] == []
        assert supervisor.life("a").state is EngineState.STOPPED
        ended = herd.remains("a").exit
        assert ended is not None
        assert ended.asked_by == "operator: now", "whoever sees the main process end before the others"

    under(herd, way.of(herd.spec("a", "family", stop_timeout_s=0.8)), story)


def test_a_start_that_cannot_be(herd: Herd, way: Way) -> None:
    taken = socket.create_server(("127.0.0.1", 0))

    async def story(supervisor: Supervisor) -> None:
        with pytest.raises(SuperviseError, match="taken by pid"):
            await supervisor.start("a", "test")
        assert supervisor.life("a").state is EngineState.FAILED
        spec = way.of(herd.spec("a", "idle", command=("/no/such/engine",)))
        supervisor.apply([spec])
        with pytest.raises(SuperviseError, match="no/such/engine"):
            await supervisor.start("a", "test")
        assert supervisor.life("a").state is EngineState.FAILED

    with taken:
        under(herd, way.of(herd.spec("a", "serve", taken.getsockname()[1])), story)
    assert herd.births("a") == []


def test_a_life_is_ended_by_the_runner_that_began_it(herd: Herd, way: Way) -> None:
    """And one that died while no daemon looked is told by it."""
    spec = way.of(herd.spec("a", "serve", free_port()))

    async def begin(supervisor: Supervisor) -> None:
        await supervisor.start("a", "test")
        await until(supervisor, EngineState.READY)

    async def changed(supervisor: Supervisor) -> None:
        life = supervisor.life("a")
        assert life.state is EngineState.READY
        assert "applies at the next start" in (life.message or "")
        await supervisor.restart("a", "apply")
        await until(supervisor, EngineState.READY)

    async def died(supervisor: Supervisor) -> None:
        life = supervisor.life("a")
        assert life.state is EngineState.FAILED
        assert life.exit_code == (-signal.SIGKILL if other.tells_codes else None)

    other = WAYS["command" if way.runner == "shim" else "shim"]
    under(herd, spec, begin)
    under(herd, other.of(herd.spec("a", "serve", spec.url.rpartition(":")[2])), changed)
    assert not herd.doubles("a")
    kill(herd.births("a")[1])
    wait_until(lambda: herd.remains("a").shim is None, what="the end of its shim, if it has one")
    under(herd, other.of(herd.spec("a", "serve", spec.url.rpartition(":")[2])), died)


def test_somebody_ends_it_through_systemd(herd: Herd, way: Way) -> None:
    """That is no failure; nobody starts it again."""
    if way.runner != "systemd":
        return

    async def story(supervisor: Supervisor) -> None:
        await supervisor.start("a", "test")
        await until(supervisor, EngineState.READY)
        await asyncio.to_thread(subprocess.run, ["systemctl", "stop", "opsboard-a.service"], check=True)
        life = await until(supervisor, EngineState.STOPPED)
        assert life.message == "stopped by somebody's `systemctl stop`"

    under(herd, way.of(herd.spec("a", "serve", free_port(), restart="on-failure")), story)
