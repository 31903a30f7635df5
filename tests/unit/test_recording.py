"""Recordings read back: every field, every suffix, and everything that can be wrong with a file."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from opsboard.core.clock import Now
from opsboard.core.connections import ConnectionReading
from opsboard.core.errors import RecordingError
from opsboard.core.inflight import InflightReading, InflightRequest
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    EngineState,
    Event,
    GpuReading,
    HostReading,
    LifeView,
    Outcome,
    ProcessReading,
    Record,
    Severity,
)
from opsboard.recording import files
from opsboard.recording.reader import Reader
from tests.support.recordings import T0, row, write


def good(path: Path) -> list[float]:
    """Return the seconds of the moments that are read when bad lines are left out."""
    return [moment.now.mono for moment in Reader(path, keep_going=True)]


def refused(path: Path) -> RecordingError:
    with pytest.raises(RecordingError) as caught:
        list(Reader(path))
    assert caught.value.exit_code == 1
    assert str(path) in caught.value.message
    return caught.value


def said(tmp_path: Path, **more: Any) -> dict[type[Record], Any]:
    """Return the readings of a line with these fields by their type."""
    (moment,) = Reader(write(tmp_path / "r.jsonl", row(0, **more)))
    return {type(one): one for one in moment.readings}


# --- what is there ---


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.xz", "rec"])
@pytest.mark.parametrize("header", [(), ('{"schema":"opsboard.recording/1"}',)], ids=["", "schema"])
def test_every_suffix_with_and_without_a_schema(tmp_path: Path, suffix: str, header: tuple[str, ...]) -> None:
    reader = Reader(write(tmp_path / f"r.{suffix}", *header, row(0), "", row(1.5), row(1.5, engine="b", dropped=2)))
    assert [(moment.now, moment.engine) for moment in reader] == [
        (Now(T0, 0.0), "a"),
        (Now(T0 + 1.5, 1.5), "a"),
        (Now(T0 + 1.5, 1.5), "b"),
    ]
    assert (reader.lines, reader.engines, reader.seconds, reader.dropped, reader.bad) == (3, 2, 1.5, 2, 0)


def test_everything_that_a_line_may_hold(tmp_path: Path) -> None:
    found = said(
        tmp_path,
        version="0.32.0",
        processes=[
            {"pid": 1, "name": "APIServer", "rss_anon": 5, "swap": 0, "rss": 9},
            {"pid": 2, "name": "VLLM::EngineCor"},
            {"pid": 3, "name": "python3", "role": "worker"},
            {"pid": 4, "name": "x\x1b[31m"},
        ],
        gpus=[{"index": 0, "uuid": "GPU-1", "name": "H\x07", "xid": 79, "processes": [{"pid": 2, "memory_bytes": 5}]}],
        host={"memory_total": 8, "memory_available": 4, "cgroup_limit": 6},
        inflight=[{"id": "r1", "prompt_tokens": 7, "generated_tokens": 3}],
        connections=[2.5],
        canary={"ok": True, "output_sha256": "ab", "seconds": 0.2},
        events=[{"kind": "restart", "text": "by hand"}],
        unheard_of={"later": 1},
    )
    page = found[EngineReading]
    assert (page.outcome, page.view.version, page.view.running) == (Outcome.OK, "0.32.0", 1.0)
    processes = found[ProcessReading].processes
    assert [process.role for process in processes] == ["api_server", "engine_core", "worker", "other"]
    assert (processes[0].rss_anon_bytes, processes[0].rss_bytes, processes[1].rss_bytes) == (5, 9, None)
    assert processes[3].name == "x\ufffd[31m"
    (gpu,) = found[GpuReading].gpus
    assert (gpu.name, gpu.xid, gpu.processes[0].memory_bytes) == ("H\ufffd", 79, 5)
    host = found[HostReading].host
    assert (host.memory_total_bytes, host.memory_available_bytes, host.cgroup_limit_bytes) == (8, 4, 6)
    requests = (InflightRequest(id="r1", prompt_tokens=7, generated_tokens=3),)
    assert found[InflightReading] == InflightReading(engine="a", requests=requests)
    assert found[ConnectionReading].since == (-2.5,)
    assert found[CanaryReading] == CanaryReading(engine="a", outcome=CanaryOutcome.OK, seconds=0.2, output_sha256="ab")
    assert found[Event] == Event(t=T0, subject="engine/a", kind="restart", text="by hand")


def test_requests_may_have_numbers_for_names(tmp_path: Path) -> None:
    requests = said(tmp_path, inflight=[{"id": 7, "prompt_tokens": 1}])[InflightReading].requests
    assert requests == (InflightRequest(id="7", prompt_tokens=1),)


def test_what_a_line_does_not_hold_is_not_made_up(tmp_path: Path) -> None:
    assert said(tmp_path, gpus=[], processes=None).keys() == {EngineReading}
    assert said(tmp_path, processes=[])[ProcessReading].processes == (), "somebody looked, and there were none"


def test_the_page_is_judged_last(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "inflight": [],
        "processes": [],
        "canary": {"ok": False, "seconds": 5},
        "events": [{"kind": "k", "text": ""}],
    }
    (moment,) = Reader(write(tmp_path / "r.jsonl", row(0, **more)))
    assert isinstance(moment.readings[-1], EngineReading)


@pytest.mark.parametrize(
    ("canary", "outcome"),
    [
        ({"ok": False, "seconds": 5}, CanaryOutcome.TIMEOUT),
        ({"ok": False, "seconds": None}, CanaryOutcome.TIMEOUT),
        ({"ok": False, "seconds": 5, "outcome": "refused"}, CanaryOutcome.REFUSED),
    ],
)
def test_a_canary_that_failed(tmp_path: Path, canary: dict[str, Any], outcome: CanaryOutcome) -> None:
    assert said(tmp_path, canary=canary)[CanaryReading].outcome is outcome


def test_events_may_be_of_others_and_of_before(tmp_path: Path) -> None:
    told = {"kind": "xid", "text": "Xid 79", "t": T0 - 3, "subject": "gpu/GPU-1", "severity": "error"}
    event = said(tmp_path, events=[told])[Event]
    assert (event.t, event.subject, event.severity) == (T0 - 3, "gpu/GPU-1", Severity.ERROR)


@pytest.mark.parametrize(
    ("fields", "outcome", "reason", "error"),
    [
        ({"error": "nobody\x1b listens"}, Outcome.FAILED, None, "nobody\ufffd listens"),
        ({"error": "x", "reason": "refused"}, Outcome.FAILED, "refused", "x"),
        ({"error": "x", "reason": "no_data"}, Outcome.NO_DATA, None, "x"),
        ({"metrics": "vllm:a 1\nvllm:b"}, Outcome.FAILED, "page", "the page is cut"),
        ({"metrics": "up 1\n"}, Outcome.NO_DATA, None, "no series of kind 'vllm'"),
        ({"metrics": "up 1\n", "kind": "sglang"}, Outcome.NO_DATA, None, "reads no metrics of kind 'sglang'"),
        ({"metrics": "up 1\n", "kind": None}, Outcome.NO_DATA, None, "of no engine that opsboard knows"),
    ],
)
def test_a_page_that_says_nothing_is_a_reading_too(
    tmp_path: Path, fields: dict[str, Any], outcome: Outcome, reason: str | None, error: str
) -> None:
    reading = said(tmp_path, **({} if "metrics" in fields else {"metrics": None}), **fields)[EngineReading]
    assert (reading.outcome, reading.reason) == (outcome, reason)
    assert error in reading.error


def test_a_kind_that_is_not_told_is_recognised_and_outlives_failures(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", row(0, kind=None), row(1, kind=None, metrics=None, error="x"), row(2))
    outcomes = [moment.readings[-1].outcome for moment in Reader(path)]  # type: ignore[union-attr]
    assert outcomes == [Outcome.OK, Outcome.FAILED, Outcome.OK]


def test_a_life_is_told_when_it_changes(tmp_path: Path) -> None:
    ready = {"state": "ready", "since": T0, "started": T0 - 5}
    crashed = {"state": "backing_off", "since": T0 + 1, "cause": "exit 1\x1b", "exit_code": 1}
    news: dict[str, Any] = {"metrics": None, "error": "backing off", "reason": "not_asked"}
    reader = Reader(write(tmp_path / "r.jsonl", row(0, life=ready), row(1, life=ready), row(1, life=crashed, **news)))
    lives = [[one for one in moment.readings if isinstance(one, LifeView)] for moment in reader]
    assert [len(one) for one in lives] == [1, 0, 1]
    (last,) = lives[2]
    assert (last.state, last.cause, last.exit_code, last.supervised) == (
        EngineState.BACKING_OFF,
        "exit 1\ufffd",
        1,
        True,
    )
    assert (reader.lines, reader.bad) == (2, 0), "news is no reading"


def test_news_and_a_reading_may_come_at_one_time(tmp_path: Path) -> None:
    news: dict[str, Any] = {"metrics": None, "error": "canary: ok", "reason": "not_asked"}
    reader = Reader(write(tmp_path / "r.jsonl", row(0, **news), row(0), row(0, **news)))
    assert [len(moment.readings) for moment in reader] == [0, 1, 0]
    assert (reader.lines, reader.engines) == (1, 1)


def test_what_came_twice_or_late_is_passed_over(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.jsonl", row(0), row(0), row(2), row(1), row(-2.5, engine="b"), row(3), row(3, engine="b")
    )
    reader = Reader(path)
    assert [(moment.engine, moment.now.mono) for moment in reader] == [("a", 0), ("a", 2), ("a", 3), ("b", 3)]
    assert (reader.lines, reader.late, reader.engines, reader.seconds) == (4, 3, 2, 3)


def test_a_clock_that_was_set_back_takes_no_reading_away(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", row(0), row(2), row(-3600), row(-3598), row(-3596))
    reader = Reader(path)
    assert [moment.now.mono for moment in reader] == [0, 2, 4, 6, 8]
    assert (reader.late, reader.seconds) == (0, 8)
    assert [moment.now.wall - 1_700_000_000 for moment in reader] == [0, 2, -3600, -3598, -3596]


# --- what is wrong ---


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: is not JSON"),
        (b"\xff\xfe", "line 2: is not JSON"),
        ("[]", "line 2: is no reading: expected `object`, got `array`"),
        ("{}", "line 2: is no reading: object missing required field `t`"),
        ({"t": "now", "engine": "a"}, "line 2: `t`: expected `float`, got `str`"),
        ({"t": 1_700_000_000_000, "engine": "a"}, "line 2: `t`: expected `float` < 1"),
        (row(0.5, engine=""), "line 2: `engine`: expected `str` of length >= 1"),
        (row(0.5, processes=[{"pid": "x", "name": "y"}]), "line 2: `processes[0].pid`: expected `int`, got `str`"),
        (row(0.5, inflight=[{"id": "r", "prompt_tokens": -1}]), "line 2: `inflight[0].prompt_tokens`: expected"),
        (row(0.5, canary={"ok": True, "seconds": 1, "outcome": "odd"}), "line 2: `canary.outcome`: invalid enum value"),
        (row(0.5, metrics=None), "line 2: expected either `metrics` or `error`, found neither"),
        (row(0.5, error="x"), "line 2: expected either `metrics` or `error`, found both"),
    ],
)
def test_a_bad_line_is_named_and_can_be_left_out(
    tmp_path: Path, line: str | bytes | dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "r.jsonl", row(0), line, row(1))
    error = refused(path)
    assert error.message.startswith(f"{path}: {message}")
    assert error.line == 2
    assert "--keep-going" in (error.hint or "")
    reader = Reader(path, keep_going=True)
    assert [moment.now.mono for moment in reader] == [0, 1]
    assert (reader.lines, reader.bad, [str(one) for one in reader.problems]) == (2, 1, [str(error)])


@pytest.mark.parametrize("schema", ["opsboard.recording/2", "opsboard.status/1"])
def test_another_schema_is_not_read_on(tmp_path: Path, schema: str) -> None:
    path = write(tmp_path / "r.jsonl", row(0), f'{{"schema":"{schema}"}}', row(1))
    assert f"line 2: the schema is '{schema}'" in refused(path).message
    assert good(path) == [0]


@pytest.mark.parametrize("suffix", [".jsonl", ".gz", ".xz"])
def test_what_is_before_a_cut_is_good(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r{suffix}"
    if suffix == ".jsonl":
        write(path, row(0), row(1), row(2))
        path.write_bytes(path.read_bytes()[:-30])
    else:
        rows = [json.dumps(row(second)).encode() + b"\n" for second in range(3000)]
        whole = b"".join(rows)
        packed = gzip.compress(whole) if suffix == ".gz" else lzma.compress(whole)
        path.write_bytes(packed[: len(packed) // 2])
    error = refused(path)
    assert "cut here" in error.message
    seconds = good(path)
    assert seconds == list(range(len(seconds)))
    assert error.line == len(seconds) + 1 > 2


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)], ids=["gz", "xz"])
def test_damage_inside_a_packed_file(tmp_path: Path, suffix: str, pack: Any) -> None:
    path = tmp_path / f"r{suffix}"
    packed = bytearray(pack(b"".join(json.dumps(row(second)).encode() + b"\n" for second in range(3000))))
    packed[len(packed) // 2 : len(packed) // 2 + 20] = bytes(20)
    path.write_bytes(packed)
    assert refused(path).line is not None
    seconds = good(path)[:1000]  # what a damaged gzip yields behind them may look good
    assert seconds == list(range(len(seconds)))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("r.gz", b'{"t":1}\n', "is not compressed and is named .gz"),
        ("r.xz", gzip.compress(b"{}\n"), "is a .gz file inside and is named .xz"),
        ("r.jsonl", lzma.compress(b"{}\n"), "is a .xz file inside and is not named so"),
        ("r.jsonl", b"\x28\xb5\x2f\xfd rest", "is a .zst file"),
        ("r.jsonl", b"", "is empty"),
    ],
    ids=["plain", "gz", "xz", "zst", "empty"],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    error = refused(path)
    assert message in error.message
    assert error.hint
    assert good(path) == []


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "none.jsonl").message
    assert "cannot be read: Is a directory" in refused(tmp_path).message


def test_a_line_without_end_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LINE_BYTES", 1000)
    path = write(tmp_path / "r.jsonl", row(0), "x" * 5000, row(1))
    assert refused(path).line == 2
    assert good(path) == [0]
