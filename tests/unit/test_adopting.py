"""Who may have what taken over, under which name, and how it stands beside the configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collectors.discover import FoundEngine
from opsboard.client.sync import Client
from opsboard.config.schema import Config, Engine
from opsboard.core.errors import Conflict, Denied, UsageError
from opsboard.core.secret import Secret
from opsboard.daemon.adopting import resume
from opsboard.daemon.by_hand import check_peer, check_words, named
from opsboard.daemon.specs import engine_specs
from opsboard.daemon.taken import TakenOver, read
from opsboard.httpd import Peer
from opsboard.supervise.adopt import examine
from opsboard.supervise.manners import Manners
from opsboard.supervise.takeover.gap import fatal
from opsboard.supervise.takeover.kept import Kept, keep
from opsboard.supervise.takeover.reproduction import Reproduction, reproduce
from tests.support.control_daemon import FakeDaemon, in_thread, socket_path, with_daemon

URL = "http://127.0.0.1:8000"


def seen(**changes: Any) -> Reproduction:
    whole: dict[str, Any] = {
        "pid": 77,
        "start_ticks": 5,
        "boot_id": "another",
        "argv": ("vllm", "serve", "m", "--api-key", "sesame"),
        "cwd": "/",
        "exe": "/usr/bin/vllm",
        "env": {"HF_TOKEN": Secret("hush")},
        "user": None,
        "uid": 1000,
        "gid": 1000,
        "groups": (),
        "manners": Manners(),
    }
    return Reproduction(**whole | changes)


def taken(**urls: str) -> TakenOver:
    return TakenOver(kept={name: Kept(url=url, reproduction=seen(), kind="vllm") for name, url in urls.items()})


def peer(uid: int) -> Peer:
    return Peer(pid=1, uid=uid, gid=uid, groups=())


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", [0, 1000])
def test_root_and_the_owner_may(uid: int) -> None:
    check_peer(seen(), peer(uid))


@pytest.mark.parametrize(
    ("owner", "who"), [(0, peer(1000)), (1001, peer(1000)), (None, peer(1000)), (1000, None)], ids=str
)
def test_nobody_else_may(owner: int | None, who: Peer | None) -> None:
    with pytest.raises(Denied, match="pid 77 belongs to"):
        check_peer(seen(uid=owner), who)


def test_a_daemon_that_only_looks_takes_over_nothing() -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = Client(daemon.path)
        for call in (lambda: client.adopt(URL), lambda: client.forget("a")):
            with pytest.raises(Denied, match="only looks"):
                await in_thread(call)

    with_daemon(socket_path(), test)


@pytest.mark.parametrize(
    ("target", "name"),
    [("llama", None), ("-1", None), ("file:///x", None), ("http://localhost:x", None), ("1", "../x")],
)
def test_words_that_make_no_sense(target: str, name: str | None) -> None:
    with pytest.raises(UsageError):
        check_words(target, name)


# --- its name ---------------------------------------------------------------------------------------------------------


def found(name: str = "llama", url: str = URL) -> FoundEngine:
    return FoundEngine(name=name, url=url, kind="vllm", pid=77, answers=True)


def test_named_after_its_model_and_apart_from_others() -> None:
    assert named(found(), None, Config(), {}) == ("llama", URL)
    assert named(found(), "mine", Config(), {}) == ("mine", URL)
    other = Config(engine=(Engine(name="llama", url="http://127.0.0.1:9"),))
    assert named(found(), None, other, {}) == ("llama-8000", URL)
    with pytest.raises(Conflict, match="there is an engine called llama"):
        named(found(), "llama", other, {})
    with pytest.raises(Conflict, match="is no name for an engine"):
        named(found("x" * 65), None, Config(), {})


def test_an_observed_one_keeps_name_and_address() -> None:
    config = Config(engine=(Engine(name="seen", url="http://localhost:8000/"),))
    assert named(found(), None, config, {}) == named(found(), "seen", config, {}) == ("seen", "http://localhost:8000/")
    with pytest.raises(Conflict, match="the configuration calls it seen"):
        named(found(), "mine", config, {})


def test_an_address_that_is_somebody_elses() -> None:
    config = Config(engine=(Engine(name="a", url=URL, command=("vllm",)),))
    with pytest.raises(Conflict, match="address of a, which is in the configuration with a command") as caught:
        named(found(), None, config, {})
    assert caught.value.hint == "stop what runs there, then: opsboard engine start a"
    config = Config(engine=(Engine(name="a", url=URL, restart_command=("systemctl", "restart", "a")),))
    with pytest.raises(Conflict, match="address of a, which `restart_command` restarts"):
        named(found(), None, config, {})
    with pytest.raises(Conflict, match="address of old, which was taken over as another process"):
        named(found(), None, Config(), taken(old="http://localhost:8000").kept)


# --- beside the configuration -----------------------------------------------------------------------------------------


def test_supervised_in_the_place_of_an_observed_one_or_after_all_others() -> None:
    engines = (
        Engine(name="seen", url="http://localhost:8000", api_key=Secret("k")),
        Engine(name="own", url="http://127.0.0.1:8002", command=("vllm", "serve")),
    )
    both = taken(seen=URL, more="http://127.0.0.1:8001")
    specs = both.specs(engine_specs(Config(engine=engines)), engines)
    assert [(spec.name, spec.supervised, spec.kind, spec.url) for spec in specs] == [
        ("seen", True, "vllm", "http://localhost:8000"),
        ("own", True, None, "http://127.0.0.1:8002"),
        ("more", True, "vllm", "http://127.0.0.1:8001"),
    ]
    assert specs[0].command == ("vllm", "serve", "m", "--api-key", "***")
    launches = both.launches(engines)
    assert [(spec.name, spec.url, spec.inherits) for spec in launches] == [
        ("seen", "http://localhost:8000", False),
        ("more", "http://127.0.0.1:8001", False),
    ]
    assert launches[0].command == seen().argv
    assert both.key_of("more") == Secret("sesame")
    assert both.key_of("own") is None
    assert list(both.passed_over(engines)) == []


@pytest.mark.parametrize(
    "engine", [Engine(name="a", url=URL, command=("vllm",)), Engine(name="a", url="http://127.0.0.1:9")]
)
def test_the_configuration_wins(engine: Engine) -> None:
    specs = engine_specs(Config(engine=(engine,)))
    assert taken(a=URL).specs(specs, [engine]) == specs
    assert taken(a=URL).launches([engine]) == []
    assert [name for name, _ in taken(a=URL).passed_over([engine])] == ["a"]


def test_one_joins_and_one_leaves() -> None:
    one = Kept(url=URL, reproduction=seen())
    assert TakenOver().also("a", one).kept == {"a": one}
    assert TakenOver().also("a", one).also("b", one).without("a").kept == {"b": one}


# --- at the start of a daemon -----------------------------------------------------------------------------------------


def test_what_cannot_be_believed_or_started_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    good = Kept(url=URL, reproduction=seen())
    keep(good, tmp_path / "good")
    keep(Kept(url=URL, reproduction=seen(cannot=(fatal("container", "boxed"),))), tmp_path / "boxed")
    keep(good, tmp_path / "open")
    (tmp_path / "open" / "taken_over.json").chmod(0o644)
    found, errors = read(tmp_path)
    assert found.kept == {"good": good}
    assert [("boxed" in error.message, "not believed" in error.message) for error in errors] == [
        (False, True),
        (True, False),
    ]


def test_a_life_that_a_killed_daemon_had_not_written_down_yet(tmp_path: Path) -> None:
    """Killed between keeping what a copy needs and writing down who runs."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        alive = reproduce(process.pid)
        one = TakenOver(kept={"a": Kept(url=URL, reproduction=alive), "gone": Kept(url=URL, reproduction=seen())})
        keep(one.kept["a"], tmp_path / "engines" / "a")
        assert list(resume(one, tmp_path / "engines", tmp_path / "run")) == []
        remains = examine(tmp_path / "engines" / "a")
        assert remains is not None
        assert remains.main is not None
        assert (remains.main.pid, remains.by_hand, remains.life) == (process.pid, True, 1)
        assert list(resume(one, tmp_path / "engines", tmp_path / "run")) == []
        again = examine(tmp_path / "engines" / "a")
        assert again is not None
        assert again.instance == remains.instance, "a life is begun once"
        process.communicate(b"\n")
    assert examine(tmp_path / "engines" / "gone") is None
