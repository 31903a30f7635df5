"""Small recordings, made by hand."""

from __future__ import annotations

import gzip
import json
import lzma
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

T0 = 1_700_000_000.0
PAGE = """vllm:num_requests_running{{engine="0",model_name="m"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="m"}} 0
vllm:iteration_tokens_total_count{{engine="0",model_name="m"}} {steps}
"""


def row(second: float, *, running: float = 1, steps: float = 1000, engine: str = "a", **more: Any) -> dict[str, Any]:
    """Return one good line, ``second`` s after the first."""
    page = PAGE.format(running=running, steps=steps)
    return {"t": T0 + second, "engine": engine, "kind": "vllm", "metrics": page, **more}


def write(path: Path, *rows: dict[str, Any] | str | bytes) -> Path:
    """Write rows, or lines as they are, packed by the suffix."""
    lines = [(json.dumps(one) if isinstance(one, dict) else one) for one in rows]
    data = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".xz":
        data = lzma.compress(data)
    path.write_bytes(data)
    return path
