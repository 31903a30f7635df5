"""How many KV blocks the requests of an engine can hold at most, from its page alone: tokens are conserved.

Tokens of requests past their prefill and not ended = prompt_tokens + generation_tokens - those of measured requests.
Nobody measures a request whose client went away, so its tokens stay in this sum; they are taken out where an engine is
quiet: idle it holds nothing, and one request alone shares with nobody, so it holds no more than what is used. All else
that is left out (shared prefixes, preempted requests, aborts) makes the bound too high: it hides a leak, it never
makes one up.
"""

from __future__ import annotations

from msgspec.structs import replace

from alerts.kv_accounting import ASYNC_TOKENS, Blocks
from opsboard.core.model import Record

MOSTLY = 0.5
"""A larger share of pages than this with a prefill under way, and one may be hidden on the others."""
_SMOOTH = 0.05


class Ledger(Record, frozen=True, kw_only=True):
    """What is carried from page to page of one rank."""

    tokens: float
    """No more than these are held by requests past their prefill. Dead ones since the last quiet moment included."""
    gone: float
    """At least so many requests ended unmeasured in this life: those that began, did not end and do not run."""
    thrown: bool
    """Requests thrown back to the queue may be among those that began and do not run."""
    prefilling: float = 0.0
    """Share of late pages with a prefill under way."""
    settled: bool = False
    """On the last page every running request was past its prefill, as far as that page alone can tell."""


def opened(new: Blocks) -> Ledger | None:
    """Return a ledger that begins with this page; None where it does not tell what is needed."""
    if new.tokens is None or new.begun is None:
        return None
    gone = max(0.0, new.begun - new.running) if new.waiting == 0 else 0.0
    return Ledger(tokens=max(0.0, new.tokens), gone=gone, thrown=new.waiting > 0)


def turned(ledger: Ledger, old: Blocks, new: Blocks, lost: int) -> Ledger | None:
    """Return the ledger after the next page. ``lost``: blocks that are known to be held by nobody."""
    if new.tokens is None or new.begun is None or old.tokens is None:
        return None
    tokens = max(0.0, ledger.tokens + new.tokens - old.tokens)
    thrown = (ledger.thrown or new.preemptions > old.preemptions) and new.waiting > 0
    unexplained = new.begun - new.running
    gone = ledger.gone if thrown else max(ledger.gone, unexplained)
    prefilling = unexplained < ledger.gone
    settled = not thrown and not new.deferred and unexplained == ledger.gone
    if new.idle:
        tokens, gone, settled = 0.0, unexplained, True
    elif new.running == 1 and new.waiting == 0:
        tokens = min(tokens, float(max(0, new.used - lost) * new.size))
    return replace(
        ledger,
        tokens=tokens,
        gone=gone,
        thrown=thrown,
        prefilling=ledger.prefilling + _SMOOTH * (prefilling - ledger.prefilling),
        settled=settled and not new.idle,
    )


def excess(ledger: Ledger, new: Blocks, spec_tokens: int) -> float | None:
    """Return blocks that are used beyond what is explained, negative: fewer; None where the page does not tell.

    Each request rounds up to a whole block, and holds some tokens ahead of those it has.
    """
    if not ledger.settled or ledger.prefilling > MOSTLY:
        return None
    each = (new.size - 1 + spec_tokens + ASYNC_TOKENS) / new.size
    return new.used - ledger.tokens / new.size - new.running * each


def unsettles(before: Ledger, new: Blocks) -> bool:
    """Tell whether ``new`` shows that there may have been a prefill that the page before it hid.

    Then more requests have begun and do not run: one had gone, and another that had not begun took its place.
    """
    return new.begun is None or new.begun - new.running > before.gone
