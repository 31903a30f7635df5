"""What detectors remember outlives the daemon: one that begins anew in the middle finds the same, at the same time."""

from __future__ import annotations

import asyncio
import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from alerts.base import Detector, Observation, Step
from alerts.detectors import slo_burn, stall
from opsboard.config.detectors import Setting
from opsboard.config.schema import Slo
from opsboard.config.units import Seconds
from opsboard.core.clock import ManualClock, Now
from opsboard.core.errors import StoreError
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    FindingChange,
    GpuProcess,
    GpuReading,
    GpuView,
    Outcome,
    ProcessReading,
    Record,
)
from opsboard.core.version import __version__
from opsboard.daemon.judging import Judging
from opsboard.daemon.keeping import Keeper
from opsboard.daemon.memory import Life, Mind, Recalled, life_of, pack, unpack
from opsboard.daemon.pipeline import EngineSpec, PipelineState, feed
from opsboard.recording.reader import Moment, Reader
from opsboard.store.memory_files import MOST_BYTES, MemoryFiles
from tests.support.watched import WHOLE, page

RECORDINGS = Path(__file__).parents[1] / "fixtures/recordings"
NAME = "vllm-a"
BOOT = "b"
SLO = slo_burn.Params(slo=Slo(e2e_p95=Seconds(0.5), ttft_p95=Seconds(0.05)))
"""What the recorded engine breaks."""


def daemon() -> PipelineState:
    """Return a daemon that has seen nothing."""
    state = PipelineState("h", [EngineSpec(name=NAME, url="http://127.0.0.1:8001")])
    state.judging.configure({"slo_burn": Setting(enabled=True, severity="page", params=SLO)})
    return state


def memory(state: PipelineState, now: Now) -> bytes:
    return pack(state.judging.minds(NAME), life_of(state.engines[NAME]), BOOT, now)


def recalled(data: bytes, state: PipelineState, now: Now, boot: str = BOOT) -> Recalled | None:
    return unpack(data, state.judging.known(), boot, now)


class Restart(NamedTuple):
    """One of the daemon: it begins anew ``at``, saw nothing for ``away_s`` before, its memory is older by ``old_s``."""

    at: float
    away_s: float = 0.0
    old_s: float = 0.0


@cache
def moments(name: str) -> tuple[Moment, ...]:
    return tuple(Reader(RECORDINGS / f"{name}.jsonl.xz"))


@cache
def found(name: str, *restarts: Restart) -> tuple[FindingChange, ...]:
    """Return what is found in a recording, each change once."""
    state, to_come, data = daemon(), list(restarts), b""
    told: list[FindingChange] = []
    standing: dict[str, tuple[object, ...]] = {}
    for moment in moments(name):
        if to_come:
            at, away_s, old_s = to_come[0]
            mono = moment.now.mono
            lost_s = away_s + old_s
            if mono <= at - lost_s or (not lost_s and mono >= at):
                data = memory(state, moment.now)
            if at - away_s <= mono < at:
                continue
            if mono >= at:
                to_come.pop(0)
                state = daemon()
                kept = recalled(data, state, moment.now)
                assert kept is not None
                assert set(kept.states) == set(state.judging.known())
                state.judging.recall(NAME, kept)
        for reading in moment.readings:
            for change in feed(state, reading, moment.now).findings:
                what = change.open, change.finding.confirmed, change.finding.severity
                if standing.get(change.finding.detector) != what:  # what stands is claimed anew by a new daemon
                    standing[change.finding.detector] = what
                    told.append(change)
    return tuple(told)


@pytest.mark.parametrize(
    ("name", "detectors"),
    [("leak_slow_busy-5", {"kv_leak", "slo_burn"}), ("slow_20pct-3", {"latency", "slo_burn"})],
)
def test_a_restart_of_the_daemon_changes_nothing(name: str, detectors: set[str]) -> None:
    """Not when anything is found, nor a number of its evidence."""
    whole = found(name)
    assert {change.finding.detector for change in whole} == detectors
    assert found(name, *(Restart(at) for at in (40, 70, 100, 130, 180, 190, 220))) == whole


def test_a_killed_daemon_forgets_a_minute_and_counts_it_all_the_same() -> None:
    """Its counters are the engine's, which went on: the objective is broken when it is broken."""
    whole = found("slow_20pct-3")
    early = found("slow_20pct-3", Restart(at=55, away_s=5, old_s=30))
    assert [change.t for change in early if change.finding.detector == "slo_burn"] == [whole[0].t]
    late = found("slow_20pct-3", Restart(at=150, away_s=10, old_s=40))
    (burn, slow, *_), (_, slow_late, *_) = whole, late
    assert late[0] == burn
    assert slow.finding.detector == slow_late.finding.detector == "latency"
    assert 0 < slow_late.t - slow.t < 20
    assert slow_late.finding.since == slow.finding.since


