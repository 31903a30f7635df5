"""The budgets, measured: `make bench`. One module a subject, each with ``run() -> list[Row]``."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One line of docs/benchmarks.md: what was measured, what it must reach, what it was, and whether it holds."""

    what: str
    budget: str
    measured: str
    ok: bool
