"""A start or restart step by step, and the changes of state that an engine went through."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.model import Step, Transition
from opsboard.core.text import sanitise_line
from opsboard.core.waiting import step_told
from opsboard.core.wire import EngineDetail
from opsboard.tui import format as fmt
from opsboard.tui.header import STATE_STYLES
from opsboard.tui.spans import Line, Span, Style, clip, fit, rule
from opsboard.tui.timeline import when
from opsboard.tui.view import View

_LOOKS: dict[str | None, tuple[str, Style]] = {
    None: ("starting", "info"),
    "ok": ("ready", "ok"),
    "skipped": ("stopped", "dim"),
    "cut": ("draining", "warn"),
    "differs": ("draining", "warn"),
    "aborted": ("draining", "warn"),
    "failed": ("failed", "bad"),
}
"""Of each outcome: the state whose shape it gets, and its style."""


JUST_S = 20.0
"""So long after its end one still wants to see how it went."""


def under_way(steps: Sequence[Step]) -> bool:
    """Return True while one of the steps goes on."""
    return any(step.outcome is None for step in steps)


def timely(steps: Sequence[Step], view: View) -> bool:
    """Return True while one of the steps goes on, and for a moment after the last."""
    if not steps or under_way(steps) or view.status is None:
        return under_way(steps)
    return view.status.time - (steps[-1].started + (steps[-1].seconds or 0.0)) < JUST_S


def course(detail: EngineDetail, view: View, width: int) -> list[Line]:
    """Return a heading and a line a step of what is under way or was last; nothing where nothing was."""
    steps, kind = detail.transaction, detail.transaction_kind or "restart"
    if not steps:
        return []
    title = f"{kind} under way" if under_way(steps) else f"last {kind}"
    taken = None if under_way(steps) else sum(step.seconds or 0.0 for step in steps)
    began = f" {when(steps[0].started, view)}" + ("" if taken is None else f", {fmt.duration(taken)} in all")
    return [
        rule((Span(title, "strong"), Span(began, "dim")), width, view.glyphs.horizontal),
        *(_step(step, view, width) for step in steps),
    ]


def _step(step: Step, view: View, width: int) -> Line:
    like, style = _LOOKS.get(step.outcome, ("unreachable", "warn"))
    now = view.status.time if view.status else None
    so_far = None if now is None else max(0.0, now - step.started)
    took = fmt.duration(so_far if step.outcome is None else step.seconds)
    return clip(
        (
            Span(f" {view.glyphs.states[like]} ", style),
            Span(fit(step.name, 9), "strong" if step.outcome is None else ""),
            Span(fit(took, 7, ">"), "dim" if step.outcome == "skipped" else ""),
            Span("  "),
            Span(
                sanitise_line(step_told(step)),
                "bad" if step.outcome == "failed" else "dim" if step.outcome == "skipped" else "",
            ),
        ),
        width,
    )


def story(detail: EngineDetail, view: View, width: int) -> list[Line]:
    """Return what is under way, or was last, step by step, and how the engine came to be what it is.

    The newest state stands first: it belongs to the steps above it, and is what one came for.
    """
    lines = course(detail, view, width)
    title = (Span("states", "strong"), Span(", the newest first", "dim"))
    lines.append(rule(title, width, view.glyphs.horizontal))
    after = [*(transition.t for transition in detail.timeline[1:]), None]
    past = [_transition(one, end, view, width) for one, end in zip(detail.timeline, after, strict=False)]
    lines += reversed(past)
    if not detail.timeline:
        lines.append(clip((Span(" none is recorded", "dim"),), width))
    return lines


def _transition(one: Transition, end: float | None, view: View, width: int) -> Line:
    """Return one state: since when, for how long, why."""
    now = view.status.time if view.status else None
    until = now if end is None else end
    lasted = None if until is None else max(0.0, until - one.t)
    return clip(
        (
            Span(f" {when(one.t, view)} ", "dim"),
            Span(
                fit(f"{view.glyphs.states.get(one.state, '?')} {fmt.state_word(one.state, short=False)}", 14),
                STATE_STYLES.get(one.state, ""),
            ),
            Span(fit(fmt.age(lasted), 6, ">") + "  ", "dim"),
            Span(sanitise_line(_why(one))),
        ),
        width,
    )


def _why(one: Transition) -> str:
    """Return reason and message; one of them where it holds the other."""
    reason, message = one.reason or "", one.message or ""
    if reason in message:
        return message
    return reason if message in reason else f"{reason}: {message}"
