"""Lines drawn of incidents: which series, how often, and what becomes of them."""

from __future__ import annotations

from msgspec.structs import replace

from opsboard.core.errors import StoreError
from opsboard.core.wire import History, HistoryPoint
from opsboard.daemon.sparks import FRESH_S, Sparks
from tests.support.in_loop import in_loop
from tests.support.messages import LEAK, T

NAMES = [f"engine/vllm-a/{field}" for field in ("up", "kv_usage", "generation_tokens_per_s", "running")]


class Past:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False

    async def series(self) -> list[str]:
        if self.broken:
            raise StoreError("the disk is gone")
        return NAMES

    async def history(self, series: str, start: float, end: float, step: float) -> History:
        self.asked.append(series.rpartition("/")[2])
        points = tuple(HistoryPoint(t=start + n, mean=float(n), min=0.0, max=0.0, count=1) for n in range(48))
        return History(series=series, step=step, points=points)


@in_loop
async def test_each_is_drawn_once_a_minute_from_what_it_is_about() -> None:
    past = Past()
    sparks = Sparks(past, "gpu-a")
    stall = replace(LEAK, uid="s", detector="stall")
    assert sparks.of(LEAK) is None
    await sparks.look([LEAK, stall], T)
    await sparks.look([LEAK, stall], T + FRESH_S - 1)
    assert past.asked == ["kv_usage", "generation_tokens_per_s"]
    line = sparks.of(LEAK)
    assert line is not None
    assert (line[0], line[-1]) == ("▁", "█")
    await sparks.look([LEAK], T + FRESH_S)
    assert past.asked[2:] == ["kv_usage"]
    await sparks.look([], T + FRESH_S)
    assert sparks.of(LEAK) is None


@in_loop
async def test_a_disk_that_fails_leaves_messages_without_a_line() -> None:
    past = Past()
    past.broken = True
    sparks = Sparks(past, "gpu-a")
    await sparks.look([LEAK], T)
    assert sparks.of(LEAK) is None
    await sparks.look([replace(LEAK, subject="channel/chat", uid="c")], T)
