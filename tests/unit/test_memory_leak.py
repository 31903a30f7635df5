"""What a leak of host memory is, and what only looks like one."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from alerts.base import Observation
from alerts.detectors.memory_leak import DETECTOR, Params
from opsboard.core.clock import Now
from opsboard.core.model import (
    EngineReading,
    EngineState,
    EngineView,
    Finding,
    HostView,
    LifeView,
    Outcome,
    ProcessView,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = float(1 << 20)
GIB = 1024 * MIB
EVERY_S, RATE = 5.0, 5.0
BASE = 600 * MIB


class Engine:
    """An engine that finishes five requests a second, and the memory of its EngineCore by what it has finished."""

    def __init__(self, role: str = "engine_core", params: Params | None = None) -> None:
        self.role = role
        self.state = DETECTOR.begin(params or Params())
        self.t = 0.0
        self.done = 0.0
        self.started = 1.0
        self.load = 10.0
        self.view = EngineView(kind="vllm", running=0.0, waiting=0.0, process_start=1.0)
        self.host: HostView | None = HostView(memory_available_bytes=round(20 * GIB))
        self.found: list[Finding | None] = []

    def seen(self, level: float | None, **changed: object) -> Observation:
        """Return what is seen now, changed as told."""
        counters = {"requests_finished": self.done, "generation_tokens": 200 * self.done}
        view = replace(self.view, running=self.load, counters=counters, process_start=self.started)
        bytes_ = None if level is None else round(level)
        process = ProcessView(
            pid=1, started=self.started, name="x", role=self.role, rss_anon_bytes=bytes_, swap_bytes=0
        )
        steady = ProcessView(pid=2, started=self.started, name="y", role="worker", rss_anon_bytes=round(BASE))
        reading = EngineReading(engine="a", outcome=Outcome.OK, view=view)
        plain = Observation(
            engine="a", now=Now(1e9 + self.t, self.t), reading=reading, processes=(process, steady), looked=self.t,
            host=self.host,
        )  # fmt: skip
        return replace(plain, **changed)

    def step(self, seen: Observation) -> Finding | None:
        self.state, finding, canary, _ = DETECTOR.step(self.state, seen)
        assert not canary
        self.found.append(finding)
        return finding

    def run(self, minutes: float, level: Callable[[float], float], rate: float = RATE) -> Finding | None:
        """Work for so long; ``level`` gives bytes above the base by finished requests."""
        finding = None
        for _ in range(round(minutes * 60 / EVERY_S)):
            self.t += EVERY_S
            self.done += rate * EVERY_S
            finding = self.step(self.seen(BASE + level(self.done)))
        return finding


def flat(_done: float) -> float:
    return 0.0


def fixed(level: float) -> Callable[[float], float]:
    return lambda _done: level


def leak(per_request: float, after: float = 0.0) -> Callable[[float], float]:
    return lambda done: per_request * max(0.0, done - after)


@pytest.mark.parametrize("per_request", [50e3, 200e3, 1e6, 5e6])
def test_a_leak_is_found_within_ten_minutes_and_dated_and_holds(per_request: float) -> None:
    engine = Engine()
    assert engine.run(30, flat) is None
    onset = engine.t, engine.done
    engine.host = HostView(memory_available_bytes=round(per_request * RATE * 3 * 3600))
    level = leak(per_request, onset[1])
    found = engine.run(10, level)
    assert found is not None
    assert found.since == pytest.approx(1e9 + onset[0], abs=60)
    assert found.evidence["role"] == "engine_core"
    assert found.evidence["bytes_per_request"] == pytest.approx(per_request, rel=0.05)
    assert found.evidence["eta_s"] == pytest.approx(3 * 3600, rel=0.05)
    assert found.evidence["urgency"] == "ticket"
    engine.found.clear()
    found = engine.run(60, level)
    assert None not in engine.found
    assert found is not None
    assert found.confirmed
    assert found.evidence["leaked_bytes"] == pytest.approx(per_request * (engine.done - onset[1]), rel=0.1)


def test_a_leak_from_the_first_request_on() -> None:
    engine = Engine()
    assert engine.run(5, leak(500e3)) is None, "warming up"
    assert engine.run(10, leak(500e3)) is not None


def test_a_leak_of_an_engine_with_few_requests_at_a_time() -> None:
    engine = Engine()
    loads = random.Random(1)
    for step in range(240):  # 20 minutes
        engine.load = float(loads.choice([0, 0, 1, 2, 4, 6]) if step < 60 else loads.choice([0, 1, 3, 8]))
        engine.run(EVERY_S / 60, leak(500e3), rate=2.2)
    assert engine.found[-1] is not None


def test_how_it_reads() -> None:
    engine = Engine()
    engine.run(30, flat)
    found = engine.run(15, leak(204_800, engine.done))
    assert found is not None
    assert found.summary == (
        "engine_core leaked 869 MiB of host memory in 14 m 58 s, 200 KiB a finished request, 3.43 GiB an hour; "
        "memory lasts for 5 h 49 m more"
    )


NONE = {
    "nothing": flat,
    "a cache that fills and stops": lambda done: 800 * MIB * (1 - math.exp(-done / 2000)),
    "a cache that fills as the logarithm": lambda done: 300 * MIB * math.log1p(done / 50),
    "a cache that fills as the root": lambda done: 10 * MIB * math.sqrt(done),
    "a model that is loaded": lambda done: GIB if done > 9000 else 0.0,
    "steps": lambda done: 64 * MIB * math.floor(math.log2(1 + done / 100)),
    "a cache that fills from the first request on": lambda done: 780 * MIB * (1 - math.exp(-done / 6000)),
    "a sawtooth": lambda done: 100 * MIB * (done % 3000) / 3000,
    "what is given back": lambda done: -50e3 * done,
}


@pytest.mark.parametrize("level", NONE.values(), ids=list(NONE))
def test_what_is_no_leak(level: Callable[[float], float]) -> None:
    engine = Engine()
    engine.run(150, level)
    assert not any(engine.found)


@pytest.mark.parametrize("keeps", [False, True])
def test_memory_that_follows_the_load_or_keeps_what_its_peak_took_is_no_leak(keeps: bool) -> None:
    engine = Engine()
    held = 0.0
    for minute in range(120):
        engine.load = 10.0 + 190.0 * max(0.0, 1 - abs(minute - 60) / 50)
        held = max(held, engine.load) if keeps else engine.load
        engine.run(1, fixed(10 * MIB * held), rate=engine.load / 2)
    assert not any(engine.found)


def test_a_leak_while_the_load_sets_records_is_found_where_requests_cannot_hold_so_much() -> None:
    engine = Engine()
    engine.run(30, flat)
    onset = engine.done
    for _ in range(36):  # 6 minutes, to four times the load
        engine.load += 1.0
        engine.run(1 / 6, leak(5e6, onset), rate=engine.load / 2)
    assert engine.found[-1] is not None


def test_a_cpu_worker_touches_its_cache_for_the_first_time() -> None:
    engine = Engine("worker")
    engine.view = replace(engine.view, kv_capacity_tokens=1.5e6)
    engine.run(60, lambda done: min(1.0, 200 * done / 1.5e6) * 2 * GIB)
    assert not any(engine.found)
    lost = leak(300e3, engine.done)
    assert engine.run(15, lambda done: 2 * GIB + lost(done)) is not None


def test_what_was_swapped_out_counts() -> None:
    engine = Engine()
    engine.run(30, flat)
    onset = engine.done
    for _ in range(180):
        engine.t, engine.done = engine.t + EVERY_S, engine.done + RATE * EVERY_S
        seen = engine.seen(BASE)
        swapped = replace(seen.processes[0], swap_bytes=round(500e3 * (engine.done - onset)))
        engine.step(replace(seen, processes=(swapped,)))
    assert engine.found[-1] is not None


def test_the_limit_of_the_cgroup_comes_first() -> None:
    engine = Engine()
    engine.host = HostView(
        memory_available_bytes=round(500 * GIB), cgroup_limit_bytes=round(8 * GIB), cgroup_used_bytes=round(7 * GIB)
    )
    engine.run(30, flat)
    found = engine.run(15, leak(200e3, engine.done))
    assert found is not None
    assert found.evidence["room_bytes"] == GIB
    assert found.evidence["urgency"] == "page"
    engine.host = HostView(memory_available_bytes=round(500 * GIB), cgroup_limit_bytes=round(GIB), cgroup_used_bytes=5)
    found = engine.run(1, leak(200e3, engine.done - 4500))
    assert found is not None
    assert found.evidence["room_bytes"] == 500 * GIB, "the engine is in another one"


def test_a_slow_leak_waits_until_it_is_large() -> None:
    engine = Engine()
    engine.host = HostView(memory_available_bytes=round(1000 * GIB))
    engine.run(30, flat)
    level = leak(10e3, engine.done)
    assert engine.run(340, level) is None, "there is room for months"
    found = engine.run(30, level)
    assert found is not None
    assert found.evidence["urgency"] == "note"


def leaking() -> tuple[Engine, Callable[[float], float]]:
    engine = Engine()
    engine.run(30, flat)
    level = leak(500e3, engine.done)
    assert engine.run(15, level) is not None
    return engine, level


def test_it_is_over_when_memory_comes_back() -> None:
    engine, _ = leaking()
    assert engine.run(2, flat) is None


def test_it_is_over_when_nothing_is_added_any_more() -> None:
    engine, level = leaking()
    top = level(engine.done)
    assert engine.run(5, fixed(top)) is not None
    assert engine.run(20, fixed(top)) is None


def test_it_stands_while_nothing_is_done() -> None:
    engine, level = leaking()
    top = level(engine.done)
    assert engine.run(60, fixed(top), rate=0.0) is not None


def test_another_life_ends_it() -> None:
    engine, _ = leaking()
    engine.started, engine.done = 2000.0, 0.0
    assert engine.run(1, flat) is None
    engine, level = leaking()
    life = LifeView(engine="a", state=EngineState.STOPPING, since=0.0, supervised=True)
    assert engine.step(engine.seen(BASE + level(engine.done), life=life)) is None


def test_bad_input_is_no_claim_and_takes_none_back() -> None:
    engine, level = leaking()
    now = BASE + level(engine.done)
    failed = EngineReading(engine="a", outcome=Outcome.FAILED, reason="timeout")
    bare = EngineReading(engine="a", outcome=Outcome.OK, view=EngineView(kind="vllm", process_start=1.0))
    for bad in (
        engine.seen(now),
        engine.seen(now, looked=engine.t - 100),
        engine.seen(now, looked=None),
        engine.seen(now, processes=()),
        engine.seen(now, reading=failed),
        engine.seen(now, reading=bare),
        engine.seen(now, reading=None),
        engine.seen(now, host=None),
        engine.seen(now, fresh=False),
    ):
        assert engine.step(bad) is not None
    view = EngineView(kind="vllm", process_start=1.0, running=math.nan, counters={"requests_finished": math.nan})
    assert engine.step(engine.seen(now, reading=replace(failed, outcome=Outcome.OK, view=view))) is not None
    assert engine.run(5, level) is not None


def test_nothing_is_claimed_of_what_is_not_known() -> None:
    for changed in ({"processes": ()}, {"looked": None}):
        engine = Engine()
        for _ in range(500):
            engine.t, engine.done = engine.t + EVERY_S, engine.done + 25
            assert engine.step(engine.seen(BASE + 500e3 * engine.done, **changed)) is None


def test_it_says_why_it_does_not_judge() -> None:
    engine = Engine()
    engine.t, engine.done = 5.0, 25.0
    seen = engine.seen(BASE)
    view = EngineView(kind="vllm", process_start=1.0)
    bare = EngineReading(engine="a", outcome=Outcome.OK, view=view)
    for changed, why in (
        ({"reading": None}, "its page was not read yet"),
        ({"reading": bare}, "its page counts neither requests nor tokens"),
        ({"looked": None}, "nobody looks at its processes"),
        ({"processes": ()}, "its processes cannot be seen"),
        ({"processes": (replace(seen.processes[0], rss_anon_bytes=None),)}, "what its processes hold cannot be read"),
        ({}, "25 of 200 finished requests seen"),
    ):
        step = DETECTOR.step(DETECTOR.begin(Params()), replace(seen, **changed))
        assert str(step.unknown) == why
    for minutes, why in ((1, "55 of 120 s of its life seen"), (2, "48 of 192 s of work seen"), (4, "None")):
        engine.run(minutes, flat)
        assert str(DETECTOR.step(engine.state, engine.seen(BASE)).unknown) == why


def test_sleep_begins_anew() -> None:
    engine, level = leaking()
    awake = engine.view
    engine.view = replace(awake, asleep=True)
    assert engine.run(5, level, rate=0.0) is None
    engine.view = awake
    top = level(engine.done) + 10 * GIB
    engine.found.clear()
    engine.run(60, fixed(top))
    assert not any(engine.found)


def test_parameters_that_make_no_sense_together() -> None:
    with pytest.raises(ValueError, match=r"`ticket` \(60 s\) must not be shorter than `page`"):
        Params(ticket_s=60.0)
