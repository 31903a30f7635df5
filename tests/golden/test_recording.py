"""A minute of a real overload through the whole pipeline: the boards it makes, the events, the samples.

After a wanted change write the file anew with ``python -m tests.golden.test_recording`` and read the difference.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from opsboard.core.clock import Now
from opsboard.core.wire import DaemonInfo
from opsboard.daemon.board import detail, status
from opsboard.daemon.pipeline import Effects, EngineSpec, PipelineState, feed
from tests.support.replay import replay

TESTS = Path(__file__).parents[1]
RECORDING = TESTS / "fixtures/recordings/overload.jsonl.xz"
GOLDEN = TESTS / "golden/pipeline/overload.json"
BOARDS_AT = (1, 10, 30, 64)
NAME = "vllm-a"


def boards() -> dict[str, Any]:
    """Feed the recording; return boards at some moments, the last detail, all events, and the samples by series."""
    state = PipelineState("gpu-a", [EngineSpec(name=NAME, url="http://127.0.0.1:8000")])
    daemon = DaemonInfo(version="0", pid=1, started=0.0)
    seen, effects, now = {}, [], Now(wall=0.0, mono=0.0)
    for n, (now, page, processes) in enumerate(replay(RECORDING)):
        effects += [feed(state, page, now), feed(state, processes, now)]
        if n in BOARDS_AT:
            seen[str(n)] = plain(status(state, daemon, now).engines[0])
    found = detail(state, NAME, now)
    return {
        "boards": seen,
        "latencies": plain(found.latencies),
        "finished": plain(found.finished),
        "events": [plain(event) for one in effects for event in one.events],
        "samples": counted(effects),
    }


def counted(effects: list[Effects]) -> dict[str, Any]:
    """Return how many samples each series got and the last of them."""
    counts = Counter(sample.series for one in effects for sample in one.samples)
    last = {sample.series: sample.value for one in effects for sample in one.samples}
    return {series: [counts[series], rounded(last[series])] for series in sorted(counts)}


def plain(value: object) -> Any:
    return rounded(msgspec.json.decode(msgspec.json.encode(value)))


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def test_a_recorded_overload_makes_the_boards_it_made() -> None:
    assert boards() == json.loads(GOLDEN.read_text())


def test_the_boards_show_an_overload() -> None:
    board = boards()["boards"]["30"]
    assert board["waiting"] > 0
    assert board["kv_usage"] > 0.8
    assert board["preemptions_per_s"] > 0
    assert board["ttft_p95_s"] > board["ttft_p50_s"] > 0
    assert board["error_ratio"] == 0.0


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(boards(), indent=1, sort_keys=True) + "\n")
