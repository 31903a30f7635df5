"""``python -m tests.screens.demo [BOARD] [--ascii] [--readonly]``: a scripted board in this terminal, at 1 Hz."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator

import msgspec

from opsboard.client.stream import Disconnected
from opsboard.tui.app import run
from opsboard.tui.feed import News
from tests.screens import boards, troubles
from tests.screens.scripted import ScriptedFeed


class DemoFeed(ScriptedFeed):
    """Says a new state each second, as if the night of boards.py were now."""

    def __init__(self, board: str) -> None:
        super().__init__()
        self._board = board

    async def watch(self) -> AsyncIterator[News]:
        began = time.time()
        while True:
            t = round(time.time() - began, 3)
            if self._board == "nobody":
                yield Disconnected(message="no daemon answers (/run/opsboard/opsboard.sock: no such socket)", for_s=t)
            else:
                make = troubles.board if self._board == "troubles" else getattr(boards, self._board)
                self.last = make(t=t) if self._board in ("busy", "steady", "troubles") else make()
                yield msgspec.structs.replace(self.last, time=boards.T0 + t)
            await asyncio.sleep(1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("board", nargs="?", default="busy")
    parser.add_argument("--ascii", action="store_true", default=None)
    parser.add_argument("--readonly", action="store_true")
    options = parser.parse_args()
    return run(feed=DemoFeed(options.board), ascii=options.ascii, readonly=options.readonly)


if __name__ == "__main__":
    sys.exit(main())
