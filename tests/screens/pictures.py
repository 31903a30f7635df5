"""``python -m tests.screens.pictures DIRECTORY``: the board at three sizes and its other screens, as SVG pictures."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from opsboard.core.clock import ManualClock
from opsboard.core.wire import Status
from opsboard.tui.glyphs import UNICODE
from opsboard.tui.terminal import prepare
from tests.screens import boards, troubles
from tests.screens.scripted import ScriptedFeed

TROUBLED = "incident"
"""Names of pictures of a night with incidents begin so."""
SHOTS: tuple[tuple[str, tuple[int, int], Sequence[str]], ...] = (
    ("board-80x24", (80, 24), ()),
    ("board-120x40", (120, 40), ("j",)),
    ("board-200x60", (200, 60), ()),
    ("engine-80x24", (80, 24), ("enter",)),
    ("engine-120x40", (120, 40), ("enter",)),
    ("anatomy-120x40", (120, 40), ("enter", "2")),
    ("log-120x40", (120, 40), ("l", "slash", *"preempt", "enter")),
    ("help-80x24", (80, 24), ("question_mark",)),
    ("stop-80x24", (80, 24), ("x", *"llam")),
    ("incidents-80x24", (80, 24), ()),
    ("incidents-200x60", (200, 60), ()),
    ("incident-80x24", (80, 24), ("i",)),
    ("incident-200x60", (200, 60), ("i",)),
    ("incident-latency-80x24", (80, 24), ("i", "right_square_bracket")),
    ("incident-memory-120x40", (120, 40), ("i", "left_square_bracket")),
    ("incident-list-80x24", (80, 24), ("i", "i")),
)


CELL = 12.2
"""Width of a cell in Rich's pictures."""


async def picture(board: Status, size: tuple[int, int], keys: Sequence[str]) -> str:
    """Return one screen as SVG, without the link to a font that Rich would put in."""
    from opsboard.tui.program import BoardApp
    from opsboard.tui.session import Session
    from opsboard.tui.theme import COLOUR

    clock = ManualClock()
    feed = ScriptedFeed(board)
    app = BoardApp(feed, Session(clock, UNICODE, dt.UTC, readonly=False), clock, COLOUR, on_terminal=False)
    async with app.run_test(size=size, notifications=False) as pilot:
        for _ in range(5):
            await pilot.pause()
        for key in keys:
            await pilot.press(key)
        for _ in range(20):
            await pilot.pause()
        if keys and keys[0] == "l":
            await asyncio.sleep(0.7)
            await pilot.press("n", "N")
        svg = app.export_screenshot(title="opsboard", simplify=True)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "DejaVu Sans Mono")
    return re.sub(r' x="([\d.]+)"( y="[\d.]+") textLength="[\d.]+"([^>]*>)((?:&#160;)*)', _left_aligned, svg)


def _left_aligned(match: re.Match[str]) -> str:
    """Move a text right by its leading blanks: some viewers drop them."""
    x, y, rest, blanks = match.groups()
    return f' x="{float(x) + CELL * (len(blanks) // len("&#160;")):g}"{y}{rest}'


def main(directory: str) -> None:
    """Write all of them."""
    prepare()
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, size, keys in SHOTS:
        board = troubles.board() if name.startswith(TROUBLED) else boards.busy()
        Path(directory, f"{name}.svg").write_text(asyncio.run(picture(board, size, keys)))


if __name__ == "__main__":
    main(sys.argv[1])
