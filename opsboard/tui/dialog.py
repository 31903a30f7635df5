"""The question before an engine is touched. Pure: what it says, when its button may be pressed."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.model import Record
from opsboard.core.wire import Engine
from opsboard.tui import format as fmt
from opsboard.tui.glyphs import Glyphs
from opsboard.tui.spans import Line, Span, clip, fit, line_width, width_of
from opsboard.tui.view import Size

SERVING = ("ready", "draining", "starting", "unreachable")
"""States in which an engine may have requests in flight: stopping one then needs its name typed."""
_NOTHING_TO_DO = {"start": ("ready", "starting", "asleep"), "stop": ("stopped",)}


class Question(Record, frozen=True, kw_only=True):
    """What is asked: ``kind`` is start, stop or restart, ``typed`` the name as far as typed. Cancel has the focus."""

    engine: Engine
    kind: str
    typed: str = ""
    on_action: bool = False

    @property
    def needs_name(self) -> bool:
        """True when the engine's name must be typed first."""
        return self.kind != "start" and self.engine.state in SERVING

    @property
    def allowed(self) -> bool:
        """True when the action's button may be pressed."""
        return not self.needs_name or self.typed == self.engine.name


def needless(engine: Engine, kind: str) -> str | None:
    """Return in one sentence why there is nothing to ask, None when there is."""
    if engine.state not in _NOTHING_TO_DO.get(kind, ()):
        return None
    return f"{engine.name} is {fmt.state_word(engine.state, short=False)} already: there is nothing to {kind}"


def consequence(engine: Engine, kind: str) -> str:
    """Return in one sentence what will happen."""
    busy = [
        f"{fmt.whole(engine.running)} running" if engine.running else "",
        f"{fmt.whole(engine.waiting)} waiting" if engine.waiting else "",
    ]
    load = " and ".join(part for part in busy if part)
    if kind == "start":
        return "The engine is started; loading takes as long as it takes."
    if load:
        return f"{load} requests are cut off."
    return (
        "It serves nothing right now."
        if engine.state == "ready"
        else f"It is {fmt.state_word(engine.state, short=False)} now."
    )


def box(question: Question, width: int, glyphs: Glyphs) -> list[Line]:
    """Return the dialog as lines of ``width`` cells."""
    inner = width - 4
    engine = question.engine
    body: list[Sequence[Span]] = [(Span(fit(consequence(engine, question.kind), inner)),), ()]
    if question.needs_name:
        body += [
            (
                Span("type its name to go on: ", "dim"),
                Span(fit(engine.name, inner - 24, middle=True).rstrip(), "strong"),
            ),
            (
                Span("> ", "key"),
                Span(fit(question.typed, min(width_of(question.typed), inner - 4))),
                Span(" ", "select"),
            ),
            (),
        ]
    body.append(_buttons(question))
    title = f" {question.kind} {engine.name} "
    return framed(fit(title, min(width_of(title), inner), middle=True), body, width, glyphs)


def _buttons(question: Question) -> list[Span]:
    go = f" {question.kind.capitalize()} "
    if question.on_action:
        hint = f"Enter {question.kind}s it, Esc cancels"
    else:
        hint = "Tab changes, Enter cancels" if question.allowed else "Enter and Esc cancel"
    return [
        Span("[ Cancel ]", "" if question.on_action else "select"),
        Span("   "),
        Span(f"[{go}]", "dim" if not question.allowed else "select" if question.on_action else "bad"),
        Span("   " + hint, "dim"),
    ]


def framed(title: str, body: Sequence[Sequence[Span]], width: int, glyphs: Glyphs) -> list[Line]:
    """Return ``body`` in a box with a title."""
    top_left, top_right, low_left, low_right, vertical = tuple(glyphs.corners)
    flat = glyphs.horizontal
    lines: list[Line] = [
        (Span(top_left + flat), Span(title, "strong"), Span(flat * (width - 3 - width_of(title)) + top_right))
    ]
    lines += [(Span(vertical + " "), *clip(line, width - 4), Span(" " + vertical)) for line in body]
    lines.append((Span(low_left + flat * (width - 2) + low_right),))
    return lines


def overlaid(under: Sequence[Line], over: Sequence[Line], size: Size) -> list[Line]:
    """Return ``under``, dimmed, with ``over`` in its middle."""
    block = max((line_width(line) for line in over), default=0)
    left, top = max(0, (size.width - block) // 2), max(0, (size.height - len(over)) // 2)
    lines: list[Line] = [tuple(Span(span.text, "dim") for span in line) for line in under]
    for number, line in enumerate(over):
        if top + number < len(lines):
            lines[top + number] = clip((Span(" " * left), *line), size.width)
    return lines
