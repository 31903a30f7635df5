"""How much free GPU memory an engine's command asks for before it starts, as far as its flags tell.

vLLM (0.9.1 and later) takes a share of each of its GPUs and ends at once when less is free
(``request_memory`` in vllm/v1/worker/utils.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath

from opsboard.core.model import Record

_SHARE, _KV_BYTES, _FILE = "gpu-memory-utilization", "kv-cache-memory-bytes", "config"
_DATA_PARALLEL = "data-parallel-size"
_SIZES = ("tensor-parallel-size", "pipeline-parallel-size", "prefill-context-parallel-size", _DATA_PARALLEL)
_SHORT = {"tp": _SIZES[0], "pp": _SIZES[1], "pcp": _SIZES[2], "dp": _DATA_PARALLEL}
_DEFAULT_SHARE = 0.9
_NEWER_DEFAULT_SHARE, _NEWER = 0.92, (0, 20)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kmgtKMGT]?)")


class GpuNeed(Record, frozen=True, kw_only=True):
    """What each of ``gpus`` cards must have free: a ``share`` (0..1) of its whole memory, or ``at_least`` bytes.

    ``says`` is where that comes from, for people.
    """

    gpus: int
    says: str
    share: float | None = None
    at_least: int | None = None

    def of(self, total: int) -> int:
        """Return the bytes needed of a card with ``total`` bytes."""
        return math.ceil(total * self.share) if self.share is not None else self.at_least or 0


def gpu_need(command: Sequence[str], version: str | None = None) -> GpuNeed | None:
    """Return what ``command`` needs, None when that is unknown. ``version`` is the engine's, when known.

    Without the flag it is vLLM's default, for commands that are known to be vLLM's: 0.92 since 0.20, 0.9 before and
    when the version is unknown. ``--kv-cache-memory-bytes`` replaces the share; it is a lower bound, weights come on
    top.
    """
    flags = _flags(command)
    count = _count(flags)
    if count is None:
        return None
    if _KV_BYTES in flags:
        at_least = _bytes(flags[_KV_BYTES])
        says = f"--{_KV_BYTES} {flags[_KV_BYTES]}"
        return None if at_least is None else GpuNeed(gpus=count, at_least=at_least, says=says)
    if _SHARE in flags:
        share = _share(flags[_SHARE])
        return None if share is None else GpuNeed(gpus=count, share=share, says=f"--{_SHARE} {share:g}")
    if _FILE in flags or not _is_vllm(command):
        return None
    share = _NEWER_DEFAULT_SHARE if _parts(version) >= _NEWER else _DEFAULT_SHARE
    return GpuNeed(gpus=count, share=share, says=f"--{_SHARE} {share:g}, vLLM's default")


def _flags(command: Sequence[str]) -> dict[str, str]:
    """Return the last value of every option, ``--a_b=1`` and ``--a-b 1`` alike, as vLLM's parser reads them."""
    flags: dict[str, str] = {}
    for word, following in pairwise([*command, ""]):
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            flags[name[2:].replace("_", "-")] = value if equals else following
        elif word.startswith("-") and name[1:] in _SHORT:
            flags[_SHORT[name[1:]]] = value if equals else following
    return flags


def _count(flags: Mapping[str, str]) -> int | None:
    """Return how many GPUs of this machine it takes; None when that cannot be told, as with parts on other hosts."""
    sizes = [flags.get(name, "1") for name in _SIZES]
    elsewhere = (
        flags.get("nnodes", "1") != "1"
        or flags.get("distributed-executor-backend", "mp") not in {"mp", "uni"}
        or any(name.startswith("data-parallel-") and name != _DATA_PARALLEL for name in flags)
    )
    if elsewhere or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        return None
    return math.prod(map(int, sizes))


def _is_vllm(command: Sequence[str]) -> bool:
    pairs = pairwise(command)
    return any(word.startswith("vllm.entrypoints") for word in command) or any(
        PurePath(word).name == "vllm" and following == "serve" for word, following in pairs
    )


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 < share <= 1 else None


def _bytes(text: str) -> int | None:
    """Read vLLM's human-readable integers: 25.6g is decimal, 25G is binary."""
    found = _SIZE.fullmatch(text)
    if found is None:
        return None
    power = "kmgt".find(found[2].lower()) + 1 if found[2] else 0
    return int(float(found[1]) * (1000 if found[2].islower() else 1024) ** power)


def _parts(version: str | None) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)
