"""Results in a file: a line for each episode that is over, so that a proof goes on where it was interrupted.

A file belongs to the rules that judged: their digest is in its name. Other rules begin another file.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.proving.playing import Played

ROOT = Path(__file__).parents[2]
JUDGES = ("alerts", "opsboard/daemon/judging.py", "tests/proving")
"""What results depend on, beside the vocabulary of core."""
TELL = (
    "__main__.py", "results.py", "proof.py", "score.py", "intervals.py", "labelled.py", "healthy_week.py",
    "kv_days.py", "latency_days.py",
)  # fmt: skip
"""These only tell what came of it, or play something else."""


def digest() -> str:
    """Return eight hexadecimal digits that stand for the rules and the simulation as they are."""
    found = hashlib.sha256()
    for name in JUDGES:
        place = ROOT / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if path.name not in TELL and "real" not in path.relative_to(ROOT).parts:
                found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:8]


def read(path: Path) -> Iterator[Played]:
    """Yield what is in a file; a line that was cut is left out, and its episode is played again."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            yield msgspec.json.decode(line, type=Played)


def append(path: Path, played: Played) -> None:
    """Write one line more, after what is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, 2)
        if size:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(msgspec.json.encode(played) + b"\n")
