"""Signs of life: a dead man's switch hears nothing as long as anything is broken between a reading and a message."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from opsboard.config.schema import Heartbeat
from opsboard.config.units import Seconds
from opsboard.core.clock import SystemClock
from opsboard.core.deliveries import ChannelHealth
from opsboard.core.secret import Secret
from opsboard.daemon.health import Health
from opsboard.daemon.notify import Notifier
from opsboard.daemon.pipeline import PipelineState
from opsboard.daemon.signs import Signs
from opsboard.httpd import Response
from opsboard.store.store import StoreHealth
from tests.support.in_loop import in_loop
from tests.support.receiver import receiver

WELL = StoreHealth(recorded=True)
CHAT = ChannelHealth(name="chat", kind="slack")


class World:
    """A daemon's parts as they are."""

    def __init__(self, url: str = "http://127.0.0.1:1/ping", *, fail: bool = False) -> None:
        self.clock, self.health, self.store, self.channels = SystemClock(), Health(15.0), WELL, [CHAT]
        self.health.read(self.clock.now())
        self.signs = Signs(
            self.clock,
            PipelineState("gpu-a"),
            self.health,
            store=lambda: self.store,
            channels=lambda: self.channels,
            notifier=Notifier({}),
        )
        self.signs._heartbeat = Heartbeat(url=Secret(url), every=Seconds(10), fail=fail)

    @property
    def wrong(self) -> str | None:
        return self.signs.wrong(self.clock.now())


def stands_still(world: World) -> None:
    world.health.stale_s = -1.0


def cannot_write(world: World) -> None:
    world.store = replace(WELL, recorded=False, message="the disk is full")


def is_behind(world: World) -> None:
    world.store = replace(WELL, lag_s=31.0)


def tells_nobody(world: World) -> None:
    world.channels = [replace(CHAT, waiting=1, oldest=world.clock.now().wall - 700, error="HTTP 503")]


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (stands_still, "nothing is collected"),
        (cannot_write, "the disk is full"),
        (is_behind, "the disk is 31 s behind"),
        (tells_nobody, "chat could not be told for 11 m 40 s: HTTP 503"),
    ],
)
def test_what_breaks_silences_it(breaks: Callable[[World], None], said: str) -> None:
    world = World()
    assert world.wrong is None
    breaks(world)
    assert world.wrong == said


def test_the_manager_hears_on_when_only_the_disk_is_full() -> None:
    world = World()
    cannot_write(world)
    assert world.signs.turning(), "a daemon that is killed for a full disk does not empty it"


@in_loop
async def test_it_beats_while_all_is_well() -> None:
    with receiver() as service:
        world = World(service.url)
        await world.signs._beat()
        assert [(one.method, one.path) for one in service.requests] == [("POST", "/hook")]
        cannot_write(world)
        await world.signs._beat()
        assert len(service.requests) == 1


@in_loop
async def test_who_understands_hears_what_is_wrong_at_once() -> None:
    with receiver() as service:
        world = World(service.url, fail=True)
        cannot_write(world)
        await world.signs._beat()
        assert [(one.path, one.body) for one in service.requests] == [("/hook/fail", b"the disk is full")]


@in_loop
async def test_a_watcher_that_is_away_breaks_nothing() -> None:
    await World().signs._beat()
    with receiver(lambda _request: Response(500)) as service:
        await World(service.url).signs._beat()
        assert len(service.requests) == 1
