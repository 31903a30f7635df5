"""Whether what was claimed is what was wrong: whole events, no point-adjust, the same for every tier of the proof.

Of each fault the first claim of its detector between its onset and ``GRACE_S`` after its end is true. Every other claim
is false: one too many of the same fault, one of another detector (which leaves the fault missed as well), one that
stood before the onset. Seconds are of any one clock.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from opsboard.core.model import Record
from tests.proving.intervals import most, share

GRACE_S = 30.0
DAY_S = 86_400.0


class Fault(Record, frozen=True, kw_only=True):
    """Something that is wrong from ``onset`` (the first lost block, the first slow step) to ``end``; None: for good."""

    detector: str
    """Whose it is to claim."""
    onset: float
    end: float | None = None
    also: tuple[str, ...] = ()
    """Detectors whose claims tell a true consequence of it: not asked for, and not false."""
    losses: tuple[float, ...] = ()
    """When each block was lost, where it is a leak of which that is known."""


class Claimed(Record, frozen=True, kw_only=True):
    """A claim of a detector: an incident, after what belongs together is one."""

    detector: str
    opened: float
    closed: float | None = None
    summary: str = ""


class Episode(Record, frozen=True, kw_only=True):
    """A stretch of an engine's life, what was wrong in it, and what was claimed."""

    scenario: str
    seconds: float
    known: bool = False
    """Whether the requests under way were known (a gateway, a recording with ``inflight``)."""
    faults: tuple[Fault, ...] = ()
    claims: tuple[Claimed, ...] = ()
    name: str = ""
    """Which one it is: a recording, a seed."""


class Found(Record, frozen=True):
    """A fault and the claim that is true of it."""

    fault: Fault
    claim: Claimed

    @property
    def after_s(self) -> float:
        """Time to detect (s)."""
        return self.claim.opened - self.fault.onset

    @property
    def blocks(self) -> int | None:
        """Blocks that were lost by then; None: not a leak, or nobody wrote it down."""
        return bisect_right(self.fault.losses, self.claim.opened) if self.fault.losses else None


class Verdict(Record, frozen=True, kw_only=True):
    """What an episode's claims were worth."""

    episode: Episode
    found: tuple[Found, ...]
    missed: tuple[Fault, ...]
    false: tuple[Claimed, ...]
    aside: tuple[Claimed, ...]
    """Claims of consequences (``Fault.also``)."""


def judge(episode: Episode, grace_s: float = GRACE_S) -> Verdict:
    """Return what was found, missed and claimed falsely."""
    left = sorted(episode.claims, key=lambda claim: claim.opened)
    found, missed = [], []
    for fault in sorted(episode.faults, key=lambda fault: fault.onset):
        first = next((one for one in left if one.detector == fault.detector and _within(one, fault, grace_s)), None)
        if first is None:
            missed.append(fault)
        else:
            left.remove(first)
            found.append(Found(fault, first))
    aside = [one for one in left if any(one.detector in f.also and _within(one, f, grace_s) for f in episode.faults)]
    false = [one for one in left if one not in aside]
    return Verdict(episode=episode, found=tuple(found), missed=tuple(missed), false=tuple(false), aside=tuple(aside))


def _within(claim: Claimed, fault: Fault, grace_s: float) -> bool:
    return fault.onset <= claim.opened and (fault.end is None or claim.opened <= fault.end + grace_s)


# --- sums ---


