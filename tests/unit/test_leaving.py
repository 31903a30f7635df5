"""The end of a daemon: what hangs does not hold it up, and nothing else is cut short."""

from __future__ import annotations

import subprocess
import sys

import pytest

STORY = """
import asyncio, threading
from opsboard.daemon import main

main.LEAVE_S = {patience}
done = []

def work():
    threading.Event().wait({seconds})
    done.append(1)

async def story():
    asyncio.get_running_loop().set_default_executor(main.Threads(2, "daemon"))
    asyncio.get_running_loop().run_in_executor(None, work)

with asyncio.Runner(loop_factory=main._loop_factory()) as runner:
    runner.run(story())
main.leave(7)
print("in order", done)
"""


@pytest.mark.parametrize(("patience", "seconds", "ended"), [(0.05, 60, (7, "")), (10, 0.2, (0, "in order [1]\n"))])
def test_only_what_hangs_is_left_behind(patience: float, seconds: float, ended: tuple[int, str]) -> None:
    command = [sys.executable, "-c", STORY.format(patience=patience, seconds=seconds)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (ran.returncode, ran.stdout) == ended, ran.stderr
