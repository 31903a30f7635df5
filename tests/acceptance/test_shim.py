"""The shim with real processes: what it starts, records, answers, rotates and ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from opsboard.core.errors import SuperviseError
from opsboard.supervise.launch import SHIM, LaunchSpec
from opsboard.supervise.manners import Manners, read
from opsboard.supervise.processes import look
from tests.support.herd import NOWHERE, kill
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from opsboard.supervise.launch import Launched
    from tests.support.herd import Herd

RSS_BUDGET_KB = 15_000


def run(herd: Herd, spec: LaunchSpec) -> Launched:
    return asyncio.run(herd.launch(spec))


def ask(herd: Herd, name: str, line: bytes) -> dict[str, Any]:
    """Say one line to the shim, as any program could."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(herd.remains(name).socket)
        sock.sendall(line + b"\n")
        with sock.makefile("rb") as answers:
            reply: dict[str, Any] = json.loads(answers.readline())
            return reply


def stop(herd: Herd, name: str, grace_s: float) -> dict[str, Any]:
    reply = ask(herd, name, json.dumps({"op": "stop", "grace_s": grace_s, "by": "operator: test"}).encode())
    wait_until(lambda: herd.remains(name).shim is None, what="the end of the shim")
    return reply


def test_a_life_from_start_to_stop(herd: Herd) -> None:
    began = run(herd, herd.spec("a", "idle"))
    herd.wait_up("a")
    here = herd.remains("a")
    assert here.shim is not None
    assert here.main is not None
    assert here.main.pid == began.pid
    assert here.main.group == began.pid, "the engine leads its own process group"
    assert os.getsid(began.pid) == began.pid
    assert os.getsid(here.shim.pid) == here.shim.pid
    assert here.shim.parent != os.getpid(), "the shim is nobody's child"

    hello = ask(herd, "a", b'{"op":"hello"}')
    assert (hello["ok"], hello["protocol"], hello["shim_pid"]) == (True, 1, here.shim.pid)
    assert hello["process"]["pid"] == began.pid
    assert ask(herd, "a", b'{"op":"status"}')["state"] == "running"
    assert [process["pid"] for process in ask(herd, "a", b'{"op":"descendants"}')["processes"]] == [began.pid]

    assert stop(herd, "a", 5) == {"ok": True, "state": "stopping"}
    assert herd.remains("a").lives is False
    gone = herd.record("a", "exit.json")
    assert (gone["code"], gone["asked_by"], gone["left"]) == (-signal.SIGTERM, "operator: test", [])
    assert not Path(here.socket).exists()
    assert (herd.bundle("a") / "shim.log").read_text() == ""


def test_it_is_private_and_keeps_no_secret_on_disk(herd: Herd) -> None:
    run(herd, herd.spec("a", "environment", env={"VLLM_API_KEY": "hush", "HF_HOME": "/models"}))
    herd.wait_up("a")
    assert "VLLM_API_KEY=hush" in herd.log("a")
    bundle = herd.bundle("a")
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(herd.remains("a").socket).stat().st_mode) == 0o600
    for file in bundle.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
        assert file.name == "engine.log" or "hush" not in file.read_text(), file.name


