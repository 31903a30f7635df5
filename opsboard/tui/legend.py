"""What the shapes and columns of the board mean, for its help."""

from __future__ import annotations

from opsboard.tui import format as fmt
from opsboard.tui.header import STATE_STYLES
from opsboard.tui.spans import Line, Span, clip, fit
from opsboard.tui.view import View

STATES = {
    "ready": "serves; its numbers are of now",
    "stale": "serves as far as known, but its numbers are that old",
    "starting": "loads; phase, progress and time so far",
    "draining": "finishes its requests, takes no new ones",
    "stopping": "was asked to stop",
    "stopped": "stopped on purpose",
    "asleep": "its weights are off the GPU until it is woken",
    "backing_off": "died and will be started again in a moment",
    "failed": "died; the reason stands beside it",
    "parked": "died too often: needs a person",
    "unreachable": "does not answer; dimmed numbers are its last ones",
}
NUMBERS = (
    ("--", "unknown, which is not 0"),
    ("idle", "nothing runs, nothing waits"),
    ("TTFT ITL E2E QUEUE", "95th percentiles of the last 60 s"),
    ("TOK/S PROMPT/S", "tokens a second, generated and read"),
    ("5 MIN", "the KV cache over the last minutes, full height is 100 %"),
    ("GPU MEM, RSS", "in binary units: 1G is 2^30 bytes"),
)


def legend(view: View, width: int) -> list[Line]:
    """Return the meaning of states and numbers."""
    lines: list[Line] = [clip((Span(" States", "strong"),), width)]
    for state, meaning in STATES.items():
        shape = f"{view.glyphs.states[state]} {fmt.state_word(state, short=False)}"
        lines.append(clip((Span("  " + fit(shape, 20), STATE_STYLES[state]), Span(meaning)), width))
    lines += [clip((), width), clip((Span(" Numbers", "strong"),), width)]
    lines += [clip((Span("  " + fit(name, 20), "key"), Span(meaning)), width) for name, meaning in NUMBERS]
    return lines
