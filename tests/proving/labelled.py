"""Labelled recordings: what is true of one (``NAME.labels.json``), and what `opsboard backtest --json` claims of it.

``labels`` are rows of ``t`` (Unix s) and ``kind``: from ``fault`` on ``detector`` should open, at ``end`` it was over
(none: it lasts to the end of the recording); ``first_loss`` is when the first block was really lost. A fault may
have ``also`` (detectors that tell a true consequence) and ``losses`` (when each block was lost). ``inflight``: whether
the recording knows the requests under way.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opsboard.cli.private import opsboard_argv
from tests.proving.score import Claimed, Episode, Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

SUFFIX = ".jsonl.xz"
WITHIN_S = 120.0
"""A recording of an hour is judged in 4 s; a busy machine gets more."""


def judged(recording: Path) -> Episode:
    """Return what is wrong in a recording, and what `opsboard backtest` claims of it."""
    argv = opsboard_argv("backtest", "--json", str(recording))
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"opsboard backtest: {ran.returncode}: {ran.stderr}")
    *rows, last = (json.loads(line) for line in ran.stdout.splitlines())
    name = recording.name.partition(".")[0]
    told = json.loads((recording.parent / f"{name}.labels.json").read_text())
    return Episode(
        name=name,
        scenario=told["scenario"],
        seconds=last["summary"]["seconds"],
        known=told.get("inflight", False),
        faults=faults(told["labels"]),
        claims=claims(rows),
    )


def faults(labels: Iterable[dict[str, Any]]) -> tuple[Fault, ...]:
    """Return the faults of a label file, from its rows in the order of time."""
    found: list[dict[str, Any]] = []
    for row in labels:
        if row["kind"] == "fault":
            also, losses = tuple(row.get("also", ())), tuple(row.get("losses", ()))
            found.append({"detector": row["detector"], "onset": row["t"], "also": also, "losses": losses})
        elif row["kind"] == "first_loss":
            found[-1]["onset"] = row["t"]
        elif row["kind"] == "end":
            found[-1]["end"] = row["t"]
    return tuple(Fault(**fields) for fields in found)


def claims(rows: Iterable[dict[str, Any]]) -> tuple[Claimed, ...]:
    """Return the claims of the lines of one recording."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if row["state"] == "open":
            found.append({"detector": row["detector"], "opened": row["t"], "summary": row["summary"]})
            continue
        still = (one for one in found if one["detector"] == row["detector"] and "closed" not in one)
        next(still)["closed"] = row["t"]
    return tuple(Claimed(**fields) for fields in found)
