"""Hands a mail to a server (SMTP, RFC 5321) in a thread of its own. Imported when the first mail is to be sent."""

from __future__ import annotations

import smtplib
import ssl

from alerts.notifier import Answer, Mail

PHASE_S = 10.0
"""No single answer of the server takes longer."""


def hand_over(mail: Mail) -> Answer:
    """Return what the server says; never raises for what it or the network does. Blocks."""
    try:
        with _connected(mail) as server:
            refused = server.sendmail(mail.sender, mail.to, mail.data)
    except smtplib.SMTPRecipientsRefused as error:
        return _worst(error.recipients)
    except smtplib.SMTPResponseException as error:
        return Answer(status=error.smtp_code, body=_bytes(error.smtp_error))
    except smtplib.SMTPNotSupportedError as error:
        return Answer(status=None, error=f"{mail.host}: {error}", permanent=True)
    except ssl.SSLError as error:
        return Answer(status=None, error=f"{mail.host}: TLS: {error}", permanent=True)
    except (smtplib.SMTPException, OSError) as error:
        return Answer(status=None, error=f"{mail.host}:{mail.port}: {error}")
    return _worst(refused) if refused else Answer(status=250)


def _connected(mail: Mail) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if mail.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(mail.host, mail.port, timeout=PHASE_S, context=context)
    else:
        server = smtplib.SMTP(mail.host, mail.port, timeout=PHASE_S)
    try:
        if mail.security == "starttls":
            server.starttls(context=context)
        if mail.username is not None and mail.password is not None:
            server.login(mail.username, mail.password.reveal())
    except BaseException:
        server.close()
        raise
    return server


def _worst(refused: dict[str, tuple[int, bytes]]) -> Answer:
    """Return the answer of the recipient for whom it is worst: some may have got it, and will get it again."""
    code, said = max(refused.values())
    return Answer(status=code, body=_bytes(said))


def _bytes(said: bytes | str) -> bytes:
    return said.encode() if isinstance(said, str) else said
