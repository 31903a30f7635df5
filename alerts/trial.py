"""The messages that somebody tries a channel with: one that begins, one that ends. Pure."""

from __future__ import annotations

from uuid import uuid4

from msgspec.structs import replace

from opsboard.core.deliveries import Delivery, Fact, Message, NewDelivery
from opsboard.core.incidents import Urgency

DETECTOR = "test"


def trial(channel: str, *, host: str, ssh: str | None, by: str, severity: Urgency, t: float) -> NewDelivery:
    """Return the first message; ``by`` asked for it at ``t`` (Unix s). It belongs to no incident."""
    return NewDelivery(
        channel=channel,
        not_before=t,
        message=Message(
            step="trigger",
            uid=uuid4().hex,
            number=0,
            host=host,
            detector=DETECTOR,
            subject=f"channel/{channel}",
            severity=severity,
            state="open",
            summary=f"a test of the channel {channel}: nothing is wrong",
            news=f"asked for by {by}",
            t=t,
            since=t,
            opened=t,
            facts=(Fact(name="asked for by", text=by),),
            commands=(f"ssh {ssh or host} opsboard alerts channels",),
            louder=True,
            test=True,
        ),
    )


def trial_ends(first: Delivery, t: float) -> NewDelivery | None:
    """Return the message that ends a trial whose first one was taken; None: this is none."""
    said = first.message
    if not said.test or said.over:
        return None
    news = "the test is over: this channel tells beginnings and ends"
    last = replace(said, step="resolve", state="resolved", resolved=t, t=t, news=news, louder=False)
    return NewDelivery(channel=first.channel, not_before=t, message=last)
