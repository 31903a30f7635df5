"""How many KV blocks the requests of an engine can hold at most, from those who sent them."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from msgspec.structs import replace

from alerts.kv_accounting import ASYNC_TOKENS, Blocks, needed
from alerts.kv_votes import Votes, acquitted, limited, voted
from opsboard.core.inflight import InflightRequest
from opsboard.core.model import Record

RACE_S = 0.1
"""Who sent the requests may know of a token so much later than the page counts it."""


class Truth(Record, frozen=True, kw_only=True):
    """What was compared so far."""

    votes: Votes | None = None
    apart: float | None = None
    """Tokens that the page counts and nobody sent, at the last comparison."""
    page: Blocks | None = None
    mono: float = 0.0
    """The page then, and when (s)."""

    @property
    def lost(self) -> int:
        """Blocks that are lost at least."""
        return 0 if self.votes is None else self.votes.lost

    @property
    def since(self) -> float | None:
        """When (monotonic s) the first reading came that shows it."""
        return None if self.votes is None else self.votes.since


def compared(truth: Truth, page: Blocks, requests: Sequence[InflightRequest], spec_tokens: int, mono: float) -> Truth:
    """Take in a page and all requests under way at its moment.

    They need not be of quite the same moment; that is tried first (see :mod:`alerts.kv_votes`). What each generates in
    :data:`RACE_S` is allowed for. And when requests came and went in between, the tokens that the page has and nobody
    sent (those of dead requests else) grow by what the requests lack: so much more may rightly be used.
    """
    ahead = spec_tokens + ASYNC_TOKENS + ceil(RACE_S * _pace(truth, page, mono))
    bound = needed(requests, page.running, page.size, ahead)
    votes = Votes() if truth.votes is None else limited(truth.votes, page.used)
    apart = None
    late = 0.0
    if page.tokens is not None:
        apart = page.tokens - sum(one.prompt_tokens + one.generated_tokens for one in requests if one.generated_tokens)
        if truth.apart is not None:
            late = max(0.0, apart - truth.apart - page.running * ahead) / page.size
    elif page.used - bound < votes.least:
        votes = replace(votes, shown=())  # without that check all must show it, one after the other
    votes = voted(votes, page.used - bound - late, bound, page.used, mono)
    return Truth(votes=votes, apart=apart, page=page, mono=mono)


def _pace(truth: Truth, page: Blocks, mono: float) -> float:
    """Return the tokens a second that one request generates, rather too many than too few."""
    old = truth.page
    if old is None or old.generated is None or page.generated is None or mono <= truth.mono:
        return 0.0
    running = max(1, min(old.running, page.running))
    return max(0.0, page.generated - old.generated) / (mono - truth.mono) / running


def cleared(truth: Truth) -> Truth:
    """Begin anew: nothing is lost for sure."""
    return truth if truth.votes is None else replace(truth, votes=acquitted(truth.votes))
