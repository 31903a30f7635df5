"""However often its daemon ends, a rolling restart takes each engine once, one at a time, and stops at a failure."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tests.support.rolled import FAILED, TAKES_S, Host, cut_off, on_host

ENDS = st.lists(st.floats(0.0, 2.0 * TAKES_S), min_size=1, max_size=5)


@given(ends=ENDS, fails=st.sampled_from(["", "a", "b", "c"]), waits_s=st.sampled_from([0.0, 30.0]))
def test_each_engine_once_and_none_after_a_failure(ends: list[float], fails: str, waits_s: float) -> None:
    async def story(host: Host) -> None:
        if fails:
            host.engines.ends[fails] = FAILED
        await cut_off(host, ends[0])
        for after_s in ends[1:]:
            host.engines.not_before = host.clock.now().mono + waits_s
            host.rolls = host.daemon()
            host.rolls.resume(host.disk)
            await asyncio.sleep(after_s)
            await host.rolls.close()
        if host.disk is not None:  # else it ended before anything was begun
            await host.next_daemon()

    host = on_host(story)
    touched = "abc"[: "abc".index(fails) + 1] if fails else "abc"
    if host.disk is not None:
        assert host.engines.restarted == list(touched)
        assert (host.disk.outcome, host.disk.done) == (("failed", len(touched) - 1) if fails else ("ok", 3))
        spared = {subject for kind, subject, _ in host.told if kind == "rolling_stopped"}
        assert spared == {f"engine/{name}" for name in "abc" if name not in touched}
    assert host.engines.at_once == 1 or not host.engines.restarted
