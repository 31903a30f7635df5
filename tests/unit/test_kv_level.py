"""What a load explains, what lies above it, and what of that is a leak on an engine that is never idle."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from alerts.detectors.kv_leak import DETECTOR
from alerts.kv_accounting import Blocks
from alerts.kv_fit import Fit, Page, level, took
from alerts.kv_sizes import Sizes, ended
from tests.support.block_engine import numbers
from tests.support.block_flow import Flow, Leak, Load, Shape
from tests.support.block_mix import Long, MixedFlow
from tests.support.watched import Watched

if TYPE_CHECKING:
    from opsboard.core.model import Finding

# --- how large requests are ---


def page(finished: float, prompts: float, generated: float) -> Blocks:
    return Blocks(
        rank="0", pool=999, size=16, used=0, running=1, waiting=0, finished=finished, measured=(prompts, generated)
    )


@pytest.mark.parametrize("together", [1, 7])
def test_whoever_runs_long_counts_for_as_long(together: int) -> None:
    """Nine requests of 100 + 20 tokens for one of 1000 + 200: that one runs ten times as long."""
    draw, sizes, old = random.Random(1), Sizes(), page(0.0, 0.0, 0.0)
    prompts = generated = 0.0
    for count in range(together, 12_000, together):
        for _ in range(together):
            large = draw.random() < 0.1
            prompts += 1000.0 if large else 100.0
            generated += 200.0 if large else 20.0
        new = page(float(count), prompts, generated)
        sizes, old = ended(sizes, old, new, 1e9), new
    mean = (0.9 * 20 * 110 + 0.1 * 200 * 1100) / (0.9 * 20 + 0.1 * 200)
    assert sizes.running == pytest.approx(mean, rel=0.25)


def test_of_few_requests_nothing_is_told() -> None:
    assert ended(Sizes(), page(0.0, 0.0, 0.0), page(50.0, 5000.0, 1000.0), 1.0).running is None
    assert ended(Sizes(), page(0.0, 0.0, 0.0), page(60.0, 6000.0, 1200.0), 1.0).running == 110.0


# --- the line ---


def spans(level_now: float, share: float, each: float, noise: float = 0.0, count: int = 40) -> Fit:
    """Fit spans of 15 pages in which the load goes up and down; the last page says ``level_now`` at no load."""
    draw, fit, finished = random.Random(3), Fit(), 0.0
    last = float(count * 15 * 5)
    for _ in range(count):
        pages = []
        for _ in range(15):
            finished += 5.0
            explained = 50.0 + 100.0 * draw.random()
            used = level_now + share * explained + each * (finished - last) + draw.gauss(0.0, noise)
            pages.append(Page(explained, finished, used))
        fit = took(fit, pages, 0.98)
    return fit


def test_a_line_is_found_as_it_is() -> None:
    line = spans(90.0, 0.8, 0.05).line
    assert line is not None
    assert (line.level, line.share, line.each) == pytest.approx((90.0, 0.8, 0.05), rel=1e-6)
    assert level(spans(90.0, 0.8, 0.05), 0.05) == pytest.approx((90.0, 0.0), abs=1e-3)


def test_its_errors_are_those_it_makes() -> None:
    line = spans(90.0, 0.8, 0.05, noise=5.0).line
    assert line is not None
    assert 0.2 < line.level_off < 5.0
    assert abs(line.level - 90.0) <= 4 * line.level_off
    assert abs(line.each - 0.05) <= 4 * line.each_off


def test_a_load_that_never_moves_gives_no_line() -> None:
    fit = took(Fit(), [Page(100.0, float(n), 90.0) for n in range(15)], 1.0)
    assert fit.line is None
    assert level(fit, 0.0) is None


# --- leaks ---


def judged(flow: Flow, seconds: int, engine: Watched) -> tuple[float, Finding] | None:
    """Return when (s) something was claimed first, and what."""
    for now in flow.seconds(seconds):
        found = engine.read(now.reading)
        if found is not None:
            return now.second, found
    return None


@pytest.mark.parametrize(("leak", "within_s"), [
    (Leak(share=0.05, begins=300.0), 600.0),
    (Leak(share=1.0, blocks=0, aborted=True, begins=300.0), 300.0),
])  # fmt: skip
def test_a_leak_shows_on_an_engine_that_is_never_idle(leak: Leak, within_s: float) -> None:
    flow = Flow(Load(), 5, leak, Shape(blocks=40_000))
    claimed = judged(flow, 1000, Watched(DETECTOR))
    assert claimed is not None
    at, found = claimed
    assert at - flow.losses[0] <= within_s
    told = numbers(found)
    assert str(told["by"]).startswith("level: ")
    assert not found.confirmed
    assert 0.3 * flow.leaked <= told["lost_blocks"] <= 1.2 * flow.leaked
    assert told["blocks_per_hour_low"] < told["blocks_per_hour"] < told["blocks_per_hour_high"]


def test_it_stays_while_it_is_true() -> None:
    flow, engine = Flow(Load(), 5, Leak(share=0.1, begins=300.0), Shape(blocks=40_000)), Watched(DETECTOR)
    opened = [engine.read(now.reading) is not None for now in flow.seconds(1500)]
    assert opened[-1]
    assert sum(before != after for before, after in pairwise(opened)) == 1


@pytest.mark.parametrize("long", [
    Long(begins=600.0, prompt=5000.0, output=600.0),
    Long(begins=600.0, every=20.0, prompt=500.0, output=6000.0),
])  # fmt: skip
def test_long_requests_that_join_are_none(long: Long) -> None:
    flow = MixedFlow(lambda _: Load(), 5, None, Shape(blocks=40_000), long)
    assert judged(flow, 1800, Watched(DETECTOR)) is None
