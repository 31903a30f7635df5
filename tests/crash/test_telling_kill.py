"""kill -9 of what tells people, again and again, of a sick service: nothing is lost, nothing is new twice.

The service answers 503 to a fifth of what it gets, and takes a twentieth without saying so. ``OPSBOARD_CRASH_ROUNDS``
rounds (15), chosen by ``OPSBOARD_CRASH_SEED``; 0 takes a seed by chance and prints it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import sqlite3
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from opsboard.httpd import Broken, Request, Response, StreamResponse
from tests.support.receiver import receiver
from tests.support.telling_life import live, settle
from tests.support.waiting import wait_until

ROUNDS = int(os.environ.get("OPSBOARD_CRASH_ROUNDS", "15"))
SEED = int(os.environ.get("OPSBOARD_CRASH_SEED", "3")) or random.SystemRandom().randrange(1, 1 << 32)
BUSY, DROPPED = 0.2, 0.05
CHANNELS = ("oncall", "chat")
SECRET = "whsec_c2VjcmV0"
MOST = 6
"""Incidents in one life, at most."""
LINE_BYTES = 33


class Service:
    """Takes messages, or does not; ``taken`` are those it took, in order: channel, uid, number, status."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.taken: list[tuple[str, str, int, str]] = []
        self.busy = self.dropped = 0

    def __call__(self, request: Request) -> Response | StreamResponse:
        luck = self._chance.random()
        if luck < BUSY:
            self.busy += 1
            return Response(503)
        uid, _, number = request.headers["webhook-id"].partition("-")
        status = "resolved" if b'"status":"resolved"' in request.body else "firing"
        self.taken.append((request.path.removeprefix("/"), uid, int(number), status))
        if luck < BUSY + DROPPED:
            self.dropped += 1
            return StreamResponse(200, "text/plain", _broken())
        return Response(200)


async def _broken() -> AsyncIterator[bytes]:
    raise Broken
    yield b""


def size(known: Path) -> int:
    """Return how many incidents are known to be on disk."""
    return known.stat().st_size // LINE_BYTES


def rows(root: Path, question: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{root}/state/state.db?mode=ro", uri=True)) as connection:
        return connection.execute(question).fetchall()


@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_nothing_is_lost_and_nothing_is_new_twice(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance, service = random.Random(SEED), Service(SEED)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.telling_life"])
    with receiver(service) as one:
        address = f"http://127.0.0.1:{one.port}"
        (tmp_path / "opsboard.toml").write_text(
            "".join(
                f'[[channel]]\nname = "{name}"\nkind = "webhook"\nurl = "{address}/{name}"\nsecret = "{SECRET}"\n'
                for name in CHANNELS
            )
        )
        waited = 0
        known = tmp_path / "known"
        known.touch()
        for _ in range(ROUNDS):
            before, more = size(known), chance.randrange(MOST)
            life = context.Process(target=live, args=(str(tmp_path), chance.randrange(1 << 32)))
            life.start()
            wait_until(lambda: size(known) >= before + more or not life.is_alive(), what=f"{more} incidents")  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.05))  # not to wait for something: where it dies is left to chance
            assert life.is_alive(), "it ended by itself"
            life.kill()
            life.join()
            if (tmp_path / "state" / "state.db").exists():
                with contextlib.suppress(sqlite3.OperationalError):  # killed before there were tables
                    waited += bool(rows(tmp_path, "SELECT 1 FROM outbox WHERE state = 'due' LIMIT 1"))
        last = context.Process(target=settle, args=(str(tmp_path),))
        last.start()
        last.join(60)
        assert last.exitcode == 0, "what was left could not be told"

    kept = dict(rows(tmp_path, "SELECT uid, resolved IS NOT NULL FROM incidents"))
    assert set(known.read_text().splitlines()) <= set(kept), "an incident that was on disk is gone"
    written = set(rows(tmp_path, "SELECT channel, incident, seq FROM outbox"))
    assert rows(tmp_path, "SELECT DISTINCT state FROM outbox WHERE state NOT IN ('sent', 'superseded')") == []
    told: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for channel, uid, number, status in service.taken:
        assert (channel, uid, number) in written, "told under a key that no message has"
        told[channel, uid].append((number, status))
    for uid, over in kept.items():
        for channel in CHANNELS:
            heard = told[channel, uid]
            assert heard, f"{channel} never heard of {uid}"
            assert heard == sorted(heard), f"{channel} heard of {uid} out of order: {heard}"
            assert (heard[-1][1] == "resolved") == bool(over), f"{channel} knows the wrong end of {uid}: {heard}"
    sent = set(rows(tmp_path, "SELECT channel, incident, seq FROM outbox WHERE state = 'sent'"))
    assert sent <= {(channel, uid, number) for channel, uid, number, _ in service.taken}, "sent, and nobody got it"
    twice = len(service.taken) - len({one[:3] for one in service.taken})
    print(
        f"{ROUNDS} kills ({waited} with messages waiting), {len(kept)} incidents, {len(service.taken)} messages taken, "
        f"{service.busy} refused, {service.dropped} taken without an answer: 0 lost, {twice} twice with the same key"
    )
    assert waited, "no kill met a message that waited"
    assert service.dropped, "the service was too well"
