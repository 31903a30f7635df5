"""What runs on this machine, written as a configuration (``config init``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opsboard.config.explain import to_toml

if TYPE_CHECKING:
    from collectors.discover import FoundEngine
    from opsboard.core.model import GpuReading


async def look() -> tuple[list[FoundEngine], GpuReading]:
    """Find the engines that answer here and read the GPUs once."""
    from collectors.discover import find_engines
    from collectors.nvml import GpuReader
    from opsboard.httpc.connection import Limits
    from opsboard.httpc.fetch import Fetcher

    fetcher, gpus = Fetcher(Limits()), GpuReader()
    try:
        return await find_engines(fetcher), await gpus.read()
    finally:
        await fetcher.close()
        await gpus.close()


def render(engines: Sequence[FoundEngine], gpus: GpuReading) -> str:
    """Return a configuration for what was found: engines are observed, with the lines that would supervise them."""
    out = ["# Written by `opsboard config init`. `opsboard config explain` says what every key means.", ""]
    if gpus.gpus:
        out += [f"# GPU {gpu.index}: {gpu.name or 'unknown'} {gpu.uuid}" for gpu in gpus.gpus]
    else:
        out.append(f"# GPUs: {gpus.error or 'none found'}")
    out += ["", "[collect]", 'interval = "1s"', ""]
    for engine in engines:
        out += _engine(engine)
    if not engines:
        out += [
            "# No engine answered. One that opsboard starts and stops itself looks like this:",
            "# [[engine]]",
            '# name = "llama-a"',
            '# command = ["vllm", "serve", "meta-llama/Llama-3.3-70B-Instruct", "--port", "8001"]',
            "# gpus = [0]",
            '# user = "vllm"   # needed when the daemon is root',
            "",
        ]
    return "\n".join(out)


def _engine(engine: FoundEngine) -> list[str]:
    origin = f"pid {engine.pid}" if engine.pid else "found by its port"
    lines = ["[[engine]]", f"# {engine.model or 'model unknown'}, {origin}"]
    lines.append(f"name = {to_toml(re.sub('[^A-Za-z0-9._-]+', '-', engine.name).strip('.-') or 'engine')}")
    if engine.kind:
        lines.append(f"kind = {to_toml(engine.kind)}")
    return [*lines, f"url = {to_toml(engine.url)}", "# observed: with a `command` opsboard would start and stop it", ""]
