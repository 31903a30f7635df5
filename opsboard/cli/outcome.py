"""How asked-for actions end, of several engines at once: all are asked first, then all are waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from opsboard.core.errors import ControlError, NotReachable

if TYPE_CHECKING:
    from opsboard.client.sync import Client
    from opsboard.core.wire import EngineDetail

_DONE = {"start": ("ready", "asleep"), "restart": ("ready", "asleep"), "stop": ("stopped",)}
_FAILED = ("failed", "parked")
_POLL_S = 0.25
_GLANCE_S, _GLANCE_POLL_S = 1.0, 0.05  # a launch answers within 0.1 s
_WAIT_S = 3600.0  # the engine's own ready_timeout and stop_timeout end the wait long before


class Asked:
    """An action that the daemon took on, and the engine as it was ``before``."""

    def __init__(self, kind: str, before: EngineDetail) -> None:
        """``kind`` is start, stop or restart."""
        self.name = before.engine.name
        self.said = ""
        self._kind = kind
        self._before = before

    def begun(self, now: EngineDetail) -> bool:
        """Tell whether it has begun. Raises ControlError when it failed at once, as most failures do."""
        self._raise_failure(now)
        pid, before = now.engine.pid, self._before.engine.pid
        return (
            self._kind == "stop"
            or now.engine.state == "stopping"
            or (pid is not None and (self._kind == "start" or pid != before))
        )

    def done(self, now: EngineDetail) -> bool:
        """Tell whether it is done, and write what the engine does until then. Raises ControlError when it failed."""
        self._raise_failure(now)
        engine, before = now.engine, self._before.engine
        restart = self._kind == "restart"
        moved = engine.state_since != before.state_since or (not restart and engine.state == before.state)
        if moved and engine.state in _DONE[self._kind] and (not restart or engine.pid != before.pid):
            click.echo(f"{self.name}: {engine.state}")
            return True
        line = engine.state if engine.phase is None else f"{engine.state}: {engine.phase}"
        if line != self.said:
            click.echo(f"{self.name}: {line}", err=True)
            self.said = line
        if moved and engine.state in _FAILED:
            message = f"{self.name}: {engine.state}: {engine.message or 'no reason known'}"
            raise ControlError(message, hint=f"opsboard engine logs {self.name}")
        return False

    def _raise_failure(self, now: EngineDetail) -> None:
        """Raise ControlError when the timeline has told that the action failed."""
        for event in now.events:
            if event.kind == "action_failed" and event not in self._before.events:
                raise ControlError(f"{self.name}: {event.text}")


def act(source: Client, names: Sequence[str], kind: str, reason: str | None, *, wait: bool) -> None:
    """Ask ``kind`` of every engine, then follow them all: to the end with ``wait``, else until it has begun.

    Raises:
        NotReachable: the daemon is not there, or went away.
        ControlError: it failed; of several engines each failure is written as it comes, and all are named here.
    """
    before = {name: source.engine(name) for name in names}  # a wrong name is told before anything is done
    failed: dict[str, ControlError] = {}
    alone = len(before) == 1

    def fail(name: str, error: ControlError) -> None:
        failed[name] = error
        if not alone:
            click.echo(error.message if error.message.startswith(name) else f"{name}: {error.message}", err=True)

    asked: list[Asked] = []
    for name, detail in before.items():
        try:
            source.action(name, kind, reason)
        except NotReachable:
            raise
        except ControlError as error:
            fail(name, error)
        else:
            asked.append(Asked(kind, detail))
    for one, failure in _follow(source, asked, wait=wait):
        if failure is not None:
            fail(one.name, failure)
        elif not wait:
            click.echo(f"{one.name}: {kind} accepted")
    if failed and alone:
        raise next(iter(failed.values()))
    if failed:
        raise ControlError(f"{kind} failed for {len(failed)} of {len(before)} engines: {', '.join(failed)}")


def _follow(source: Client, asked: Sequence[Asked], *, wait: bool) -> Iterator[tuple[Asked, ControlError | None]]:
    """Yield each action when it is over, with what made it fail."""
    step: Callable[[Asked, EngineDetail], bool] = Asked.done if wait else Asked.begun
    limit_s, poll_s = (_WAIT_S, _POLL_S) if wait else (_GLANCE_S, _GLANCE_POLL_S)
    deadline = time.monotonic() + limit_s
    waiting = list(asked)
    while waiting and time.monotonic() < deadline:
        for one in tuple(waiting):
            try:
                if not step(one, source.engine(one.name)):
                    continue
            except NotReachable:
                raise
            except ControlError as error:
                yield one, error
            else:
                yield one, None
            waiting.remove(one)
        if waiting:
            time.sleep(poll_s)
    for one in waiting:
        late = ControlError(f"{one.name}: still {one.said} after {_WAIT_S:.0f} s") if wait else None
        yield one, late
