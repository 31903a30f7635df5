"""The proof over simulated engines: ``python -m tests.proving [--days N] [--seeds dev|test] [--only DETECTOR]``.

Episodes are played one after the other until ``--days`` engine-days are lived through, or for ``--minutes``. Each that
is over is a line in a file under ``--resume`` (which git ignores): a second call goes on there. Then the tables are
printed, and written to docs/proof.md with ``--write``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from tests.proving import results
from tests.proving.cases import SEEDS, Case, rounds
from tests.proving.faults import GRID
from tests.proving.playing import Played, play
from tests.proving.proof import told, write
from tests.proving.score import DAY_S

MOST_ROUNDS = 10_000


def chosen(seeds: str, only: str | None) -> Iterator[Case]:
    """Yield what is to be played, in order: with ``only``, faults of that detector and healthy life."""
    names = {kind.name for kind in GRID if only in {None, kind.detector}}
    for case in chain.from_iterable(islice(rounds(seeds), MOST_ROUNDS)):
        if not case.fault or case.fault in names:
            yield case


def prove(path: Path, cases: Iterator[Case], days: float, minutes: float) -> list[Played]:
    """Play until so many days are over, or so many minutes. Return all results, those of earlier calls first."""
    began = time.monotonic()
    done = {one.case.name: one for one in results.read(path)}
    lived, found = 0.0, []
    for case in cases:
        if lived >= days * DAY_S or time.monotonic() - began > 60 * minutes:
            break
        played = done.get(case.name)
        if played is None:
            played = play(case)
            results.append(path, played)
            print(_line(played), file=sys.stderr, flush=True)
        lived += case.seconds
        found.append(played)
    return found


def _of(files: Iterable[Path]) -> Iterable[Played]:
    """Return the results of several files; of an episode that is in more than one the last counts."""
    return {one.case.name: one for path in files for one in results.read(path)}.values()


def _line(played: Played) -> str:
    claims = ", ".join(f"{one.detector} at {one.opened:.0f} s: {one.summary}" for one in played.episode.claims)
    wrong = ", ".join(f"{one.detector} from {one.onset:.0f} s" for one in played.episode.faults)
    return f"{played.case.name} ({played.took_s:.0f} s): wrong: {wrong or 'nothing'}; claimed: {claims or 'nothing'}"


def main() -> int:
    """Play, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.proving", description=__doc__)
    parser.add_argument("--days", type=float, default=60.0, help="engine-days to live through in all")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after the episode that is under way then")
    parser.add_argument("--seeds", choices=SEEDS, default="test")
    parser.add_argument("--only", choices=sorted({kind.detector for kind in GRID}), metavar="DETECTOR")
    parser.add_argument("--resume", type=Path, default=results.ROOT / "build/proof", metavar="DIR")
    parser.add_argument("--write", action="store_true", help="the tables into docs/proof.md")
    parser.add_argument(
        "--from", dest="files", type=Path, nargs="+", help="play nothing: tables of these files; the later one counts"
    )
    options = parser.parse_args()
    if options.files:
        files, found = options.files, list(_of(options.files))
    else:
        files = [options.resume / f"{options.seeds}-{results.digest()}.jsonl"]
        found = prove(files[0], chosen(options.seeds, options.only), options.days, options.minutes)
    text = f"Rules and seeds: {', '.join(path.stem for path in files)}. {told(found)}"
    print(text)
    if options.write:
        write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
