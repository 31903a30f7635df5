"""Memory of a GPU that an engine keeps taking, and what is none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from alerts.base import Observation
from alerts.detectors.gpu_memory_leak import DETECTOR, Params
from opsboard.core.clock import Now
from opsboard.core.model import EngineReading, EngineView, Finding, GpuProcess, GpuView, Outcome, ProcessView

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
GIB = 1024 * MIB
TOTAL = 80 * GIB
EVERY_S = 5.0


class Engine:
    """An engine on two cards that finishes five requests a second; what it holds on the second one varies."""

    def __init__(self) -> None:
        self.state = DETECTOR.begin(Params())
        self.t = self.done = 0.0
        self.found: list[Finding | None] = []
        self.owner: str | None = "a"
        self.known = self.seen = True
        self.processes: tuple[ProcessView, ...] = ()

    def run(self, minutes: float, extra: Callable[[float], float]) -> Finding | None:
        finding = None
        for _ in range(round(minutes * 60 / EVERY_S)):
            self.t, self.done = self.t + EVERY_S, self.done + 5 * EVERY_S
            cards = (self.card(0, 70 * GIB), self.card(1, 70 * GIB + round(extra(self.t)))) if self.seen else ()
            counters = {"requests_finished": self.done, "generation_tokens": 100 * self.done}
            view = EngineView(kind="vllm", running=3.0, process_start=1.0, counters=counters)
            reading = EngineReading(engine="a", outcome=Outcome.OK, view=view)
            seen = Observation(
                engine="a", now=Now(1e9 + self.t, self.t), reading=reading, gpus=cards, processes=self.processes
            )
            self.state, finding, _, self.unknown = DETECTOR.step(self.state, seen)
            self.found.append(finding)
        return finding

    def card(self, index: int, held: int) -> GpuView:
        process = GpuProcess(pid=7 + index, memory_bytes=held if self.known else None, engine=self.owner)
        return GpuView(
            index=index, uuid=f"GPU-{index}", memory_used_bytes=held, memory_total_bytes=TOTAL, processes=(process,)
        )


def flat(_t: float) -> float:
    return 0.0


def an_hour(much: float, after: float) -> Callable[[float], float]:
    return lambda t: 2 * MIB * (max(0.0, t - after) / 3600 * much // (2 * MIB))


@pytest.mark.parametrize("much", [4 * GIB, 6 * GIB])
def test_a_leak_is_found_within_ten_minutes(much: float) -> None:
    engine = Engine()
    assert engine.run(60, flat) is None
    onset = engine.t
    found = engine.run(10, an_hour(much, onset))
    assert found is not None
    assert found.evidence["gpu"] == "GPU-1"
    assert found.evidence["cards"] == 1
    assert found.evidence["bytes_per_hour"] == pytest.approx(much, rel=0.1)
    assert found.evidence["eta_s"] == pytest.approx((10 * GIB / much - 10 / 60) * 3600, rel=0.15)
    assert found.since == pytest.approx(1e9 + onset, abs=60)
    assert " leaked on GPU 1 in 9 m " in found.summary
    engine.found.clear()
    found = engine.run(30, an_hour(much, onset))
    assert None not in engine.found
    assert found is not None
    assert found.confirmed


def test_a_slower_one_is_found_within_half_an_hour() -> None:
    engine = Engine()
    engine.run(60, flat)
    found = engine.run(30, an_hour(GIB, engine.t))
    assert found is not None
    assert found.evidence["urgency"] == "ticket"


@pytest.mark.parametrize(
    "extra",
    [
        flat,
        lambda t: 2.0 * GIB if t > 3600 else 0.0,
        lambda t: 512.0 * MIB * min(6, t // 3000),
        lambda t: 3.0 * GIB * (t % 1800) / 1800 if t < 600 else 3.0 * GIB,
    ],
    ids=["flat", "a model", "steps", "warm-up"],
)
def test_what_is_no_leak(extra: Callable[[float], float]) -> None:
    engine = Engine()
    engine.run(240, extra)
    assert not any(engine.found)


@pytest.mark.parametrize(("owner", "known"), [("b", True), (None, True), ("a", False)])
def test_what_others_hold_and_what_the_driver_cannot_tell(owner: str | None, known: bool) -> None:
    engine = Engine()
    engine.owner, engine.known = owner, known
    engine.run(60, an_hour(4 * GIB, 600.0))
    assert not any(engine.found)


def test_a_process_that_nobody_named_is_known_by_its_pid() -> None:
    engine = Engine()
    engine.owner, engine.processes = None, (ProcessView(pid=8, started=1.0, name="x", role="worker"),)
    engine.run(60, flat)
    assert engine.run(15, an_hour(4 * GIB, 3600.0)) is not None


def test_it_says_why_it_does_not_judge() -> None:
    engine = Engine()
    engine.run(1, flat)
    assert str(engine.unknown) == "55 of 300 s of its life seen"
    engine.run(60, flat)
    assert engine.unknown is None
    stranger = Engine()
    stranger.known = False
    stranger.run(10, flat)
    assert stranger.unknown == "the driver does not tell what its processes hold"
    seen = Observation(engine="a", now=Now(1e9 + stranger.t, stranger.t), reading=None)
    assert str(DETECTOR.step(engine.state, seen).unknown) == "its page was not read yet"
    bare = Engine()
    bare.seen = False
    bare.run(1, flat)
    assert str(bare.unknown) == "no GPU is seen here"


def test_it_stands_while_the_driver_is_silent() -> None:
    engine = Engine()
    engine.run(60, flat)
    assert engine.run(15, an_hour(4 * GIB, 3600.0)) is not None
    engine.known = False
    assert engine.run(5, an_hour(4 * GIB, 3600.0)) is not None


def test_parameters_that_make_no_sense_together() -> None:
    with pytest.raises(ValueError, match="must not be shorter than `page`"):
        Params(ticket_s=60.0)
