"""The proving ground with a real vLLM, as far as it needs none: its stories, and what becomes of their labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proving.labelled import faults, judged
from tests.proving.real.__main__ import episodes
from tests.proving.real.clients import _ANSWER, _PROMPT, _quantile
from tests.proving.real.recorder import _changed, _settled
from tests.proving.real.scenarios import DEV, STORIES, TEST, Drawn, Stage
from tests.proving.score import judge

RECORDINGS = Path(__file__).parents[1] / "fixtures/recordings"


@pytest.mark.parametrize("name", STORIES)
def test_each_story_is_drawn_by_its_seed_and_has_time_to_learn_before_anything_is_wrong(name: str) -> None:
    stages = STORIES[name](Drawn(1))
    assert stages == STORIES[name](Drawn(1))
    assert stages != STORIES[name](Drawn(2))
    assert all(not stage.wrong or stage.faults or "kv_leak" in stage.wrong for stage in stages)
    quiet = next((index for index, stage in enumerate(stages) if stage.wrong), len(stages))
    assert sum(stage.seconds for stage in stages[:quiet]) >= 50


def test_test_seeds_are_not_those_of_development() -> None:
    assert {seed for _, seed in DEV} & {seed for _, seed in TEST} == set()
    assert {name for name, _ in (*DEV, *TEST)} <= set(STORIES)


def test_what_leaks_has_no_end() -> None:
    leak = Stage(seconds=1.0, wrong=("kv_leak", "latency"))
    assert [(row["kind"], row["detector"]) for row in _changed((), leak)] == [
        ("fault", "kv_leak"),
        ("fault", "latency"),
    ]
    assert _changed(leak.wrong, leak) == []
    assert [row["detector"] for row in _changed(leak.wrong, Stage(seconds=1.0))] == ["latency"]


def test_labels_say_when_the_engine_really_did_it() -> None:
    labels = [
        {"t": 1.0, "kind": "start"},
        {"t": 10.0, "kind": "fault", "detector": "stall", "also": []},
        {"t": 40.0, "kind": "end", "detector": "stall"},
        {"t": 50.0, "kind": "fault", "detector": "kv_leak", "also": []},
    ]
    log = [
        {"t": 10.5, "kind": "hang"},
        {"t": 35.5, "kind": "hang_end"},
        {"t": 52.0, "kind": "loss", "blocks": 2},
        {"t": 53.0, "kind": "loss", "blocks": 1},
    ]
    hang, leak = faults(_settled(labels, log))
    assert (hang.onset, hang.end) == (10.5, 35.5)
    assert (leak.onset, leak.end, leak.losses) == (52.0, None, (52.0, 52.0, 53.0))


def test_lengths_are_those_of_the_trace() -> None:
    assert [_quantile(_PROMPT, q) for q in (0.0, 0.5, 1.0)] == [1, 340, 1500]
    assert _quantile(_ANSWER, 0.525) == pytest.approx((43 + 50) / 2)


def test_a_leak_of_a_real_engine_is_scored_by_its_pages_alone_and_with_its_requests() -> None:
    alone, known = (judge(episode) for episode in episodes([RECORDINGS / "leak_abort-101.jsonl.xz"]))
    assert (alone.episode.known, known.episode.known) == (False, True)
    for verdict, after_s, blocks in ((alone, 98.0, 106), (known, 21.0, 23)):
        (hit,) = verdict.found
        assert hit.after_s <= after_s
        assert hit.blocks is not None
        assert hit.blocks <= blocks
        assert (verdict.missed, verdict.false) == ((), ())


def test_a_hang_that_no_page_shows_is_found_by_the_requests_under_way() -> None:
    verdict = judge(judged(RECORDINGS / "hang_idle-204.jsonl.xz"))
    (hit,) = verdict.found
    assert hit.fault.detector == "stall"
    assert hit.after_s <= 15.0
    assert (verdict.missed, verdict.false) == ((), ())
