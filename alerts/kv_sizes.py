"""How many tokens a running request of an engine holds on average, from those of the requests that ended.

Whoever runs long is met more often: the mean over those that run now weighs each request by how long it takes, which
is by the tokens that it generates (the inspection paradox; Little's law). A page tells sums of several requests that
ended together. Of sums the covariance for each request is known too: that of ``n`` requests is ``n`` times as large.
"""

from __future__ import annotations

from math import exp

from alerts.kv_accounting import Blocks
from opsboard.core.model import Record

_REQUESTS, _SECONDS = 300.0, 60.0
"""Averaged over so many requests, or so long where that is more; a covariance needs twice as many."""
_ENOUGH = 60.0
"""From so many on the mean is told."""


class Sizes(Record, frozen=True):
    """Means over the requests that ended of late, in tokens."""

    seen: float = 0.0
    size: float = 0.0
    """The prompt and half of what it generated."""
    generated: float = 0.0
    together: float = 0.0
    """Covariance of the two."""

    @property
    def running(self) -> float | None:
        """Tokens of a request that runs, on average; None while too few have ended."""
        if self.seen < _ENOUGH or self.generated <= 0.0:
            return None
        return self.size + max(0.0, self.together) / self.generated


def ended(sizes: Sizes, old: Blocks, new: Blocks, passed_s: float) -> Sizes:
    """Take in the requests that ended between two pages, which are ``passed_s`` apart."""
    if old.finished is None or new.finished is None or old.measured is None or new.measured is None:
        return sizes
    count = new.finished - old.finished
    if count <= 0:
        return sizes
    prompts, generated = new.measured[0] - old.measured[0], new.measured[1] - old.measured[1]
    size = prompts + generated / 2
    seen = sizes.seen + count
    if not sizes.seen:
        return Sizes(seen, size / count, generated / count)
    larger, longer = size - count * sizes.size, generated - count * sizes.generated
    part = min(count / _REQUESTS, passed_s / _SECONDS)
    share, slower = max(1 - exp(-part), count / seen), max(1 - exp(-part / 2), count / seen)
    return Sizes(
        seen,
        sizes.size + share * larger / count,
        sizes.generated + share * longer / count,
        sizes.together + slower * (larger * longer / count - sizes.together),
    )