def test_an_engine_inherits_no_tokens(herd: Herd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    run(herd, herd.spec("a", "environment", gpus=("GPU-1", "GPU-2")))
    herd.wait_up("a")
    names = {line.partition("=")[0] for line in herd.log("a").splitlines()}
    assert {"PATH", "HOME", "OPSBOARD_INSTANCE", "CUDA_VISIBLE_DEVICES"} <= names
    assert {"AWS_SECRET_ACCESS_KEY", "NOTIFY_SOCKET", "PYTHONPATH"} & names == set()
    assert "CUDA_VISIBLE_DEVICES=GPU-1,GPU-2" in herd.log("a")


def test_it_changes_the_user(herd: Herd) -> None:
    spec = LaunchSpec(name="a", command=("sh", "-c", "id -un; echo $HOME; exec sleep 600"), url=NOWHERE, user="nobody")
    if os.geteuid() != 0:
        with pytest.raises(SuperviseError, match="cannot run as user nobody: the daemon is not root"):
            run(herd, msgspec.structs.replace(spec, cwd="/"))
        return
    run(herd, msgspec.structs.replace(spec, cwd="/"))
    account = pwd.getpwnam("nobody")
    herd.wait_up("a", account.pw_dir)
    main = herd.remains("a").main
    assert main is not None
    assert herd.log("a").startswith("nobody\n")
    status = Path(f"/proc/{main.pid}/status").read_text()
    assert f"Uid:\t{account.pw_uid}\t{account.pw_uid}" in status
    groups = os.getgrouplist("nobody", account.pw_gid)
    assert f"Groups:\t{' '.join(map(str, sorted(groups)))} \n" in status


def test_limits_are_those_of_the_engine_alone(herd: Herd) -> None:
    """A limit of CPU time or of the size of files would end the shim some day."""
    limits = {"RLIMIT_CPU": (3600, 7200), "RLIMIT_FSIZE": (1 << 30, 1 << 31), "RLIMIT_STACK": (1 << 22, 1 << 23)}
    run(herd, herd.spec("a", "idle", manners=Manners(limits=limits)))
    here = herd.remains("a")
    assert here.main is not None
    assert here.shim is not None
    assert {name: read(here.main.pid).limits[name] for name in limits} == limits
    ours = read("self").limits
    assert {name: read(here.shim.pid).limits[name] for name in limits} == {name: ours[name] for name in limits}


def test_an_unknown_user_is_said(herd: Herd) -> None:
    with pytest.raises(SuperviseError, match="no such user: nobody-here"):
        run(herd, herd.spec("a", "idle", user="nobody-here"))


def test_it_stays_small(herd: Herd) -> None:
    run(herd, herd.spec("a", "family"))
    herd.wait_up("a")
    shim = herd.remains("a").shim
    assert shim is not None
    fields = Path(f"/proc/{shim.pid}/status").read_text().split("\n")
    rss_kb = next(int(line.split()[1]) for line in fields if line.startswith("VmRSS"))
    assert rss_kb <= RSS_BUDGET_KB
    assert look(shim.pid).name == "opsboard-shim"  # type: ignore[union-attr]
    assert str(SHIM) in Path(f"/proc/{shim.pid}/cmdline").read_bytes().decode()


@pytest.mark.parametrize(
    ("command", "cwd", "why"),
    [
        (("no-such-engine", "serve"), None, "command not found: no-such-engine \\(not in PATH="),
        (("/no/such/engine",), None, "command not found: /no/such/engine \\(no such file\\)"),
        (("/etc/passwd",), None, "cannot execute /etc/passwd: permission denied"),
        (("{garbage}",), None, "cannot execute .*garbage: Exec format error"),
        (("true",), "/no/such/folder", "working directory /no/such/folder does not exist"),
    ],
)
def test_a_command_that_cannot_run(
    herd: Herd, tmp_path: Path, command: tuple[str, ...], cwd: str | None, why: str
) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x00\x01")
    garbage.chmod(0o755)
    argv = tuple(part.format(garbage=garbage) for part in command)
    spec = LaunchSpec(name="a", command=argv, url=NOWHERE, cwd=cwd)
    with pytest.raises(SuperviseError, match=why):
        run(herd, spec)
    assert herd.record("a", "exit.json")["code"] is None
    assert herd.record("a", "exit.json")["message"]
    assert herd.record("a", "exit.json")["passing"] is False
    wait_until(lambda: herd.remains("a").shim is None, what="the end of the shim")


def test_what_keeps_it_from_starting_may_pass(herd: Herd, tmp_path: Path) -> None:
    """A program that is just being installed, as any full or busy host, is no reason to give up."""
    program = tmp_path / "vllm"
    shutil.copy("/bin/sleep", program)
    spec = LaunchSpec(name="a", command=(str(program), "600"), url=NOWHERE)
    with program.open("r+b"), pytest.raises(SuperviseError, match="vllm: Text file busy") as caught:
        run(herd, spec)
    assert not caught.value.permanent
    assert (ended := herd.remains("a").exit) is not None
    assert ended.passing
    wait_until(lambda: herd.remains("a").shim is None, what="the end of the shim")
    run(herd, spec)


def test_a_log_that_cannot_be_opened_is_named(herd: Herd) -> None:
    (herd.bundle("a") / "engine.log").mkdir(parents=True)
    with pytest.raises(SuperviseError, match="log: cannot be opened: Is a directory") as caught:
        run(herd, herd.spec("a", "idle"))
    assert caught.value.permanent


def test_a_stop_ends_the_whole_family(herd: Herd) -> None:
    """One child dies at TERM, one ignores it, one left the group and ignores it."""
    run(herd, herd.spec("a", "family"))
    herd.wait_up("a")
    wait_until(lambda: len(herd.remains("a").others) == 3, what="the record of three children")
    family = herd.remains("a").others
    stop(herd, "a", 0.5)
    assert [process for process in family if process.same_as(look(process.pid))] == []


def test_term_is_ignored_until_kill(herd: Herd) -> None:
    run(herd, herd.spec("a", "stubborn"))
    herd.wait_up("a")
    ask(herd, "a", b'{"op":"stop","grace_s":60}')
    wait_until(lambda: ask(herd, "a", b'{"op":"status"}')["state"] == "stopping")
    assert herd.remains("a").main is not None
    stop(herd, "a", 0.2)  # a second stop may hurry the first one
    assert herd.record("a", "exit.json")["code"] == -signal.SIGKILL


def test_an_exit_nobody_asked_for_and_what_it_leaves(herd: Herd) -> None:
    began = run(herd, herd.spec("a", "family"))
    herd.wait_up("a")
    wait_until(lambda: len(herd.remains("a").others) == 3)
    os.kill(began.pid, signal.SIGKILL)
    wait_until(lambda: herd.remains("a").exit is not None, what="the record of the exit")
    gone = herd.record("a", "exit.json")
    assert (gone["code"], gone["asked_by"]) == (-signal.SIGKILL, None)
    assert len(gone["left"]) == 3
    assert herd.remains("a").shim is not None, "the shim stays with the orphans"
    assert ask(herd, "a", b'{"op":"status"}')["state"] == "exited"
    stop(herd, "a", 0.2)
    assert herd.remains("a").lives is False
    assert herd.record("a", "exit.json")["left"] == []


def test_term_to_the_shim_stops_the_engine_in_order(herd: Herd) -> None:
    """What a shutdown of the host does."""
    run(herd, herd.spec("a", "idle"))
    herd.wait_up("a")
    shim = herd.remains("a").shim
    assert shim is not None
    os.kill(shim.pid, signal.SIGTERM)
    wait_until(lambda: herd.remains("a").shim is None)
    assert herd.record("a", "exit.json")["asked_by"] == "SIGTERM to the shim"
    assert herd.remains("a").lives is False


def test_kill_of_the_shim_leaves_the_engine_writing(herd: Herd) -> None:
    run(herd, herd.spec("a", "spam", 100_000))
    wait_until(lambda: len(herd.log("a")) > 0)
    shim = herd.remains("a").shim
    assert shim is not None
    kill(shim.pid)
    size = len(herd.log("a"))
    wait_until(lambda: len(herd.log("a")) > size, what="more output after the shim's death")
    assert herd.remains("a").main is not None


def test_a_second_engine_is_refused_while_one_lives(herd: Herd) -> None:
    spec = herd.spec("a", "idle")
    run(herd, spec)
    herd.wait_up("a")
    with pytest.raises(SuperviseError, match="another shim runs this engine"):
        run(herd, spec)
    shim = herd.remains("a").shim
    assert shim is not None
    kill(shim.pid)
    with pytest.raises(SuperviseError, match="the engine still runs as pid"):
        run(herd, spec)
    assert len(herd.births("a")) == 1


def test_the_log_is_rotated_and_bounded(herd: Herd) -> None:
    """10 MB/s, rotated at 2 MB with two older files: nothing but the newest lines is kept, and lines stay whole."""
    run(herd, herd.spec("a", "spam", 10_000_000, log_bytes=2_000_000, log_files=2))
    wait_until((herd.bundle("a") / "engine.log.2").exists, what="two rotations")
    stop(herd, "a", 1)
    files = sorted(path.name for path in herd.bundle("a").glob("engine.log*"))
    assert files == ["engine.log", "engine.log.1", "engine.log.2"]
    # What a second of 10 MB/s adds before the shim looks comes on top of the limit.
    assert all((herd.bundle("a") / name).stat().st_size < 25_000_000 for name in files)
    newest, older = ((herd.bundle("a") / name).read_text().splitlines() for name in files[:2])
    numbers = [int(line[:12]) for line in older + newest if len(line) == 99]
    assert numbers == sorted(numbers)
    lost = sum(b - a - 1 for a, b in itertools.pairwise(numbers))
    assert lost * 100 <= 1_000_000, f"{lost} lines lost in a rotation"


def test_the_socket_comes_back(herd: Herd) -> None:
    """systemd removes a RuntimeDirectory on stop while the shims live on."""
    run(herd, herd.spec("a", "idle"))
    herd.wait_up("a")
    Path(herd.remains("a").socket).unlink()
    wait_until(Path(herd.remains("a").socket).exists, what="a new socket")
    assert ask(herd, "a", b'{"op":"hello"}')["ok"] is True


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"{}", "unknown op 'None'"),
        (b'{"op":"rm"}', "unknown op 'rm'; known: hello, status, descendants, stop"),
        (b"[1]", "not an object"),
        (b"\xff\x00", "bad request"),
        (b'{"op":"stop","grace_s":-1}', "grace_s must be seconds"),
        (b'{"op":"stop","grace_s":true}', "grace_s must be seconds"),
        (b'{"op":"stop","grace_s":"now"}', "grace_s must be seconds"),
    ],
)
def test_bad_requests_are_answered(herd: Herd, line: bytes, error: str) -> None:
    run(herd, herd.spec("a", "idle"))
    assert error in ask(herd, "a", line)["error"]
    assert ask(herd, "a", b'{"op":"status"}')["state"] == "running"


def test_silent_and_endless_peers_do_not_disturb(herd: Herd) -> None:
    run(herd, herd.spec("a", "idle"))
    path = herd.remains("a").socket
    peers = [socket.socket(socket.AF_UNIX) for _ in range(12)]
    try:
        for peer in peers:
            peer.settimeout(5)
            peer.connect(path)
        with pytest.raises(OSError, match=r"Broken pipe|reset"):  # noqa: PT012
            for _ in range(1000):
                peers[0].sendall(b"x" * 65536)
        assert ask(herd, "a", b'{"op":"hello"}')["ok"] is True
    finally:
        for peer in peers:
            peer.close()