def test_what_is_remembered_of_cards_answers_and_processes_is_the_same_as_bytes() -> None:
    state, clock = daemon(), ManualClock()
    held = (GpuProcess(pid=3, memory_bytes=1 << 30, engine=NAME),)
    for step in range(40):
        now = clock.advance(5.0)
        card = GpuView(
            index=0, uuid="GPU-1", processes=held, memory_used_bytes=2 << 30, memory_total_bytes=4 << 30,
            ecc_uncorrected=step // 20, xid=13 if step > 30 else None, throttle=("hw_thermal",) if step > 10 else (),
        )  # fmt: skip
        feed(state, GpuReading(outcome=Outcome.OK, gpus=(card,)), now)
        feed(state, ProcessReading(engine=NAME, outcome=Outcome.OK, processes=WHOLE), now)
        golden = CanaryReading(engine=NAME, outcome=CanaryOutcome.OK, seconds=0.1, output_sha256="ab" * 32)
        feed(state, golden, now)
        feed(state, msgspec.structs.replace(page(100.0 * step, running=2.0), engine=NAME), now)
    assert {finding.detector for finding in state.judging.claims(NAME)} >= {"gpu_fault"}
    kept = recalled(memory(state, clock.now()), state, clock.now())
    assert kept is not None
    for mind in state.judging.minds(NAME):
        if mind.detector.name != "slo_burn":  # its windows are compared by what is found
            assert kept.states[mind.detector.name] == mind.state, mind.detector.name


# --- what does not count ---


def small(start: float | None = 100.0) -> tuple[bytes, PipelineState, ManualClock]:
    """Return the memory of a daemon that has read a little."""
    state, clock = daemon(), ManualClock()
    for steps in range(10):
        feed(state, msgspec.structs.replace(page(steps, start=start), engine=NAME), clock.advance(1.0))
    return memory(state, clock.now()), state, clock


def test_another_life_takes_up_only_what_goes_over_lives() -> None:
    data, state, clock = small()
    kept = recalled(data, state, clock.now())
    assert kept is not None
    assert set(kept.of(Life(process_start=100.5))) == set(state.judging.known())
    assert set(kept.of(Life(process_start=777.0))) == {"latency", "slo_burn", "output_drift"}
    assert set(kept.of(Life())) == {"latency", "slo_burn", "output_drift"}


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (Life(started=5.0), Life(started=5.0), True),
        (Life(started=5.0), Life(started=6.0), False),
        (Life(started=5.0, process_start=7.0), Life(started=6.0, process_start=7.1), True),
        (Life(), Life(), False),
    ],
)
def test_a_life_is_known_by_when_it_began(one: Life, two: Life, same: bool) -> None:
    assert one.same(two) is same


def test_another_boot_or_version_counts_for_nothing() -> None:
    data, state, clock = small()
    assert recalled(data, state, clock.now(), boot="c") is None
    assert recalled(data.replace(__version__.encode(), b"9" * len(__version__)), state, clock.now()) is None
    assert recalled(data, state, Now(wall=0.0, mono=0.0)) is None
    assert recalled(b"", state, clock.now()) is None
    assert recalled(data[:-7], state, clock.now()) is None


def test_a_detector_with_other_parameters_begins_anew() -> None:
    data, state, clock = small()
    state.judging.configure(
        {
            "stall": Setting(enabled=True, severity="page", params=stall.Params(suspect_s=6.0)),
            "kv_leak": Setting(enabled=False, severity="page", params=None),
        }
    )
    kept = recalled(data, state, clock.now())
    assert kept is not None
    assert set(state.judging.known()) - set(kept.states) == {"stall"}
    assert "kv_leak" not in kept.states


def test_parameters_that_change_before_the_first_page_take_the_memory_with_them() -> None:
    data, state, clock = small()
    kept = recalled(data, state, clock.now())
    assert kept is not None
    anew = daemon()
    anew.judging.recall(NAME, kept)
    anew.judging.configure({"slo_burn": Setting(enabled=True, severity="page", params=slo_burn.Params())})
    assert "slo_burn" not in kept.states


class Plain(Record, frozen=True):
    """None."""


def test_a_memory_that_cannot_be_written_down_is_left_out() -> None:
    def step(state: object, _seen: Observation) -> Step:
        return Step(state)

    odd = Detector(name="odd", severity="note", summary="", params=Plain, begin=lambda _params: object(), step=step)
    count = msgspec.structs.replace(odd, name="count", begin=lambda _params: 3)
    judging = Judging([odd, count])
    now = Now(wall=1.0, mono=1.0)
    minds = [Mind(odd, Plain(), object()), Mind(count, Plain(), 7)]
    kept = unpack(pack(minds, Life(), BOOT, now), judging.known(), BOOT, now)
    assert kept is not None
    assert kept.states == {"count": 7}


