"""Work that hangs keeps its own thread and nobody else's."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator

import pytest

from opsboard.core.aside import Aside, Brief
from tests.support.in_loop import in_loop
from tests.support.waiting import wait_until, wait_until_async

LONG_S = 10.0


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aside:a"]


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    yield
    gc.collect()
    wait_until(lambda: not threads(), what="they end with what made them")


class Hang:
    """Work that hangs until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = 0

    def __call__(self) -> None:
        self.began += 1
        self.go.wait(LONG_S)


def fail() -> None:
    raise ZeroDivisionError


@in_loop
async def test_what_is_done_and_what_goes_wrong_comes_back() -> None:
    aside = Aside("a")
    assert await aside.do(threading.get_ident, LONG_S) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await aside.do(fail, LONG_S)
    assert await asyncio.gather(*(aside.do(str(n).strip, LONG_S) for n in range(5))) == list("01234")
    assert len(threads()) == 1


@in_loop
async def test_no_more_hang_than_agreed_and_they_are_free_again() -> None:
    aside, other, hang = Aside("a", most=2), Aside("b"), Hang()
    for _ in range(4):
        with pytest.raises(TimeoutError):
            await aside.do(hang, 0.01)
    assert (hang.began, len(threads())) == (2, 2)
    assert await other.do(lambda: "answers", LONG_S) == "answers"
    hang.go.set()
    assert await aside.do(lambda: "again", LONG_S) == "again"
    await wait_until_async(lambda: len(aside._idle) == 2, what="both are free")


@in_loop
async def test_an_error_that_comes_too_late_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    aside, go = Aside("a"), threading.Event()

    def fail_late() -> None:
        go.wait(LONG_S)
        raise OSError

    with pytest.raises(TimeoutError):
        await aside.do(fail_late, 0.01)
    go.set()
    await wait_until_async(lambda: len(aside._idle) == 1, what="it has failed")
    gc.collect()
    assert caplog.messages == []


def test_a_thread_that_outlives_its_loop_ends_with_its_work() -> None:
    hang = Hang()

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await Aside("a").do(hang, 0.01)

    asyncio.run(story())
    assert len(threads()) == 1
    hang.go.set()


def test_a_brief_wait() -> None:
    brief, hang = Brief("a"), Hang()
    assert brief.do(lambda: "done", LONG_S) == "done"
    with pytest.raises(ZeroDivisionError):
        brief.do(fail, LONG_S)
    for _ in range(3):
        with pytest.raises(TimeoutError, match="a ha"):
            brief.do(hang, 0.01)
    assert (hang.began, len(threads())) == (1, 1)
    hang.go.set()

    def answers(work: Callable[[], str]) -> str | None:
        try:
            return brief.do(work, LONG_S)
        except TimeoutError:
            return None

    wait_until(lambda: answers(lambda: "again") == "again", what="it is free again")
