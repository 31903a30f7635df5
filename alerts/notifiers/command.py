"""A program of the user's own: argv without a shell, the message as JSON on standard input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from alerts import wording
from alerts.message import bounded
from alerts.notifier import Answer, Later, Notifier, Outcome, Rate, Refused, Request, Run, Sent
from opsboard.core.deliveries import Delivery
from opsboard.core.model import Record
from opsboard.core.text import sanitise

TEMPORARY = 75
"""EX_TEMPFAIL of sysexits.h: try again."""
NOT_THERE = frozenset({126, 127})


class Params(Record, frozen=True, kw_only=True):
    """What is run."""

    run: Annotated[
        tuple[str, ...], Meta(description='the program and its arguments, e.g. `["/usr/local/bin/tell", "--loud"]`')
    ]

    def __post_init__(self) -> None:
        """Check what can be checked. Raises ValueError."""
        if not self.run or not self.run[0].startswith("/"):
            raise ValueError("`run`: expected a program by its whole path, and its arguments")


def render(params: Params, delivery: Delivery) -> Sequence[Request]:
    """Return what is run, and what it reads: the message whole, and ``text``, the same for people."""
    message = bounded(delivery.message)
    body = msgspec.to_builtins(message) | {
        "schema": "opsboard.message/1",
        "key": message.key,
        "seq": delivery.seq,
        "text": wording.text(message, 4000),
    }
    return [Run(argv=params.run, stdin=msgspec.json.encode(body) + b"\n")]


def classify(_params: Params, answer: Answer) -> Outcome:
    """Return what its end means: 0 done, 75 or a signal later, anything else never."""
    if answer.status is None:
        why = answer.error or "it did not end"
        return Refused(why, channel=True) if answer.permanent else Later(why)
    said = sanitise(answer.body.decode("utf-8", "replace"), 200)
    why = f"exit {answer.status}" + (f": {said}" if said else "")
    if answer.status == 0:
        return Sent()
    if answer.status == TEMPORARY or answer.status < 0:
        return Later(why)
    return Refused(why, channel=answer.status in NOT_THERE)


NOTIFIER = Notifier(
    kind="command",
    summary="runs a program of your own, with the message as JSON on its standard input",
    params=Params,
    render=render,
    classify=classify,
    rate=Rate(every_s=1.0, burst=10),
)
