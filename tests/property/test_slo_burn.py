"""Burning budgets against the formula by brute force: all events kept, every window summed anew."""

from __future__ import annotations

from bisect import bisect_right

from hypothesis import example, given, settings
from hypothesis import strategies as st

from alerts.detectors.slo_burn import DETECTOR, RULES, Params
from alerts.event_history import COARSE_STEP_S, FINE_S, FINE_STEP_S, History
from opsboard.config.schema import Slo
from opsboard.core.model import EngineReading, EngineView, Outcome
from tests.support.watched import NAME, Watched

SLO = Slo(availability=99.0)
steps = st.lists(
    st.tuples(
        st.sampled_from([120.0, 240.0, 600.0, 3600.0]), st.sampled_from([0, 40, 1000]), st.integers(0, 1000)
    ),
    min_size=1,
    max_size=80,
)  # fmt: skip


def brute(events: list[tuple[float, float, float]], window_s: float, now: float) -> tuple[float, float]:
    """Sum what was seen in a window; a reading's events are evenly spread over the time since the one before."""
    bad = total = before = 0.0
    for at, more_bad, more in events:
        part = 1.0 if before >= now - window_s else max(0.0, (at - (now - window_s)) / (at - before))
        bad, total, before = bad + part * more_bad, total + part * more, at
    return bad, total


@settings(max_examples=200, deadline=None)
@given(story=steps)
def test_a_rule_opens_exactly_when_the_formula_says_so(story: list[tuple[float, int, int]]) -> None:
    engine = Watched(DETECTOR, Params(slo=SLO))
    good = failed = 0.0
    events: list[tuple[float, float, float]] = []

    def page() -> EngineReading:
        counters = {"requests_finished": good, "requests_failed": failed}
        view = EngineView(kind="vllm", process_start=1.0, counters=counters)
        return EngineReading(engine=NAME, outcome=Outcome.OK, view=view)

    engine.read(page(), after=0.001)
    begin, found = engine.elapsed, None
    for after, many, permille in story:
        bad = many * permille // 1000
        good, failed = good + many - bad, failed + bad
        before, found = found, engine.read(page(), after=after)
        events.append((engine.elapsed - begin, bad, many))
        now = events[-1][0]
        open_now = None
        for rule in RULES:
            allowed = rule.rate(SLO.period) * 0.01
            short, long = brute(events, rule.short_s, now), brute(events, rule.long_s, now)
            margin = min(short[0] - allowed * short[1], long[0] - allowed * long[1])
            if abs(margin) < 1e-6 or abs(short[1] - 100) < 1e-6:
                return  # on the edge rounding decides
            if open_now is None and margin > 0 and short[1] > 100:
                open_now = rule
        if open_now is not None:
            assert found is not None
            limit = found.evidence["burn_limit"]
            assert isinstance(limit, float)
            assert limit >= open_now.rate(SLO.period)
        if before is None:
            assert (found is not None) == (open_now is not None)


@example(gaps=[0.2, 0.2, 0.2, 0.2, 400.0], window_s=300.0)
@settings(max_examples=100, deadline=None)
@given(
    gaps=st.lists(st.sampled_from([0.2, 1.0, 1.0, 3.0, 17.0, 400.0]), min_size=1, max_size=120),
    window_s=st.sampled_from([300.0, 1800.0, 3600.0, 7200.0, 86400.0]),
)
def test_a_window_is_wrong_by_no_more_than_one_step_of_time(gaps: list[float], window_s: float) -> None:
    history, at, readings = History(0.0), 0.0, [0.0]
    for gap in gaps:
        at += gap
        readings.append(at)
        history.add(at, 0.0, 1.0)
    step_s = FINE_STEP_S if window_s <= FINE_S else COARSE_STEP_S
    found = history.last(window_s, at).total
    edge = at - window_s
    after = len(readings) - bisect_right(readings, edge + step_s)
    near = bisect_right(readings, edge - step_s) - 1
    before = len(readings) - max(1, near)
    assert after - 1 <= found <= before + 1