class Score(Record, frozen=True, kw_only=True):
    """What many episodes come to, of one detector or of one scenario."""

    found: int = 0
    missed: int = 0
    false: int = 0
    after_s: tuple[float, ...] = ()
    """Times to detect, the shortest first."""
    blocks: tuple[int, ...] = ()
    """Blocks lost by then, the fewest first, of leaks of which it is known."""
    seconds: float = 0.0
    """Of all episodes: false claims can be made in any of them."""

    @property
    def faults(self) -> int:
        """How many there were."""
        return self.found + self.missed

    @property
    def claims(self) -> int:
        """True and false ones."""
        return self.found + self.false

    @property
    def recall(self) -> float | None:
        """Part of the faults that was found (0..1); None: there were none."""
        return self.found / self.faults if self.faults else None

    @property
    def precision(self) -> float | None:
        """Part of the claims that was true (0..1); None: there were none."""
        return self.found / self.claims if self.claims else None

    @property
    def false_a_day(self) -> float | None:
        """False claims an engine-day; None: no time was seen."""
        return self.false * DAY_S / self.seconds if self.seconds else None

    @property
    def false_a_day_most(self) -> float | None:
        """The same, at most (95 %, Poisson)."""
        return most(self.false) * DAY_S / self.seconds if self.seconds else None


def total(verdicts: Iterable[Verdict], detector: str | None = None) -> Score:
    """Return the sum over all verdicts, of one detector or of all."""
    verdicts = list(verdicts)
    hits = [hit for one in verdicts for hit in one.found if detector in (None, hit.fault.detector)]
    return Score(
        found=len(hits),
        missed=sum(detector in (None, fault.detector) for one in verdicts for fault in one.missed),
        false=sum(detector in (None, claim.detector) for one in verdicts for claim in one.false),
        after_s=tuple(sorted(hit.after_s for hit in hits)),
        blocks=tuple(sorted(hit.blocks for hit in hits if hit.blocks is not None)),
        seconds=math.fsum(one.episode.seconds for one in verdicts),
    )


def by_detector(verdicts: Iterable[Verdict], detectors: Iterable[str] = ()) -> dict[str, Score]:
    """Return a score for each of ``detectors``, and of what else was wrong or claimed, in the order of their names.

    Leaks of blocks are judged apart where the requests are known.
    """
    verdicts = list(verdicts)
    faults = {fault.detector for one in verdicts for fault in one.episode.faults}
    rows: dict[str, Score] = {}
    for name in sorted({*detectors, *faults, *(claim.detector for one in verdicts for claim in one.episode.claims)}):
        if name != "kv_leak":
            rows[name] = total(verdicts, name)
            continue
        for known, how in ((True, "requests known"), (False, "page alone")):
            if chosen := [one for one in verdicts if one.episode.known == known]:
                rows[f"{name}, {how}"] = total(chosen, name)
    return rows


def by_scenario(verdicts: Iterable[Verdict]) -> dict[str, Score]:
    """Return a score for each scenario, of all detectors together."""
    groups: dict[str, list[Verdict]] = {}
    for one in verdicts:
        groups.setdefault(one.episode.scenario, []).append(one)
    return {name: total(group) for name, group in sorted(groups.items())}


# --- words ---


def table(rows: Mapping[str, Score], first: str = "detector") -> str:
    """Return a table in Markdown: intervals are 95 %, false claims a day with the upper bound of Poisson."""
    head = [first, "found", "recall", "false", "precision", "false a day", "seconds to claim", "blocks lost by then"]
    lines = [head, ["---"] * len(head)]
    lines += [[name, *_cells(score)] for name, score in rows.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(score: Score) -> list[str]:
    days = "" if score.false_a_day is None else f"{score.false_a_day:.3g} (below {score.false_a_day_most:.3g})"
    return [
        f"{score.found} of {score.faults}",
        _part(score.found, score.faults),
        str(score.false),
        _part(score.found, score.claims),
        days,
        _spread(score.after_s),
        _spread(score.blocks),
    ]


def _part(hits: int, trials: int) -> str:
    if not trials:
        return "–"
    low, high = share(hits, trials)
    return f"{hits / trials:.3f} ({low:.3f} to {high:.3f})"


def _spread(values: Sequence[float]) -> str:
    """Return the median and the 95th percentile (nearest rank)."""
    if not values:
        return "–"
    late = values[math.ceil(0.95 * len(values)) - 1]
    return f"{statistics.median(values):.0f}, p95 {late:.0f}"
