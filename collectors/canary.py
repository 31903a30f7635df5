"""Canaries: small requests that opsboard itself makes, to know what no page tells.

One token shows that an engine still works: it passes the API server, the scheduler, a forward pass and the way back.
Sixteen greedy tokens after a fixed prompt show that it still says what it said: weights that were read wrongly, another
model or another quantisation say something else.

A canary is a request like any other: the engine counts it in its own totals and latencies, one of them at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

import msgspec

from collectors.base import Dialect, Tokens, base_url
from collectors.sleeping import asleep
from opsboard.core.errors import FetchError
from opsboard.core.model import CanaryOutcome, CanaryReading
from opsboard.core.text import sanitise
from opsboard.httpc.fetch import Fetcher

WORD = "Hello"
PROMPT = "Roses are red, violets are blue,"
"""Shorter than any block of a KV cache, so that no cached prefix changes how it is computed."""
GOLDEN_TOKENS = 16
OUTPUT_CHARS = 1024
ERROR_CHARS = 300


async def one_token(
    fetcher: Fetcher,
    url: str,
    *,
    engine: str,
    dialect: Dialect | None,
    model: str | None = None,
    headers: Mapping[str, str] | None = None,
    deadline_s: float,
    reset: bool = False,
) -> CanaryReading:
    """Ask for one token and return what became of it; never raises for what the engine or the network does.

    ``url`` is the engine's base; ``model`` None asks it for its name; ``headers`` carry its key. Of several
    data-parallel ranks one answers: vLLM takes ``X-data-parallel-rank`` in ``headers``. ``deadline_s`` is for all.
    ``reset``: once it has answered, have it empty its prefix cache, which it cannot while a block is held.
    """
    request = _Request(engine, WORD, 1, keep=False)
    reading = await _ask(fetcher, url, request, dialect, model=model, headers=headers, deadline_s=deadline_s)
    if not reset or reading.outcome is not CanaryOutcome.OK or dialect is None or dialect.reset_path is None:
        return reading
    left = max(deadline_s - reading.seconds, 0.001)
    try:
        answer = await fetcher.post(base_url(url, dialect) + dialect.reset_path, b"", headers=headers, deadline_s=left)
        said = msgspec.json.decode(answer.body, type=_Reset)
    except (FetchError, msgspec.DecodeError):
        return reading
    return msgspec.structs.replace(reading, reset=said.success)


async def golden(
    fetcher: Fetcher,
    url: str,
    *,
    engine: str,
    dialect: Dialect | None,
    model: str | None = None,
    headers: Mapping[str, str] | None = None,
    deadline_s: float,
    tokens: int = GOLDEN_TOKENS,
) -> CanaryReading:
    """Ask the fixed question and return the answer and its hash; the rest as :func:`one_token`.

    Ask it while the engine has no other work: what shares its batch changes the rounding of sums, and so, now and
    then, which of two nearly equal tokens wins.
    """
    request = _Request(engine, PROMPT, tokens, keep=True)
    return await _ask(fetcher, url, request, dialect, model=model, headers=headers, deadline_s=deadline_s)


class _Reset(msgspec.Struct):
    success: bool | None = None


class _Request(NamedTuple):
    engine: str
    prompt: str
    tokens: int
    keep: bool
    """Whether the answer belongs into the reading."""


async def _ask(
    fetcher: Fetcher,
    url: str,
    request: _Request,
    dialect: Dialect | None,
    *,
    model: str | None,
    headers: Mapping[str, str] | None,
    deadline_s: float,
) -> CanaryReading:
    clock = asyncio.get_running_loop().time
    started = clock()

    def reading(outcome: CanaryOutcome, error: str | None = None, said: str | None = None) -> CanaryReading:
        return CanaryReading(
            engine=request.engine,
            outcome=outcome,
            seconds=clock() - started,
            error=None if error is None else sanitise(error, ERROR_CHARS),
            output=None if said is None else sanitise(said, OUTPUT_CHARS),
            output_sha256=None if said is None else sha256(said.encode("utf-8", "surrogatepass")).hexdigest(),
        )

    def left() -> float:
        return max(started + deadline_s - clock(), 0.001)

    if dialect is None or dialect.tokens is None:
        kind = "an engine of unknown kind" if dialect is None else f"an engine of kind {dialect.kind!r}"
        return reading(CanaryOutcome.UNABLE, f"opsboard knows no way to ask {kind} for tokens")
    how, base = dialect.tokens, base_url(url, dialect)
    try:
        who = await asleep(fetcher, url, dialect, headers=headers, deadline_s=left())
        if who is not None:
            return reading(CanaryOutcome.ASLEEP, f"{who} says so")
        model = model or await _first_model(fetcher, base, how, headers, left())
        body = how.body(model, request.prompt, request.tokens)
        answer = await fetcher.post(base + how.path, body, headers=headers, deadline_s=left())
        said = how.text(answer.body)
    except FetchError as error:
        return reading(outcome_of(error), error.message)
    except ValueError as error:
        return reading(CanaryOutcome.UNABLE, str(error))
    return reading(CanaryOutcome.OK, said=said if request.keep else None)


async def _first_model(
    fetcher: Fetcher, base: str, how: Tokens, headers: Mapping[str, str] | None, deadline_s: float
) -> str:
    answer = await fetcher.get(base + how.models_path, headers=headers, deadline_s=deadline_s)
    served = how.models(answer.body)
    if not served:
        raise ValueError(f"{how.models_path} names no model")
    return served[0]


_BY_REASON = {
    "connect_timeout": CanaryOutcome.SATURATED,
    "timeout": CanaryOutcome.TIMEOUT,
    "refused": CanaryOutcome.REFUSED,
    "unreachable": CanaryOutcome.REFUSED,
    "truncated": CanaryOutcome.REFUSED,
}


def outcome_of(error: FetchError) -> CanaryOutcome:
    """Return what a failed request says of the engine; what is no answer of an engine's says nothing: UNABLE."""
    if error.status is None:
        return _BY_REASON.get(error.reason, CanaryOutcome.UNABLE)
    if error.status == 429:
        return CanaryOutcome.SATURATED
    return CanaryOutcome.REFUSED if error.status >= 500 else CanaryOutcome.UNABLE
