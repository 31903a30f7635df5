"""How far an engine's start-up is, read from its log lines; and the line that says why it failed.

The phases are those of vLLM 0.8.5 to 0.33, matched loosely because wording, prefixes and order of the details change
between releases. Log text is written by strangers too (a prompt may be logged): what is found here explains a state,
it never decides one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from opsboard.core.model import Phase, Record
from opsboard.core.text import sanitise_line

REASON_LIMIT = 300


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

_CAUSES = re.compile(
    r"No available memory for the cache blocks|Free memory on device.*is less than desired|CUDA out of memory"
    r"|torch\.(?:cuda\.)?OutOfMemoryError|is larger than the (?:maximum number of tokens|available KV cache memory)"
    r"|To serve at least one request with the model|illegal memory access|CUDA error: "
    r"|Watchdog caught collective operation|NCCL error|ncclSystemError|ncclUnhandledCudaError"
    r"|[Aa]ddress already in use|No space left on device"
    r"|is not a valid model identifier|is not a local folder|GatedRepoError|401 Client Error|RepositoryNotFoundError"
    r"|error: (?:unrecognized arguments|argument |the following arguments)|ModuleNotFoundError|ImportError: "
    r"|Failed to infer device type|No CUDA GPUs are available|NVIDIA driver on your system is too old|MemoryError"
)
_SYMPTOMS = re.compile(
    r"EngineCore failed to start|EngineCore encountered (?:a fatal error|an issue)"
    r"|WorkerProc (?:failed|initialization failed)|Worker proc .* died unexpectedly|EngineDeadError"
    r"|Engine core initialization failed|Engine process failed to start"
)
_SUSPECT = (
    *("rror", "emory", "ailed", " in use", "died", "larger than", "at least one", "o space", "local folder"),
    *("valid model", "No CUDA", "too old", "caught collective", "encountered"),
)
"""Every line of the two patterns holds one of these words: most lines of a log are passed over without a regex."""
_REQUEST = re.compile(r"Received request |prompt: ['\"]")  # a logged prompt says nothing about the engine
_PREFIX = re.compile(
    r"(?:\([^()]*pid=\d+\)\s*)?(?:[A-Z]+ \d\d-\d\d [\d:]+ )?(?:\[[\w./-]+:\d+\] )?"
)  # who, when, where
_HINTS = (
    (
        "Free memory on device",
        "another process holds memory of this GPU; find and end it, or lower --gpu-memory-utilization",
    ),
    ("No available memory for the cache", "raise --gpu-memory-utilization or use a smaller model"),
    ("larger than the", "lower --max-model-len or raise --gpu-memory-utilization"),
    ("at least one request", "lower --max-model-len or raise --gpu-memory-utilization"),
    ("out of memory", "the GPU is full; see who holds its memory, or lower --gpu-memory-utilization"),
    ("OutOfMemory", "the GPU is full; see who holds its memory, or lower --gpu-memory-utilization"),
    ("ddress already in use", "another process has the port; choose another --port or stop it"),
    ("No space left", "free disk space where the model and the compile cache are kept"),
    ("GatedRepo", "the model needs an accepted licence and an access token"),
    ("401 Client", "the model needs an access token"),
    ("No CUDA GPUs", "check the driver and CUDA_VISIBLE_DEVICES"),
)


class PhaseChange(Record, frozen=True, kw_only=True):
    """What one log line changed.

    ``inside`` is the progress 0..1 within ``phase`` where the log tells (a progress bar), else None. ``reason`` is a
    one-line quote of what looks fatal, with a ``hint`` where there is a usual remedy.
    """

    phase: str
    inside: float | None = None
    reason: str | None = None
    hint: str | None = None


class PhaseTracker:
    """Follows the log of one life. Feed it every line; it keeps where the start is and why it failed."""

    def __init__(self) -> None:
        """Begin at the spawn."""
        self.phase = PHASES[0]
        self.inside: float | None = None
        self.reason: str | None = None
        self.hint: str | None = None
        self._reason_is_cause = False

    @property
    def ready(self) -> bool:
        """True once the engine said that it serves."""
        return self.phase == PHASES[-1]

    def feed(self, line: str) -> PhaseChange | None:
        """Return what ``line`` changed, None for nothing. Never goes back to an earlier phase."""
        changed = self._advance(line) if not self.ready else False
        if self._note_reason(line) or changed:
            return PhaseChange(phase=self.phase, inside=self.inside, reason=self.reason, hint=self.hint)
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
        inside = _bar(line[found.start() :])
        if inside is not None and inside > (self.inside or 0.0):
            self.inside = inside
            return True
        return ahead > 0

    def _note_reason(self, line: str) -> bool:
        """Keep the first cause; a symptom only while no cause is known."""
        if self._reason_is_cause or not any(word in line for word in _SUSPECT) or _REQUEST.search(line):
            return False
        cause = _CAUSES.search(line)
        if cause is None and (self.reason is not None or _SYMPTOMS.search(line) is None):
            return False
        self._reason_is_cause = cause is not None
        self.reason = sanitise_line(_PREFIX.sub("", sanitise_line(line).strip(), count=1), REASON_LIMIT)
        self.hint = next((hint for text, hint in _HINTS if text in line), None)
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
