"""Telling people: what a message says, and its way to one channel. Times are Unix seconds."""

from __future__ import annotations

from typing import Literal

from opsboard.core.incidents import Urgency
from opsboard.core.model import Record

Step = Literal["trigger", "update", "acknowledge", "resolve"]
"""What a message is of its incident: the first word, news, somebody takes it, the end."""

State = Literal["due", "sent", "superseded", "dead", "dropped"]
"""``superseded``: newer news of the same incident went instead; ``dead``: it cannot be delivered as it is."""


class Fact(Record, frozen=True, kw_only=True):
    """One number or name that justifies what is said, in words of people: ``lost blocks``, ``214``."""

    name: str
    text: str


class Message(Record, frozen=True, kw_only=True):
    """What is told of an incident, for every service alike. Texts are sanitised, and not yet escaped for a service.

    ``number`` is the incident's for people, ``uid`` the one that no other ever has, ``key`` the same for all messages
    of one incident wherever they go.
    """

    step: Step
    uid: str
    number: int
    host: str
    detector: str
    subject: str
    severity: Urgency
    state: Literal["open", "acknowledged", "resolved"]
    summary: str
    """The cause in one sentence, with its numbers."""
    news: str
    """What is new since the last message, in one sentence."""
    t: float
    since: float
    opened: float
    resolved: float | None = None
    acknowledged_by: str | None = None
    engine: str | None = None
    model: str | None = None
    facts: tuple[Fact, ...] = ()
    """The most telling first."""
    actions: tuple[str, ...] = ()
    """What opsboard or somebody did, and what came of it; the newest last."""
    commands: tuple[str, ...] = ()
    """What to type next."""
    spark: str | None = None
    """The evidence drawn in a line of text."""
    runbook: str | None = None
    """A link."""
    louder: bool = False
    """It is to be heard: the first word, louder than the last one, or said again because nobody acknowledged it."""
    known: float = 0.0
    """Since when the channel knows that it is this loud."""
    rang: float = 0.0
    """When the channel last heard of it aloud."""
    lines: int = 0
    """How long the incident's timeline was: what comes after is news."""
    members: tuple[str, ...] = ()
    """Of several incidents told as one: the uids of those that go on. Empty: it is of one."""
    test: bool = False
    """Nothing is wrong: somebody tries the channel."""

    @property
    def key(self) -> str:
        """What services join the messages of one incident by; at most 255 characters."""
        return f"opsboard/{self.host[:200]}/{self.uid}"

    @property
    def over(self) -> bool:
        """It is resolved."""
        return self.state == "resolved"


class Delivery(Record, frozen=True, kw_only=True):
    """One message to one channel, as it stands in the outbox. ``seq`` counts those of its incident there, from 1.

    ``ref`` is what the service called the message when it took it; ``before`` what it called the last one of the same
    incident, None when there is none that it took.
    """

    id: int
    channel: str
    seq: int
    message: Message
    created: float
    not_before: float
    attempts: int = 0
    state: State = "due"
    error: str | None = None
    """Why it was not delivered when it was tried last."""
    ref: str | None = None
    before: str | None = None
    told: bool = False
    """The service took an earlier message of the same incident."""
    done: float | None = None
    at: float = 0.0
    """When this attempt is made."""


class NewDelivery(Record, frozen=True, kw_only=True):
    """A message that is to go to a channel, no sooner than ``not_before``."""

    channel: str
    message: Message
    not_before: float


class ChannelHealth(Record, frozen=True, kw_only=True):
    """How a channel is doing: what waits, since when, and what went wrong last (None: the last message went out)."""

    name: str
    kind: str
    waiting: int = 0
    oldest: float | None = None
    dead: int = 0
    sent: float | None = None
    """When the last message went out."""
    error: str | None = None
    broken: bool = False
    """Nothing can be delivered there until somebody mends it."""
    delivered: int = 0
    """Messages that went out since the daemon began."""
    failed: int = 0
    """Attempts that did not get one out."""
