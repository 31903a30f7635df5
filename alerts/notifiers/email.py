"""E-mail by SMTP: the mails of an incident are one conversation, in plain text with an HTML part beside it.

Sources: RFC 5322 (Message-ID, References), RFC 5321 (4xx later, 5xx never), RFC 3834 (Auto-Submitted).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from alerts import wording
from alerts.notifier import Answer, Later, Mail, Notifier, Outcome, Rate, Refused, Request, Sent
from opsboard.core.deliveries import Delivery, Message
from opsboard.core.model import Record
from opsboard.core.secret import Secret
from opsboard.core.text import sanitise

TEXT_CHARS, SUBJECT_CHARS = 8000, 150
_ADDRESS = re.compile(r"[^\s<>@,;:\"()\[\]\\]{1,64}@[A-Za-z0-9.-]{1,190}")
_OURS = frozenset({530, 534, 535, 538, 550, 551, 553, 554})
"""About who sends, who is to get it, or that we may: no other mail will fare better."""


class Params(Record, frozen=True, kw_only=True):
    """What a server needs."""

    host: Annotated[str, Meta(description="the SMTP server")]
    sender: Annotated[str, Meta(description="address that the mails come from")]
    to: Annotated[tuple[str, ...], Meta(description="addresses that they go to")]
    port: Annotated[int, Meta(description="its port: 587 for STARTTLS, 465 for TLS, 25 for a relay")] = 587
    security: Annotated[
        Literal["starttls", "tls", "none"], Meta(description="how the connection is made safe; `none` only on loopback")
    ] = "starttls"
    username: Annotated[str | None, Meta(description="who logs in; default: nobody")] = None
    password: Annotated[Secret | None, Meta(description="with which password")] = None

    def __post_init__(self) -> None:
        """Check what can be checked. Raises ValueError."""
        for address in (self.sender, *self.to):
            if not _ADDRESS.fullmatch(address):
                raise ValueError(f"expected an address such as ops@example.com, found {address!r}")
        if not self.to:
            raise ValueError("`to`: expected at least one address")
        if (self.username is None) is not (self.password is None):
            raise ValueError("`username` and `password` belong together")
        if self.password is not None and self.security == "none":
            raise ValueError('`security`: expected "starttls" or "tls" where a password is sent')
        if not 1 <= self.port <= 65535:
            raise ValueError(f"`port`: expected 1 to 65535, found {self.port}")


def render(params: Params, delivery: Delivery) -> Sequence[Request]:
    """Return the mail; of news between beginning and end only what makes it a page is worth one."""
    message = delivery.message
    if delivery.told and message.step in {"update", "acknowledge"} and not message.louder:
        return ()
    return [
        Mail(
            host=params.host,
            port=params.port,
            security=params.security,
            username=params.username,
            password=params.password,
            sender=params.sender,
            to=params.to,
            data=written(params, delivery),
        )
    ]


def written(params: Params, delivery: Delivery) -> bytes:
    """Return the mail as it goes out."""
    from email.message import EmailMessage  # noqa: PLC0415  costs memory that daemons without mail can save
    from email.policy import SMTP  # noqa: PLC0415
    from email.utils import format_datetime  # noqa: PLC0415

    message = delivery.message
    mail = EmailMessage(policy=SMTP)
    mail["From"] = f"opsboard <{params.sender}>"
    mail["To"] = ", ".join(params.to)
    subject = f"[{wording.word(message)}] {message.detector} on {wording.where(message)}"
    mail["Subject"] = wording.cut(subject, SUBJECT_CHARS)
    mail["Date"] = format_datetime(wording.utc(message.t))
    domain = params.sender.rpartition("@")[2]
    root = f"<opsboard.{message.uid}@{domain}>"
    mail["Message-ID"] = f"<opsboard.{message.uid}.{delivery.seq}@{domain}>"
    mail["References"] = root  # a mail that nobody has, which all of an incident answer
    mail["In-Reply-To"] = root
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Opsboard-Key"] = message.key
    mail.set_content(wording.text(message, TEXT_CHARS) + "\n")
    mail.add_alternative(_html(message), subtype="html")
    mail.set_boundary(f"opsboard-{message.uid}-{delivery.seq}")
    return mail.as_bytes()


def _html(message: Message) -> str:
    from html import escape  # noqa: PLC0415

    rows = "".join(
        f"<tr><td><b>{escape(name)}</b></td><td>{escape(said)}</td></tr>"
        for name, said in wording.details(message)[:20]
    )
    commands = escape(wording.fitting(message.commands, 2000))
    link = ""
    if message.runbook is not None and message.runbook.startswith(("https://", "http://")):
        link = f'<p><a href="{escape(message.runbook, quote=True)}">runbook</a></p>'
    head = escape(wording.cut(f"{wording.sign(message)} {wording.headline(message)}", 1000))
    news = "" if message.step in {"trigger", "resolve"} else f"<p>{escape(wording.cut(message.news, 1000))}</p>"
    return f"<h3>{head}</h3>{news}<table>{rows}</table><pre>{commands}</pre>{link}\n"


def classify(_params: Params, answer: Answer) -> Outcome:
    """Return what the server's answer means."""
    status = answer.status
    if status is None:
        why = sanitise(answer.error or "no answer", 200)
        return Refused(why, channel=True) if answer.permanent else Later(why)
    why = sanitise(f"SMTP {status}: " + answer.body.decode("utf-8", "replace"), 200)
    if 200 <= status < 300:
        return Sent()
    if 400 <= status < 500 or not 500 <= status < 600:
        return Later(why)
    return Refused(why, channel=status in _OURS)


NOTIFIER = Notifier(
    kind="email",
    summary="mails by SMTP, one conversation an incident",
    params=Params,
    render=render,
    classify=classify,
    rate=Rate(every_s=2.0, burst=10),
    groups=True,
)
