"""Which log lines say why an engine fails, and what they ask for: another try, patience, or a person.

The wording is that of vLLM 0.6 to 0.33, PyTorch, NCCL, transformers and huggingface_hub. A log is written by strangers
too (a prompt may be logged): its lines are believed only after a life has ended, and what asks for a person only when
that life had not served yet.
"""

from __future__ import annotations

import re

from opsboard.core.model import FatalVerdict, Record
from opsboard.core.text import sanitise_line

REASON_LIMIT = 300
CAUSE, LIKELY, SYMPTOM = 3, 2, 1
"""How much a line explains: a cause beats what is a cause only if nothing better comes (some imports fail and nothing
is lost), and that beats the outcry that follows from either."""

_PARK, _WAIT, _RETRY = FatalVerdict.PARK, FatalVerdict.WAIT, FatalVerdict.RETRY


class Fatal(Record, frozen=True, kw_only=True):
    """What one line says. ``reason`` quotes it without prefix; ``weight`` is :data:`CAUSE` or less."""

    verdict: FatalVerdict
    reason: str
    hint: str | None
    weight: int


class _Rule(Record, frozen=True):
    pattern: re.Pattern[str]
    verdict: FatalVerdict
    hint: str | None
    weight: int


def _rule(verdict: FatalVerdict, pattern: str, hint: str | None = None, weight: int = CAUSE) -> _Rule:
    return _Rule(re.compile(pattern), verdict, hint, weight)


