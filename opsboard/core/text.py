"""Foreign text is made harmless here, once, at the boundary.

Model output, log lines, metric labels, model names and error bodies are reachable by strangers. Terminal widgets pass
raw escape sequences through, so control, C1, bidi and line separator characters are replaced before anything is kept.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)"  # OSC: titles, clipboard
    r"|\x1b[@-Z\\-_]"
)

LABEL_LIMIT = 1024
LINE_LIMIT = 4096


def sanitise(text: str, limit: int = LABEL_LIMIT) -> str:
    """Return ``text`` as one safe line of at most ``limit`` characters. Idempotent.

    Unsafe characters become U+FFFD, tabs one space; a cut shows as an ellipsis.
    """
    safe = _UNSAFE.sub("\ufffd", text).replace("\t", " ")
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def sanitise_line(text: str, limit: int = LINE_LIMIT) -> str:
    """Return a log line without terminal escapes, safe to show.

    Colour codes vanish, other unsafe characters become U+FFFD.
    """
    return sanitise(_ESCAPES.sub("", text.rstrip("\r\n")), limit)
