"""Threads apart, for work that may hang: a sick disk or a stuck process holds up nobody but those who ask for it.

``asyncio.to_thread`` shares a handful of threads among all: a few calls that never return, and nothing is started,
ended or looked at any more. These threads hold up no exit either: what hangs ends with the process.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside:
    """At most ``most`` threads for one kind of work, awaited; none before there is work. They end with it."""

    def __init__(self, name: str, most: int = 1) -> None:
        """``name`` is that of its threads."""
        self._name = name
        self._free = asyncio.Semaphore(most)
        self._idle: list[_Worker] = []
        weakref.finalize(self, _end, self._idle)

    async def do(self, work: Callable[[], T], within_s: float) -> T:
        """Do ``work`` and return what it returns; raise what it raises.

        Raises TimeoutError when it is not done in time or no thread was free. What has begun goes on and keeps its
        thread until it ends, so that no more of them than ``most`` ever hang.
        """
        async with asyncio.timeout(within_s):
            await self._free.acquire()
            return await asyncio.shield(self._begin(work))

    def _begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        done.add_done_callback(_heed)
        try:
            worker = self._idle.pop() if self._idle else _Worker(self._name)
        except BaseException:
            self._free.release()
            raise

        def over(job: _Job[T]) -> None:
            self._idle.append(worker)
            self._free.release()
            if job.error is None:
                done.set_result(job.result)
            else:
                done.set_exception(job.error)

        def tell(job: _Job[T]) -> None:
            try:
                loop.call_soon_threadsafe(over, job)
            except RuntimeError:  # the loop has ended meanwhile
                worker.end()

        worker.take(_Job(work, tell))
        return done


class Brief:
    """One thread for work that is waited for right here, but not for long. It ends with it."""

    def __init__(self, name: str) -> None:
        """``name`` is that of its thread, which is there as soon as there is work."""
        self._name = name
        self._workers: list[_Worker] = []
        weakref.finalize(self, _end, self._workers)
        self._busy = threading.Event()

    def do(self, work: Callable[[], T], within_s: float) -> T:
        """Do ``work`` and return what it returns; raise what it raises.

        Raises TimeoutError when it is not done in time, and at once while an earlier one has not ended.
        """
        if self._busy.is_set():
            raise TimeoutError(f"{self._name} hangs")
        if not self._workers:
            self._workers.append(_Worker(self._name))
        self._busy.set()
        done = threading.Event()

        def tell(_job: _Job[T]) -> None:
            self._busy.clear()
            done.set()

        job = _Job(work, tell)
        self._workers[0].take(job)
        if not done.wait(within_s):
            raise TimeoutError(f"{self._name} has not ended within {within_s:g} s")
        if job.error is not None:
            raise job.error
        return job.result


def _heed(done: asyncio.Future[T]) -> None:
    """Take an error that comes when nobody waits any more: whoever did was told that it took too long."""
    if not done.cancelled():
        done.exception()


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()


class _Job(Generic[T]):
    """A piece of work, and what became of it when ``tell`` is called, on the thread."""

    result: T

    def __init__(self, work: Callable[[], T], tell: Callable[[_Job[T]], None]) -> None:
        self._work = work
        self._tell = tell
        self.error: BaseException | None = None

    def do(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001  whoever waits is to get it, whatever it is
            self.error = error
        self._tell(self)


class _Worker:
    """A thread that does one thing after another."""

    def __init__(self, name: str) -> None:
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=f"aside:{name}", daemon=True).start()

    def take(self, job: _Job[T]) -> None:
        self._inbox.put(job.do)

    def end(self) -> None:
        self._inbox.put(None)

    def _run(self) -> None:
        while (job := self._inbox.get()) is not None:
            job()
            del job  # it holds what it was given until the next one comes
