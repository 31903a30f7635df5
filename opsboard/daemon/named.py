"""Who said something, as incidents and silences name them."""

from __future__ import annotations

from opsboard.core.text import sanitise
from opsboard.httpd import Peer

NAME_CHARS = 40


def named(name: str | None, peer: Peer | None) -> str:
    """Return the name that somebody gives, with the uid that the kernel says."""
    told = sanitise((name or "").strip(), NAME_CHARS)
    uid = "unknown" if peer is None else str(peer.uid)
    return f"{told} (uid {uid})" if told else f"uid {uid}"
