"""Work of one engine's life, from page to page: for detectors that measure something against it."""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

from alerts.base import Observation
from opsboard.core.lives import SERVES, other_process
from opsboard.core.model import EngineView, Outcome


class Work(NamedTuple):
    """What a life has done so far, by its last good page. None: the page does not count that."""

    view: EngineView
    at: float
    """When that page came (monotonic s)."""
    requests: float | None
    tokens: float | None
    load: float
    """Requests in the engine."""
    begun: float
    """When it was first seen (monotonic s)."""


class Told(NamedTuple):
    """What an observation says of the life: its work, and whether all that was remembered is of another one."""

    work: Work | None
    anew: bool


def follow(work: Work | None, seen: Observation) -> Told:
    """Take in an observation. A page that fails or tells nothing changes nothing; one that sleeps ends the account."""
    if seen.life is not None and seen.life.state not in SERVES:
        return Told(None, anew=True)
    reading = seen.reading
    if not seen.fresh or reading is None or reading.outcome is not Outcome.OK or reading.view is None:
        return Told(work, anew=False)
    view = reading.view
    if view.asleep:
        return Told(None, anew=True)
    requests, tokens = _known(view.counters.get("requests_finished")), _tokens(view)
    anew = work is not None and _another(work, view, requests, tokens)
    counted = requests is not None or tokens is not None
    if not anew and (not counted or (work is not None and _gone(work, requests, tokens))):
        return Told(work, anew=False)
    if not counted:
        return Told(None, anew=True)
    begun = seen.now.mono if work is None or anew else work.begun
    load = (_known(view.running) or 0.0) + (_known(view.waiting) or 0.0)
    return Told(Work(view, seen.now.mono, requests, tokens, load, begun), anew=anew)


def _another(work: Work, view: EngineView, requests: float | None, tokens: float | None) -> bool:
    fell = _less(requests, work.requests) or _less(tokens, work.tokens)
    moved = work.view.model != view.model and view.model is not None and work.view.model is not None
    return fell or moved or bool(other_process(work.view, view))


def _gone(work: Work, requests: float | None, tokens: float | None) -> bool:
    """Tell whether this page leaves out what the one before counted: then it says nothing."""
    return (requests is None and work.requests is not None) or (tokens is None and work.tokens is not None)


def _tokens(view: EngineView) -> float | None:
    known = [view.counters[name] for name in ("prompt_tokens", "generation_tokens") if name in view.counters]
    return _known(sum(known)) if known else None


def _less(new: float | None, old: float | None) -> bool:
    return new is not None and old is not None and new < old


def _known(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
