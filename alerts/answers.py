"""What an answer over HTTP means, as far as services agree. Pure."""

from __future__ import annotations

import json
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from alerts.notifier import Answer, Later, Outcome, Refused, Sent
from opsboard.core.text import sanitise

SAID_CHARS = 200
_AGAIN = frozenset({408, 421, 423, 425, 429})
_CHANNEL = frozenset({401, 403, 404, 405, 407, 410})
"""It is not this message that is wrong: a key, an address or a right is."""


def by_status(answer: Answer) -> Outcome:
    """Return what the status says: 2xx taken, 429, 5xx and no answer later, everything else never."""
    status = answer.status
    if status is None:
        return (
            Refused(answer.error or "no answer", channel=True)
            if answer.permanent
            else Later(answer.error or "no answer")
        )
    if 200 <= status < 300:
        return Sent()
    why = f"HTTP {status}: {said(answer)}" if answer.body else f"HTTP {status}"
    if status in _AGAIN or status >= 500:
        return Later(why, retry_after_s(answer))
    if 300 <= status < 400:
        return Refused(f"HTTP {status}: redirects are not followed", channel=True)
    return Refused(why, channel=status in _CHANNEL)


def retry_after_s(answer: Answer) -> float | None:
    """Return how many seconds a service asks to wait (Retry-After as seconds or as a date); None: it does not say."""
    text = answer.headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    then = then if then.tzinfo is not None else then.replace(tzinfo=UTC)
    return max(0.0, then.timestamp() - answer.at)


def said(answer: Answer) -> str:
    """Return the first of what a service said, on one safe line."""
    return sanitise(" ".join(answer.body.decode("utf-8", "replace").split()), SAID_CHARS)


def json_of(answer: Answer) -> dict[str, Any]:
    """Return the object that a service answered; empty where it is none."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
