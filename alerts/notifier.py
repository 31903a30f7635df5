"""What every notifier is: one frozen record in one file, found by :func:`opsboard.core.registry.notifiers`.

``render`` and ``classify`` are pure: what a message becomes for a service, and what its answer means. One hardened
transport (transport.py) does the talking, one worker a channel (delivery.py) decides when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from opsboard.core.deliveries import Delivery
from opsboard.core.model import Record
from opsboard.core.secret import Secret

__all__ = ["Answer", "Http", "Later", "Mail", "Notifier", "Outcome", "Rate", "Refused", "Run", "Sent"]


class Http(Record, frozen=True, kw_only=True):
    """A request. Address, headers and body may hold secrets: none of them is ever logged, stored or shown."""

    url: Secret
    body: bytes
    method: str = "POST"
    headers: Mapping[str, str] = {}
    secret_headers: Mapping[str, Secret] = {}

    def __repr__(self) -> str:
        """Hide all but the size."""
        return f"Http({self.method}, {len(self.body)} bytes)"


class Run(Record, frozen=True, kw_only=True):
    """A command of the user's, without a shell, which reads ``stdin``."""

    argv: tuple[str, ...]
    stdin: bytes


class Mail(Record, frozen=True, kw_only=True):
    """A mail as its bytes (RFC 5322), and the server that takes it."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    sender: str
    to: tuple[str, ...]
    data: bytes
    username: str | None = None
    password: Secret | None = None


Request = Http | Mail | Run


class Answer(NamedTuple):
    """What came back. ``status``: of HTTP or SMTP, or how a command ended; None: nothing came, ``error`` says why.

    ``at``: when it came (Unix s). ``permanent``: trying again cannot help (the name or the address is wrong).
    """

    status: int | None
    at: float = 0.0
    headers: Mapping[str, str] = {}
    body: bytes = b""
    error: str | None = None
    permanent: bool = False


class Sent(NamedTuple):
    """The service took it. ``ref`` is what it calls the message, for the next one of the same incident."""

    ref: str | None = None


class Later(NamedTuple):
    """It did not, and may in ``after_s`` seconds, or when the schedule says (None)."""

    why: str
    after_s: float | None = None


class Refused(NamedTuple):
    """It never will: this message, or with ``channel`` any message until somebody mends the channel."""

    why: str
    channel: bool = False


Outcome = Sent | Later | Refused


class Rate(Record, frozen=True, kw_only=True):
    """How often a service may be asked: ``burst`` at once, then one every ``every_s`` seconds."""

    every_s: float = 1.0
    burst: int = 10


class Notifier(Record, frozen=True, kw_only=True):
    """A service. ``params`` is a frozen record: its fields are the keys of a ``[[channel]]`` of this kind.

    ``render(params, delivery)`` returns the requests in order; the last one's answer is the message's. ``classify(
    params, answer)`` says what an answer means. Both are pure and never raise. ``edits``: a later message of an
    incident changes the earlier one instead of being a new one.
    """

    kind: str
    summary: str
    params: type[msgspec.Struct]
    render: Callable[[Any, Delivery], Sequence[Request]]
    classify: Callable[[Any, Answer], Outcome]
    rate: Rate = Rate()
    edits: bool = False
    resend_s: float | None = None
    """A service that forgets what it is not told again: how often. None: it does not."""
    groups: bool = False
    """People read it: several incidents that are no pages may be one message. Machines get each of them."""
