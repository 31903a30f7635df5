"""The board's numbers of a real vLLM that opsboard supervises, against the truth of its own client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from opsboard.core.rates import WINDOWS
from tests.real.client import (
    Traffic,
    Truth,
    between_tokens_s,
    first_token_s,
    generated,
    percentile,
)
from tests.real.house import ANSWERS_WITHIN_S, INTERVAL_S, MAX_RUNNING, NAME, OWN, House
from tests.real.vllm_env import BLOCK_SIZE, REQUEST_TIMEOUT_S
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsboard.core.wire import EngineDetail, Latency
    from tests.real.conftest import Measured
    from tests.real.vllm_env import Installation

WINDOW_S = WINDOWS["1m"]
WINDOWS_OF_LOAD, FULL_WINDOWS_OF_LOAD = 1, 3
FREEZES, FULL_FREEZES = 2, 8
QUEUED = 4
LONG = 1200
"""Tokens of the requests that are frozen: they take half a minute, and eight of them fit in the KV cache."""
RATE_WITHIN = 0.02
SETTLING_S = 3.0
"""A window of steady load begins this long after the load itself."""


@pytest.fixture(scope="module")
def house(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(installation, tmp_path_factory.mktemp("numbers")) as house:
        house.opsboard("engine", "start", "--wait", NAME)
        yield house


@pytest.fixture(scope="module")
def traffic(house: House) -> Iterator[Traffic]:
    """All that is ever asked of this engine goes through here, so that its totals are the engine's."""
    with Traffic(house.port) as traffic:
        yield traffic


def totals(house: House) -> dict[str, float]:
    """Return the engine's counters as they were recorded last, without opsboard's own question."""
    recent = time.time() - 60
    return {
        name: house.client.history(f"engine/{NAME}/{name}", start=recent, step=INTERVAL_S).points[-1].max - own
        for name, own in OWN.items()
    }


def settled(house: House, traffic: Traffic) -> EngineDetail:
    """Return what the board says when nothing has moved for a whole reading: a quiet point."""

    def quiet() -> EngineDetail | None:
        tokens = traffic.tokens
        shown, _ = house.fresh(time.monotonic())
        return shown if traffic.tokens == tokens else None

    shown = wait_until(quiet, ANSWERS_WITHIN_S, what="traffic stands still")
    assert shown is not None
    return shown


def test_an_idle_engine_runs_nothing(house: House, traffic: Traffic) -> None:
    engine = settled(house, traffic).engine
    assert (engine.state, engine.running, engine.waiting, engine.kv_usage) == ("ready", 0, 0, 0)


def flowing(traffic: Traffic, requests: list[Truth]) -> None:
    """Return when as many requests stream as can, some tokens further than now."""
    enough = traffic.tokens + 20 * MAX_RUNNING

    def streaming() -> bool:
        return traffic.tokens >= enough and sum(bool(request.arrivals) for request in requests) >= MAX_RUNNING

    wait_until(streaming, ANSWERS_WITHIN_S, what="tokens flow")


def answered(traffic: Traffic) -> None:
    """Return when nothing is in flight any more."""
    wait_until(lambda: not traffic.in_flight(), REQUEST_TIMEOUT_S, what="every request ends")


def test_frozen_moments_are_shown_exactly(house: House, traffic: Traffic, full: bool, measured: Measured) -> None:
    requests = [traffic.send(prompt_tokens=20 + 7 * n, max_tokens=LONG) for n in range(MAX_RUNNING + QUEUED)]
    worst = 0.0
    for _ in range(FULL_FREEZES if full else FREEZES):
        flowing(traffic, requests)
        house.ask("POST", "/pause?mode=keep")
        try:
            shown = settled(house, traffic).engine
            running = [request for request in traffic.in_flight() if request.arrivals]
            waiting = [request for request in traffic.in_flight() if not request.arrivals]
            assert len(running) == MAX_RUNNING
            assert (shown.running, shown.waiting) == (len(running), len(waiting))
            assert totals(house) == {
                "prompt_tokens": sum(request.prompt_tokens for request in running),
                "generation_tokens": traffic.tokens,
            }
            assert shown.kv_usage is not None
            assert shown.kv_capacity_tokens is not None
            held = sum(request.prompt_tokens + request.tokens for request in running)
            apart = abs(shown.kv_usage * shown.kv_capacity_tokens - held) / len(running)
            assert apart <= BLOCK_SIZE, f"{shown.kv_usage * shown.kv_capacity_tokens} shown, {held} held"
            worst = max(worst, apart)
        finally:
            house.ask("POST", "/resume")
    answered(traffic)
    assert traffic.failed() == []
    done = settled(house, traffic)
    assert (done.engine.running, done.engine.waiting, done.engine.kv_usage) == (0, 0, 0)
    assert totals(house) == {
        "prompt_tokens": sum(request.prompt_tokens for request in requests),
        "generation_tokens": len(requests) * LONG,
    }
    measured(f"frozen: running {MAX_RUNNING}, waiting {QUEUED}, tokens exact; KV {worst:.1f} tokens a request apart")


