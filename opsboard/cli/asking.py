"""Asking the daemon for actions on several engines: all are asked first, then all are waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from opsboard.cli.outcome import Asked
from opsboard.core.errors import ControlError, NotReachable

if TYPE_CHECKING:
    from opsboard.client.sync import Client
    from opsboard.core.wire import Engine, EngineDetail

_POLL_S = 0.25
_GLANCE_S, _GLANCE_POLL_S = 1.0, 0.05  # a launch answers within 0.1 s
_WAIT_S = 3600.0  # the engine's own ready_timeout and stop_timeout end the wait long before
_LEFT = frozenset({"stopped", "stopping", "parked"})  # what is "stopping" for a restart starts again anyway
_AWAY_S = 60.0  # an upgrade, or a service manager that waits before it starts a daemon again


def everyone(engines: Sequence[Engine], kind: str) -> list[str]:
    """Return whom ``--all`` means: those supervised, and for a restart those of them that are to run."""
    supervised = [engine for engine in engines if engine.supervised]
    left = [engine for engine in supervised if kind == "restart" and engine.state in _LEFT]
    if left:
        click.echo(f"left as they are: {', '.join(f'{one.name} ({one.state})' for one in left)}", err=True)
    chosen = [engine.name for engine in supervised if engine not in left]
    if not chosen:
        click.echo(f"no {'other ' if left else ''}engine is supervised: nothing to do", err=True)
    return chosen


def roll(source: Client, names: Sequence[str], reason: str | None, *, wait: bool, now: bool = False) -> None:
    """Let the daemon restart engines one after the other; follow the first until it has begun, all with ``wait``.

    Raises:
        NotReachable: the daemon is not there, or went away for long; it goes on without us when it is back.
        ControlError: one failed, or it was called off; those after it were not touched.
    """
    asked = [Asked("restart", source.engine(name), turn_comes=True) for name in names]
    first, *others = names
    mine = source.action(first, "restart", reason, now=now, then=others).id

    def over() -> ControlError | None:
        last = source.rolling()
        if last is None or last.id != mine:
            return _Over("nothing is known of this rolling restart any more", hint="see `opsboard engine list`")
        return _Over(_and_left(f"the rolling restart {last.error}", last.untouched)) if last.error is not None else None

    for number, one in enumerate(asked if wait else asked[:1], start=1):
        for _, failure in _follow(source, [one], wait=wait, over=over if wait else _goes_on):
            if failure is not None:
                ended = isinstance(failure, _Over)
                raise failure if ended else ControlError(_and_left(failure.message, names[number:]), hint=failure.hint)
    if not wait:
        click.echo(f"{first}: restart accepted; then, one at a time: {', '.join(others)}")


def act(source: Client, names: Sequence[str], kind: str, reason: str | None, *, wait: bool, now: bool = False) -> None:
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
            said = "; ".join(part for part in (error.message, error.hint) if part)
            click.echo(said if said.startswith(name) else f"{name}: {said}", err=True)

    asked: list[Asked] = []
    for name, detail in before.items():
        try:
            source.action(name, kind, reason, now=now)
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
            click.echo(f"{one.name}: {kind} accepted" + (f"; {one.said}" if one.said else ""))
    if failed and alone:
        raise next(iter(failed.values()))
    if failed:
        raise ControlError(f"{kind} failed for {len(failed)} of {len(before)} engines: {', '.join(failed)}")


def cancel(source: Client) -> None:
    """Call off the rolling restart under way. Raises ControlError: there is none."""
    roll = source.cancel_rolling()
    click.echo(f"called off: {roll.done} of {len(roll.engines)} engines were restarted")
    if roll.begun:
        click.echo(f"{roll.at} finishes its restart; `opsboard engine undrain {roll.at}` calls it off while it drains")


class _Over(ControlError):
    """What was followed is over, and its engine had no word of its own about that."""


def _and_left(message: str, names: Sequence[str]) -> str:
    return f"{message}; not touched: {', '.join(names)}" if names else message


def _goes_on() -> ControlError | None:
    return None


def _follow(
    source: Client, asked: Sequence[Asked], *, wait: bool, over: Callable[[], ControlError | None] = _goes_on
) -> Iterator[tuple[Asked, ControlError | None]]:
    """Yield each action when it is over, with what made it fail; ``over()`` says why nothing more comes of any.

    With ``wait`` the daemon may be away for a while: what it was about it goes on with.
    """
    step: Callable[[Asked, EngineDetail], bool] = Asked.done if wait else Asked.begun
    limit_s, poll_s = (_WAIT_S, _POLL_S) if wait else (_GLANCE_S, _GLANCE_POLL_S)
    deadline = time.monotonic() + limit_s
    waiting = list(asked)
    away = _Away()
    while waiting and time.monotonic() < deadline:
        try:
            end = over()  # before the engines are looked at: what they say tells more
            for one in tuple(waiting):
                done, failure = _look(one, step, source, end)
                if done:
                    waiting.remove(one)
                    yield one, failure
            away.back()
        except NotReachable as error:
            if not wait:
                raise
            away.bear(error)
        if waiting:
            time.sleep(poll_s)
    for one in waiting:
        late = ControlError(f"{one.name}: still {one.said} after {_WAIT_S:.0f} s") if wait else None
        yield one, late


def _look(
    one: Asked, step: Callable[[Asked, EngineDetail], bool], source: Client, end: ControlError | None
) -> tuple[bool, ControlError | None]:
    """Return whether an action is over, and what made it fail: ``end``, where it is not done. Raises NotReachable."""
    try:
        if step(one, source.engine(one.name)):
            return True, None
    except NotReachable:
        raise
    except ControlError as error:
        return True, error
    return end is not None, end


class _Away:
    """How long the daemon has not answered."""

    def __init__(self) -> None:
        self._since: float | None = None

    def bear(self, error: NotReachable) -> None:
        """Wait on; raise NotReachable when that has lasted too long."""
        if self._since is None:
            self._since = time.monotonic()
            click.echo("the daemon is away, engines run on: waiting for it", err=True)
        elif time.monotonic() - self._since > _AWAY_S:
            hint = "it goes on with what was asked when it is back: `opsboard engine list` shows how far it is"
            raise NotReachable(f"{error.message}, for {_AWAY_S:.0f} s", hint=hint) from error

    def back(self) -> None:
        """Say so when it answers again."""
        if self._since is not None:
            self._since = None
            click.echo("the daemon is back", err=True)
