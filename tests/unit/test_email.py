"""Mails: what is written, and what a real server (aiosmtpd) gets and answers."""

from __future__ import annotations

import email
import email.policy
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from msgspec.structs import replace

from alerts.mailing import hand_over
from alerts.notifier import Answer, Later, Mail, Outcome, Refused, Sent
from alerts.notifiers import email as notifier
from opsboard.core.secret import Secret
from tests.support.messages import ACKED, LEAK, OVER, delivery, told

PARAMS = notifier.Params(
    host="127.0.0.1", sender="opsboard@example.com", to=("ops@example.com", "sre@example.com"), security="none"
)


class Box:
    """Keeps what comes, answers by a script."""

    def __init__(self, answer: str = "250 OK") -> None:
        self.answer = answer
        self.mails: list[EmailMessage] = []
        self.to: list[str] = []

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802  aiosmtpd's name and parameters
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802  aiosmtpd's name
        found = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.mails.append(found)
        self.to = envelope.rcpt_tos
        return self.answer


@contextmanager
def server(box: Box) -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def handed(box: Box, params: notifier.Params = PARAMS) -> tuple[Answer, Outcome]:
    with server(box) as port:
        (request,) = notifier.render(replace(params, port=port), delivery())
        assert isinstance(request, Mail)
        answer = hand_over(request)
    return answer, notifier.classify(params, answer)


def test_a_server_takes_it() -> None:
    box = Box()
    answer, outcome = handed(box)
    assert (answer.status, outcome) == (250, Sent())
    (mail,) = box.mails
    assert mail["Subject"] == "[PAGE] kv_leak on vllm-a on gpu-a"
    assert box.to == list(PARAMS.to)
    text = mail.get_body(("plain",))
    assert text is not None
    assert "214 KV blocks" in text.get_content()
    assert "$ ssh gpu-a opsboard incident show 42" in text.get_content()
    html = mail.get_body(("html",))
    assert html is not None
    assert "<b>lost blocks</b></td><td>214" in html.get_content()


@pytest.mark.parametrize(
    ("answer", "kind", "channel"),
    [("451 later", Later, None), ("552 too large", Refused, False), ("554 no", Refused, True)],
)
def test_what_a_server_answers(answer: str, kind: type, channel: bool | None) -> None:
    _, outcome = handed(Box(answer))
    assert isinstance(outcome, kind)
    if isinstance(outcome, Refused):
        assert outcome.channel is channel


def test_one_recipient_that_nobody_knows_is_told() -> None:
    box = Box()
    answer, outcome = handed(box, replace(PARAMS, to=("ops@example.com", "nobody@example.com")))
    assert answer.status == 550
    assert isinstance(outcome, Refused)
    assert len(box.mails) == 1, "the other one has it"


def test_no_server() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        (request,) = notifier.render(replace(PARAMS, port=sock.getsockname()[1]), delivery())
        assert isinstance(request, Mail)
        answer = hand_over(request)
    assert isinstance(notifier.classify(PARAMS, answer), Later)
    assert "refused" in (answer.error or "")


def test_a_server_without_tls_gets_no_mail() -> None:
    box = Box()
    answer, outcome = handed(box, replace(PARAMS, security="starttls"))
    assert answer.status is None
    assert isinstance(outcome, Refused)
    assert outcome.channel
    assert not box.mails


def test_the_mails_of_an_incident_are_one_conversation() -> None:
    first = email.message_from_bytes(notifier.written(PARAMS, delivery()), policy=email.policy.default)
    end = email.message_from_bytes(
        notifier.written(PARAMS, delivery(told(OVER, "resolve"), seq=3, told=True)), policy=email.policy.default
    )
    assert first["References"] == end["References"]
    assert first["Message-ID"] != end["Message-ID"]
    assert end["Subject"].startswith("[RESOLVED] ")
    assert not notifier.render(PARAMS, delivery(told(ACKED, "acknowledge"), seq=2, told=True))


def test_nobody_writes_headers_from_outside() -> None:
    nasty = told(replace(LEAK, detector="x\r\nBcc: all@example.com", subject="engine/a\nX: y"), engine="a\r\nX-Evil: 1")
    try:
        data = notifier.written(PARAMS, delivery(nasty))
    except ValueError:
        return  # refused: then the message is a dead letter
    mail = email.message_from_bytes(data, policy=email.policy.default)
    assert mail["Bcc"] is None
    assert mail["X-Evil"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"sender": "ops"},
        {"to": ()},
        {"to": ("a@b\nBcc: c@d",)},
        {"username": "x"},
        {"username": "x", "password": Secret("y"), "security": "none"},
        {"port": 0},
    ],
)
def test_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|belong"):
        replace(PARAMS, **wrong)
