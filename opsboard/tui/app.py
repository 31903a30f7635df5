"""``run``: the board in this terminal, until the person leaves or the terminal goes away."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from opsboard.client.stream import Disconnected
from opsboard.config.places import client_sockets
from opsboard.core.clock import SystemClock
from opsboard.core.errors import NotReachable
from opsboard.tui.feed import ClientFeed, Feed
from opsboard.tui.glyphs import ASCII, UNICODE
from opsboard.tui.present import board
from opsboard.tui.session import Session, with_changes
from opsboard.tui.spans import line_text
from opsboard.tui.terminal import Leaving, ascii_only, interactive, prepare
from opsboard.tui.theme import COLOUR, PLAIN
from opsboard.tui.view import Size

PRINT_DEADLINE_S = 5.0
"""Without a terminal to draw on: so long may the first state take."""


def run(
    socket_path: Path | None = None,
    *,
    readonly: bool = False,
    ascii: bool | None = None,
    mouse: bool = False,
    feed: Feed | None = None,
) -> int:
    """Show the board and return the exit code: 0, or 128 + n after signal n.

    ``socket_path`` is the daemon's (None: the usual places); ``ascii`` None decides by locale and terminal. Where no
    screen can be drawn (a pipe, TERM=dumb) the board is printed once; then NotReachable when no daemon answers.
    """
    source = feed or ClientFeed([socket_path] if socket_path else client_sockets(None))
    plain = ascii_only(ascii)
    session = Session(SystemClock(), ASCII if plain else UNICODE, None, readonly=readonly)
    if not interactive():
        return asyncio.run(_print_once(source, session))
    prepare()
    from opsboard.tui.program import BoardApp  # noqa: PLC0415  Textual reads its switches when it is imported

    looks = PLAIN if os.environ.get("NO_COLOR") else COLOUR
    app = BoardApp(source, session, SystemClock(), looks)
    with Leaving(app.exit_soon) as leaving:
        app.leaving = leaving
        app.run(mouse=mouse)
        return leaving.code or app.return_code or 0


async def _print_once(feed: Feed, session: Session) -> int:
    """Print the first state as text."""
    try:
        async with asyncio.timeout(PRINT_DEADLINE_S):
            async for news in feed.watch():
                if isinstance(news, Disconnected):
                    raise NotReachable(news.message, hint=news.hint)
                session.take(news)
                rows = tuple(engine.name for engine in news.engines)
                size = Size(int(os.environ.get("COLUMNS") or 120), 4 + 2 * len(rows) + 2 * len(news.gpus) + 8)
                lines = board(with_changes(session.view(), rows=rows), size, [("", "")])
                sys.stdout.write("".join(line_text(line).rstrip() + "\n" for line in lines[:-1]))
                return 0
    except TimeoutError:
        raise NotReachable(f"no state within {PRINT_DEADLINE_S:.0f} s", hint="is the daemon busy or stopped?") from None
    return 0
