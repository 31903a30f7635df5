"""What is recorded is what is read back, whatever it is and however it is packed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    Event,
    HostReading,
    HostView,
    Outcome,
    ProcessReading,
    ProcessView,
    Record,
    Severity,
)
from opsboard.core.text import sanitise
from opsboard.recording.files import create
from opsboard.recording.lines import Header, Line, canary_line, line
from opsboard.recording.reader import Reader

words = st.text(min_size=1, max_size=40).map(sanitise)
sizes = st.none() | st.integers(0, 2**50)
pages = st.integers(0, 10**9).map(
    lambda n: f'vllm:num_requests_running{{engine="0",model_name="\\"a\\\\b\\n\u2028é"}} {n}\n'.encode()
)
failed = st.builds(
    EngineReading,
    engine=words,
    outcome=st.sampled_from([Outcome.FAILED, Outcome.NO_DATA]),
    error=words,
    reason=st.none(),
)
answered = st.builds(EngineReading, engine=words, outcome=st.just(Outcome.OK), page=pages)
processes = st.builds(
    ProcessView,
    pid=st.integers(1, 2**22),
    started=st.just(0.0),
    name=words,
    role=st.sampled_from(["api_server", "engine_core", "worker", "other"]),
    rss_bytes=sizes,
    rss_anon_bytes=sizes,
    swap_bytes=sizes,
)
hosts = st.builds(HostView, memory_total_bytes=sizes, memory_available_bytes=sizes, cgroup_limit_bytes=sizes)
canaries = st.tuples(st.sampled_from(CanaryOutcome), st.floats(0, 60), st.none() | words)
events = st.builds(
    Event,
    t=st.floats(1, 2e9),
    subject=st.sampled_from(["host", "gpu/GPU-1"]) | words.map(lambda name: f"engine/{name}"),
    kind=words,
    text=words,
    severity=st.sampled_from(Severity),
)


around = st.fixed_dictionaries(
    {
        "processes": st.none() | st.lists(processes, max_size=2).map(tuple),
        "host": st.none() | hosts,
        "canary": canaries,
        "events": st.lists(events, max_size=2).map(tuple),
    }
)


@given(reading=failed | answered, t=st.floats(1, 2e9), around=around, suffix=st.sampled_from([".jsonl", ".gz"]))
@settings(max_examples=50)
def test_what_is_written_is_read(reading: EngineReading, t: float, around: dict[str, Any], suffix: str) -> None:
    known, host, canary, told = (around[key] for key in ("processes", "host", "canary", "events"))
    name = reading.engine
    asked = CanaryReading(engine=name, outcome=canary[0], seconds=canary[1], error=canary[2])
    written = line(reading, t, processes=known, host=host, events=told)
    news = canary_line(asked, t)
    assert msgspec.json.decode(msgspec.json.encode(written), type=Line) == written
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"r{suffix}"
        with create(path, force=False) as file:
            file.writelines(msgspec.json.encode(one) + b"\n" for one in (Header(), written, news))
        moment, after = Reader(path)
    page = moment.readings[-1]
    assert isinstance(page, EngineReading)
    assert (moment.now.wall, moment.engine, page.engine, page.outcome) == (t, name, name, reading.outcome)
    assert page.error == reading.error
    if reading.page is not None:
        assert page.view is not None
        assert page.view.running == float(reading.page.split()[-1])
    expected: list[Record] = []
    if host is not None:
        expected.append(HostReading(outcome=Outcome.OK, host=host))
    if known is not None:
        expected.append(ProcessReading(engine=name, outcome=Outcome.OK, processes=known))
    expected += told
    assert list(moment.readings[:-1]) == expected
    assert (after.engine, after.readings) == (name, [asked])
