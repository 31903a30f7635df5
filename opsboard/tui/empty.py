"""What the board says when there is nothing to show: what was looked for, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.wire import Status
from opsboard.tui import format as fmt
from opsboard.tui.spans import Line, Span, clip, fit
from opsboard.tui.view import FLOOR, Size, View

Text = Sequence[tuple[Span, ...]]


def too_small(size: Size) -> list[Line]:
    """Return what fits on a terminal below the floor: the size that is needed."""
    words = (f"opsboard needs {FLOOR.width}x{FLOOR.height}", f"this is {size.width}x{size.height}")
    text = words if size.width >= len(words[0]) else (f"{FLOOR.width}x{FLOOR.height}!",)
    lines = [clip((Span(fit(line, min(size.width, len(line))), "warn"),), size.width) for line in text]
    return lines[: size.height]


def no_daemon(view: View) -> Text:
    """Return what to do when no daemon has answered yet."""
    link = view.link
    if link.connected:
        return ((Span("waiting for the daemon's first word…", "dim"),),)
    return (
        (Span("waiting for a daemon", "strong"), Span(f"  for {fmt.age(link.silent_s)}, retrying", "dim")),
        (Span(link.message or "", "dim"),),
        (),
        _todo("opsboard daemon", "start one (a service: systemctl start opsboard)"),
        _todo("opsboard demo", "see a live board on a machine with nothing"),
        _todo("opsboard doctor", "find out what is wrong"),
    )


def no_engines(status: Status) -> Text:
    """Return what was looked for when there are no engines, and what to do."""
    if status.daemon.read_only:
        return (
            (Span("no engine found on this host yet", "strong"),),
            (),
            (Span("looked for   ", "dim"), Span("processes of vLLM, SGLang, TGI, TensorRT-LLM, Ollama, llama.cpp,")),
            (Span("             "), Span("listening ports, and a /metrics page behind them")),
            (Span("looks again  ", "dim"), Span("every few seconds; nothing is started, stopped or written")),
            (),
            _todo("opsboard --url URL", "show an engine that runs elsewhere"),
            _todo("opsboard config init", "write a config, then add engines to it"),
            _todo("opsboard demo", "three simulated engines under traffic"),
        )
    return (
        (Span("the configuration names no engines", "strong"),),
        (),
        _todo("opsboard config init", "write one from what runs on this host"),
        _todo("opsboard config check", "see which file is used and what it says"),
    )


def _todo(command: str, why: str) -> tuple[Span, ...]:
    return Span(f"{command:<22}", "key"), Span(why, "dim")


def centred(text: Text, size: Size) -> list[Line]:
    """Return ``text`` as one block in the middle of ``size``, a third from the top."""
    block = max((sum(len(span.text) for span in line) for line in text), default=0)
    left = Span(" " * max(1, (size.width - block) // 2))
    above = max(0, (size.height - len(text)) // 3)
    lines: list[Line] = [clip((), size.width)] * above
    lines += [
        clip((left, *(Span(fit(span.text, len(span.text)), span.style) for span in line)), size.width) for line in text
    ]
    return lines[: size.height]