def test_rates_and_latencies_under_steady_load(house: House, traffic: Traffic, full: bool, measured: Measured) -> None:
    answered(traffic)
    traffic.begin_load(MAX_RUNNING, prompt_tokens=(20, 120), max_tokens=(60, 200))
    start = time.monotonic() + SETTLING_S
    for _ in range(FULL_WINDOWS_OF_LOAD if full else WINDOWS_OF_LOAD):
        shown, end = _after(house, start + WINDOW_S)
        start = end - WINDOW_S
        _same_rate(shown, generated(traffic.requests, start, end) / WINDOW_S, measured)
        probe = percentile([took for at, took in traffic.probes if start < at <= end], 0.95)
        measured(f"/health under this load: p95 {probe * 1e3:.1f} ms, the allowance for HTTP")
        for name, truth in (
            ("ttft", first_token_s(traffic.requests, start, end)),
            ("itl", between_tokens_s(traffic.requests, start, end)),
        ):
            _same_bucket(name, shown.latencies[name]["1m"], truth, probe, measured)
        start = end
    traffic.end_load()

    assert traffic.failed() == []
    settled(house, traffic)
    assert totals(house) == {
        "prompt_tokens": sum(request.prompt_tokens for request in traffic.requests),
        "generation_tokens": traffic.tokens,
    }
    measured(f"totals after {len(traffic.requests)} requests: {traffic.tokens} tokens, exact")


def _after(house: House, instant: float) -> tuple[EngineDetail, float]:
    """Wait for a moment to pass and return the first reading after it."""
    left = instant - time.monotonic()
    wait_until(lambda: time.monotonic() > instant, left + ANSWERS_WITHIN_S, what="the load has lasted")
    return house.fresh(instant)


def _same_rate(shown: EngineDetail, truth: float, measured: Measured) -> None:
    said = shown.engine.generation_tokens_per_s
    assert said is not None
    apart = said / truth - 1
    measured(f"tokens/s: board {said:.1f}, client {truth:.1f} ({apart:+.2%})")
    assert abs(apart) <= RATE_WITHIN


def _same_bucket(name: str, said: Latency, truth: list[float], probe: float, measured: Measured) -> None:
    """The client's p95 is in the bucket that the board names, give or take what HTTP alone costs a client.

    The engine measures at its own end: a first token also travels to the client, and a gap between tokens is longer or
    shorter by the difference of two such ways. A probe of /health has no engine in it and tells how long they are.
    """
    assert said.p95 is not None
    p95 = percentile(truth, 0.95)
    low, high = said.p95.lower, said.p95.upper
    assert high is not None
    measured(
        f"{name} p95: board {said.p95.value * 1e3:.1f} ms in [{low * 1e3:g}, {high * 1e3:g}], "
        f"client {p95 * 1e3:.1f} ms of {len(truth)} ({said.count:g} on the board)"
    )
    assert said.count == pytest.approx(len(truth), rel=RATE_WITHIN, abs=MAX_RUNNING)
    earliest = p95 - probe
    latest = p95 + (probe if name == "itl" else 0.0)
    assert earliest <= high
    assert latest >= low
    if name == "itl":  # the ways to the client cancel out in a mean of gaps
        assert said.mean == pytest.approx(sum(truth) / len(truth), rel=RATE_WITHIN)
