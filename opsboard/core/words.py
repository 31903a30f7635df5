"""The few words that records are made of: what became of a reading, where an engine is, what a failure asks for."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Outcome(StrEnum):
    """What became of one collection."""

    OK = "OK"
    NO_DATA = "NO_DATA"
    """The source answered and has nothing for us (no engine series, no GPU)."""
    FAILED = "FAILED"


def state_word(state: str) -> str:
    """Return a state as people read it; programs read its value."""
    return state.replace("_", " ")


class EngineState(StrEnum):
    """Where an engine is in its life. The words of CONTRACT."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"
    BACKING_OFF = "backing_off"
    PARKED = "parked"
    UNREACHABLE = "unreachable"
    ASLEEP = "asleep"

    @property
    def word(self) -> str:
        """As people read it."""
        return state_word(self.value)


class Severity(StrEnum):
    """How loud an event is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Record(msgspec.Struct, frozen=True):
    """Base of all domain records (msgspec inherits ``frozen`` but not ``kw_only``: say it in each)."""


class FatalVerdict(StrEnum):
    """What a failed start or a crash asks for."""

    RETRY = "retry"
    """Try again after a pause: it may have been chance."""
    WAIT = "wait"
    """Something outside is in the way (a neighbour's memory, a port): look again until it is gone, without starting."""
    PARK = "park"
    """It cannot work until a person changes something."""
