"""Verbs without a daemon: what they print and how they exit."""

from __future__ import annotations

import json
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsboard.cli import common
from opsboard.cli.found import render
from opsboard.cli.main import VERBS, main
from opsboard.client.sync import Client
from opsboard.config.load import load
from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineState, GpuReading, GpuView, Outcome, Step, Transition
from opsboard.core.wire import (
    DaemonInfo,
    DetectorInfo,
    Engine,
    EngineDetail,
    ReadingInfo,
    RouteInfo,
    Status,
    TargetInfo,
)
from opsboard.supervise.runners import units
from tests.support.account import AS_ME


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def nowhere(tmp_path: Path) -> str:
    return str(tmp_path / "none.sock")


@pytest.mark.parametrize("verb", [["status"], ["status", "--json"], ["engine", "list"], ["engine", "start", "a"]])
def test_no_daemon_is_exit_3(verb: list[str], nowhere: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--socket", nowhere, *verb) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert nowhere in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["engine", "stop"],
        ["engine", "stop", "a", "--all"],
        ["config", "check"],
        ["config", "explain", "nonsense"],
        ["demo"],
        ["demo", "--headless", "--fault", "nonsense"],
        ["demo", "--headless", "--fault", "leak=much"],
        [],
    ],
    ids=" ".join,
)
def test_bad_usage_is_exit_2(words: list[str], nowhere: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--socket", nowhere, *words) == 2
    assert capsys.readouterr().err


def test_a_bad_configuration_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "opsboard.toml"
    path.write_text("[colect]\n")
    assert run("--config", str(path), "config", "check") == 2
    said = capsys.readouterr().err
    assert str(path) in said
    assert "did you mean `collect`?" in said


def test_config_verbs_read_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "opsboard.toml"
    path.write_text('[[engine]]\nname = "a"\nurl = "http://127.0.0.1:8000"\napi_key = "hunter2"\n')
    assert run("--config", str(path), "config", "check") == 0
    assert "good: 1 engines, 0 of them supervised" in capsys.readouterr().out
    assert run("--config", str(path), "config", "print") == 0
    assert 'api_key = "***"' in capsys.readouterr().out
    assert run("--config", str(path), "config", "explain", "--json", "engine[0].api_key") == 0
    assert json.loads(capsys.readouterr().out) == {
        "key": "engine[0].api_key",
        "value": '"***"',
        "origin": "file",
        "default": "",
        "help": "API key of the server; a supervised vLLM gets it as VLLM_API_KEY",
    }


def test_a_key_that_nobody_set_is_explained_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "opsboard.toml"
    path.write_text("")
    for key, told in {
        "engine.url": "engine.url   [not set; no engine is configured]\n    where it answers",
        "engine.name": "engine.name   [not set, required; no engine is configured]",
        "exporter": 'exporter.listen   [not set, default "127.0.0.1:9464"; no exporter is configured]',
        "host.name": "host.name   [not set]",
    }.items():
        assert run("--config", str(path), "config", "explain", key) == 0
        assert capsys.readouterr().out.startswith(told)


def test_what_was_found_is_a_configuration(tmp_path: Path) -> None:
    gpus = GpuReading(outcome=Outcome.OK, gpus=(GpuView(index=0, uuid="GPU-1", name="H200"),))
    path = tmp_path / "opsboard.toml"
    path.write_text(render([], gpus))
    assert "# GPU 0: H200 GPU-1" in path.read_text()
    assert load(path).config.engine == ()


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert run(verb, "--help") == 0
        assert "Usage: opsboard" in capsys.readouterr().out


def test_the_list_of_verbs_hides_the_internal_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    said = capsys.readouterr().out
    assert "status" in said
    assert "shim" not in said


@pytest.mark.parametrize("boots", [False, True])
def test_doctor_knows_whether_systemd_can_run_an_engine(
    boots: bool, tmp_path: Path, nowhere: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "BOOTED", tmp_path if boots else tmp_path / "none")
    config = tmp_path / "opsboard.toml"
    config.write_text('[[engine]]\nname = "a"\ncommand = ["true"]\nrunner = "systemd"\n' + AS_ME)
    run("--config", str(config), "--socket", nowhere, "doctor", "--json")
    findings = {line["check"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert ("engine-runner" in findings) is not boots
    assert boots or findings["engine-runner"]["level"] == "fail"


def test_doctor_says_what_is_missing_and_bundles_it(
    tmp_path: Path, nowhere: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "opsboard.toml"
    config.write_text('[[engine]]\nname = "a"\ncommand = ["no-such-command-here"]\napi_key = "hunter2"\n' + AS_ME)
    bundle = tmp_path / "bundle.tar.gz"
    assert run("--config", str(config), "--socket", nowhere, "doctor", "--json", "--bundle", str(bundle)) == 1
    findings = {line["check"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert findings["engine-command"]["level"] == "fail"
    assert "no-such-command-here" in findings["engine-command"]["text"]
    assert findings["daemon"]["level"] == "warn"
    assert bundle.stat().st_mode & 0o077 == 0
    with tarfile.open(bundle) as archive:
        texts = {member.name: archive.extractfile(member) for member in archive}
        words = b"".join(file.read() for file in texts.values() if file)
    assert b"hunter2" not in words
    assert {"opsboard-bundle/doctor.jsonl", "opsboard-bundle/opsboard.toml"} <= texts.keys()


@pytest.mark.parametrize("driver", [True, False])
def test_gpus_without_a_driver_are_told_before_any_start(
    tmp_path: Path, nowhere: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, driver: bool
) -> None:
    monkeypatch.setattr(common, "driver_found", lambda: driver)
    config = tmp_path / "opsboard.toml"
    config.write_text('[[engine]]\nname = "a"\ncommand = ["true"]\ngpus = [0, 2]\n' + AS_ME)
    assert run("--config", str(config), "config", "check") == 0
    assert ("engine 'a': gpus = [0, 2] without an NVIDIA driver" in capsys.readouterr().out) is not driver
    assert run("--config", str(config), "--socket", nowhere, "doctor", "--json") == 0
    told = {finding["check"] for finding in map(json.loads, capsys.readouterr().out.splitlines())}
    assert ("engine-gpus" in told) is not driver


def test_record_writes_what_the_daemon_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lines(_self: Client, seconds: float | None) -> Iterator[bytes]:
        assert seconds is None
        yield b'{"t":1.0,"engine":"a","kind":"vllm","metrics":""}'

    monkeypatch.setattr(Client, "record", lines)
    out = tmp_path / "out.jsonl.xz"
    assert run("record", str(out)) == 0
    assert lzma.decompress(out.read_bytes()).splitlines()[0] == b'{"schema":"opsboard.recording/1"}'
    assert "1 readings" in capsys.readouterr().out
    assert run("record", str(out)) == 2
    assert "is already there" in capsys.readouterr().err
    assert run("record", str(tmp_path / "out.zst")) == 2
    assert "does not write .zst" in capsys.readouterr().err


def test_a_verb_nearly_right_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("engin", "list") == 2
    assert "Did you mean 'engine'?" in capsys.readouterr().err


def test_status_tells_notes_and_ages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reading = ReadingInfo(outcome="NO_DATA", age_s=75.0, error="no series")
    engine = Engine(
        name="a",
        supervised=False,
        state="ready",
        reading=reading,
        model="m" * 1000,
        ttft_p95_s=0.285,
        itl_p95_s=2.5,
        latency_bounds={"ttft_p95_s": (0.0, 0.3), "itl_p95_s": (2.5, None)},
    )
    daemon = DaemonInfo(version="1", pid=2, started=0.0, recorded=True, message="series.db was damaged")
    board = Status(time=100.0, host="h", daemon=daemon, engines=(engine,))
    monkeypatch.setattr(Client, "status", lambda _self: board)
    assert run("status") == 0
    said = capsys.readouterr().out
    assert "note: series.db was damaged" in said
    assert "ready (stale 1m15s)" in said
    assert "a: no series" in said
    assert "<300ms  >2500ms" in said
    assert max(map(len, said.splitlines())) < 200


def test_status_tells_what_is_not_judged(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """But not what still learns, is off, or has to be left out because the page cannot be read."""
    detectors = (
        DetectorInfo(name="kv_leak", state="unknown", reason="its page tells no blocks"),
        DetectorInfo(name="latency", state="learning", reason="34 of 45 s of work seen"),
        DetectorInfo(name="preemption_storm", state="unknown", reason="its page does not tell kv_usage"),
        DetectorInfo(name="slo_burn", state="off", reason="no objective is set in [slo]"),
        DetectorInfo(name="throughput_collapse", state="unknown", reason="its page does not tell kv_usage"),
    )
    read = Engine(name="a", state="ready", reading=ReadingInfo(outcome="OK"), detectors=detectors)
    unread = Engine(name="b", state="unreachable", reading=ReadingInfo(outcome="FAILED"), detectors=detectors)
    daemon = DaemonInfo(version="1", pid=2, started=0.0)
    board = Status(time=100.0, host="h", daemon=daemon, engines=(read, unread))
    monkeypatch.setattr(Client, "status", lambda _self: board)
    assert run("status") == 0
    unjudged = [line for line in capsys.readouterr().out.splitlines() if "judge" in line]
    why = "kv_leak (its page tells no blocks); preemption_storm, throughput_collapse (its page does not tell kv_usage)"
    assert unjudged == [f"  a: cannot judge {why}"]


def test_what_an_engine_waits_for_and_its_routes_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Engine(
        name="a", supervised=True, state="backing_off", until=107.5, state_since=99.0, message="restart 2 of 5: exit 1"
    )
    route = RouteInfo(model="chat", targets=(TargetInfo(name="a", state="backing_off", weight=1.0),))
    daemon = DaemonInfo(version="1", pid=2, started=0.0)
    board = Status(time=100.0, host="h", daemon=daemon, engines=(engine,), routes=(route,))
    moved = Transition(t=99.0, engine="a", state=EngineState.BACKING_OFF, reason="exit 1")
    detail = EngineDetail(engine=engine, timeline=(moved,), transaction=(Step(name="start", started=90.0),))
    monkeypatch.setattr(Client, "status", lambda _self: board)
    monkeypatch.setattr(Client, "engine", lambda _self, _name: detail)
    monkeypatch.setattr("opsboard.cli.engine.SystemClock", lambda: ManualClock(wall=100.0))
    assert run("status") == 0
    said = capsys.readouterr().out
    assert "  a: tries again in 8 s; restart 2 of 5: exit 1" in said
    assert "route chat: nobody serves it: a backing off" in said
    assert run("engine", "list") == 0
    assert "\n  a: tries again in 8 s; restart 2 of 5: exit 1\n" in capsys.readouterr().out
    assert run("engine", "list", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["state"], told["until"]) == ("backing_off", 107.5)
    assert [(one["state"], one["reason"]) for one in told["timeline"]] == [("backing_off", "exit 1")]
    assert [step["name"] for step in told["transaction"]] == ["start"]


def test_a_start_tells_how_far_it_is_and_a_long_latency_is_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Engine(name="a", supervised=True, state="starting", phase="load", progress=0.43, ttft_p95_s=155.75)
    board = Status(time=100.0, host="h", daemon=DaemonInfo(version="1", pid=2, started=0.0), engines=(engine,))
    monkeypatch.setattr(Client, "status", lambda _self: board)
    assert run("engine", "list") == 0
    assert "load 43%" in capsys.readouterr().out
    assert run("status") == 0
    assert " 156s " in capsys.readouterr().out


def test_numbers_for_people() -> None:
    assert common.shown(None) == "--"
    assert common.shown(0.5, "%", 100) == "50%"
    assert common.shown_bytes(None) == "--"
    assert common.shown_bytes(80 * 2**30) == "80 GiB"
    assert [common.shown_age(age) for age in (None, 5, 75, 3700, 90_000)] == ["--", "5s", "1m15s", "1h01m", "1d1h"]
