"""The development endpoints that vLLM serves with VLLM_SERVER_DEV_MODE=1: pausing and sleeping.

Each goes through EngineCore's busy loop and comes back only when that does: they hang when it hangs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from opsboard import httpd
from opsboard.sim.core_link import CoreLink
from opsboard.sim.metrics import EngineMetrics

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
        }

    async def _sleep(self, request: httpd.Request) -> httpd.Response:
        level, mode = request.query.get("level", "1"), request.query.get("mode", "abort")
        if level not in _LEVELS or mode not in _MODES:
            return _unprocessable(f"level is one of {', '.join(_LEVELS)}, mode one of {', '.join(_MODES)}")
        await self._stop("sleep", mode, int(level))
        self._metrics.slept(int(level))
        return httpd.json_response({"status": "sleeping", "level": int(level)})

    async def _wake_up(self, _request: httpd.Request) -> httpd.Response:
        await self._link.call("wake_up")
        self._metrics.slept(None)
        return httpd.json_response({"status": "awake", "tags": None})

    async def _is_sleeping(self, _request: httpd.Request) -> httpd.Response:
        return httpd.json_response({"is_sleeping": await self._link.call("is_sleeping")})

    async def _pause(self, request: httpd.Request) -> httpd.Response:
        mode = request.query.get("mode", "abort")
        if mode not in _MODES:
            return _unprocessable(f"mode is one of {', '.join(_MODES)}")
        await self._stop("pause", mode)
        return httpd.json_response({"status": "paused"})

    async def _resume(self, _request: httpd.Request) -> httpd.Response:
        await self._link.call("resume")
        return httpd.json_response({"status": "resumed"})

    async def _is_paused(self, _request: httpd.Request) -> httpd.Response:
        return httpd.json_response({"is_paused": await self._link.call("is_paused")})

    async def _stop(self, name: str, mode: str, level: int = 0) -> None:
        if mode == "abort":
            self._link.abort_all()
        await self._link.call(name, mode, level)


def _unprocessable(why: str) -> httpd.Response:
    return httpd.json_response({"detail": why}, 422)
