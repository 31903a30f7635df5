"""A supervisor in a process of its own, to be killed.

``python -m tests.support.daemon_side STATE RUNTIME NAME MODE VALUE``

Reads ``start``, ``stop`` and ``restart`` from standard input, writes the state of its engine to standard output each
time it changes, and keeps wishes in a file as the store does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.herd import Herd

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from opsboard.core.model import LifeView
    from opsboard.supervise.supervisor import Wish


async def main(state: str, runtime: str, name: str, mode: str, value: str) -> None:
    """Supervise until standard input ends."""
    herd = Herd(Path(state), Path(runtime))
    wish = herd.state_dir / f"wish-{name}"
    if wish.exists():
        herd.wishes[name] = "up" if wish.read_text() == "up" else "down"

    def on_life(life: LifeView) -> None:
        print(life.state.value, life.pid, flush=True)

    def on_wish(_name: str, wanted: Wish) -> None:
        wish.write_text(wanted)

    supervisor = herd.supervisor(herd.spec(name, mode, value, stop_timeout_s=2.0), on_life=on_life, on_wish=on_wish)
    await supervisor.adopt_all()
    print("adopted", supervisor.life(name).pid, flush=True)
    work = {"start": supervisor.start, "stop": supervisor.stop, "restart": supervisor.restart}
    running: set[asyncio.Task[None]] = set()
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        running.add(asyncio.get_running_loop().create_task(_do(work[line](name, "asked by a test"), line)))
    await asyncio.gather(*running)
    await supervisor.close()


async def _do(work: Awaitable[None], line: str) -> None:
    await work
    print("done", line, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
