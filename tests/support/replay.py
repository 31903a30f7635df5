"""A recording as the page and the processes of each moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opsboard.core.model import EngineReading, ProcessReading
from opsboard.recording.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opsboard.core.clock import Now


def replay(path: Path) -> Iterator[tuple[Now, EngineReading, ProcessReading]]:
    """Yield each line as its instant (monotonic from 0), the page and the processes of its engine."""
    for now, _, readings in Reader(path):
        pages = [one for one in readings if isinstance(one, EngineReading)]
        processes = [one for one in readings if isinstance(one, ProcessReading)]
        yield now, pages[0], processes[0]
