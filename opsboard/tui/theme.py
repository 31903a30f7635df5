"""How each style looks: in the terminal's own sixteen colours, readable on dark and on light."""

from __future__ import annotations

from rich.style import Style as RichStyle

from opsboard.tui.spans import Style

COLOUR: dict[Style, RichStyle] = {
    "": RichStyle(),
    "dim": RichStyle(dim=True),
    "strong": RichStyle(bold=True),
    "ok": RichStyle(color="green"),
    "warn": RichStyle(color="yellow"),
    "bad": RichStyle(color="red", bold=True),
    "info": RichStyle(color="cyan"),
    "head": RichStyle(dim=True, underline=True),
    "select": RichStyle(reverse=True),
    "key": RichStyle(color="cyan", bold=True),
    "alarm": RichStyle(color="red", bold=True, reverse=True),
    "notice": RichStyle(color="yellow", reverse=True),
    "found": RichStyle(color="yellow", reverse=True),
    "area": RichStyle(color="cyan", dim=True),
}

PLAIN: dict[Style, RichStyle] = {
    "": RichStyle(),
    "dim": RichStyle(dim=True),
    "strong": RichStyle(bold=True),
    "ok": RichStyle(),
    "warn": RichStyle(bold=True),
    "bad": RichStyle(bold=True),
    "info": RichStyle(),
    "head": RichStyle(underline=True),
    "select": RichStyle(reverse=True),
    "key": RichStyle(bold=True),
    "alarm": RichStyle(reverse=True),
    "notice": RichStyle(reverse=True),
    "found": RichStyle(reverse=True),
    "area": RichStyle(),
}
"""For NO_COLOR: weight and inversion only; words and shapes say the rest."""
