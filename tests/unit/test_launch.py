"""What an engine is given before it starts: environment, port, socket name, and the story its log tells."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from opsboard.core.errors import SuperviseError
from opsboard.core.secret import Secret
from opsboard.supervise import ports
from opsboard.supervise.launch import LaunchSpec, environment, rehearse, socket_path
from opsboard.supervise.startup import StartUp, last_words

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "http://127.0.0.1:8000"


def spec(**changes: object) -> LaunchSpec:
    return LaunchSpec(name="a", command=("vllm",), url=URL, **changes)  # type: ignore[arg-type]


def test_the_environment_is_built_from_little() -> None:
    inherited = {"PATH": "/bin", "LC_ALL": "C", "HF_TOKEN": "hush", "NOTIFY_SOCKET": "/run/x", "PYTHONPATH": "/y"}
    own = {"KEY": Secret("hush"), "PATH": "/opt"}
    env = environment(spec(env=own, gpus=("GPU-1", "GPU-2")), "id", inherited)
    assert env == {
        "PATH": "/opt",
        "LC_ALL": "C",
        "KEY": "hush",
        "CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2",
        "OPSBOARD_INSTANCE": "id",
    }


def test_no_gpus_are_hidden_or_all_are() -> None:
    assert "CUDA_VISIBLE_DEVICES" not in environment(spec(), "id", {})
    assert environment(spec(gpus=()), "id", {})["CUDA_VISIBLE_DEVICES"] == ""
    assert environment(spec(), "id", {})["PATH"]
    with pytest.raises(SuperviseError, match="env sets CUDA_VISIBLE_DEVICES=0, but gpus means GPU-1"):
        environment(spec(gpus=("GPU-1",), env={"CUDA_VISIBLE_DEVICES": "0"}), "id", {})


def test_a_spec_shows_no_secret() -> None:
    assert "hush" not in repr(spec(env={"VLLM_API_KEY": Secret("hush")}))


def test_a_rehearsal_leaves_nothing(tmp_path: Path) -> None:
    bundle = tmp_path / "engines" / "a"
    bundle.mkdir(parents=True)
    rehearse(msgspec.structs.replace(spec(), command=("true",)), bundle, tmp_path)
    assert list(bundle.iterdir()) == []
    with pytest.raises(SuperviseError, match="no-such-engine cannot be found or executed"):
        rehearse(msgspec.structs.replace(spec(), command=("no-such-engine",)), bundle, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SuperviseError, match="cannot be written: Not a directory"):
        rehearse(msgspec.structs.replace(spec(), command=("true",)), tmp_path / "file" / "a", tmp_path)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that everybody can enter."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs engines as somebody else")
def test_a_rehearsal_tries_as_the_engines_user(tmp_path: Path, open_place: Path) -> None:
    """What root may run says nothing of what `nobody` may."""
    place = open_place
    script, interpreter = place / "run", place / "interpreter"
    interpreter.symlink_to("/bin/true")
    script.write_text(f"#!{interpreter} -x\n")
    script.chmod(0o755)

    def said(command: str) -> str:
        theirs = msgspec.structs.replace(spec(), command=(command,), user="nobody", cwd=str(place.parent))
        try:
            rehearse(theirs, tmp_path, tmp_path, inherited={"PATH": f"{place}:/usr/bin:/bin"})
        except SuperviseError as error:
            return error.message
        return "can be run"

    assert said("run") == said(str(script)) == said(f"{place.name}/run") == "can be run"
    script.chmod(0o711)
    assert said("run") == f"user nobody may not read the script {script}"
    script.chmod(0o700)
    assert said("run") == f"user nobody may not execute {script}"
    place.chmod(0o700)
    assert said(f"{place.name}/run") == f"user nobody may not execute {script}"
    assert said("true") == "can be run"
    with pytest.raises(SuperviseError, match="gone is not there or cannot be entered"):
        rehearse(msgspec.structs.replace(spec(), cwd=str(tmp_path / "gone")), tmp_path, tmp_path)


def test_socket_names_are_short_and_differ(tmp_path: Path) -> None:
    paths = {socket_path(tmp_path / name, tmp_path) for name in ("a", "b", "x" * 200)}
    assert len(paths) == 3
    assert all(len(path.name) == len("shim-0123456789.sock") for path in paths)
    with pytest.raises(SuperviseError, match="a socket path may have 107 bytes"):
        socket_path(tmp_path, tmp_path / ("x" * 100))


@pytest.mark.parametrize(
    ("url", "port"),
    [
        (URL, 8000),
        ("http://localhost", 80),
        ("https://[::1]/v1", 443),
        ("http://10.1.2.3:8000", None),
        ("http://gpu-b:8000", None),
    ],
)
def test_only_local_ports_are_asked_about(url: str, port: int | None) -> None:
    assert ports.port_of(url) == port


def test_a_port_that_has_just_been_used_is_free() -> None:
    """TIME_WAIT of a server that has ended is no reason not to start the next one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # the side that closes first is the one that waits
            client.recv(1)
    assert ports.taken_by(port) is None


