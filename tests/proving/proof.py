"""The tables of the proof: what was found, missed and claimed falsely, beside what the project set itself to reach."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from tests.proving.baselines import BASELINES
from tests.proving.intervals import share
from tests.proving.playing import Played
from tests.proving.score import DAY_S, Claimed, Score, Verdict, judge, total

PAGE = Path(__file__).parents[2] / "docs/proof.md"
BEGIN, END = "<!-- tier B: made by python -m tests.proving -->", "<!-- end of tier B -->"

Choice = Callable[[Played], bool]


class Target(NamedTuple):
    """One row of what is to be reached. ``within_s`` holds for the median, or ``blocks`` does instead."""

    name: str
    detector: str
    precision: float
    recall: float
    a_day: float
    rows: Choice
    """Which episodes with a fault of this detector count; healthy ones and those of others always do."""
    within_s: float = math.inf
    blocks: float = 0.0


def _size(*sizes: float) -> Choice:
    return lambda one: one.case.size in sizes


def _kv(*, known: bool, quiet: bool = False) -> Choice:
    return lambda one: one.case.known is known and (known or ("quiet" in one.case.fault) is quiet)


def _leaking(one: Played) -> bool:
    """At least 2 % of the requests leak, whatever."""
    return one.case.fault == "on abort" or one.case.size >= 0.02


TARGETS = (
    Target("kv_leak, requests known", "kv_leak", 0.99, 0.99, 0.005, _kv(known=True), 20.0, 10.0),
    Target("kv_leak, page alone, quiet moments", "kv_leak", 0.98, 0.99, 0.01, _kv(known=False, quiet=True), 60.0, 10.0),
    Target("kv_leak, page alone, never idle, 2 % and more of requests", "kv_leak", 0.98, 0.95, 0.01,
           lambda one: _kv(known=False)(one) and _leaking(one), 900.0),
    Target("kv_leak, page alone, never idle, fewer", "kv_leak", 0.98, math.nan, 0.01,
           lambda one: _kv(known=False)(one) and not _leaking(one)),
    Target("memory_leak, full in less than 4 h", "memory_leak", 0.95, 0.95, 0.02, _size(0.75, 2.0), 600.0),
    Target("memory_leak, full in 4 to 24 h", "memory_leak", 0.95, 0.95, 0.02, _size(8.0, 16.0)),
    Target("gpu_memory_leak, full in less than 4 h", "gpu_memory_leak", 0.95, 0.95, 0.02, _size(0.75, 2.0), 600.0),
    Target("gpu_memory_leak, full in 4 to 24 h", "gpu_memory_leak", 0.95, 0.95, 0.02, _size(8.0, 16.0)),
    Target("latency, steps +15 %", "latency", 0.95, 0.95, 0.02, _size(1.15), 180.0),
    Target("latency, steps +30 %", "latency", 0.95, 0.99, 0.02, _size(1.3), 60.0),
    Target("latency, steps +100 %", "latency", 0.95, 0.99, 0.02,
           lambda one: one.case.fault == "slow steps" and one.case.size == 2.0, 60.0),
    Target("latency, steps +8 %", "latency", 0.95, math.nan, 0.02, _size(1.08)),
    Target("latency, prompts +50 %, +100 %", "latency", 0.95, math.nan, 0.02,
           lambda one: one.case.fault == "slow prompts"),
    Target("stall", "stall", 0.99, 0.99, 0.005, lambda _one: True, 15.0),
    Target("preemption_storm", "preemption_storm", 0.95, 0.95, 0.02, lambda _one: True, 60.0),
    Target("throughput_collapse", "throughput_collapse", 0.95, 0.95, 0.02, lambda _one: True, 60.0),
    Target("slo_burn, against the formula", "slo_burn", 1.0, 1.0, 0.0, lambda _one: True, 20.0),
)  # fmt: skip


def told(found: Sequence[Played]) -> str:
    """Return the tables in Markdown."""
    verdicts = [judge(one.episode) for one in found]
    days = sum(one.episode.seconds for one in found) / DAY_S
    well = [one for one in found if not one.case.fault]
    readings = sum(one.readings for one in found)
    cost = sum(one.cost_s for one in found) / max(1, readings)
    spent = f"all detectors together took {1e3 * cost:.2f} ms of CPU a reading"
    lines = [
        f"{len(found)} episodes, {days:.1f} engine-days, {readings:,} readings; {spent}.",
        "",
        *_targets(found, verdicts),
        "",
        "Sizes and kinds of what was wrong:",
        "",
        *_scenarios(verdicts),
        "",
        f"Of this {sum(one.episode.seconds for one in well) / DAY_S:.1f} engine-days were healthy:",
        "",
        *_healthy([verdict for one, verdict in zip(found, verdicts, strict=True) if not one.case.fault]),
        "",
        "Rules that people use today, on the same episodes (all kinds and sizes of a detector's faults together):",
        "",
        *_baselines(found),
    ]
    return "\n".join(lines) + "\n"


def write(text: str) -> None:
    """Put the tables into docs/proof.md."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), _row(*["---"] * len(cells))]


# --- against the targets


