"""Engines that sleep: whether one does, putting it to sleep and waking it, each by its dialect.

An engine that sleeps or is paused takes requests and answers none: it must be asked before silence is held against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from collectors.base import Dialect, base_url
from opsboard.core.errors import CollectError, FetchError
from opsboard.httpc.fetch import Fetcher

CONFIRM_S = 5.0
"""Deadline for the question whether a call has worked."""


class CannotSleep(CollectError):
    """An engine of this kind, or started like this, has no sleep to be put to."""

    code = "cannot_sleep"


async def check(
    fetcher: Fetcher,
    url: str,
    dialect: Dialect | None,
    *,
    command: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
    deadline_s: float,
) -> None:
    """Raise CannotSleep, and what is missing, where an engine cannot be put to sleep; FetchError: it does not answer.

    ``command`` is its argv where that is known.
    """
    if dialect is None:
        raise CannotSleep("it is not known yet what kind of engine it is, so not how it sleeps")
    if dialect.sleep is None:
        raise CannotSleep(f"opsboard knows no way to put an engine of kind {dialect.kind!r} to sleep")
    lacks = None if command is None else dialect.sleep.lacks(command)
    if lacks is not None:
        raise CannotSleep(lacks, hint=dialect.sleep.hint)
    path = dialect.sleep.questions[0][0]
    try:
        await fetcher.get(base_url(url, dialect) + path, headers=headers, deadline_s=deadline_s)
    except FetchError as error:
        if error.status != 404:
            raise
        raise CannotSleep(f"it has no {path}", hint=dialect.sleep.hint) from error


async def asleep(
    fetcher: Fetcher, url: str, dialect: Dialect, *, headers: Mapping[str, str] | None = None, deadline_s: float
) -> str | None:
    """Return the path that says the engine sleeps or is paused; None when none does, or there is none to ask.

    The questions share the deadline. Raises FetchError when the server does not answer at all: a busy loop that hangs
    does not answer them either.
    """
    if dialect.sleep is None:
        return None
    clock = asyncio.get_running_loop().time
    end = clock() + deadline_s
    for path, field in dialect.sleep.questions:
        left = max(end - clock(), 0.001)
        try:
            answer = await fetcher.get(base_url(url, dialect) + path, headers=headers, deadline_s=left)
        except FetchError as error:
            if error.status is None:
                raise
            if error.status == 404:
                return None  # they are all there, or none is
            continue
        if _says(answer.body, field):
            return path
    return None


async def sleep(
    fetcher: Fetcher,
    url: str,
    dialect: Dialect,
    *,
    level: Literal[1, 2] = 1,
    headers: Mapping[str, str] | None = None,
    deadline_s: float,
) -> float:
    """Put an engine to sleep and return the seconds it took until it said so.

    Level 1 keeps its weights in host memory, level 2 drops them. Requests under way end first where the engine can
    wait for them; drain it before, for not every release can. Raises FetchError and CollectError.
    """
    if dialect.sleep is None:
        raise CollectError(f"opsboard knows no way to put an engine of kind {dialect.kind!r} to sleep")
    path = dialect.sleep.sleep_path.format(level=level)
    return await _call(fetcher, url, dialect, path, headers=headers, deadline_s=deadline_s, wanted=True)


async def wake(
    fetcher: Fetcher, url: str, dialect: Dialect, *, headers: Mapping[str, str] | None = None, deadline_s: float
) -> float:
    """Wake an engine and return the seconds until it said that it is awake. Raises FetchError and CollectError."""
    if dialect.sleep is None:
        raise CollectError(f"opsboard knows no way to wake an engine of kind {dialect.kind!r}")
    path = dialect.sleep.wake_path
    return await _call(fetcher, url, dialect, path, headers=headers, deadline_s=deadline_s, wanted=False)


async def _call(
    fetcher: Fetcher,
    url: str,
    dialect: Dialect,
    path: str,
    *,
    headers: Mapping[str, str] | None,
    deadline_s: float,
    wanted: bool,
) -> float:
    """Post ``path``, see that the engine now sleeps or not as ``wanted``, and return the seconds of the call."""
    try:
        answer = await fetcher.post(base_url(url, dialect) + path, b"", headers=headers, deadline_s=deadline_s)
    except FetchError as error:
        hint = dialect.sleep.hint if dialect.sleep is not None and error.status == 404 else None
        raise FetchError(error.message, reason=error.reason, status=error.status, hint=hint) from error
    said = await asleep(fetcher, url, dialect, headers=headers, deadline_s=CONFIRM_S)
    if (said is not None) != wanted:
        raise CollectError(f"the engine took {path.partition('?')[0]}, and is {'awake' if wanted else 'still asleep'}")
    return answer.duration_s


def _says(body: bytes, field: str) -> bool:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(answer, dict) and answer.get(field) is True
