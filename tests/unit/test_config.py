"""The configuration file: what it accepts, and one clear sentence for everything it does not."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import pytest
from msgspec import Meta, Struct

from opsboard.config import places
from opsboard.config.detectors import Setting, settings
from opsboard.config.explain import documented_keys, explain, nearest, print_toml
from opsboard.config.load import configured_socket, load
from opsboard.core.errors import ConfigError
from opsboard.core.model import Record
from opsboard.daemon.specs import launch_specs

WHOLE = """
[host]
name = "gpu-a"
state_dir = "/srv/opsboard"
[collect]
interval = "1500ms"
timeout = "3s"
[store]
raw = "48h"
minute = "30d"
hour = "2y"
max_bytes = "4GiB"
[control]
operate_group = "sre"
[exporter]
listen = "127.0.0.1:9464"
[[engine]]
name = "llama-a"
kind = "vllm"
command = ["vllm", "serve", "meta-llama/Llama-3.3-70B-Instruct", "--port", "8001"]
api_key_file = "llama.key"
gpus = [0, 1]
env = { HF_HOME = "/models", HF_TOKEN = "hf_abc" }
user = "vllm"
autostart = true
restart = "always"
ready_timeout = "15m"
drain_timeout = "90s"
stop_timeout = "30s"
[[engine]]
name = "llama-b"
url = "http://127.0.0.1:8002"
[[route]]
model = "chat"
targets = ["llama-a", "llama-b"]
"""


@pytest.fixture(autouse=True)
def _not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    (tmp_path / "llama.key").write_text("sekret\n")
    path = tmp_path / "opsboard.toml"
    path.write_text(WHOLE)
    return path


def test_a_whole_file_is_read(config_file: Path) -> None:
    config = load(config_file, kinds=["vllm"]).config
    first, second = config.engine
    assert config.collect.interval == 1.5
    assert config.store.max_bytes == 4 * 2**30
    assert first.url == "http://127.0.0.1:8001"
    assert first.api_key is not None
    assert first.api_key.reveal() == "sekret"
    assert first.supervised
    assert not second.supervised
    assert (first.restart, first.drain_timeout) == ("always", 90.0)
    assert (second.restart, second.drain_timeout) == (None, 60.0)
    assert [(route.model, route.targets) for route in config.route] == [("chat", ("llama-a", "llama-b"))]


def test_no_file_means_defaults() -> None:
    assert load(None).config.collect.interval == 1.0


def test_print_is_toml_and_hides_secrets(config_file: Path) -> None:
    text = print_toml(load(config_file).config)
    data = tomllib.loads(text)
    assert data["engine"][0]["api_key"] == "***"
    assert data["engine"][0]["env"] == {"HF_HOME": "/models", "HF_TOKEN": "***"}
    assert "sekret" not in text


def test_explain_tells_where_a_value_comes_from(config_file: Path) -> None:
    lines = {line.key: line for line in explain(load(config_file))}
    assert lines["collect.interval"].origin == "file"
    assert lines["engine[0].api_key"].origin == "file"
    assert lines["engine[0].api_key"].value == '"***"'
    assert lines["engine[1].ready_timeout"].origin == "default"


def test_explain_knows_every_key_of_the_schema(config_file: Path) -> None:
    for loaded in (load(None), load(config_file)):
        for doc in documented_keys():
            lines = list(explain(loaded, f"{doc.section.strip('[]')}.{doc.key}"))
            assert lines
            assert all(doc.default == line.default for line in lines if line.key.endswith(f".{doc.key}"))


@pytest.mark.parametrize(
    ("meant", "nearest_key"),
    [("engine.ready_timout", "engine.ready_timeout"), ("host.nam", "host.name"), ("nothing.like.it", None)],
)
def test_the_nearest_key_is_named(config_file: Path, meant: str, nearest_key: str | None) -> None:
    assert nearest(load(config_file), meant) == nearest_key


def test_an_engine_is_explained_by_its_place_its_name_and_with_all_others(config_file: Path) -> None:
    loaded = load(config_file)
    first = loaded.config.engine[0].name
    (one,) = explain(loaded, "engine[0].url")
    assert list(explain(loaded, f"engine.{first}.url")) == [one]
    assert [line.key for line in explain(loaded, "engine.url")] == ["engine[0].url", "engine[1].url"]
    assert [line.key for line in explain(loaded, "engine[0].api_key_env")] == ["engine[0].api_key"]
    assert [line.value for line in explain(loaded, "route.chat.targets")] == ['["llama-a", "llama-b"]']


def test_assumptions_are_one_line_each(tmp_path: Path) -> None:
    file = tmp_path / "opsboard.toml"
    engines = [f'[[engine]]\nname = "{name}"\ncommand = ["x", "--port={ord(name)}"]\n' for name in "abc"]
    file.write_text('[control]\nread_group = "r"\noperate_group = "o"\n' + "".join(engines))
    file.chmod(0o600)
    assert load(file).assumed == (
        "no `gpus` for a, b, c: an engine then sees every GPU",
        "a socket has one group: members of `operate_group` must be in `read_group` too",
    )


def test_a_root_daemon_is_told_whom_an_engine_runs_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    path = tmp_path / "opsboard.toml"
    path.write_text(ENGINE + 'command = ["x"]\n')
    with pytest.raises(ConfigError, match=r"`engine\[0\]`: 'a' needs `user`") as caught:
        load(path)
    assert 'user = "root" if that is meant' in (caught.value.hint or "")
    path.write_text(ENGINE + 'command = ["x"]\n' + ENGINE.replace('"a"', '"b"') + 'command = ["x"]\n')
    with pytest.raises(ConfigError, match="'a', 'b' need `user` each"):
        load(path)
    path.write_text(ENGINE + 'command = ["x"]\nuser = "root"\n')
    assert load(path).config.engine[0].user == "root"
    path.write_text(ENGINE + 'url = "http://h:1"\n')
    assert load(path).config.engine[0].user is None, "whoever started it chose"


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(places.config_path(str(tmp_path)))


def test_a_place_that_we_may_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(_self: Path) -> bool:
        raise PermissionError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", hidden)
    assert places.config_path(None, {"XDG_CONFIG_HOME": str(tmp_path)}) is None
    assert places.config_path("/root/x.toml") == Path("/root/x.toml"), "who reads it tells why it cannot be"


def test_every_key_is_documented() -> None:
    assert all(doc.help for doc in documented_keys())


class Params(Record, frozen=True, kw_only=True):
    """Of every type that a file can hold, and one that it cannot."""

    quiet_s: Annotated[float, Meta(description="so long")] = 90.0
    count: Annotated[int, Meta(ge=1, description="so many")] = 3
    share: float | None = None
    how: Literal["well", "badly"] = "well"
    inside: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.count > 100:
            raise ValueError("`count`: expected at most 100")


class Foreign(NamedTuple):
    """A detector of another package."""

    name: str
    severity: Literal["page", "ticket", "note"] = "ticket"
    summary: str = "it is odd"
    params: type[Struct] = Params


class Broken(Struct, frozen=True):
    """Parameters whose annotation leads nowhere."""

    quiet_s: Nowhere = 1.0  # type: ignore[name-defined]  # noqa: F821


ODD = {"odd": Foreign("odd"), "broken": Foreign("broken", params=Broken)}


def test_a_detector_brings_its_own_section(tmp_path: Path) -> None:
    path = tmp_path / "opsboard.toml"
    path.write_text('[detector.odd]\nseverity = "page"\nquiet = "2m"\nshare = 1\nhow = "badly"\n')
    path.chmod(0o600)
    loaded = load(path, detectors=ODD)
    assert settings(loaded.config, ODD) == {
        "odd": Setting(enabled=True, severity="page", params=Params(quiet_s=120.0, share=1.0, how="badly"))
    }
    assert type(settings(loaded.config, ODD)["odd"].params.quiet_s) is float
    lines = {line.key: (line.value, line.origin, line.help) for line in explain(loaded, "detector.odd")}
    assert lines["detector.odd.quiet"] == ('"2m"', "file", "so long")
    assert lines["detector.odd.count"] == ("3", "default", "so many")
    assert list(lines)[:2] == ["detector.odd.enabled", "detector.odd.severity"]
    printed = tomllib.loads(print_toml(loaded.config))
    assert printed["detector"]["odd"] == {
        "enabled": True, "severity": "page", "quiet": "2m", "count": 3, "share": 1.0, "how": "badly",
    }  # fmt: skip


def test_without_a_section_a_detector_has_its_defaults() -> None:
    loaded = load(None, detectors=ODD)
    assert settings(loaded.config, ODD)["odd"] == Setting(enabled=True, severity="ticket", params=Params())
    assert [line.origin for line in explain(loaded, "detector.odd.enabled")] == ["default"]


def test_a_detector_that_is_off_is_an_assumption_worth_telling(tmp_path: Path) -> None:
    path = tmp_path / "opsboard.toml"
    path.write_text("[detector.odd]\nenabled = false\n")
    path.chmod(0o600)
    assert load(path, detectors=ODD).assumed == ("`detector.odd` is off: nothing looks for that",)


ENGINE = '[[engine]]\nname = "a"\n'
OBSERVED = ENGINE + 'url = "http://h:1"\n'
ROUTE = OBSERVED + '[[route]]\nmodel = "chat"\n'
BAD = {
    "unknown section": ('[hots]\nname = "a"', "`hots`", "did you mean `host`"),
    "unknown detector": ("[detector.od]\nenabled = true", "unknown key `detector.od`", "did you mean `odd`"),
    "unknown key of a detector": (
        '[detector.odd]\nquiet_s = "2m"',
        "unknown key `detector.odd.quiet_s`",
        "did you mean `quiet`",
    ),
    "wrong duration of a detector": (
        "[detector.odd]\nquiet = 120",
        "`detector.odd.quiet`: expected a duration such as",
        None,
    ),
    "wrong severity": (
        '[detector.odd]\nseverity = "loud"',
        "`detector.odd.severity`: expected one of page, ticket, note, found 'loud'",
        None,
    ),
    "too few": ("[detector.odd]\ncount = 0", "`detector.odd.count`: expected a whole number >= 1, found 0", None),
    "too many": ("[detector.odd]\ncount = 101", "`detector.odd`: `count`: expected at most 100", None),
    "detector without a name": ("detector = 3", "`detector`: expected a table, found 3", None),
    "unknown key": (
        ENGINE + 'url = "http://h:1"\nautostrat = true',
        "`engine[0].autostrat`",
        "did you mean `autostart`",
    ),
    "not TOML": ("name", "is not TOML", None),
    "wrong type": ("[collect]\ninterval = 3", '`collect.interval`: expected a duration such as "1500ms"', None),
    "wrong type of list": (
        ENGINE + 'command = "vllm serve"',
        "`engine[0].command`: expected a list, found 'vllm serve'",
        'write one word a string: ["vllm", "serve"]',
    ),
    "one bracket for a route": (
        '[route]\nmodel = "chat"\ntargets = ["a"]',
        "`route`: expected a list",
        "write [[route]]",
    ),
    "no targets": (ROUTE, "`route[0]` needs `targets`", None),
    "empty targets": (ROUTE + "targets = []", "`route[0].targets`: expected names of engines, found none", None),
    "unknown target": (
        OBSERVED.replace('"a"', '"llama"') + '[[route]]\nmodel = "chat"\ntargets = ["lama"]',
        "`route[0].targets[0]`: no engine is called 'lama'",
        "did you mean 'llama'?",
    ),
    "target of no engine": (ROUTE + 'targets = ["a", "zzz"]', "`route[0].targets[1]`", "engines here: a"),
    "target twice": (ROUTE + 'targets = ["a", "a"]', "`route[0].targets[1]`: 'a' is named twice", None),
    "route twice": (
        ROUTE + 'targets = ["a"]\n[[route]]\nmodel = "chat"\ntargets = ["a"]',
        "`route[1].model`: 'chat' is already the model of `route[0]`",
        "in one of them",
    ),
    "model without a name": (ROUTE.replace("chat", "") + 'targets = ["a"]', "what clients ask for, found ''", None),
    "one bracket": ('[engine]\nname = "a"', "`engine`: expected a list", "write [[engine]]"),
    "negative GPU": (ENGINE + 'command = ["x"]\ngpus = [0, -1]', "numbers from 0 up, found [0, -1]", None),
    "port of the exporter": (
        '[exporter]\nlisten = "0.0.0.0:8000"\n' + ENGINE + 'command = ["x"]',
        "'a' and `exporter.listen` both use 127.0.0.1:8000",
        "its own port",
    ),
    "max_age too short": (
        ENGINE + 'command = ["x"]\nmax_age = "30m"',
        "`engine[0].max_age`: expected at least 1h, found 1800 s",
        None,
    ),
    "max_age of an observed engine": (
        ENGINE + 'url = "http://127.0.0.1:1"\nmax_age = "24h"',
        "`engine[0].max_age`: 'a' has no `command`: opsboard cannot restart it",
        None,
    ),
    "standby of an observed engine": (
        ENGINE + 'url = "http://127.0.0.1:1"\nstandby = true',
        "`engine[0].standby`: 'a' has no `command`: opsboard cannot start it",
        None,
    ),
    "restart when": (
        ENGINE + 'command = ["x"]\nrestart = "sometimes"',
        "`engine[0].restart`: expected one of on-failure, always, never, found 'sometimes'",
        None,
    ),
    "runner": (
        ENGINE + 'command = ["x"]\nrunner = "docker"',
        "`engine[0].runner`: expected one of shim, systemd, command, found 'docker'",
        None,
    ),
    "command of others": (
        ENGINE + 'runner = "command"\ncommand = ["x"]',
        "'a' with `runner = \"command\"` has `command`",
        "it takes `start_command`, `stop_command`, `status_command`",
    ),
    "no status": (
        ENGINE + 'runner = "command"\nurl = "http://h:1"\nstart_command = ["x"]\nstop_command = ["x"]',
        "'a' with `runner = \"command\"` lacks `status_command`",
        None,
    ),
    "no place": (
        ENGINE + 'runner = "command"\nstart_command = ["x"]\nstop_command = ["x"]\nstatus_command = ["x"]',
        '`runner = "command"` needs `url`',
        None,
    ),
    "others' command": (
        ENGINE + 'command = ["x"]\nstop_command = ["x"]',
        '`engine[0].stop_command`: it goes with `runner = "command"`, and \'a\' has `runner = "shim"`',
        'set `runner = "command"`',
    ),
    "nothing for systemd": (
        ENGINE + 'url = "http://h:1"\nrunner = "systemd"',
        '`runner = "systemd"` needs `command`',
        None,
    ),
    "no words": (
        ENGINE + 'url = "http://h:1"\nrestart_command = []',
        "`engine[0].restart_command`: expected the words",
        None,
    ),
    "two ways to restart": (
        ENGINE + 'command = ["x"]\nrestart_command = ["x"]',
        "`engine[0].restart_command`: 'a' has a `command`, which opsboard restarts itself",
        "keep one of the two",
    ),
    "nothing to restart by": (
        ENGINE + 'url = "http://h:1"\nrestart = "always"',
        "`engine[0].restart`: 'a' has no command that could restart it",
        "give it a `restart_command`",
    ),
    "wrong unit": ('[store]\nmax_bytes = "4 parsecs"', "found '4 parsecs'", None),
    "too fast": ('[collect]\ninterval = "10ms"', "expected 200ms to 10s", None),
    "too slow": ('[collect]\ninterval = "30s"', "expected 200ms to 10s", None),
    "no age": ('[store]\nraw = "0s"', "`store.raw`: expected more than 0", None),
    "no name": ('[[engine]]\nurl = "http://h:1"', "`engine[0]` needs `name`", None),
    "no way to it": (ENGINE, "needs `command` (supervised) or `url` (observed)", None),
    "empty command": (ENGINE + "command = []", "found none", None),
    "bad url": (ENGINE + 'url = "h:1"', "expected \"http://HOST:PORT\", found 'h:1'", None),
    "bad port": (ENGINE + 'url = "http://h:99999"', 'expected "http://HOST:PORT"', None),
    "name with a path": ('[[engine]]\nname = "../a"\nurl = "http://h:1"', "found '../a'", None),
    "unknown kind": (ENGINE + 'kind = "zllm"\nurl = "http://h:1"', "expected one of vllm, found 'zllm'", None),
    "duplicate name": (
        ENGINE + 'url = "http://h:1"\n' + ENGINE + 'url = "http://h:2"',
        "already the name of `engine[0]`",
        None,
    ),
    "duplicate port": (
        ENGINE + 'url = "http://localhost:1"\n[[engine]]\nname = "b"\ncommand = ["x", "--port=1"]',
        "'b' and 'a' both use 127.0.0.1:1",
        None,
    ),
    "contradicting GPUs": (
        ENGINE + 'command = ["x"]\ngpus = [0]\nenv = { CUDA_VISIBLE_DEVICES = "1" }',
        "contradicts `engine[0].gpus`",
        None,
    ),
    "unreadable secret": (
        ENGINE + 'url = "http://h:1"\napi_key_file = "nowhere"',
        "nowhere cannot be read: No such file",
        None,
    ),
    "unset secret": (ENGINE + 'url = "http://h:1"\napi_key_env = "NOWHERE"', "variable NOWHERE is not set", None),
    "two secrets": (
        ENGINE + 'url = "http://h:1"\napi_key = "a"\napi_key_env = "B"',
        "`api_key` and `api_key_env`",
        None,
    ),
    "bad listen": ('[exporter]\nlisten = "9464"', 'expected "HOST:PORT"', None),
    "no time to stop": (
        ENGINE + 'url = "http://h:1"\nstop_timeout = "0s"',
        "`engine[0].stop_timeout`: expected more than 0",
        None,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_one_message(name: str, tmp_path: Path) -> None:
    text, message, hint = BAD[name]
    path = tmp_path / "opsboard.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, kinds=["vllm"], env={}, detectors=ODD)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")
    assert caught.value.exit_code == 2


def test_what_runs_an_engine(tmp_path: Path) -> None:
    """The secrets of each command are hidden where the configuration is printed."""
    path = tmp_path / "opsboard.toml"
    path.write_text(
        '[[engine]]\nname = "a"\nurl = "http://h:1"\nrunner = "command"\n'
        'start_command = ["docker", "run", "--token", "hush"]\nstop_command = ["s"]\nstatus_command = ["t"]\n'
        '[[engine]]\nname = "b"\nurl = "http://h:2"\nrestart_command = ["systemctl", "restart", "vllm"]\n'
    )
    config = load(path, kinds=["vllm"]).config
    assert [(engine.supervised, engine.begins_by[0]) for engine in config.engine] == [
        (True, "docker"),
        (False, "systemctl"),
    ]
    others, restarted = launch_specs(config, None)
    assert (others.runner, others.restart, others.stop_command) == ("command", "on-failure", ("s",))
    assert (restarted.runner, restarted.restart, restarted.wanted) == ("restart", "never", False)
    assert "hush" not in print_toml(config)


def test_a_secret_never_stands_in_an_error(tmp_path: Path) -> None:
    path = tmp_path / "opsboard.toml"
    path.write_text(ENGINE + 'url = "http://h:1"\napi_key = ["hunter2"]')
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert "hunter2" not in caught.value.message


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="named by --config"):
        places.config_path(str(tmp_path / "none.toml"), {})
    with pytest.raises(ConfigError, match="named by OPSBOARD_CONFIG"):
        places.config_path(None, {"OPSBOARD_CONFIG": str(tmp_path / "none.toml")})


def test_places_follow_the_contract(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": "/x/state", "XDG_RUNTIME_DIR": "/x/run"}
    assert places.state_dir(None, None, env, uid=1000) == Path("/x/state/opsboard")
    assert places.state_dir(None, None, env, uid=0) == Path("/var/lib/opsboard")
    assert places.state_dir(None, None, {"STATE_DIRECTORY": "/var/lib/o:/b"}, uid=0) == Path("/var/lib/o")
    assert places.state_dir("/opt/o", "/c", env, uid=0) == Path("/opt/o")
    assert places.socket_path(None, None, env, uid=1000) == Path("/x/run/opsboard/opsboard.sock")
    assert places.socket_path(None, None, {"RUNTIME_DIRECTORY": "/run/o"}, uid=1000) == Path("/run/o/opsboard.sock")
    with pytest.raises(ConfigError, match="107 bytes"):
        places.socket_path("/" + "x" * 120)
    own = places.client_sockets(None, None, {"RUNTIME_DIRECTORY": str(tmp_path)})
    assert own == [tmp_path / "opsboard.sock", places.SYSTEM_SOCKET]


def test_a_private_directory_is_private(tmp_path: Path) -> None:
    made = places.private_dir(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o777)
    with pytest.raises(ConfigError, match="others may write"):
        places.private_dir(made)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"File exists|expected a directory"):
        places.private_dir(tmp_path / "file")


def test_clients_find_the_socket_in_a_file_that_is_wrong_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "opsboard.toml"
    path.write_text('[control]\nsocket = "/run/x.sock"\n[nonsense]\na = 1')
    assert configured_socket(path) == "/run/x.sock"
    path.write_text("[[[")
    assert configured_socket(path) is None
