"""What an engine did between two readings: tokens, steps, prompts, and how long they took. Exact sums, no quantiles.

vLLM counts the tokens of a prompt when its first token comes. So an account is closed only when no prompt is half
done, or few beside those that were done meanwhile: a long prompt in chunks is slow before it is counted. Where requests
are preempted none is closed: who waits for a place again is slow by load, and what is computed again is not counted.
"""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

from msgspec.structs import replace

from opsboard.core.lives import other_process
from opsboard.core.model import EngineView, Record

GAPS_LEAST = 20
STEPS_LEAST = 5
FINISHED_LEAST = 8
PREFILL_LEAST_S = 5.0
_OPEN_S = 60.0
"""A prompt that takes longer to compute than this: what was done meanwhile cannot be accounted for."""
_QUIET_S = 60.0
"""Requests that waited or were preempted finish within about this, and their prefill time tells of the queue."""
_GROWS_S = 5.0
"""So long after the KV cache has grown by more than was counted, a prompt may still be half done."""
_ROUNDING = 32.0
"""Tokens a request by which the cache may grow more than that: blocks are allocated whole."""
_LONE_PROMPTS = 4.0
"""Prompts done for each one half done, so that the latter do not matter."""

_COUNTED = ("iterations", "generation_tokens")
_MORE = (
    "prompt_tokens_computed", "requests_begun", "requests_completed", "preemptions", "completed_prefill_tokens",
    "prompt_tokens",
)  # fmt: skip


class Meter(NamedTuple):
    """What a page says: cumulative counters, then gauges."""

    gap_s: float
    gaps: float
    steps: float
    generated: float
    computed: float
    begun: float
    completed: float
    preempted: float
    prefill_tokens: float
    prompts: float
    """Tokens of prompts, also of those that were cached; 0: not counted."""
    prefill_s: float
    running: float
    waiting: float
    context: float
    """Tokens in the KV cache, for each rank."""


COUNTERS = 11
"""So many of them are cumulative."""


class Work(Record, frozen=True, kw_only=True):
    """What was done in ``seconds``; sums, of all ranks together."""

    seconds: float = 0.0
    gap_s: float = 0.0
    """Between two tokens of a request, one after the other."""
    gaps: float = 0.0
    steps: float = 0.0
    generated: float = 0.0
    computed: float = 0.0
    begun: float = 0.0
    finished: float = 0.0
    preempted: float = 0.0
    prefill_tokens: float = 0.0
    prefill_s: float = 0.0
    context_s: float = 0.0
    drafts: bool = False
    """It speculates: a gap brings more than one token."""

    @property
    def token_s(self) -> float:
        """Seconds a token, for those who read them."""
        decoded = self.generated - self.begun
        return self.gap_s / (decoded if self.drafts and decoded > 0 else self.gaps)

    @property
    def busy_s(self) -> float:
        """How long it was at work, about."""
        return min(self.seconds, self.steps * self.gap_s / self.gaps) if self.gaps else 0.0

    @property
    def batch(self) -> float:
        """Requests that decode in a step."""
        return self.gaps / self.steps

    @property
    def context(self) -> float:
        """Tokens in the KV cache."""
        return self.context_s / self.seconds if self.seconds else 0.0

    @property
    def prefill(self) -> float:
        """Prompt tokens computed in a step."""
        return self.computed / self.steps


class Account(Record, frozen=True, kw_only=True):
    """What is not yet closed."""

    view: EngineView | None = None
    meter: Meter | None = None
    at: float = 0.0
    every_s: float = 1.0
    aborted: float = 0.0
    """Requests begun that went away uncounted, at least."""
    thrown: float = 0.0
    """Requests preempted since none waited: at most so many of those that wait have begun."""
    thrown_at: float = 0.0
    queued: float = float("-inf")
    """When requests last waited or were preempted, or nothing went on."""
    grew: float = float("-inf")
    """When the KV cache last grew by more than was counted,"""
    hidden: float = 0.0
    """and by how many tokens in all since it last did not."""
    tokens: Work = Work()
    prompts: Work = Work()


class Taken(NamedTuple):
    """What a page leads to: ``tokens`` and ``prompts`` are closed accounts; ``born``: it is another life's."""

    account: Account
    tokens: Work | None = None
    prompts: Work | None = None
    born: bool = False


def take(account: Account, view: EngineView, mono: float, gap_s: float) -> Taken:
    """Take in a page. Readings farther apart than ``gap_s``, or thrice as usual, say nothing of the time between."""
    meter = _meter(view)
    old, seconds = account.meter, mono - account.at
    if meter is None or (old is not None and seconds <= 0.0):
        return Taken(account)
    if old is None or account.view is None or _another(account.view, old, view, meter):
        return Taken(Account(view=view, meter=meter, at=mono, aborted=_lost(meter, meter.waiting)), born=True)
    every_s = account.every_s + (min(seconds, 4 * account.every_s) - account.every_s) / 8
    done = _between(old, meter, seconds, view)
    hidden = _uncounted(old, meter, view)
    if hidden:
        account = replace(account, grew=mono, hidden=account.hidden + hidden)
    elif account.hidden and (done.begun or mono - account.grew >= _GROWS_S):
        account = replace(account, hidden=0.0)
    thrown_at = mono if done.preempted else account.thrown_at
    # Who was preempted is the next to be admitted.
    thrown = account.thrown + done.preempted if mono - thrown_at < _QUIET_S else 0.0
    aborted = max(account.aborted, _lost(meter, min(thrown, meter.waiting)))
    if not meter.running and not meter.waiting:
        aborted = _lost(meter, 0.0)
    account = replace(account, view=view, meter=meter, at=mono, every_s=every_s, aborted=aborted, thrown_at=thrown_at)
    if seconds > max(gap_s, 3 * every_s):
        return Taken(replace(account, tokens=Work(), prompts=Work(), queued=mono))
    stood = meter.running > 0 and old.running > 0 and not done.steps
    if meter.waiting > 0 or done.preempted or stood:
        account = replace(account, queued=mono)
    tokens, closed = (Work(), None) if thrown else _tokens(account, meter, _sum(account.tokens, done), done)
    prompts, ended = _prompts(account, _sum(account.prompts, done))
    thrown = thrown if meter.waiting else 0.0
    return Taken(replace(account, tokens=tokens, prompts=prompts, thrown=thrown), closed, ended)


