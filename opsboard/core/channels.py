"""What is wrong with a channel, and what a person does about it, in words."""

from __future__ import annotations

from opsboard.core.deliveries import ChannelHealth


def channel_trouble(channel: ChannelHealth, now: float) -> str | None:
    """Return in one line what is wrong; None: nothing is. ``now`` in Unix seconds.

    What waits without an error waits for its turn, or for a time to be told: that is no trouble.
    """
    parts = []
    if channel.waiting and (channel.broken or channel.error is not None):
        since = "" if channel.oldest is None else f" for {_age(now - channel.oldest)}"
        parts.append(f"{_messages(channel.waiting)} {'waits' if channel.waiting == 1 else 'wait'}{since}")
    if channel.dead:
        parts.append(f"{_messages(channel.dead)} could not be delivered")
    name = f"{channel.name} ({channel.kind})"
    why = "" if channel.error is None else f": {channel.error}"
    if channel.broken:
        return "; ".join([f"{name} is broken{why}", *parts])
    if channel.waiting and channel.error is not None:
        return "; ".join([f"{name} takes nothing now{why}", *parts])
    return f"{name}: {parts[0]}{why}" if parts else None


def channel_advice(channel: ChannelHealth) -> str | None:
    """Return what to do about it; None where there is nothing to do."""
    if channel.broken:
        return (
            f"mend its key or address in the configuration, `opsboard config reload`, "
            f"`opsboard alerts test {channel.name}`"
        )
    if channel.dead:
        return "`opsboard alerts outbox list` shows what is dead, `retry` sends it again, `drop` gives it up"
    if channel.error is not None and channel.waiting:
        return "it is tried again by itself, at least every 5 minutes; `opsboard alerts outbox list` shows what waits"
    return None


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _age(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h"
