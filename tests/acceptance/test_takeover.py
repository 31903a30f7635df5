"""Real processes that somebody started by hand: found, reproduced, written down as lives of ours."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from opsboard.core.errors import SuperviseError
from opsboard.core.model import EngineState
from opsboard.supervise.adopt import examine
from opsboard.supervise.manners import read
from opsboard.supervise.processes import below, everybody, look, send
from opsboard.supervise.takeover import life
from opsboard.supervise.takeover.find import find
from opsboard.supervise.takeover.kept import Kept, keep, kept
from opsboard.supervise.takeover.reproduction import reproduce, to_launch
from tests.support.herd import NOWHERE, free_port, kill
from tests.support.waiting import wait_until, wait_until_async

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.herd import Herd

TELLTALE = Path(__file__).parents[1] / "support" / "telltale.py"
ENVIRONMENT = {
    "PATH": "/opt/nowhere:/usr/bin:/bin",
    "HF_TOKEN": "hush",
    "EMPTY": "",
    "ODD": "two\nlines = \udcff",
    "SSH_TTY": "/dev/pts/9",
    "OPSBOARD_INSTANCE": "of another life",
}


@contextmanager
def started(*argv: str, **settings: Any) -> Iterator[subprocess.Popen[Any]]:
    """Run a process by hand; at the end it and all that is below it are killed, by pid and start time."""
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | settings
    with subprocess.Popen(argv, **settings) as process:
        family = below({process.pid}, everybody())
        try:
            yield process
        finally:
            family += below({process.pid}, everybody())
            process.kill()
            for one in family:
                send(one, signal.SIGKILL)


def told(file: Path) -> dict[str, Any]:
    """Wait until a telltale is up; return what it said."""
    wait_until(file.exists, what=f"{file.name} of a telltale")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def unusual() -> None:
    """Be started in an unusual way; all of it differs from what a test run has."""
    os.setpriority(os.PRIO_PROCESS, 0, 5)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    resource.setrlimit(resource.RLIMIT_NOFILE, (321, 654))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def test_a_copy_is_told_what_the_first_one_was(herd: Herd, tmp_path: Path) -> None:
    place = tmp_path / "a place"
    place.mkdir()
    (place / "python").symlink_to(sys.executable)  # a program named from the directory it is in
    argv = ("./python", "-S", str(TELLTALE), "told", "tell")
    with started(*argv, cwd=place, env=ENVIRONMENT, umask=0o27, preexec_fn=unusual) as process:
        first = told(place / "told")
        found = reproduce(process.pid)
        keep(Kept(url=NOWHERE, reproduction=found), herd.bundle("a"))
    assert not found.lives
    assert found.fatal == ()
    assert set(found.dropped) == {"SSH_TTY", "OPSBOARD_INSTANCE"}
    (place / "told").unlink()

    again = kept(herd.bundle("a"))
    assert again is not None
    assert again.reproduction == found
    launched = asyncio.run(herd.launch(to_launch(again.reproduction, "a", again.url)))
    second = told(place / "told")
    mark = second["env"].pop("OPSBOARD_INSTANCE")
    assert mark == launched.instance
    assert second["env"] == {name: first["env"][name] for name in first["env"] if name not in found.dropped}
    for field in first.keys() - {"env"}:
        assert second[field] == first[field], field
    assert (second["umask"], second["files"]) == (0o27, [321, 654])
    copy = reproduce(launched.pid)
    assert (copy.argv, copy.manners) == (found.argv, found.manners)
    assert copy.manners.nice == 5


def test_odd_arguments(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", "import time; time.sleep(600)", "", "two words", "\udcfe", "line\nline", "", "")
    with started(*argv) as process:
        wait_until(lambda: len(reproduce(process.pid).argv) == len(argv), what="the exec")
        assert reproduce(process.pid).argv == argv


def test_a_title_over_arguments_and_environment_is_seen(tmp_path: Path) -> None:
    command = (sys.executable, "-S", str(TELLTALE), str(tmp_path / "told"), "retitle", "VLLM::EngineCore_DP0")
    with started(*command, env=ENVIRONMENT) as process:
        told(tmp_path / "told")
        found = reproduce(process.pid)
    assert {gap.what for gap in found.fatal} >= {"arguments", "environment"}
    assert found.env == {}
    with pytest.raises(SuperviseError, match="renamed itself to “VLLM::EngineCore_DP0”: the real ones are gone"):
        to_launch(found, "a", NOWHERE)


def test_a_program_that_was_removed_and_a_directory_too(tmp_path: Path) -> None:
    program, place = tmp_path / "sleeper", tmp_path / "place"
    shutil.copy("/bin/sleep", program)
    place.mkdir()
    with started(str(program), "600", cwd=place) as process:
        wait_until(lambda: not reproduce(process.pid).fatal, what="the exec")
        program.unlink()
        place.rmdir()
        gone = {gap.what: gap.why for gap in reproduce(process.pid).fatal}
        assert gone["program"].endswith("sleeper cannot be found or executed any more")
        assert gone["directory"].endswith("place is gone")
        place.mkdir()
        shutil.copy("/bin/sleep", program)
        replaced = reproduce(process.pid)
        assert "program" not in {gap.what for gap in replaced.cannot}
        assert replaced.warnings[0].endswith("sleeper was replaced since it began: the copy runs the new one")


@pytest.mark.parametrize("script", ["run.sh", "/dev/fd/0"])
def test_a_shell_that_loops_would_start_it_again(tmp_path: Path, script: str) -> None:
    path = tmp_path / "run.sh"
    path.write_text("echo started\nwhile sleep 600; do :; done\n")
    with path.open() as text, started("/bin/sh", script, cwd=tmp_path, stdin=text) as process:
        child = wait_until(lambda: below({process.pid}, everybody()), what="the child")[0]
        wait_until(lambda: reproduce(child.pid).argv == ("sleep", "600"), what="the exec")
        parent = [gap for gap in reproduce(child.pid).fatal if gap.what == "parent"]
    assert len(parent) == 1
    assert f"{script} (pid {process.pid}) runs a script with a loop" in parent[0].why


def test_a_script_that_comes_through_a_pipe_is_left_to_its_shell() -> None:
    with started("/bin/sh", "/dev/fd/0", stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        process.stdin.write(b"sleep 600; :\n")
        child = wait_until(lambda: below({process.pid}, everybody()), what="the child")[0]
        process.stdin.write(b"# the rest\n")
        wait_until(lambda: reproduce(child.pid).argv == ("sleep", "600"), what="the exec")


def test_an_engine_is_found_by_its_address_and_by_any_pid_of_it(tmp_path: Path) -> None:
    shutil.copy(TELLTALE, tmp_path / "vllm")
    port, out = free_port(), tmp_path / "told"
    command = (sys.executable, str(tmp_path / "vllm"), "serve", "--port", str(port), "--out", str(out))
    with started(*command) as process:
        told(out)
        core = below({process.pid}, everybody())[0]
        url = f"http://127.0.0.1:{port}"
        assert find(url) == find(str(process.pid)) == find(str(core.pid)) == process.pid
        assert find(str(os.getpid())) == os.getpid(), "a pid that somebody names is believed"

        kill(process.pid)
        try:
            with pytest.raises(SuperviseError, match=f"pid {core.pid} .* is what an engine left: its main process"):
                find(str(core.pid))
        finally:
            send(core, signal.SIGKILL)
        with pytest.raises(SuperviseError, match=f"no process has the pid {process.pid}"):
            find(str(process.pid))


def test_addresses_that_are_no_engines(tmp_path: Path) -> None:
    with pytest.raises(SuperviseError, match="is not on this machine"):
        find("http://192.0.2.1:8000")
    with pytest.raises(SuperviseError, match="nobody listens on port"):
        find(f"http://127.0.0.1:{free_port()}")
    port = free_port()
    server = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); print(flush=True); time.sleep(600)"
    with started(sys.executable, "-c", server, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(SuperviseError, match=rf"pid {process.pid} \(.*\) listens on port {port} and is no engine"):
            find(f"http://127.0.0.1:{port}")


def test_a_life_of_ours_from_then_on(herd: Herd, tmp_path: Path) -> None:
    command = (sys.executable, "-S", str(TELLTALE), str(tmp_path / "told"), "tell")
    with started(*command) as process:
        told(tmp_path / "told")
        found = reproduce(process.pid)
        instance = life.begin(found, herd.bundle("a"), herd.runtime_dir, name="a", url=NOWHERE)
        remains = examine(herd.bundle("a"))
        assert remains is not None
        assert (remains.instance, remains.main, remains.shim) == (instance, look(process.pid), None)
        assert remains.settled
        assert examine(herd.bundle("a")) == remains
        assert herd.log("a").endswith("until its next start its output goes to no file\n")
        assert stat.S_IMODE((herd.bundle("a") / "engine.log").stat().st_mode) == 0o600
        later = msgspec.structs.replace(found, start_ticks=found.start_ticks + 1)
        with pytest.raises(SuperviseError, match="has ended meanwhile"):
            life.begin(later, herd.bundle("b"), herd.runtime_dir, name="b", url=NOWHERE)
        assert examine(herd.bundle("b")) is None


def test_from_somebodys_process_to_a_supervised_one(herd: Herd, tmp_path: Path) -> None:
    """Adopted where it runs, then restarted: the first process is ended, its copy runs under a shim."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-S", str(TELLTALE), str(tmp_path / "told"), "serve", str(port))

    async def take_over(first: int) -> int:
        found = reproduce(first)
        life.begin(found, herd.bundle("a"), herd.runtime_dir, name="a", url=url)
        supervisor = herd.supervisor(to_launch(found, "a", url))
        await supervisor.adopt_all()
        try:
            assert supervisor.life("a").pid == first
            assert len(supervisor.processes("a")) == 2, "its child belongs to it"
            (tmp_path / "told").unlink()
            await supervisor.restart("a", "operator: mine from now on", now=True)
            await wait_until_async((tmp_path / "told").exists, what="the copy")
            await wait_until_async(lambda: supervisor.life("a").state is EngineState.READY, what="ready")
            now = supervisor.life("a").pid
            assert now is not None
            return now
        finally:
            await supervisor.close()

    with started(*command, env=ENVIRONMENT) as process:
        told(tmp_path / "told")
        child = below({process.pid}, everybody())[0]
        second = asyncio.run(take_over(process.pid))
        assert process.wait(10) != 0
        assert not child.same_as(look(child.pid))
    assert second != process.pid
    assert herd.remains("a").shim is not None
    assert told(tmp_path / "told")["env"]["HF_TOKEN"] == "hush"


