"""Score recordings of a real vLLM: ``python -m tests.proving.real FOLDER [NAME ...]``.

Each is judged by `opsboard backtest` by its pages alone, and where it knows the requests under way, with them as well:
leaks of blocks and hangs are told by both. Prints tables in Markdown, then each claim and each miss. NAME: only those
that begin so.
"""

from __future__ import annotations

import json
import lzma
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from opsboard.cli.private import scratch
from tests.proving.labelled import SUFFIX, judged
from tests.proving.real.scenarios import TEST
from tests.proving.score import Episode, Verdict, by_detector, by_scenario, judge, table

BY_REQUESTS = ("kv_leak", "stall")


def episodes(recordings: Sequence[Path]) -> Iterator[Episode]:
    """Judge each once, or twice."""
    for recording in recordings:
        with scratch("opsboard-score-") as room:
            yield judged(_pages_alone(recording, room))
        known = judged(recording)
        if known.known:
            yield _by_requests(known)


def _pages_alone(recording: Path, room: Path) -> Path:
    """Return the same recording without the requests under way."""
    plain = room / recording.name.replace(".jsonl.xz", ".jsonl")
    with lzma.open(recording, "rt") as lines, plain.open("w") as out:
        for line in lines:
            row = json.loads(line)
            row.pop("inflight", None)
            out.write(json.dumps(row) + "\n")
    name = f"{recording.name.partition('.')[0]}.labels.json"
    told = json.loads((recording.parent / name).read_text())
    (room / name).write_text(json.dumps(told | {"inflight": False}))
    return plain


def _by_requests(episode: Episode) -> Episode:
    """Return what the requests under way tell of: the rest was judged by the pages already."""
    return msgspec.structs.replace(
        episode,
        faults=tuple(one for one in episode.faults if one.detector in BY_REQUESTS),
        claims=tuple(one for one in episode.claims if one.detector in BY_REQUESTS),
    )


def tell(what: str, verdicts: Sequence[Verdict]) -> None:
    """Print the tables of some recordings, and what became of each fault and each claim."""
    for known, how in ((False, "pages alone"), (True, "requests known")):
        chosen = [one for one in verdicts if one.episode.known == known]
        if not chosen:
            continue
        print(f"## {what}, {how}\n\n{table(by_detector(chosen))}\n{table(by_scenario(chosen), 'scenario')}")
        for one in chosen:
            for line in _lines(one):
                print(f"- {one.episode.name}: {line}")
        print()


def _lines(verdict: Verdict) -> Iterator[str]:
    start = min((fault.onset for fault in verdict.episode.faults), default=0.0)
    for hit in verdict.found:
        blocks = "" if hit.blocks is None else f", {hit.blocks} of {len(hit.fault.losses)} blocks lost by then"
        yield f"{hit.fault.detector} after {hit.after_s:.1f} s{blocks}: {hit.claim.summary}"
    for fault in verdict.missed:
        yield f"MISSED {fault.detector}, {fault.onset - start:.0f} s after the first fault"
    for word, claims in (("FALSE", verdict.false), ("aside", verdict.aside)):
        for claim in claims:
            yield f"{word} {claim.detector} at {claim.opened - start:.1f} s: {claim.summary}"


def main(folder: Path, names: Sequence[str]) -> None:
    """Judge and print."""
    chosen = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.name.startswith(tuple(names) or ""))
    verdicts = [judge(episode) for episode in episodes(chosen)]
    test = {f"{name}-{seed}" for name, seed in TEST}
    tell("Dev", [one for one in verdicts if one.episode.name not in test])
    tell("Test", [one for one in verdicts if one.episode.name in test])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
