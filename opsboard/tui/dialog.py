"""The question before an engine is touched. Pure: what it says, when its button may be pressed."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.model import Record
from opsboard.core.wire import Engine
from opsboard.tui import format as fmt
from opsboard.tui.glyphs import Glyphs
from opsboard.tui.spans import Line, Span, clip, fit, line_width, width_of, wrapped
from opsboard.tui.view import Size

SERVING = ("ready", "draining", "starting", "unreachable")
"""States in which an engine may have requests in flight: stopping one then needs its name typed."""
TAKES_OUT = ("restart", "drain", "sleep")
"""What the daemon refuses of an engine that is the last healthy target of a route."""
_CUTS_OFF = ("stop", "restart")
_NOTHING_TO_DO = {
    "start": ("ready", "starting", "asleep"),
    "stop": ("stopped",),
    "drain": ("draining",),
    "sleep": ("asleep",),
    "wake": ("ready",),
}
_ONLY_WHERE = {"drain": ("ready", "draining", "starting"), "undrain": ("draining",), "sleep": ("ready", "draining")}


class Question(Record, frozen=True, kw_only=True):
    """What is asked: ``kind`` is an action, ``typed`` the name as far as typed. Cancel has the focus.

    ``now``: without draining, and whatever it takes away. ``objection``: why the daemon does it only ``now``.
    """

    engine: Engine
    kind: str
    now: bool = False
    objection: str | None = None
    typed: str = ""
    on_action: bool = False

    @property
    def refused(self) -> bool:
        """True when the daemon would not do it."""
        return self.objection is not None and not self.now

    @property
    def needs_name(self) -> bool:
        """True when the engine's name must be typed first."""
        return not self.refused and self.kind in _CUTS_OFF and self.engine.state in SERVING

    @property
    def allowed(self) -> bool:
        """True when the action's button may be pressed."""
        return not self.refused and (not self.needs_name or self.typed == self.engine.name)

    @property
    def about(self) -> str:
        """What would be touched."""
        return self.engine.name + (" now" if self.now else "")


class Closing(Record, frozen=True, kw_only=True):
    """The question before incident ``number`` is resolved for good. ``kind``, ``about``, ... as of a Question."""

    number: int
    lasts: bool
    """It is still claimed."""
    kind: str = "resolve"
    typed: str = ""
    on_action: bool = False
    needs_name: bool = False
    allowed: bool = True

    @property
    def about(self) -> str:
        """What would be closed."""
        return f"incident {self.number}"

    @property
    def consequence(self) -> str:
        """What will happen."""
        still = (
            "It still goes on: no other incident tells of it until it has been away for a minute. "
            if self.lasts
            else ""
        )
        return f"{still}It is closed for good, in your name, and never reopened."


def needless(engine: Engine, kind: str) -> str | None:
    """Return in one sentence why there is nothing to ask, None when there is."""
    state = fmt.state_word(engine.state, short=False)
    if engine.state in _NOTHING_TO_DO.get(kind, ()):
        return f"{engine.name} is {state} already: there is nothing to {kind}"
    if engine.state not in _ONLY_WHERE.get(kind, (engine.state,)):
        return f"{engine.name} is {state}: there is nothing to {kind}"
    return None


def consequence(question: Question) -> str:
    """Return in one or two sentences what will happen."""
    engine, kind = question.engine, question.kind
    if question.refused:
        return f"{question.objection}: refused. `:{kind} {engine.name} now` does it all the same."
    load = _load(engine)
    if kind == "start":
        anew = "It is un-parked, with a fresh budget of restarts. " if engine.state == "parked" else ""
        return anew + "The engine is started; loading takes as long as it takes."
    anyhow = f"{question.objection}. " if question.objection else ""
    if kind == "undrain":
        off = "The restart that it drains for is called off. " if engine.until is not None else ""
        return off + "It takes requests of its routes again."
    if kind in {"sleep", "wake"}:
        return anyhow + _resting(engine, kind, load)
    if kind == "drain":
        rest = f"{load} requests go on" if load else "it serves nothing right now"
        return f"{anyhow}It leaves its routes; {rest}. It keeps running until somebody undrains, restarts or stops it."
    if kind == "restart" and not question.now and load and engine.drain_timeout_s is not None:
        return (
            f"It drains up to {fmt.duration(engine.drain_timeout_s)}: {load} requests may finish. Then it starts anew."
        )
    if load:
        return f"{anyhow}{load} requests are cut off."
    if engine.state == "ready":
        return f"{anyhow}It serves nothing right now."
    return f"It is {fmt.state_word(engine.state, short=False)} now."


def _resting(engine: Engine, kind: str, load: str) -> str:
    if kind == "wake":
        took = "" if engine.wake_s is None else f" The last time it took {fmt.duration(engine.wake_s)}."
        return f"It wakes, or starts where it is stopped, proves its answer and takes requests again.{took}"
    wait = f"{load} requests may finish" if load else "it serves nothing right now"
    return f"It leaves its routes; {wait}. Then its weights leave the GPU until somebody wakes it."


def _load(engine: Engine) -> str:
    """Return what is in flight, empty where nothing is."""
    busy = [
        f"{fmt.whole(engine.running)} running" if engine.running else "",
        f"{fmt.whole(engine.waiting)} waiting" if engine.waiting else "",
    ]
    return " and ".join(part for part in busy if part)


def box(question: Question | Closing, width: int, glyphs: Glyphs) -> list[Line]:
    """Return the dialog as lines of ``width`` cells."""
    inner = width - 4
    said = question.consequence if isinstance(question, Closing) else consequence(question)
    body: list[Sequence[Span]] = [*wrapped((Span(fit(said, width_of(said))),), inner), ()]
    if isinstance(question, Question) and question.needs_name:
        body += [
            (
                Span("type its name to go on: ", "dim"),
                Span(fit(question.engine.name, inner - 24, middle=True).rstrip(), "strong"),
            ),
            (
                Span("> ", "key"),
                Span(fit(question.typed, min(width_of(question.typed), inner - 4))),
                Span(" ", "select"),
            ),
            (),
        ]
    body.append(_buttons(question))
    title = f" {question.kind} {question.about} "
    return framed(fit(title, min(width_of(title), inner), middle=True), body, width, glyphs)


def _buttons(question: Question | Closing) -> list[Span]:
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