def test_a_listener_on_ipv6_is_found() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert "pid" in (ports.taken_by(server.getsockname()[1]) or "")


# --- what the log tells ---


def test_phases_of_a_start(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    old = "INFO Application startup complete.\nRuntimeError: of the last life\n"
    log.write_text(old)
    start = StartUp(log, len(old), {"start": 10.0, "load": 30.0}, began=100.0)
    start.look(100.0)
    assert [phase.name for phase in start.phases] == ["start"]
    with log.open("a") as writer:
        writer.write("INFO Starting to load model tiny\n")
    start.look(112.0)
    assert [(phase.name, phase.seconds, phase.last_seconds) for phase in start.phases] == [
        ("start", 12.0, 10.0),
        ("load", None, 30.0),
    ]
    halfway = start.progress(127.0)
    assert 0.5 < halfway < 0.75
    with log.open("a") as writer:
        writer.write("INFO Application startup complete.\n")
    start.look(130.0)
    assert start.progress(1000.0) <= 0.99, "the log does not decide"
    start.ready(131.0)
    assert start.phases[-1].seconds == 19.0


def test_the_last_words(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    assert last_words(log, 0) is None
    log.write_text("\x1b[31mfirst\x1b[0m\n\n   \n")
    assert last_words(log, 0) == "“first”"
    assert last_words(log, log.stat().st_size) is None, "this life has said nothing"
    log.write_text("x" * 1000)
    assert len(last_words(log, 0) or "") < 310


def test_the_last_words_are_not_the_routine_of_every_end(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    served = 'INFO:     127.0.0.1:43194 - "GET /metrics HTTP/1.1" 200 OK\n' * 30
    over = "INFO:     Shutting down\nINFO:     Finished server process [26875]\n"
    log.write_text("ERROR torch.OutOfMemoryError: CUDA out of memory. Of the last life\n")
    offset = log.stat().st_size
    with log.open("a") as writer:
        writer.write(f"INFO loaded\n{served}{over}")
    assert last_words(log, offset) == "“INFO loaded”"
    with log.open("a") as writer:
        writer.write(f"ERROR 11-21 13:14:15 [core.py:9] EngineCore encountered a fatal error.\n{served}{over}")
    assert last_words(log, offset) == "“EngineCore encountered a fatal error.”"
    log.write_text(served)
    assert "GET /metrics" in (last_words(log, 0) or ""), "better than nothing"
    log.write_text(f"INFO loaded\nINFO:     Application startup complete.\n{served}")
    assert last_words(log, 0) is None, "a start that went well explains no end"


def test_what_looks_fatal_is_quoted_before_what_came_last(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("ERROR torch.OutOfMemoryError: CUDA out of memory. Tried to allocate\nINFO bye\n")
    start = StartUp(log, 0, {}, began=0.0)
    start.look(1.0)
    assert (start.last_words() or "").startswith("“ERROR torch.OutOfMemoryError")
    assert "the GPU is full" in (start.last_words() or "")
    start.close()
