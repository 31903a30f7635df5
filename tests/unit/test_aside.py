"""Work that hangs keeps its own thread and nobody else's."""

from __future__ import annotations

import asyncio
import threading

import pytest

from opsboard.core.aside import Aside
from tests.support.in_loop import in_loop

LONG_S = 10.0


@in_loop
async def test_what_is_done_and_what_goes_wrong_comes_back() -> None:
    aside = Aside("a")
    assert await aside.do(threading.get_ident, LONG_S) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await aside.do(lambda: 1 // 0, LONG_S)
    assert await asyncio.gather(*(aside.do(str(n).strip, LONG_S) for n in range(5))) == list("01234")


@in_loop
async def test_no_more_hang_than_agreed_and_they_are_free_again() -> None:
    aside, other, go = Aside("a", most=2), Aside("b"), threading.Event()
    began: list[int] = []

    def hang() -> None:
        began.append(1)
        go.wait(LONG_S)

    for _ in range(4):
        with pytest.raises(TimeoutError):
            await aside.do(hang, 0.01)
    assert len(began) == 2
    assert await other.do(lambda: "answers", LONG_S) == "answers"
    go.set()
    assert await aside.do(lambda: "again", LONG_S) == "again"


def test_a_thread_that_outlives_its_loop_harms_nobody() -> None:
    go = threading.Event()

    def hang() -> None:
        go.wait(LONG_S)

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await Aside("a").do(hang, 0.01)

    asyncio.run(story())
    (left,) = (thread for thread in threading.enumerate() if thread.name == "aside:a")
    go.set()
    left.join(LONG_S)
    assert not left.is_alive()
