"""The development endpoints that vLLM serves with VLLM_SERVER_DEV_MODE=1: pausing, sleeping, an empty prefix cache.

Each goes through EngineCore's busy loop and comes back only when that does: they hang when it hangs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from opsboard import httpd
from opsboard.sim.core_link import CoreLink
from opsboard.sim.metrics import EngineMetrics
from opsboard.sim.openai import Refusal

_MODES = ("abort", "wait", "keep")
_LEVELS = ("0", "1", "2")


class DevApi:
    """Answers them. ``routes`` are handlers by path."""

    def __init__(self, link: CoreLink, metrics: EngineMetrics) -> None:
        """Nothing is paused yet."""
        self._link = link
        self._metrics = metrics
        self.routes: Mapping[str, Callable[[httpd.Request], Awaitable[httpd.Response]]] = {
            "/sleep": self._sleep,
            "/wake_up": self._wake_up,
            "/is_sleeping": self._is_sleeping,
            "/pause": self._pause,
            "/resume": self._resume,
            "/is_paused": self._is_paused,
            "/reset_prefix_cache": self._reset_prefix_cache,
        }

    async def _sleep(self, request: httpd.Request) -> httpd.Response:
        level, mode = int(_one_of(request, "level", "1", _LEVELS)), _one_of(request, "mode", "abort", _MODES)
        await self._stop("sleep", mode, level)
        self._metrics.slept(level)
        return httpd.json_response({"status": "sleeping", "level": level})

    async def _wake_up(self, request: httpd.Request) -> httpd.Response:
        await self._link.call("wake_up")
        self._metrics.slept(None)
        tags = [request.query["tags"]] if "tags" in request.query else None  # each wakes all of it
        return httpd.json_response({"status": "awake", "tags": tags})

    async def _is_sleeping(self, _request: httpd.Request) -> httpd.Response:
        return httpd.json_response({"is_sleeping": await self._link.call("is_sleeping")})

    async def _pause(self, request: httpd.Request) -> httpd.Response:
        await self._stop("pause", _one_of(request, "mode", "abort", _MODES))
        return httpd.json_response({"status": "paused"})

    async def _resume(self, _request: httpd.Request) -> httpd.Response:
        await self._link.call("resume")
        return httpd.json_response({"status": "resumed"})

    async def _is_paused(self, _request: httpd.Request) -> httpd.Response:
        return httpd.json_response({"is_paused": await self._link.call("is_paused")})

    async def _reset_prefix_cache(self, _request: httpd.Request) -> httpd.Response:
        return httpd.json_response({"success": await self._link.call("reset_prefix_cache")})

    async def _stop(self, name: str, mode: str, level: int = 0) -> None:
        if mode == "abort":
            self._link.abort_all()
        await self._link.call(name, mode, level)


def _one_of(request: httpd.Request, name: str, default: str, values: Sequence[str]) -> str:
    """Return a parameter. Raises Refusal."""
    value = request.query.get(name, default)
    if value not in values:
        message = f"1 validation error:\n  {name} must be one of {', '.join(values)}, not {value!r}"
        raise Refusal(400, "Bad Request", message, name)
    return value
