"""What supervision asks of a way to run engines. Adding one is a file beside this one and a line in registry.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from opsboard.core.model import Severity
from opsboard.supervise.adopt import Remains
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.situation import Exited

Tell = Callable[[str, str, Severity], None]
"""``tell(kind, text, severity)`` puts a line on the engine's timeline."""
LastWords = Callable[[], str | None]


class Place(NamedTuple):
    """Where an engine's ``bundle`` lies, and where sockets do."""

    bundle: Path
    runtime_dir: Path


class Runner(Protocol):
    """One way to run engines. It remembers nothing: what is known of a life is written in its bundle.

    Which runner began a life is written there too, so that one is ended by its own whatever the configuration says by
    then. Every call that leaves the process has a deadline of its own.
    """

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        ...

    @property
    def restarts_itself(self) -> bool:
        """True where others may begin a life, too: Docker, systemd or a person."""
        ...

    @property
    def replaces(self) -> bool:
        """True where a start ends what runs, so that nothing is to be cleared away before it."""
        ...

    async def rehearse(self, spec: LaunchSpec, place: Place) -> None:
        """Raise SuperviseError when a new life could not begin now, before one that runs is ended for it."""
        ...

    async def start(self, spec: LaunchSpec, place: Place, *, instance: str, life: int) -> None:
        """Begin a life: the unique id ``instance``, the number ``life``. Raises SuperviseError: nothing was begun."""
        ...

    async def find(self, spec: LaunchSpec, place: Place, budget_s: float) -> Remains | None:
        """Return what there is of the engine; one that others began is written down as a life of ours.

        Raises TimeoutError, OSError: it could not be found out.
        """
        ...

    async def attend(self, spec: LaunchSpec, place: Place, remains: Remains, tell: Tell) -> None:
        """Keep the records of a life true and its log filled, until cancelled."""
        ...

    async def over(self, spec: LaunchSpec, place: Place, remains: Remains) -> None:
        """Return when the main process of a life has ended."""
        ...

    async def how_it_ended(self, spec: LaunchSpec, place: Place, last_words: LastWords) -> Exited | Remains:
        """Return how the life that is over came to it, or the life that others began in its place."""
        ...

    async def end(self, spec: LaunchSpec, place: Place, by: str, tell: Tell, stuck: Callable[[str], None]) -> None:
        """End a life; return when every process of it is gone. ``stuck`` hears what takes too long.

        ``by`` says who wants it and why. KILL after ``spec.stop_timeout_s``. Goes on for ever. Raises OSError.
        """
        ...
