"""A token bucket: so many at once, then one every so often. Pure."""

from __future__ import annotations

from alerts.notifier import Rate


class Bucket:
    """Full at the beginning. Times are monotonic seconds."""

    def __init__(self, rate: Rate, mono: float) -> None:
        """Fill it."""
        self._rate = rate
        self._free_at = mono - rate.burst * rate.every_s
        """When it was or will be empty-handed: a token more for every ``every_s`` since then."""

    def wait_s(self, mono: float) -> float:
        """Take a token and return how long to wait until it is there."""
        self._free_at = max(self._free_at, mono - self._rate.burst * self._rate.every_s) + self._rate.every_s
        return max(0.0, self._free_at - mono)
