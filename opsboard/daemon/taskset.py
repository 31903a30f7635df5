"""Supervised tasks by name that may be exchanged while the daemon runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from opsboard.daemon.tasks import TaskBook, supervised


class TaskSet:
    """The daemon's tasks inside one ``asyncio.TaskGroup``."""

    def __init__(self, group: asyncio.TaskGroup, book: TaskBook) -> None:
        """``book`` hears of every failure."""
        self._group = group
        self._book = book
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def add(self, name: str, factory: Callable[[], Awaitable[None]]) -> None:
        """Run ``factory`` under ``name`` until it returns; one that runs under that name is ended.

        After :meth:`close` nothing is begun: a reload that comes to its end while the daemon does must not hold it.
        """
        if self._closed:
            return
        self.remove(name)
        self._tasks[name] = self._group.create_task(supervised(name, factory, self._book), name=name)

    def remove(self, name: str) -> None:
        """End a task, if there is one."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    def replace(self, prefix: str, factories: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        """Put ``factories`` in the place of all tasks whose names begin with ``prefix``."""
        for name in [name for name in self._tasks if name.startswith(prefix)]:
            self.remove(name)
        for name, factory in factories.items():
            self.add(name, factory)

    async def close(self) -> None:
        """End all of them and wait."""
        self._closed = True
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
