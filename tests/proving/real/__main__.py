"""Score recordings of a real vLLM: ``python -m tests.proving.real FOLDER [NAME ...]``.

Each is judged by `opsboard backtest` by its pages alone, and where it knows the requests under way, leaks of blocks
also with them. Prints tables in Markdown, then each miss and each false claim. NAME: only those that begin so.
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


def episodes(recordings: Sequence[Path]) -> Iterator[Episode]:
    """Judge each once, or twice."""
    for recording in recordings:
        with scratch("opsboard-score-") as room:
            yield judged(_pages_alone(recording, room))
        known = judged(recording)
        if known.known:
            yield _blocks_only(known)


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


def _blocks_only(episode: Episode) -> Episode:
    """Return what concerns KV blocks: the rest was judged by the pages already."""
    return msgspec.structs.replace(
        episode,
        faults=tuple(one for one in episode.faults if one.detector == "kv_leak"),
        claims=tuple(one for one in episode.claims if one.detector == "kv_leak"),
    )


def tell(what: str, verdicts: Sequence[Verdict]) -> None:
    """Print the tables of some recordings, and what was wrong with their claims."""
    if not verdicts:
        return
    print(f"## {what}\n\n{table(by_detector(verdicts))}\n{table(by_scenario(verdicts), 'scenario')}")
    for one in verdicts:
        name = f"{one.episode.name}{', requests known' if one.episode.known else ''}"
        start = min((fault.onset for fault in one.episode.faults), default=0.0)
        for hit in one.found:
            blocks = "" if hit.blocks is None else f", {hit.blocks} of {len(hit.fault.losses)} blocks lost by then"
            print(f"- {name}: {hit.fault.detector} after {hit.after_s:.1f} s{blocks}: {hit.claim.summary}")
        for fault in one.missed:
            print(f"- {name}: MISSED {fault.detector}, {fault.onset - start:.0f} s after the first fault")
        for word, claims in (("FALSE", one.false), ("aside", one.aside)):
            for claim in claims:
                print(f"- {name}: {word} {claim.detector} at {claim.opened - start:.1f} s: {claim.summary}")
    print()


def main(folder: Path, names: Sequence[str]) -> None:
    """Judge and print."""
    chosen = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.name.startswith(tuple(names) or ""))
    verdicts = [judge(episode) for episode in episodes(chosen)]
    test = {f"{name}-{seed}" for name, seed in TEST}
    tell("Dev", [one for one in verdicts if one.episode.name not in test])
    tell("Test", [one for one in verdicts if one.episode.name in test])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
