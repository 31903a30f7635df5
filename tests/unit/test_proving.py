"""A small part of the proof: faults are found, healthy life has none, what was interrupted goes on."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from tests.proving import __main__ as proving
from tests.proving import burning, proof, results
from tests.proving.baselines import BASELINES
from tests.proving.builds import BUILDS, Load
from tests.proving.cases import Case, rounds
from tests.proving.confounders import KINDS
from tests.proving.faults import GRID
from tests.proving.fluid_engine import FluidEngine
from tests.proving.playing import Played, play
from tests.proving.score import Claimed, judge

if TYPE_CHECKING:
    from pathlib import Path

SHORT = Case(seed=1, build="small", confounder="steady", seconds=1000.0, onset=600.0, end=900.0)
FAULTS = {
    "kv_leak": replace(SHORT, build="roomy", fault="a block", size=1.0, known=True),
    "latency": replace(SHORT, fault="slow steps", size=1.3),
    "stall": replace(SHORT, fault="hang", size=30.0, end=630.0, seconds=700.0),
    "preemption_storm": replace(SHORT, build="padded", fault="thrown back", size=5.0, end=700.0, seconds=760.0),
}


@pytest.fixture(scope="module")
def played() -> dict[str, Played]:
    """Return an episode of each."""
    return {name: play(case) for name, case in FAULTS.items()}


@pytest.mark.parametrize("detector", FAULTS)
def test_a_fault_is_found_and_nothing_else(played: dict[str, Played], detector: str) -> None:
    verdict = judge(played[detector].episode)
    assert [hit.fault.detector for hit in verdict.found] == [detector]
    assert verdict.false == ()
    assert verdict.found[0].after_s <= 120


def test_half_an_hour_of_everything_healthy_has_none() -> None:
    healthy = play(replace(SHORT, confounder="mixed", seconds=2000.0, memory="sawtooth", seed=3))
    assert healthy.episode.claims == ()
    assert healthy.episode.faults == ()
    assert healthy.baselines, "what people use today is not so quiet"


def test_the_tables_say_what_was_found(played: dict[str, Played]) -> None:
    text = proof.told(list(played.values()))
    assert "| latency | slow steps 1.3 | 1 of 1 |" in text
    assert "| stall | 1 of 1 (0.02–1.00) ≥ 0.99 |" in text
    assert all(f"| {rule.name.split(': ')[0]} |" in text for rule in BASELINES)
    missed = replace(played["stall"], episode=replace(played["stall"].episode, claims=()))
    assert "no: precision, recall, time" in proof.told([missed])


def test_a_claim_of_another_detector_is_false(played: dict[str, Played]) -> None:
    episode = played["latency"].episode
    wrong = replace(episode, claims=(Claimed(detector="stall", opened=700.0),))
    verdict = judge(wrong)
    assert (len(verdict.missed), len(verdict.false)) == (1, 1)


def test_a_proof_goes_on_where_it_was_interrupted(
    played: dict[str, Played], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = list(FAULTS.values())
    asked: list[Case] = []

    def remembered(case: Case) -> Played:
        asked.append(case)
        return next(one for one in played.values() if one.case == case)

    monkeypatch.setattr(proving, "play", remembered)
    path = tmp_path / "results" / "dev.jsonl"
    assert len(proving.prove(path, iter(cases[:3]), 1.0, 60.0)) == 3
    with path.open("ab") as file:
        file.write(b'{"case":{"seed":')  # killed while it wrote
    found = proving.prove(path, iter(cases), 1.0, 60.0)
    assert asked == cases, "none of them twice"
    assert found == list(played.values())
    assert list(results.read(path)) == found


def test_a_round_has_every_fault_and_every_kind_of_healthy_life() -> None:
    first, second = islice(rounds("dev"), 2)
    assert {case.fault for case in first} == {kind.name for kind in GRID} | {""}
    assert {case.confounder for case in first if not case.fault} == set(KINDS)
    assert not {case.name for case in first} & {case.name for case in second}
    assert not {case.seed for case in first} & {case.seed for case in next(rounds("test"))}


def test_an_episode_is_the_same_when_played_again(played: dict[str, Played]) -> None:
    assert play(FAULTS["stall"]).episode == played["stall"].episode


def test_its_engine_conserves_tokens_and_blocks() -> None:
    engine = FluidEngine(next(one for one in BUILDS if one.name == "tight"), 5)
    load = Load(rate=6.0, prompt=300.0, output=150.0, abort=0.0)
    size = engine.build.shape.block_size
    for _ in range(600):
        view = engine.second(load)
        rank, counters = view.ranks[0], view.counters
        used = round((rank.kv_usage or 0.0) * (engine.build.shape.blocks - 1))
        tokens = counters["prompt_tokens"] + counters["generation_tokens"]
        tokens -= counters["completed_prompt_tokens"] + counters["completed_generation_tokens"]
        prefilling = sum(-(-(one.hit + one.compute - one.left) // size) for one in engine.prefilling)
        assert used - prefilling <= tokens / size + len(engine.decoding)
    assert engine.counts.counters["preemptions"] > 0, "it was full"


def test_the_formula_of_burning_budgets() -> None:
    counts = [burning.Count(second, 0.0, 10.0 * second) for second in range(3600)]
    assert burning.first(counts, 0.01) is None
    counts += [burning.Count(3600 + second, 10.0 * second, 36_000.0 + 10.0 * second) for second in range(600)]
    found = burning.first(counts, 0.01)
    assert found is not None
    # 1x over all that is known: 1 % of 36,000 events and of those since.
    assert found == pytest.approx(3600 + 37, abs=2)