# As nobody: only root may raise what was lowered. Imports come before, for nobody may not read them.
WANTS_TOO_MUCH = """
import json, os, resource
from opsboard.supervise.manners import Manners, give, keep_to, make_room, read
least = read("self").oom_score_adj
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
wanted = Manners(umask=0, nice=-5, affinity=(1023,), oom_score_adj=least - 1, limits={"RLIMIT_NOFILE": (150, 400)})
failed = make_room(wanted) + give(os.getpid(), wanted)
keep_to(wanted)
print(json.dumps([failed, resource.getrlimit(resource.RLIMIT_NOFILE), give(os.getpid(), Manners(nice=19)), os.nice(0)]))
"""


def test_what_may_not_be_given_is_told_and_the_rest_is(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", WANTS_TOO_MUCH], cwd=root, capture_output=True, timeout=20, check=True)
    failed, files, none, nice = json.loads(ran.stdout)
    assert [text.partition(":")[0].partition(" stays")[0] for text in failed] == [
        "RLIMIT_NOFILE",
        "cores [1023]",
        f"oom_score_adj {(read('self').oom_score_adj or 0) - 1}",
        "nice -5",
    ]
    assert failed[0] == "RLIMIT_NOFILE stays at 200, 400 was wanted"
    assert files == [150, 200]
    assert (none, nice) == ([], 19)


def test_our_own_manners_are_read() -> None:
    umask = os.umask(0)
    os.umask(umask)
    ours = read("self")
    assert ours.umask == umask
    assert ours.nice == os.getpriority(os.PRIO_PROCESS, 0)
    assert ours.affinity == tuple(sorted(os.sched_getaffinity(0)))
    assert ours.limits["RLIMIT_NOFILE"] == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert ours.limits.keys() >= {"RLIMIT_CPU", "RLIMIT_MEMLOCK", "RLIMIT_AS"}
