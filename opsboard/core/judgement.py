"""Records of judgement: what a detector claims, and what an engine answers to a request of opsboard's own."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import floor
from typing import Literal, NamedTuple

from opsboard.core.words import Record


class Learning(NamedTuple):
    """A detector has ``seen`` so much of what is ``needed`` before it judges: by itself it will."""

    seen: float
    needed: float
    what: str = "s of work"

    def __str__(self) -> str:
        """Return it for people: ``34 of 60 s of work seen``."""
        return f"{floor(max(0.0, min(self.seen, self.needed)))} of {self.needed:.0f} {self.what} seen"


class Off(NamedTuple):
    """There is nothing for a detector to judge, which is as it should be."""

    reason: str

    def __str__(self) -> str:
        """Return why."""
        return self.reason


Unknown = str | Learning | Off
"""Why a detector does not judge an engine: a plain sentence where it cannot know, or one of these two."""


class Finding(Record, frozen=True, kw_only=True):
    """What a detector claims now, with the numbers that justify it.

    ``summary`` is one sentence for people with those numbers; ``since`` (Unix s) when it began as far as is known;
    ``confirmed``: more than one kind of evidence speaks for it, so that automation may act on it; ``severity``: where
    it is quieter than others of its detector.
    """

    detector: str
    engine: str
    summary: str
    since: float
    confirmed: bool = False
    severity: Literal["page", "ticket", "note"] | None = None
    evidence: Mapping[str, float | str | bool | None] = {}


class FindingChange(Record, frozen=True, kw_only=True):
    """A finding that opened, gained or lost its confirmation, or closed."""

    t: float
    finding: Finding
    open: bool


class CanaryOutcome(StrEnum):
    """What became of one request that opsboard itself made."""

    OK = "ok"
    TIMEOUT = "timeout"
    """Accepted, and no answer within its deadline."""
    SATURATED = "saturated"
    """No connection within its deadline: busy, not dead."""
    REFUSED = "refused"
    """Nobody listens, or an answer that says it cannot serve (5xx)."""
    ASLEEP = "asleep"
    """Paused or sleeping, as somebody asked it to."""
    UNABLE = "unable"
    """It cannot be asked: no model known, no right, no such endpoint."""


class CanaryReading(Record, frozen=True, kw_only=True):
    """One small request to an engine. ``seconds`` until its end; the rest only for a golden one that was answered."""

    engine: str
    outcome: CanaryOutcome
    seconds: float
    error: str | None = None
    output: str | None = None
    output_sha256: str | None = None
    version: str | None = None
    """Of the engine that was asked, where its page tells."""
    reset: bool | None = None
    """Whether it could empty its prefix cache, which it cannot while a block is held; None: not asked, or not told."""
