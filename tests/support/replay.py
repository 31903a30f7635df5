"""A recording as the readings it was made of, at the times it was made."""

from __future__ import annotations

import json
import lzma
from typing import TYPE_CHECKING, Any

from collectors.exposition import Parser
from opsboard.core.clock import Now
from opsboard.core.model import EngineReading, Outcome, ProcessReading, ProcessView
from opsboard.core.registry import dialects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from collectors.base import Dialect

ROLES = {"APIServer": "api_server", "EngineCore": "engine_core", "Worker": "worker"}


def role(name: str) -> str:
    """Return the role of a recorded process of vLLM's."""
    return ROLES.get(name, name)


def replay(
    path: Path, role_of: Callable[[str], str] = role, *, started: float | None = None
) -> Iterator[tuple[Now, EngineReading, ProcessReading]]:
    """Yield each line as its instant (monotonic from 0), the page and the processes of its engine."""
    parser = Parser()
    with lzma.open(path, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            started = row["t"] if started is None else started
            dialect = dialects().found[row["kind"]]
            yield Now(wall=row["t"], mono=row["t"] - started), _page(row, parser, dialect), _processes(row, role_of)


def _page(row: dict[str, Any], parser: Parser, dialect: Dialect) -> EngineReading:
    if "metrics" not in row:
        return EngineReading(engine=row["engine"], outcome=Outcome.FAILED, error=row["error"])
    view = dialect.read(parser.parse(row["metrics"].encode()))
    return EngineReading(engine=row["engine"], outcome=Outcome.OK, view=view)


def _processes(row: dict[str, Any], role_of: Callable[[str], str]) -> ProcessReading:
    views = tuple(
        ProcessView(
            pid=process["pid"],
            started=0.0,
            name=process["name"],
            role=role_of(process["name"]),
            rss_bytes=process["rss"],
            rss_anon_bytes=process["rss_anon"],
            swap_bytes=process["swap"],
        )
        for process in row["processes"]
    )
    return ProcessReading(engine=row["engine"], outcome=Outcome.OK, processes=views)
