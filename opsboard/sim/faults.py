"""The faults a simulated engine can have: what each is called, what its value means, where it acts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from opsboard.core.errors import NotFound, UsageError

FAULTS_FILE = "OPSBOARD_SIM_FAULTS"
"""The environment variable that names a file with more faults, read at start where it exists."""


class Fault(msgspec.Struct, frozen=True):
    """One kind of fault. ``default`` is its value when none is given, in the unit that ``about`` names."""

    name: str
    default: float
    about: str
    at_start_only: bool = False


CATALOGUE: Mapping[str, Fault] = MappingProxyType({
    fault.name: fault
    for fault in (
        Fault("leak", 1.0, "KV blocks never freed, for each finished request (0.1: one in ten)"),
        Fault("leak_on_abort", 1.0, "KV blocks never freed, for each aborted request"),
        Fault("leak_per_hour", 60.0, "KV blocks lost an hour, whatever the traffic"),
        Fault("host_leak", 60.0, "megabytes a minute by which EngineCore's memory really grows"),
        Fault("slow_step", 4.0, "factor on the time of every engine step"),
        Fault("slow_prefill", 10.0, "factor on the time of prefill tokens"),
        Fault("hang", 1.0, "no step ever ends; /health stays 200"),
        Fault("drift", 1.0, "answers differ from those of an engine without it"),
        Fault("saturated", 30.0, "seconds in which no new connection is taken; those that are open go on"),
        Fault("stale_gauges", 1.0, "running, waiting and KV usage keep their last value"),
        Fault("preemption_storm", 10.0, "running requests thrown back to the queue, each second"),
        Fault("engine_death", 1.0, "EngineCore dies; then 503, then exit code 0, as the real one does"),
        Fault("metrics_500", 1.0, "/metrics answers 500"),
        Fault("metrics_truncated", 0.5, "share of the page that is sent before the connection breaks"),
        Fault("metrics_cut", 0.5, "share of the page that a well-formed reply carries"),
        Fault("metrics_huge", 100.0, "megabytes of page"),
        Fault("metrics_slow", 10.0, "seconds before /metrics answers"),
        Fault("log_spam", 10.0, "megabytes of log a second"),
        Fault("port_bound_not_listening", 1.0, "says it serves, and nobody can connect", at_start_only=True),
        Fault("never_ready", 1.0, "start-up stops half way and the process lives on", at_start_only=True),
        Fault("fail_start", 1.0, "start-up ends with a fatal log line and exit code 1", at_start_only=True),
    )
})  # fmt: skip


class Faults:
    """The faults that act now, by name."""

    def __init__(self, active: Mapping[str, float] | None = None) -> None:
        """Begin with ``active`` (names of the catalogue)."""
        self._active = dict(active or {})

    def __contains__(self, name: str) -> bool:
        return name in self._active

    def value(self, name: str, default: float = 0.0) -> float:
        """Return the value of a fault, ``default`` while it does not act."""
        return self._active.get(name, default)

    def set(self, name: str, value: float | None = None) -> float:
        """Begin a fault and return the value it acts with. Raises NotFound and UsageError."""
        fault = CATALOGUE.get(name)
        if fault is None:
            raise NotFound(f"there is no fault {name!r}", hint="one of " + ", ".join(CATALOGUE))
        chosen = fault.default if value is None else value
        if not 0 <= chosen < float("inf"):
            raise UsageError(f"the value of {name} must be a number from 0 up, not {chosen}")
        self._active[name] = chosen
        return chosen

    def clear(self, name: str | None = None) -> None:
        """End one fault, or all of them."""
        if name is None:
            self._active.clear()
        else:
            self._active.pop(name, None)

    def as_dict(self) -> dict[str, float]:
        """Return what acts now."""
        return dict(self._active)


def parse(texts: Iterable[str]) -> Faults:
    """Read ``NAME`` and ``NAME=VALUE`` from a command line. Raises NotFound and UsageError."""
    faults = Faults()
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            number = float(value) if equals else None
        except ValueError:
            raise UsageError(f"--fault {text}: {value!r} is not a number") from None
        faults.set(name, number)
    return faults