# --- on disk ---


def test_what_is_written_is_read_and_others_are_removed(tmp_path: Path) -> None:
    files = MemoryFiles(tmp_path)
    assert list(files.read(["a"])) == []
    files.keep(["a"])
    for name in ("a", "../b:1", "gone"):
        files.write(name, name.encode())
    files.write("a", b"newer")
    (tmp_path / "memory" / "a.new").write_bytes(b"half")
    files.keep(["a", "../b:1"])
    assert dict(files.read(["a", "../b:1", "gone"])) == {"a": b"newer", "../b:1": b"../b:1"}
    assert sorted(path.name for path in (tmp_path / "memory").iterdir()) == ["..%2Fb%3A1.detectors", "a.detectors"]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "memory").iterdir()} == {0o600}


@pytest.mark.parametrize("damage", [b"", b"no zlib", zlib.compress(b"whole")[:-3]])
def test_a_damaged_file_says_nothing(tmp_path: Path, damage: bytes) -> None:
    files = MemoryFiles(tmp_path)
    files.write("a", b"whole")
    (tmp_path / "memory" / "a.detectors").write_bytes(damage)
    assert list(files.read(["a"])) == []


def test_a_memory_has_a_bound(tmp_path: Path) -> None:
    files = MemoryFiles(tmp_path)
    with pytest.raises(StoreError, match="too large"):
        files.write("a", bytes(MOST_BYTES + 1))
    files.write("a", b"")
    (tmp_path / "memory" / "a.detectors").write_bytes(zlib.compress(bytes(MOST_BYTES + 1)))
    assert list(files.read(["a"])) == []


def test_a_daemon_takes_up_what_the_last_one_kept(tmp_path: Path) -> None:
    async def kept() -> tuple[PipelineState, PipelineState]:
        _, old, clock = small()
        await Keeper(clock, old, MemoryFiles(tmp_path)).keep()
        new = daemon()
        keeper = Keeper(clock, new, MemoryFiles(tmp_path))
        await keeper.recall()
        await keeper.keep()  # it has read nothing: what is there stays
        assert new.judging.recalls(NAME)
        feed(new, msgspec.structs.replace(page(11), engine=NAME), clock.advance(1.0))
        return old, new

    old, new = asyncio.run(kept())
    assert not new.judging.recalls(NAME)
    states = [{mind.detector.name: mind.state for mind in each.judging.minds(NAME)} for each in (old, new)]
    assert states[0]["stall"].moved == states[1]["stall"].moved - 1.0
    assert states[0]["engine_down"].looked == states[1]["engine_down"].looked


def test_a_disk_that_takes_nothing_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "memory").write_text("in the way")
    _, state, clock = small()

    async def keep() -> None:
        keeper = Keeper(clock, state, MemoryFiles(tmp_path))
        await keeper.keep()
        await keeper.keep()

    asyncio.run(keep())
    assert len([one for one in caplog.records if "cannot be kept" in one.message]) == 1


def test_an_engine_that_was_never_read_leaves_no_file(tmp_path: Path) -> None:
    state = daemon()
    asyncio.run(Keeper(ManualClock(), state, MemoryFiles(tmp_path)).keep())
    assert not (tmp_path / "memory").exists()


def test_a_claim_is_written_soon_and_all_else_once_a_minute(tmp_path: Path) -> None:
    """A killed daemon must not make a claim again that was over, nor forget the one that stands."""
    _, state, clock = small()
    path = tmp_path / "memory" / f"{NAME}.detectors"

    def looked(reading: EngineReading, after: float) -> float:
        feed(state, msgspec.structs.replace(reading, engine=NAME), clock.advance(after))
        path.write_bytes(b"") if path.exists() else None
        asyncio.run(keeper.look())
        return path.stat().st_size

    keeper = Keeper(clock, state, MemoryFiles(tmp_path))
    still = page(1000, running=2.0)
    assert looked(still, 1.0) > 0, "nothing was written yet"
    assert looked(still, 2.0) == 0
    sizes = [looked(still, 2.0) for _ in range(20)]
    assert {finding.detector for finding in state.judging.claims(NAME)} == {"stall"}
    assert sum(size > 0 for size in sizes) == 1, "when it was claimed"
    assert looked(page(1001, running=2.0), 2.0) > 0, "when it was over"
    assert looked(page(1002, running=2.0), 2.0) == 0
    assert looked(page(1003, running=2.0), 60.0) > 0, "after a minute"
