"""How far an engine's start-up is, read from its log lines; and the line that says why it failed (fatal.py).

The phases are those of vLLM 0.8.5 to 0.33, matched loosely because wording, prefixes and order of the details change
between releases. Log text is written by strangers too (a prompt may be logged): what is found here explains a state,
it never decides that an engine lives or has died.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from collectors.fatal import CAUSE, Fatal, fatal, verdict
from opsboard.core.model import FatalVerdict, Phase, Record

__all__ = ["PHASES", "SHARES", "PhaseChange", "PhaseTracker", "progress", "verdict"]


class _Rule(Record, frozen=True):
    """A phase, the log text that shows it has begun, and its share of a start that nobody has timed yet."""

    name: str
    begins: str
    share: float


_RULES = (
    _Rule("start", r"(?!)", 8),  # from the spawn to the first line we know: Python imports
    _Rule(
        "configure",
        r"vLLM(?: API)? server version|Resolved architecture: |non-default args: |Using max model len",
        4,
    ),
    _Rule("engine", r"Initializing an? (?:V\d )?LLM engine|Waiting for init message from front-end", 3),
    _Rule("distributed", r"rank \d+ in world size \d+ is assigned", 2),
    _Rule(
        "load",
        r"Starting to load model|Time spent downloading weights|checkpoint shards:\s|Loading (?:model )?weights took",
        40,
    ),
    _Rule("profile", r"Model loading took", 5),
    _Rule(
        "compile",
        r"Using cache directory: .*torch\.compile|Dynamo bytecode transform time|Compiling a graph for"
        r"|Directly load (?:the compiled graph|AOT compilation)|torch\.compile (?:took|takes)",
        25,
    ),
    _Rule("kv_cache", r"Available KV cache memory|KV cache size: |Maximum concurrency for|# \w+ blocks: \d+", 3),
    _Rule("graphs", r"Capturing CUDA graph|Graph capturing finished", 12),
    _Rule(
        "serve",
        r"init engine \(profile|Supported[_ ]tasks: |Starting vLLM(?: API)? server|Available routes are:"
        r"|Started server process|Waiting for application startup",
        2,
    ),
    _Rule("ready", r"Application startup complete", 0),
)
PHASES = tuple(rule.name for rule in _RULES)
"""Start-up phases in order; an engine skips those it does not need (no graphs when eager) and never goes back."""
SHARES: Mapping[str, float] = {rule.name: rule.share for rule in _RULES}
"""Rough shares of a start, used only until a first start has been timed."""

_BEGINS = re.compile("|".join(f"(?P<{rule.name}>{rule.begins})" for rule in _RULES))
_PERCENT = re.compile(r":\s*(\d{1,3})%")


class PhaseChange(Record, frozen=True, kw_only=True):
    """What one log line changed.

    ``inside`` is the progress 0..1 within ``phase`` where the log tells (a progress bar), else None. ``reason`` is a
    one-line quote of what looks fatal, with a ``hint`` where there is a usual remedy and the ``verdict`` that it asks
    for, should the life end now.
    """

    phase: str
    inside: float | None = None
    reason: str | None = None
    hint: str | None = None
    verdict: FatalVerdict | None = None


class PhaseTracker:
    """Follows the log of one life. Feed it every line; it keeps where the start is and why it failed."""

    def __init__(self, *, ready: bool = False) -> None:
        """Begin at the spawn, or with a life that is known to have served."""
        self.phase = PHASES[-1] if ready else PHASES[0]
        self.inside: float | None = None
        self._fatal: Fatal | None = None

    @property
    def ready(self) -> bool:
        """True once the engine said that it serves."""
        return self.phase == PHASES[-1]

    @property
    def reason(self) -> str | None:
        """The line that explains an end best so far, quoted; None when none looked fatal."""
        return None if self._fatal is None else self._fatal.reason

    @property
    def hint(self) -> str | None:
        """The usual remedy for it, where there is one."""
        return None if self._fatal is None else self._fatal.hint

    @property
    def verdict(self) -> FatalVerdict | None:
        """What an end now would ask for: never a person or patience when the engine has served."""
        if self._fatal is None:
            return None
        return FatalVerdict.RETRY if self.ready else self._fatal.verdict

    def feed(self, line: str) -> PhaseChange | None:
        """Return what ``line`` changed, None for nothing. Never goes back to an earlier phase."""
        changed = self._advance(line) if not self.ready else False
        if self._note_fatal(line) or changed:
            return PhaseChange(
                phase=self.phase, inside=self.inside, reason=self.reason, hint=self.hint, verdict=self.verdict
            )
        return None

    def _advance(self, line: str) -> bool:
        found = _BEGINS.search(line)
        if found is None or found.lastgroup is None:
            return False
        name = found.lastgroup
        ahead = PHASES.index(name) - PHASES.index(self.phase)
        if ahead < 0:
            return False
        if ahead > 0:
            self.phase, self.inside = name, None
            if self.ready:
                self._fatal = None  # it serves in spite of it
        inside = _bar(line[found.start() :])
        if inside is not None and inside > (self.inside or 0.0):
            self.inside = inside
            return True
        return ahead > 0

    def _note_fatal(self, line: str) -> bool:
        """Keep the first of the weightiest lines."""
        known = 0 if self._fatal is None else self._fatal.weight
        found = fatal(line) if known < CAUSE else None
        if found is None or found.weight <= known or (self.ready and found.verdict is FatalVerdict.PARK):
            return False
        self._fatal = found
        return True


def _bar(text: str) -> float | None:
    """Return how far a tqdm progress bar is, 0..1."""
    found = _PERCENT.search(text)
    return min(int(found[1]), 100) / 100 if found else None


def progress(
    phases: Sequence[Phase], last_seconds: Mapping[str, float], now: float, inside: float | None = None
) -> float:
    """Return how far a start-up is, 0..1; 1.0 only when it is ready.

    Every phase weighs what it took last time (``last_seconds`` by name; :data:`SHARES` while nothing is known),
    phases before the present one count as done, and the present one by its progress bar (``inside``) or by the time
    spent in it. ``phases`` are those begun so far, the last one is the present one; ``now`` is Unix seconds. Does not
    go back while a start goes on.
    """
    if not phases:
        return 0.0
    present = phases[-1]
    if present.name == PHASES[-1]:
        return 1.0
    weights = _weights(last_seconds)
    if present.name not in weights:
        return 0.0
    names = list(weights)
    done = sum(weights[name] for name in names[: names.index(present.name)])
    weight = weights[present.name]
    spent = max(0.0, now - present.started)
    part = min(0.95, max(inside or 0.0, spent / weight if weight > 0 else 0.0))
    return min(0.99, (done + part * weight) / (sum(weights.values()) or 1.0))


def _weights(last_seconds: Mapping[str, float]) -> dict[str, float]:
    known = {name: max(0.0, last_seconds[name]) for name in PHASES if name in last_seconds}
    if sum(known.values()) <= 0:
        return dict(SHARES)
    return {name: known.get(name, 0.0) for name in PHASES}
