"""Whether an engine is to sleep: what operators wished last, kept in its bundle, so that it outlives every daemon."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import msgspec

from opsboard.core.model import Record
from opsboard.supervise import bundle

log = logging.getLogger("opsboard.supervise")


class Rest(Record, frozen=True, kw_only=True):
    """What is remembered of one engine.

    ``wish`` is the operator's last one, None where the configuration decides; ``unfinished``: it was being carried
    out; ``life`` (Unix s, when it began) is the one that was put to sleep and not woken since.
    """

    wish: Literal["asleep", "awake"] | None = None
    unfinished: bool = False
    life: float | None = None

    def sleeps(self, *, standby: bool) -> bool:
        """Tell whether the engine is to sleep; ``standby`` is what its configuration says."""
        return standby if self.wish is None else self.wish == "asleep"


NOTHING = Rest()


def read(directory: Path) -> Rest:
    """Return what the bundle ``directory`` says; a file that is not understood says nothing. Raises OSError."""
    kept = bundle.read(str(directory), bundle.REST) or {}
    try:
        return msgspec.convert({key: kept[key] for key in Rest.__struct_fields__ if key in kept}, Rest)
    except msgspec.ValidationError as error:
        log.warning("%s: not understood: %s", directory / bundle.REST, error)
        return NOTHING


def write(directory: Path, rest: Rest) -> None:
    """Keep it. Raises OSError."""
    if rest == NOTHING:
        bundle.remove(str(directory), bundle.REST)
    else:
        bundle.write(str(directory), bundle.REST, {"protocol": bundle.PROTOCOL, **msgspec.structs.asdict(rest)})
