"""A wish that does not get to the disk is told: a daemon that is killed would lose it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest

from opsboard.core.errors import StoreError
from opsboard.core.model import Severity
from opsboard.daemon.wishes import WRITE_S, Wishes
from opsboard.store.state import Wish
from tests.support import virtual_time


class Disk:
    """Takes what it is given when it likes."""

    def __init__(self) -> None:
        self.written: Future[None] = Future()
        self.told: list[tuple[str, str]] = []
        self.wishes = Wishes(self.write, self.tell)

    def write(self, _engine: str, _wish: Wish) -> Future[None]:
        return self.written

    def tell(self, kind: str, text: str, severity: Severity, subject: str) -> None:
        assert (subject, severity) == ("engine/a", Severity.WARNING if kind == "not_remembered" else Severity.INFO)
        self.told.append((kind, text))


def test_what_is_written_in_time_is_no_news() -> None:
    async def story() -> None:
        disk = Disk()
        disk.wishes.remember("a", "down")
        await asyncio.sleep(WRITE_S / 2)
        disk.written.set_result(None)
        await asyncio.sleep(WRITE_S)
        assert disk.told == []

    virtual_time.run(story())


def test_a_slow_disk_is_told_and_that_it_is_over() -> None:
    async def story() -> None:
        disk = Disk()
        disk.wishes.remember("a", "down")
        await asyncio.sleep(WRITE_S + 1)
        ((kind, text),) = disk.told
        assert kind == "not_remembered"
        assert text.startswith("that a person stopped it is not written down: the disk has not taken it for 5 s")
        disk.written.set_result(None)
        await asyncio.sleep(1)
        assert disk.told[1:] == [("remembered", "that a person stopped it is written down now")]
        await disk.wishes.close()

    virtual_time.run(story())


@pytest.mark.parametrize("after_s", [0.0, WRITE_S + 1])
def test_a_write_that_fails_is_told_once(after_s: float) -> None:
    async def story() -> None:
        disk = Disk()
        disk.wishes.remember("a", "up")
        await asyncio.sleep(after_s)
        disk.written.set_exception(StoreError("no room left"))
        await asyncio.sleep(1)
        assert [kind for kind, _ in disk.told] == ["not_remembered"]

    virtual_time.run(story())


def test_a_daemon_that_ends_leaves_the_write_alone() -> None:
    async def story() -> None:
        disk = Disk()
        disk.wishes.remember("a", "down")
        await asyncio.sleep(0)
        await disk.wishes.close()
        assert not disk.written.cancelled()

    virtual_time.run(story())
