"""Whatever a command, a card or a log says: need and room are right, and nothing raises what it should not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from collectors.fatal import REASON_LIMIT, fatal
from opsboard.core.errors import NoRoom
from opsboard.core.model import FatalVerdict, GpuReading, GpuView, Outcome
from opsboard.core.text import sanitise_line
from opsboard.supervise.gpu_need import gpu_need
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.room import room

GIB = 1 << 30
FLAGS = st.sampled_from(
    ["--gpu-memory-utilization", "--gpu_memory_utilization=0.5", "--kv-cache-memory-bytes", "-tp", "-dp=2", "--config"]
)
WORDS = st.lists(FLAGS | st.sampled_from(["vllm", "serve", "0.3", "2", "10G", "-1", "--"]) | st.text(max_size=8))


@given(WORDS, st.none() | st.text(max_size=12))
def test_any_command_has_a_sane_need_or_none(words: list[str], version: str | None) -> None:
    need = gpu_need(words, version)

    if need is not None:
        assert need.gpus >= 1
        assert (need.share is None) != (need.at_least is None)
        assert need.of(80 * GIB) >= 0
        assert need.share is None or need.of(80 * GIB) <= 80 * GIB


@settings(deadline=None, max_examples=50)  # a loop each
@given(st.integers(1, 100), st.integers(1, 320), st.data())
def test_a_start_is_refused_exactly_when_its_share_is_not_free(percent: int, total: int, data: st.DataObject) -> None:
    used = data.draw(st.integers(0, total))
    assume(100 * used != (100 - percent) * total)  # to the byte, it is vLLM's rounding that decides
    card = GpuView(index=0, uuid="GPU-0", memory_used_bytes=used * GIB, memory_total_bytes=total * GIB)
    command = ("vllm", "serve", "m", f"--gpu-memory-utilization={percent / 100}")
    spec = LaunchSpec(name="a", command=command, url="http://192.0.2.1:1")

    async def read() -> GpuReading:
        return GpuReading(outcome=Outcome.OK, gpus=(card,))

    start = room(spec, read, engines=Path("/nowhere"))
    if 100 * used > (100 - percent) * total:
        with pytest.raises(NoRoom) as caught:
            asyncio.run(start)
        assert caught.value.verdict is FatalVerdict.WAIT
    else:
        asyncio.run(start)


@given(st.text(), st.sampled_from(["", "CUDA error: ", "ImportError: ", "Value error, ", "Address already in use"]))
def test_any_line_is_quoted_safely_or_not_at_all(text: str, cause: str) -> None:
    found = fatal(text + cause)

    if found is not None:
        assert len(found.reason) <= REASON_LIMIT
        assert sanitise_line(found.reason) == found.reason
