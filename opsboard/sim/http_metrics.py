"""What prometheus-fastapi-instrumentator counts of HTTP: by handler, method and status class (its default set, 8.x)."""

from __future__ import annotations

from opsboard.sim.metrics import Histogram

EXCLUDED = frozenset({"/metrics", "/health", "/load", "/ping", "/version", "/server_info"})
"""Handlers that vLLM leaves out of its HTTP metrics."""
_FEW = (0.1, 0.5, 1.0)
_MANY = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0),
    *(30.0, 60.0),
)


class Sizes:
    """A summary without quantiles."""

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0

    def add(self, size: int) -> None:
        """Count one body of ``size`` bytes."""
        self.count += 1
        self.total += size


class HttpMetrics:
    """Requests that were answered. Keys appear with their first request; ``since`` says when, in Unix seconds."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, str], int] = {}
        self.request_bytes: dict[str, Sizes] = {}
        self.response_bytes: dict[str, Sizes] = {}
        self.durations: dict[tuple[str, str], Histogram] = {}
        self.all_durations = Histogram(_MANY)
        self.since: dict[object, float] = {}

    def answered(
        self, handler: str, method: str, status: int, seconds: float, *, received: int, sent: int, wall: float
    ) -> None:
        """Count one request of ``received`` body bytes, answered with ``sent`` bytes (0 for a stream)."""
        if handler in EXCLUDED:
            return
        key = (handler, method, f"{status // 100}xx")
        if key not in self.requests:
            self.requests[key] = 0
            self.since[key] = wall
        self.requests[key] += 1
        if handler not in self.request_bytes:
            self.request_bytes[handler], self.response_bytes[handler] = Sizes(), Sizes()
            self.since[handler] = wall
        self.request_bytes[handler].add(received)
        self.response_bytes[handler].add(sent)
        pair = (handler, method)
        if pair not in self.durations:
            self.durations[pair] = Histogram(_FEW)
            self.since[pair] = wall
        self.durations[pair].observe(seconds)
        self.all_durations.observe(seconds)
