"""The shapes that are drawn: one set for UTF-8 terminals, one for those that know ASCII only."""

from __future__ import annotations

from opsboard.core.model import Record


class Glyphs(Record, frozen=True, kw_only=True):
    """``ramp`` holds the levels of a column from empty to full; ``states`` the shape of each engine state."""

    ascii: bool
    cursor: str
    horizontal: str
    bar: str
    half: str
    track: str
    ramp: str
    gap: str
    up: str
    down: str
    enter: str
    updown: str
    bullet: str
    again: str
    warn: str
    corners: str
    """Of a box: top left, top right, bottom left, bottom right, vertical."""
    states: dict[str, str]
    urgency: dict[str, str]
    """Of each severity of an incident."""
    shade: str
    """What is in use and explained, under what is not."""
    dash: str
    """A line that a curve is compared with."""


UNICODE = Glyphs(
    ascii=False,
    cursor="▸",
    horizontal="─",
    bar="━",
    half="╸",
    track="─",
    ramp=" ▁▂▃▄▅▆▇█",
    gap="·",
    up="▲",
    down="▼",
    enter="↵",
    updown="↑↓",
    bullet="·",
    again="↻",
    warn="▲",
    corners="╭╮╰╯│",
    states={
        "ready": "●",
        "starting": "◐",
        "draining": "◑",
        "stopping": "◑",
        "stopped": "○",
        "failed": "✖",
        "backing_off": "◔",
        "parked": "■",
        "unreachable": "?",
        "asleep": "☾",
        "stale": "◌",
    },
    urgency={"page": "▲", "ticket": "◆", "note": "·"},
    shade="░",
    dash="┄",
)

ASCII = Glyphs(
    ascii=True,
    cursor=">",
    horizontal="-",
    bar="#",
    half="#",
    track=".",
    ramp=" .:-=+*#@",
    gap=" ",
    up="^",
    down="v",
    enter="Enter",
    updown="j/k",
    bullet="-",
    again="@",
    warn="!",
    corners="++++|",
    states={
        "ready": "*",
        "starting": "~",
        "draining": "v",
        "stopping": "v",
        "stopped": "o",
        "failed": "X",
        "backing_off": "%",
        "parked": "#",
        "unreachable": "?",
        "asleep": "z",
        "stale": "?",
    },
    urgency={"page": "!", "ticket": "+", "note": "-"},
    shade="/",
    dash="-",
)