def _tokens(account: Account, meter: Meter, work: Work, done: Work) -> tuple[Work, Work | None]:
    # Without these counters prompts are as good as never half done.
    half = meter.running - (meter.begun - meter.completed - account.aborted) if meter.begun else 0.0
    # Who went away uncounted hides that a prompt is half done; the cache shows it.
    if (half > 0 and work.begun < _LONE_PROMPTS * half) or work.computed < _LONE_PROMPTS * account.hidden:
        return (Work() if work.seconds > _OPEN_S else work), None
    if work.gaps >= GAPS_LEAST and work.steps >= STEPS_LEAST and work.gap_s > 0:
        return Work(), work
    idle = not work.gaps and not done.steps
    return (Work() if idle else work), None


def _prompts(account: Account, work: Work) -> tuple[Work, Work | None]:
    if account.at - account.queued < _QUIET_S:
        return Work(), None
    if work.finished >= FINISHED_LEAST and work.seconds >= PREFILL_LEAST_S and work.prefill_s > 0 and work.steps:
        return Work(), work
    return work, None


def _lost(meter: Meter, begun: float) -> float:
    """Return how many requests have begun and are neither done nor there; ``begun`` of those that wait have."""
    return meter.begun - meter.completed - meter.running - begun


def _uncounted(old: Meter, new: Meter, view: EngineView) -> float:
    """Return the tokens by which the KV cache grew that were neither generated nor of prompts that were counted."""
    grown = (new.context - old.context) * max(1, len(view.ranks))
    more = grown - (new.generated - old.generated + new.prompts - old.prompts)
    return more if new.prompts > 0.0 and more > _ROUNDING * (1.0 + new.running) else 0.0


def _between(old: Meter, new: Meter, seconds: float, view: EngineView) -> Work:
    return Work(
        seconds=seconds,
        gap_s=new.gap_s - old.gap_s,
        gaps=new.gaps - old.gaps,
        steps=new.steps - old.steps,
        generated=new.generated - old.generated,
        computed=new.computed - old.computed,
        begun=new.begun - old.begun,
        finished=new.completed - old.completed,
        preempted=new.preempted - old.preempted,
        prefill_tokens=new.prefill_tokens - old.prefill_tokens,
        prefill_s=new.prefill_s - old.prefill_s,
        context_s=seconds * (new.context + old.context) / 2,
        drafts=view.spec_tokens is not None,
    )


def _sum(one: Work, two: Work) -> Work:
    if not one.seconds:
        return two
    return Work(
        seconds=one.seconds + two.seconds,
        gap_s=one.gap_s + two.gap_s,
        gaps=one.gaps + two.gaps,
        steps=one.steps + two.steps,
        generated=one.generated + two.generated,
        computed=one.computed + two.computed,
        begun=one.begun + two.begun,
        finished=one.finished + two.finished,
        preempted=one.preempted + two.preempted,
        prefill_tokens=one.prefill_tokens + two.prefill_tokens,
        prefill_s=one.prefill_s + two.prefill_s,
        context_s=one.context_s + two.context_s,
        drafts=two.drafts,
    )


def _another(old_view: EngineView, old: Meter, view: EngineView, new: Meter) -> bool:
    """Tell whether a page is of another life: another process, or a counter went down."""
    if other_process(old_view, view):
        return True
    return any(after < before for before, after in zip(old[:COUNTERS], new[:COUNTERS], strict=True))


def lacking(view: EngineView) -> str | None:
    """Return for people what a page lacks that nothing can be said without; None: it has it."""
    gap = view.histograms.get("itl")
    names = [] if gap is not None and gap.total is not None else ["how long tokens take"]
    names += [name for name in _COUNTED if name not in view.counters]
    if names:
        return f"its page does not tell {', '.join(names)}"
    return "its page tells numbers that are none" if _meter(view) is None else None


def _meter(view: EngineView) -> Meter | None:
    """Return what the page says; None where it lacks what nothing can be said without."""
    gap, counters = view.histograms.get("itl"), view.counters
    if gap is None or gap.total is None or any(name not in counters for name in _COUNTED):
        return None
    prefill = view.histograms.get("prefill")
    ranks = max(1, len(view.ranks))
    context = max(0.0, (view.kv_usage or 0.0) * (view.kv_capacity_tokens or 0.0) / ranks)
    more = [counters.get(name, 0.0) for name in _MORE]
    prefill_s = 0.0 if prefill is None or prefill.total is None else prefill.total
    gauges = (view.running or 0.0, view.waiting or 0.0, context)
    values = (gap.total, gap.count, counters["iterations"], counters["generation_tokens"], *more, prefill_s, *gauges)
    meter = Meter._make(values)
    return meter if all(map(isfinite, meter)) else None
