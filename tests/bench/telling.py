"""Telling people: how soon the first byte goes out, and what a thousand incidents in a minute do to four channels.

What tells people is the real thing (tests/support/telling_life.py), in a process of its own; the service runs here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from alerts.notifier import Rate
from opsboard.core.clock import SystemClock
from opsboard.core.registry import notifiers
from opsboard.httpd import Request, Response
from opsboard.store.store import Store
from tests.bench import Row
from tests.support.messages import LEAK, new, told
from tests.support.receiver import receiver
from tests.support.telling_life import Teller, teller

FIRST_BYTE_S = 0.25
QUIET, QUIET_S = 60, 0.2
"""Incidents one after the other, and the seconds between them."""
STORM, STORM_S, CHANNELS = 1000, 60.0, ("oncall", "chat", "mail", "wall")
EVERY_S = 0.1
"""What a service takes in the storm: a message so often, so that a backlog grows."""
PAGE_EVERY = 10
PAGE_S = 2.0
MEMORY_BYTES = 40 << 20
LOOK_S = 0.1
WAITING = 10_000
PATIENCE_S = 300.0


class Told(NamedTuple):
    """What one process did: when (monotonic s) each incident was on disk, and how much memory it came to need."""

    pages: dict[str, float]
    others: dict[str, float]
    grown: int


def run() -> list[Row]:
    """Measure a quiet time, a storm, and one look into a full outbox."""
    return [*_quiet(), *_storm(), asyncio.run(_look())]


def _quiet() -> list[Row]:
    said, heard = _play(quiet, ("oncall",))
    waits = sorted(heard["oncall", uid] - at for uid, at in said.pages.items())
    late = waits[int(len(waits) * 0.95)]
    measured = f"{late * 1e3:.0f} ms (worst of {len(waits)}: {waits[-1] * 1e3:.0f} ms)"
    return [Row("incident on disk to its message at the service, p95", "<= 250 ms", measured, late <= FIRST_BYTE_S)]


def _storm() -> list[Row]:
    said, heard = _play(storm, CHANNELS)
    whole = len(CHANNELS) * STORM
    pages, others = [
        sorted(heard.get((name, uid), float("inf")) - at for name in CHANNELS for uid, at in group.items())
        for group in (said.pages, said.others)
    ]
    grown = f"{said.grown / 1e6:.0f} MB more"
    what = f"{STORM} incidents in {STORM_S:.0f} s on {len(CHANNELS)} channels that take {1 / EVERY_S:.0f} a second"
    first = f"{pages[-1]:.2f} s (other messages: up to {others[-1]:.0f} s)"
    return [
        Row(f"{what}: told", f"{whole}", f"{len(heard)}", len(heard) == whole),
        Row("... pages first: the longest wait of a page", f"<= {PAGE_S:.0f} s", first, pages[-1] <= PAGE_S),
        Row("... memory", f"<= {MEMORY_BYTES >> 20} MB more", grown, said.grown <= MEMORY_BYTES),
    ]


async def _look() -> Row:
    with tempfile.TemporaryDirectory(prefix="ob-") as name:
        store = Store.open(Path(name) / "state", SystemClock())
        try:
            many = [new("chat", told(replace(LEAK, id=n, uid=f"{n:032d}"))) for n in range(WAITING)]
            await asyncio.wrap_future(store.outbox.add(many))
            spent = []
            for _ in range(10):
                began = time.perf_counter()
                await store.outbox.due("chat", time.time(), 20)
                spent.append(time.perf_counter() - began)
        finally:
            await store.close()
    median = sorted(spent)[len(spent) // 2]
    what = f"one look into an outbox where {WAITING} messages wait"
    return Row(what, f"<= {LOOK_S * 1e3:.0f} ms", f"{median * 1e3:.0f} ms", median <= LOOK_S)


def _play(
    play: Callable[[str, Connection], None], channels: tuple[str, ...]
) -> tuple[Told, dict[tuple[str, str], float]]:
    """Run ``play`` in a process of its own; return what it did, and when each incident was first heard of where."""
    heard: dict[tuple[str, str], float] = {}

    def answer(request: Request) -> Response:
        uid = json.loads(request.body)["groupKey"].rpartition("/")[2]
        heard.setdefault((request.path.removeprefix("/"), uid), time.monotonic())
        return Response(200)

    with receiver(answer) as service, tempfile.TemporaryDirectory(prefix="ob-") as name:
        (Path(name) / "opsboard.toml").write_text(
            "".join(
                f'[[channel]]\nname = "{channel}"\nkind = "webhook"\nurl = "http://127.0.0.1:{service.port}/{channel}"\n'
                for channel in channels
            )
            + '[[alert_route]]\nseverity = ["page", "ticket"]\nchannels = '
            + json.dumps(channels)
        )
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=play, args=(name, theirs))
        process.start()
        try:
            if not ours.poll(PATIENCE_S):
                raise TimeoutError(f"not told within {PATIENCE_S:.0f} s")
            return Told(*ours.recv()), heard
        finally:
            process.kill()
            process.join()


def quiet(root: str, answer: Connection) -> None:
    """Open one incident after the other."""
    asyncio.run(_open(Path(root), answer, number=QUIET, pause_s=QUIET_S, rate_s=QUIET_S / 2))


def storm(root: str, answer: Connection) -> None:
    """Open very many."""
    asyncio.run(_open(Path(root), answer, number=STORM, pause_s=STORM_S / STORM, rate_s=EVERY_S))


async def _open(root: Path, answer: Connection, *, number: int, pause_s: float, rate_s: float) -> None:
    logging.disable()
    found = notifiers().found
    found["webhook"] = replace(found["webhook"], rate=Rate(every_s=rate_s, burst=10))
    pages: dict[str, float] = {}
    others: dict[str, float] = {}
    async with teller(root) as one:
        before, began = _peak_bytes(), time.monotonic()
        every = 1 if number == QUIET else PAGE_EVERY
        for n in range(number):
            _open_one(one, n, "page" if n % every == 0 else "ticket", pages if n % every == 0 else others)
            await asyncio.sleep(max(0.0, began + (n + 1) * pause_s - time.monotonic()))
        await one.told()
        answer.send((pages, others, _peak_bytes() - before))


def _open_one(one: Teller, n: int, severity: str, written: dict[str, float]) -> None:
    done: Future[None] = one.open(f"engine-{n}", severity)
    uid = next(found.uid for found in one.state.incidents.open if found.subject == f"engine/engine-{n}")
    done.add_done_callback(lambda _: written.__setitem__(uid, time.monotonic()))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