_RULES = (
    # What only another command, model or installation cures.
    _rule(
        _PARK,
        "No available memory for the cache blocks",
        "raise --gpu-memory-utilization or use a smaller model",
    ),
    _rule(
        _PARK,
        r"is larger than the (?:maximum number of tokens|available KV cache memory)"
        r"|To serve at least one request with the model",
        "lower --max-model-len or raise --gpu-memory-utilization",
    ),
    _rule(_PARK, "greater than the derived max_model_len", "lower --max-model-len"),
    _rule(
        _PARK,
        # argparse (vLLM, SGLang), clap (TGI, vLLM's Rust server), llama.cpp, click
        r"error: (?:unrecognized arguments|argument |the following (?:required )?arguments|ambiguous option)"
        r"|error: (?:unexpected argument|invalid value) '|error: invalid argument: "
        r"|Error: (?:No such option|Missing option|Invalid value for )",
        "correct the engine's `command`",
    ),
    _rule(
        _PARK,
        "GatedRepoError|access (?:a )?gated repo",
        "the model needs an accepted licence and an access token",
    ),
    _rule(
        _PARK,
        r"is not a valid model identifier|is not a local folder|Invalid repository ID or local directory"
        r"|Repo id must |RepositoryNotFoundError",
        "correct the model's name or path in `command`; a private one needs an access token",
    ),
    _rule(_PARK, "40[13] Client Error", "the model needs an access token"),
    _rule(
        _PARK,
        r"World size \(\d+\) is larger than the number of available GPUs|divisible by tensor parallel size",
        "the number of its `gpus` and --tensor-parallel-size do not go together",
    ),
    _rule(
        _PARK,
        r"Model architectures? .*(?:not supported|failed to be inspected)|does not recognize this architecture",
        "this version of the engine does not know the model",
    ),
    _rule(_PARK, "NVIDIA driver on your system is too old", "update the driver"),
    _rule(_PARK, "PermissionError: ", "let the engine's `user` read and write it"),
    _rule(
        _PARK,
        "outgoing traffic has been disabled",
        "the model is not on the disk, and HF_HUB_OFFLINE forbids to fetch it",
    ),
    _rule(_PARK, r"Value error, |\[type=\w+, input_value=", "correct the engine's `command`"),
    _rule(_PARK, r"validation errors? for \w+Config", "correct the engine's `command`", LIKELY),
    _rule(_PARK, "(?:Module|Package)NotFoundError: |ImportError: ", "repair the engine's installation", LIKELY),
    # What somebody else is in the way of.
    _rule(
        _WAIT,
        "Free memory on device.* is less than",
        "another process holds memory of this GPU; find and end it, or lower --gpu-memory-utilization",
    ),
    _rule(
        _WAIT,
        "Available memory on node.* is less than",
        "other processes hold memory of this host; end them, or lower --gpu-memory-utilization",
    ),
    _rule(
        _WAIT,
        "[Aa]ddress already in use|EADDRINUSE",
        "another process has the port; choose another --port or stop it",
    ),
    _rule(
        _WAIT,
        "No space left on device|Disk quota exceeded",
        "free disk space where the model and the compile cache are kept",
    ),
    # What may have been chance, as far as a line can tell.
    _rule(
        _RETRY,
        "CUDA out of memory|CUDA error: out of memory|OutOfMemoryError",
        "the GPU is full; see who holds its memory, or lower --gpu-memory-utilization",
    ),
    _rule(_RETRY, "illegal memory access|CUDA error: "),
    _rule(_RETRY, "Watchdog caught collective operation|NCCL error|ncclSystemError|ncclUnhandledCudaError"),
    _rule(
        _RETRY, "Failed to infer device type|No CUDA GPUs are available", "check the driver and CUDA_VISIBLE_DEVICES"
    ),
    _rule(
        _RETRY,
        "We couldn't connect to '|LocalEntryNotFoundError",
        "the model is not on the disk and its server cannot be reached",
    ),
    _rule(_RETRY, "MemoryError", "the host is out of memory"),
    _rule(
        _RETRY,
        r"EngineCore failed to start|EngineCore encountered (?:a fatal error|an issue)"
        r"|WorkerProc (?:failed|initialization failed)|Worker proc .* died unexpectedly|EngineDeadError"
        r"|Engine core initialization failed|Engine process failed to start",
        weight=SYMPTOM,
    ),
)
_SUSPECT = (
    *("rror", "emory", "ailed", " in use", "died", "arger than", "reater than", "at least one", "o space", "quota"),
    *("local folder", "valid model", "local directory", "Repo id", "gated", "not supported", "inspected"),
    *("recognize", "divisible", "No CUDA", "too old", "caught collective", "encountered", "couldn't connect"),
    *("EADDRINUSE", "has been disabled", "input_value="),
)
"""Every line of the rules holds one of these: most lines of a log are passed over without a regex."""
_HARMLESS = re.compile(
    r"(?:\([^()]*pid=\d+[^()]*\)\s*)?(?:INFO|DEBUG|WARNING)\b"  # it went on after saying so
    r"|.*(?:Received request |prompt: ['\"])"  # a logged prompt says nothing about the engine
)
_SOURCE = re.compile(r"(?:raise|except) ")  # a line of code in a traceback: what it raises follows, with its reason
_PREFIX = re.compile(
    r"(?:\([^()]*pid=\d+[^()]*\)\s*)?(?:[A-Z]+ \d\d-\d\d [\d:]+ )?(?:\[[\w./-]+:\d+\] )?"
)  # who, when, where


def fatal(line: str) -> Fatal | None:
    """Return what ``line`` says about the failure of an engine, None for all other lines."""
    if not any(word in line for word in _SUSPECT):
        return None
    text = sanitise_line(line).strip("“ \t")  # a line that was quoted before says the same
    if _HARMLESS.match(text):
        return None
    said = _PREFIX.sub("", text, count=1).strip()
    rule = None if _SOURCE.match(said) else next((rule for rule in _RULES if rule.pattern.search(said)), None)
    if rule is None:
        return None
    reason = sanitise_line(said, REASON_LIMIT)
    return Fatal(verdict=rule.verdict, reason=reason, hint=rule.hint, weight=rule.weight)


def verdict(line: str) -> FatalVerdict | None:
    """Return what a failed start asks for that ends with ``line``; None when the line does not tell."""
    found = fatal(line)
    return None if found is None else found.verdict
