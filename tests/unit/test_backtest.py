"""``opsboard backtest``: what it finds in real recordings, what it prints, how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alerts.base import Detector, Observation, Step
from opsboard.cli.main import main
from opsboard.core.inflight import InflightRequest
from opsboard.core.model import Event, Finding, FindingChange, Outcome, Record
from opsboard.daemon.backtest import Judge
from opsboard.daemon.judging import Judging
from opsboard.recording.reader import Reader
from tests.support.recordings import T0, row, write

RECORDINGS = Path(__file__).parents[1] / "fixtures/recordings"


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Run the verb; return exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as caught:
        main(["backtest", *map(str, words)])
    said = capsys.readouterr()
    return caught.value.code or 0, said.out, said.err  # type: ignore[return-value]


def plain(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def stalls(path: Path, first: float = 0, last: float = 60) -> Path:
    """Write a recording of an engine that works without a step between two seconds."""
    return write(path, *(row(n, steps=1000 + 10 * (min(n, first) + max(0, n - last))) for n in range(90)))


# --- what is found ---


def test_nothing_else_is_found_by_these_two(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("healthy_mix-2", "slow_20pct-3", "leak_slow_busy-5", "leak_tiny_idle-1")
    code, out, _ = run(capsys, *(RECORDINGS / f"{name}.jsonl.xz" for name in names), "--json")
    *found, last = plain(out)
    assert [line for line in found if line["detector"] in {"stall", "engine_down"}] == []
    assert last["summary"]["readings"] == 342 + 340 + 283 + 261
    assert (code, last["summary"]["engines"], last["summary"]["recordings"]) == (0, 4, 4)


def test_people_get_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, stalls(tmp_path / "s.jsonl", 10, 50), write(tmp_path / "n.jsonl", row(0)))
    head, line, told, blind, nothing, blinder = out.splitlines()
    assert (code, err) == (0, "")
    assert head.split() == ["WHEN", "AT", "LASTED", "ENGINE", "DETECTOR", "SEVERITY", "WHAT"]
    assert " +22.0s  29.0s   a       stall     page      suspected: requests run and no step ends" in line
    assert f"{tmp_path}/s.jsonl: 1 finding in 90 readings of 1 engine over 1m29s, judged " in told
    assert blind.startswith("  a: nobody could judge at the end: ")
    assert "latency (its page does not tell how long tokens take, generation_tokens)" in blind
    assert nothing == f"{tmp_path}/n.jsonl: nothing found in 1 readings of 1 engine over 0s"
    assert "latency" in blinder


def test_what_could_not_be_judged_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "n.jsonl", row(0))
    summary = plain(run(capsys, path, "--json")[1])[-1]["summary"]
    said = {one["detector"]: one for one in summary["unjudged"]}
    assert {(one["recording"], one["engine"]) for one in said.values()} == {(str(path), "a")}
    assert said["latency"]["state"] == "unknown"
    assert said["latency"]["reason"].startswith("its page does not tell how long tokens take")
    assert {"slo_burn", "engine_down"} & set(said) == set()


def test_what_nothing_closes_is_still_open(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = stalls(tmp_path / "s.jsonl", 10, 100)
    assert "still open" in run(capsys, path)[1]
    opened, last = plain(run(capsys, path, "--json")[1])
    assert (opened["state"], last["summary"]["findings"], last["summary"]["open"]) == ("open", 1, 1)


def test_a_recorded_canary_confirms(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = [row(n, steps=1000 + 10 * min(n, 10)) for n in range(40)]
    rows[21]["canary"] = {"ok": False, "seconds": 5.0}
    (opened, _) = plain(run(capsys, write(tmp_path / "s.jsonl", *rows), "--json")[1])
    assert opened["confirmed"] == opened["t"] == T0 + 21


def test_a_crash_is_found_and_a_wanted_restart_is_not(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def life(second: float, state: str, **more: Any) -> dict[str, Any]:
        told = {"state": state, "since": T0 + second, "started": T0, **more}
        return row(second, metrics=None, error=state, reason="not_asked", life=told)

    core, alone = ({"pid": n, "name": name} for n, name in ((2, "EngineCore"), (1, "APIServer")))
    before = [row(n, processes=[alone, core]) for n in range(3)]
    gone = [row(n, processes=[alone]) for n in (4, 5)]
    wanted = write(tmp_path / "w.jsonl", life(-1, "ready"), *before, life(3, "stopping"), *gone, life(6, "starting"))
    crash = write(
        tmp_path / "c.jsonl", life(-1, "ready"), *before, life(3, "backing_off", cause="killed", exit_code=-9)
    )
    assert len(plain(run(capsys, wanted, "--json")[1])) == 1
    opened, _ = plain(run(capsys, crash, "--json")[1])
    assert (opened["detector"], opened["t"], opened["evidence"]["exit_code"]) == ("engine_down", T0 + 3, -9)


# --- how it is asked ---


def test_each_recording_is_judged_from_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = stalls(tmp_path / "s.jsonl", 10, 50)
    once, twice = plain(run(capsys, path, "--json")[1]), plain(run(capsys, path, path, "--json")[1])
    assert twice[:-1] == [*once[:-1], *once[:-1]]
    assert twice[-1]["summary"]["findings"] == 2 * once[-1]["summary"]["findings"] == 2


def test_the_configuration_of_detectors_counts_only_when_it_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stalls(tmp_path / "s.jsonl", 10, 50)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opsboard.toml").write_text("[detector.stall]\nenabled = false\n")
    loose = tmp_path / "loose.toml"
    loose.write_text('[detector.stall]\nseverity = "note"\nunheard = "20s"\n')
    assert len(plain(run(capsys, path, "--json")[1])) == 3
    assert len(plain(run(capsys, path, "--json", "--config", "opsboard.toml")[1])) == 1
    opened = plain(run(capsys, path, "--json", "--config", loose)[1])[0]
    assert (opened["t"], opened["severity"]) == (T0 + 30, "note")


def test_a_whole_configuration_of_another_machine_will_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, config = stalls(tmp_path / "s.jsonl", 10, 50), tmp_path / "opsboard.toml"
    engine = '[[engine]]\nname = "b"\nurl = "http://127.0.0.1:1"\napi_key_file = "/nowhere"\n'
    config.write_text(f"{engine}[detector.stall]\nenabled = false\n")
    assert len(plain(run(capsys, path, "--json", "--config", config)[1])) == 1
    config.write_text(f"{engine}[detectors.stall]\nenabled = false\n")
    code, _, err = run(capsys, path, "--json", "--config", config)
    assert (code, "`detectors`" in err) == (2, True), "a slip would else go unseen"


@pytest.mark.parametrize(
    "words", [[], ["--nonsense"], ["x.jsonl", "--config", "none.toml"]], ids=["nothing", "option", "config"]
)
def test_bad_usage_is_exit_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *words)[0] == 2


def test_a_bad_file_is_exit_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", row(0), "{", row(1))
    code, out, err = run(capsys, path, "--json")
    assert (code, out) == (1, "")
    assert err.startswith(f"opsboard: {path}: line 2: is not JSON")
    assert "--keep-going" in err
    code, out, err = run(capsys, path, "--json", "--keep-going")
    assert (code, json.loads(out)["summary"]["bad_lines"]) == (0, 1)
    assert err.startswith(f"left out: {path}: line 2: is not JSON")
    assert run(capsys, write(tmp_path / "none.jsonl", "{"), "--keep-going")[0] == 1, "not one good line"


def test_no_more_than_a_few_bad_lines_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    err = run(capsys, write(tmp_path / "r.jsonl", row(0), *("{" for _ in range(50))), "--keep-going")[2]
    assert err.splitlines()[-1] == f"left out: {tmp_path}/r.jsonl: 45 more"
    assert len(err.splitlines()) == 6


def test_a_detector_that_fails_is_told_and_is_exit_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Params(Record, frozen=True):
        pass

    broken = Detector(
        name="broken", severity="note", summary="", params=Params, begin=id, step=lambda _state, _seen: Step(1 / 0)
    )
    monkeypatch.setattr("opsboard.daemon.pipeline.Judging", lambda: Judging([broken]))
    code, _, err = run(capsys, write(tmp_path / "r.jsonl", row(0), row(1)))
    assert code == 1
    assert err.count("the detector broken failed on engine a") == 1


# --- what detectors get ---


def seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Observation]:
    """Return what a detector sees of a recording, page by page."""
    found: list[Observation] = []

    class Params(Record, frozen=True):
        pass

    def step(state: None, one: Observation) -> Step:
        if one.fresh:
            found.append(one)
        return Step(state, Finding(detector="eye", engine=one.engine, summary="", since=0.0))

    eye = Detector(name="eye", severity="note", summary="", params=Params, begin=lambda _: None, step=step)
    monkeypatch.setattr("opsboard.daemon.pipeline.Judging", lambda: Judging([eye]))
    changes: list[FindingChange] = list(Judge().changes(Reader(path)))
    assert len(changes) == len({one.engine for one in found})
    return found


def test_detectors_get_all_that_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = seen(
        write(
            tmp_path / "r.jsonl",
            row(
                0,
                host={"memory_total": 8, "cgroup_limit": 6},
                gpus=[{"index": 0, "uuid": "GPU-1"}],
                processes=[{"pid": 5, "name": "EngineCore", "rss_anon": 7}],
                inflight=[{"id": "r", "prompt_tokens": 9}],
                events=[{"kind": "restart", "text": "by hand"}],
            ),
            row(1, running=2, inflight=[{"id": "r", "prompt_tokens": 9}]),
        ),
        monkeypatch,
    )
    assert first.reading is not None
    assert first.reading.outcome is Outcome.OK
    assert first.host is not None
    assert (first.host.memory_total_bytes, first.host.cgroup_limit_bytes) == (8, 6)
    assert [gpu.uuid for gpu in first.gpus] == ["GPU-1"]
    assert [(one.role, one.rss_anon_bytes) for one in first.processes] == [("engine_core", 7)]
    assert first.accounted == first.inflight == (InflightRequest(id="r", prompt_tokens=9),)
    assert second.inflight == first.inflight
    assert second.accounted is None, "the page knows of one more"


def test_what_was_under_way_is_of_one_page_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "r.jsonl", row(0, running=0, inflight=[]), row(1, running=0))
    assert [one.accounted for one in seen(path, monkeypatch)] == [(), None]


def test_events_reach_whom_they_concern_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xid = {"kind": "xid", "text": "79", "subject": "gpu/GPU-1"}
    path = write(
        tmp_path / "r.jsonl",
        row(0),
        row(0, engine="b"),
        row(1, events=[xid, {"kind": "restart", "text": ""}]),
        row(1, engine="b"),
        row(2),
    )
    kinds = [(one.engine, [event.kind for event in one.events]) for one in seen(path, monkeypatch)]
    assert kinds == [("a", []), ("b", []), ("a", ["xid", "restart"]), ("b", ["xid"]), ("a", [])]


def test_events_that_nobody_hears_do_not_pile_up() -> None:
    judging = Judging([])
    for n in range(1000):
        judging.hear("a", Event(t=float(n), subject="engine/a", kind="k", text=""))
    assert len(judging._news["a"]) == 64
    judging.begin_anew("a")
    assert "a" not in judging._news
