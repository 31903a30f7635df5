"""How many KV blocks the requests of an engine can hold at most, from those who sent them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from alerts.kv_accounting import ASYNC_TOKENS, Blocks, needed
from alerts.kv_votes import Votes, acquitted, begun, limited, voted
from opsboard.core.inflight import InflightRequest
from opsboard.core.model import Record


class Truth(Record, frozen=True, kw_only=True):
    """What was compared so far. ``apart``: tokens that the page counts and nobody sent, at the last comparison."""

    votes: Votes | None = None
    apart: float | None = None

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

    They need not be of quite the same moment. Then the tokens that the page has and nobody sent (those of dead
    requests else) grow by what the requests lack, and so much more may rightly be used.
    """
    bound = needed(requests, page.running, page.size, spec_tokens + ASYNC_TOKENS)
    votes = begun(told=page.told) if truth.votes is None else limited(truth.votes, page.used)
    apart = None
    late = 0.0
    if page.tokens is not None:
        apart = page.tokens - sum(one.prompt_tokens + one.generated_tokens for one in requests if one.generated_tokens)
        if truth.apart is not None:
            late = max(0.0, apart - truth.apart - page.running * ASYNC_TOKENS) / page.size
    elif page.used - bound < votes.least:
        votes = replace(votes, shown=())  # without that check all must show it, one after the other
    return Truth(votes=voted(votes, page.used - bound - late, bound, page.used, mono), apart=apart)


def cleared(truth: Truth) -> Truth:
    """Begin anew: nothing is lost for sure."""
    return truth if truth.votes is None else replace(truth, votes=acquitted(truth.votes))
