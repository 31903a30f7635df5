"""Whatever is looked at: nothing breaks, little is remembered, and only what rises is claimed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.blocks import Sample
from alerts.growth import SCALES, Growth, add
from alerts.trend import KEPT, Rules

MIB = float(1 << 20)
RULES = Rules(gain=128 * MIB)

steps = st.tuples(
    st.floats(-60, 600),  # seconds later, or earlier
    st.integers(-(2**31), 2**31),  # bytes more
    st.one_of(st.none(), st.integers(0, 1000)),  # requests more
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.floats(0, 1000),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=30, max_size=120), st.booleans())
def test_nothing_breaks_and_little_is_remembered(
    told: list[tuple[float, int, int | None, int | None, float]], warm: bool
) -> None:
    growth, at, level, requests, tokens = Growth(), 0.0, 2.0**33, 0.0, 0.0
    for later, more, done, made, load in told:
        at, level = at + later, max(0.0, level + more)
        requests, tokens = requests + (done or 0), tokens + (made or 0)
        sample = Sample(at, level, None if done is None else requests, None if made is None else tokens, load)
        growth = add(growth, sample, RULES, warm=warm)
    assert len(growth.scales) <= SCALES
    assert all(len(blocks) <= KEPT for blocks in growth.scales)
    assert growth.trend is None or growth.trend.per_work > 0


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(1, 100),
    per_request=st.floats(1e6, 1e8),
    flat_s=st.integers(300, 900),
    base=st.floats(0, 2.0**37),
    born=st.floats(0, 1e7),
)
def test_a_line_is_found_whatever_its_size_and_a_flat_or_falling_one_never(
    rate: float, per_request: float, flat_s: int, base: float, born: float
) -> None:
    for sign in (1, 0, -1):
        growth = Growth()
        for t in range(0, flat_s + 330, 5):
            level = base + 2.0**38 + sign * per_request * rate * max(0, t - flat_s)
            growth = add(growth, Sample(born + t, level, rate * t, None, 8.0), RULES)
        assert (growth.trend is not None) == (sign > 0)
