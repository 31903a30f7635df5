"""Processes as those of a real vLLM on a CPU, in the first twenty minutes of a life: their memory was measured.

The API server and the EngineCore take 1.5 MiB with the first 200 requests and a few pages after. The worker touches its
KV cache for the first time: 160 MiB in twenty seconds, less and less, and 21 kB a request without end.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from typing import TYPE_CHECKING

import pytest

from alerts.base import Observation
from alerts.detectors.memory_leak import DETECTOR, Params
from opsboard.core.clock import Now
from opsboard.core.model import EngineReading, EngineView, Finding, Outcome, ProcessView

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = float(1 << 20)
START = 1_795_256_374.7
RATE = 5.0
LOST = 204_800.0
ONSET_S = 120.0
WORKER = (
    (0, 444), (39, 535), (98, 593), (167, 648), (235, 690), (325, 752), (446, 809), (531, 832), (615, 871), (704, 893),
    (836, 919), (993, 938), (1229, 961), (1459, 983), (1592, 987),
)  # fmt: skip
"""Finished requests, and MiB in the worker."""
QUIET = ((0, 398.6), (39, 399.2), (98, 399.4), (167, 399.7), (325, 399.8), (531, 400.1), (836, 400.3), (1592, 400.5))


def between(points: tuple[tuple[float, float], ...], done: float, after: float) -> float:
    """Return bytes after so many requests; behind the last point ``after`` bytes a request."""
    if done >= points[-1][0]:
        return points[-1][1] * MIB + after * (done - points[-1][0])
    at = bisect_right(points, (done, float("inf")))
    (x0, y0), (x1, y1) = points[at - 1], points[at]
    return (y0 + (y1 - y0) * (done - x0) / (x1 - x0)) * MIB


def run(
    seconds: float, leak: Callable[[float, float], dict[str, float]], *, seed: int = 1, worker: bool = True
) -> list[tuple[float, Finding]]:
    """Return what was claimed and when, a reading a second; ``leak`` gives bytes by role from seconds and requests."""
    rnd = random.Random(seed)
    state, claims = DETECTOR.begin(Params()), []
    t = done = 0.0
    while t < seconds:
        t += 1
        done += sum(rnd.random() < RATE / 20 for _ in range(20))
        levels = {
            "api_server": between(QUIET, done, 500.0) + 18 * MIB,
            "engine_core": between(QUIET, done, 500.0),
            "worker": between(WORKER, done, 21e3),
        }
        for role, lost in leak(t, done).items():
            levels[role] += lost
        if not worker:  # the EngineCore computes by itself
            levels["engine_core"] += levels.pop("worker")
        processes = tuple(
            ProcessView(pid=at, started=0.0, name=role, role=role, rss_anon_bytes=round(level / 4096) * 4096)
            for at, (role, level) in enumerate(levels.items())
        )
        counters = {"requests_finished": done, "prompt_tokens": 250 * done, "generation_tokens": 230 * done}
        view = EngineView(
            kind="vllm", running=float(max(0, round(rnd.gauss(8, 4)))), waiting=0.0, process_start=START - 25,
            kv_capacity_tokens=22_368.0, counters=counters,
        )  # fmt: skip
        seen = Observation(
            engine="a", now=Now(START + t, t), processes=processes, looked=t,
            reading=EngineReading(engine="a", outcome=Outcome.OK, view=view),
        )  # fmt: skip
        state, finding, *_ = DETECTOR.step(state, seen)
        if finding is not None:
            claims.append((t, finding))
    return claims


def lost(role: str, onset_s: float) -> Callable[[float, float], dict[str, float]]:
    begun: list[float] = []

    def leak(t: float, done: float) -> dict[str, float]:
        if t < onset_s:
            return {}
        begun.append(done)
        return {role: LOST * (done - begun[0])}

    return leak


def nothing(_t: float, _done: float) -> dict[str, float]:
    return {}


@pytest.mark.parametrize("worker", [True, False])
def test_the_first_touches_of_the_worker_are_no_leak(worker: bool) -> None:
    assert run(1200, nothing, worker=worker) == []


@pytest.mark.parametrize(("role", "onset_s"), [("engine_core", 120.0), ("api_server", 300.0), ("engine_core", 5.0)])
def test_a_leak_beside_them_is_found_within_ten_minutes(role: str, onset_s: float) -> None:
    claims = run(720, lost(role, onset_s))
    after_s, first = claims[0]
    assert after_s - max(onset_s, ONSET_S) <= 600
    assert len(claims) == 720 - after_s + 1, "it holds"
    assert first.evidence["role"] == role
    assert first.evidence["processes"] == 1
    assert first.evidence["bytes_per_request"] == pytest.approx(LOST, rel=0.05)
    assert first.since == pytest.approx(START + onset_s, abs=130 if onset_s < ONSET_S else 20)
    assert first.summary.endswith("how long memory lasts is not known")


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_it_is_found_soon_in_a_process_that_was_quiet(seed: int) -> None:
    after_s, _ = run(360, lost("engine_core", ONSET_S), seed=seed)[0]
    assert after_s - ONSET_S <= 220


def test_prompts_that_pile_up_while_nothing_ends_are_no_leak() -> None:
    """A deadlock: 134.8 kB in the EngineCore with every request that comes, and almost none ends."""
    state = DETECTOR.begin(Params())
    done, waiting = 0.0, 0.0
    for t in range(1200):
        stuck = t > 400
        done += 0.1 if stuck else RATE
        waiting += RATE if stuck else 0.0
        process = ProcessView(pid=1, started=0.0, name="EngineCore", role="engine_core",
                              rss_anon_bytes=round(400 * MIB + 134_800 * waiting))  # fmt: skip
        view = EngineView(kind="vllm", running=8.0, waiting=waiting, counters={"requests_finished": done})
        seen = Observation(
            engine="a", now=Now(START + t, float(t)), processes=(process,), looked=float(t),
            reading=EngineReading(engine="a", outcome=Outcome.OK, view=view),
        )  # fmt: skip
        state, finding, *_ = DETECTOR.step(state, seen)
        assert finding is None
