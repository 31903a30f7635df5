"""The last line of every screen: what is being typed, what the last key did, or the keys of this place."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.tui.spans import Line, Span, clip, fit, line_width, width_of
from opsboard.tui.view import Prompt

Hints = Sequence[tuple[str, str]]


def footer(width: int, hints: Hints, *, message: str | None = None, prompt: Prompt | None = None) -> Line:
    """Return the footer; of the hints as many as fit, the first ones first, help always last."""
    if prompt is not None:
        return _prompt(prompt, width)
    if message is not None:
        return (Span(fit(" " + message, width), "strong"),)
    *others, last = hints
    spans: list[Span] = []
    tail = _hint(*last)
    for key, text in others:
        hint = _hint(key, text)
        if line_width(spans) + line_width(hint) + line_width(tail) > width:
            break
        spans += hint
    return clip((*spans, *tail), width)


def _hint(key: str, text: str) -> tuple[Span, Span]:
    return Span(" " + key, "key"), Span(" " + text + " ", "dim")


def _prompt(prompt: Prompt, width: int) -> Line:
    mark = prompt.mark + " " * (len(prompt.mark) > 1)
    room = max(1, width - 2 - width_of(mark))
    text = prompt.text if len(prompt.text) < room else "…" + prompt.text[1 - room :]
    spans = [Span(" " + mark, "key"), Span(fit(text, len(text))), Span(" ", "select")]
    choices = "  ".join(prompt.choices)
    if choices and width - line_width(spans) > 10:
        spans += [Span("  " + fit(choices, min(len(choices), width - line_width(spans) - 3)), "dim")]
    return clip(spans, width)