def _targets(found: Sequence[Played], verdicts: Sequence[Verdict]) -> list[str]:
    lines = _head("detector", "precision", "recall", "seconds to claim", "false an engine-day", "reached")
    for target in TARGETS:
        score = total(_of(target, found, verdicts), target.detector)
        if score.faults:
            lines.append(_row(target.name, *_against(target, score)))
    return lines


def _of(target: Target, found: Sequence[Played], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return what counts: faults of other kinds of the same detector are left out."""
    kept = []
    for one, verdict in zip(found, verdicts, strict=True):
        own = any(fault.detector == target.detector for fault in one.episode.faults)
        same = "kv_leak" not in target.name or one.case.known is ("known" in target.name)
        if same and (not own or target.rows(one)):
            kept.append(verdict)
    return kept


def _against(target: Target, score: Score) -> tuple[str, ...]:
    precise, recalled = score.precision, score.recall or 0.0
    a_day, most = score.false_a_day or 0.0, score.false_a_day_most or 0.0
    middle = statistics.median(score.after_s) if score.after_s else math.inf
    blocks = statistics.median(score.blocks) if score.blocks else math.inf
    soon = middle <= target.within_s or blocks <= target.blocks
    wants = [
        ("precision", precise is not None and precise >= target.precision),
        ("recall", math.isnan(target.recall) or recalled >= target.recall),
        ("time", soon or math.isinf(target.within_s)),
        ("false alarms", a_day <= target.a_day),
    ]
    lacks = [name for name, reached in wants if not reached]
    shown = "no: " + ", ".join(lacks) if lacks else "yes"
    if not lacks and most > target.a_day:
        shown = "yes; too few days for the bound"
    goal = "" if math.isnan(target.recall) else f" ≥ {target.recall:g}"
    time = "" if math.isinf(target.within_s) else f" ≤ {target.within_s:g}"
    if target.blocks:
        time += f" or ≤ {target.blocks:g} blocks"
    return (
        f"{_part(score.found, score.claims)} ≥ {target.precision:g}",
        f"{_part(score.found, score.faults)}{goal}",
        f"{_times(score)}{time}",
        f"{score.false} in {score.seconds / DAY_S:.1f} d (< {most:.3g}) ≤ {target.a_day:g}",
        shown,
    )


def _part(hits: int, trials: int) -> str:
    if not trials:
        return "–"
    low, high = share(hits, trials)
    return f"{hits} of {trials} ({low:.2f}–{high:.2f})"


def _times(score: Score) -> str:
    if not score.after_s:
        return "–"
    late = score.after_s[math.ceil(0.95 * len(score.after_s)) - 1]
    blocks = f", {statistics.median(score.blocks):.0f} blocks" if score.blocks else ""
    return f"{statistics.median(score.after_s):.0f}, p95 {late:.0f}{blocks}"


# --- the rest


def _scenarios(verdicts: Iterable[Verdict]) -> list[str]:
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for one in verdicts:
        for fault in one.episode.faults:
            groups.setdefault((fault.detector, one.episode.scenario), []).append(one)
    lines = _head("detector", "what was wrong", "found", "seconds to claim")
    for (detector, scenario), group in sorted(groups.items()):
        score = total(group, detector)
        lines.append(_row(detector, scenario, f"{score.found} of {score.faults}", _times(score)))
    return lines


def _healthy(verdicts: Sequence[Verdict]) -> list[str]:
    groups: dict[str, list[Verdict]] = {}
    for one in verdicts:
        groups.setdefault(one.episode.scenario.removeprefix("healthy: "), []).append(one)
    lines = _head("what goes on", "engine-days", "claimed")
    for name, group in sorted(groups.items()):
        claims: dict[str, int] = {}
        for one in group:
            for claim in one.false:
                claims[claim.detector] = claims.get(claim.detector, 0) + 1
        said = ", ".join(f"{count} {detector}" for detector, count in sorted(claims.items())) or "nothing"
        lines.append(_row(name, f"{sum(one.episode.seconds for one in group) / DAY_S:.2f}", said))
    return lines


def _baselines(found: Sequence[Played]) -> list[str]:
    lines = _head("detector", "rule", "found", "precision", "false an engine-day", "seconds to claim")
    names = sorted((name.split(": ")[1], name.split(": ")[0]) for name in (one.name for one in BASELINES))
    for detector, rules in groupby(names, key=itemgetter(0)):
        lines.append(_compared(detector, "opsboard", total([judge(one.episode) for one in found], detector)))
        for _, rule in rules:
            verdicts = [judge(replace(one.episode, claims=_theirs(one, rule, detector))) for one in found]
            lines.append(_compared(detector, rule, total(verdicts, detector)))
    return lines


def _theirs(one: Played, rule: str, detector: str) -> tuple[Claimed, ...]:
    """Return the claims of a baseline, as if the detector had made them."""
    wanted = f"{rule}: {detector}"
    return tuple(replace(claim, detector=detector) for claim in one.baselines if claim.detector == wanted)


def _compared(detector: str, rule: str, score: Score) -> str:
    return _row(
        detector, rule, f"{score.found} of {score.faults}", _part(score.found, score.claims),
        f"{score.false_a_day or 0.0:.3g}", _times(score),
    )  # fmt: skip
