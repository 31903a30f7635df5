"""Requests under way: the records that join who sends them to those who judge."""

from __future__ import annotations

from opsboard.core.model import Record


class InflightRequest(Record, frozen=True, kw_only=True):
    """One request under way to an engine, as known to who sent it. Tokens so far."""

    id: str
    prompt_tokens: int
    generated_tokens: int = 0


class InflightReading(Record, frozen=True, kw_only=True):
    """All requests under way to an engine at this moment."""

    engine: str
    requests: tuple[InflightRequest, ...] = ()
