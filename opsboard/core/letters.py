"""The JSON of the outbox: what people and programs ask of it and are answered. Times are Unix seconds."""

from __future__ import annotations

from opsboard.core.deliveries import Delivery
from opsboard.core.incidents import Urgency
from opsboard.core.model import Record


class Letter(Record, frozen=True, kw_only=True):
    """One message to one channel. ``incident`` is the number for people, 0 of a test; ``uid`` is unique for ever."""

    id: int
    channel: str
    incident: int
    uid: str
    step: str
    severity: str
    detector: str
    subject: str
    summary: str
    news: str
    state: str
    created: float
    not_before: float
    attempts: int = 0
    error: str | None = None
    done: float | None = None
    test: bool = False


class LetterRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/outbox/ID/{retry,drop}``; ``reason`` is kept for audit."""

    reason: str | None = None


class TrialRequest(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/channels/NAME/test``. ``by`` is the person's name; the uid is added to it."""

    severity: Urgency = "note"
    by: str | None = None


class Trial(Record, frozen=True, kw_only=True):
    """202: a test message is in the outbox; ``uid`` finds it, and the one that ends it, there."""

    channel: str
    kind: str
    uid: str


def letter(delivery: Delivery) -> Letter:
    """Return a message of the outbox as JSON shows it."""
    said = delivery.message
    return Letter(
        id=delivery.id,
        channel=delivery.channel,
        incident=said.number,
        uid=said.uid,
        step=said.step,
        severity=said.severity,
        detector=said.detector,
        subject=said.subject,
        summary=said.summary,
        news=said.news,
        state=delivery.state,
        created=delivery.created,
        not_before=delivery.not_before,
        attempts=delivery.attempts,
        error=delivery.error,
        done=delivery.done,
        test=said.test,
    )
