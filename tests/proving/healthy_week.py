"""A simulated week of an engine that is never down and never hangs, however much it looks like it; and its hangs.

``python -m tests.proving.healthy_week [--days 7] [--seed 1] [--hangs] [--idle]`` replays it through the stall detector
at one reading a second and prints what was claimed. Load follows the hour; what vLLM does legitimately is drawn at
random: first compiles, long chunked prefills, single long steps, sleep, pause, restarts, stale gauges, requests that
wait for something remote, saturated accept queues, scrape gaps, connections that are kept while nothing is asked, a
first step of which the gauges do not tell. Times are generous readings of docs/detectors/stall.md.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from typing import NamedTuple

from msgspec.structs import replace

from alerts.base import Observation
from alerts.detectors.stall import DETECTOR
from opsboard.core.clock import Now
from opsboard.core.connections import ConnectionReading
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineReading,
    EngineView,
    Finding,
    Outcome,
)

DAY_S = 86_400
START = 1_700_000_000.0
CANARY_S = 5.0
CHUNK_S = (0.5, 8.0)
"""One chunk of a prefill: 8,192 tokens of a large model behind a slow card, at the worst."""

FROM_PAGE_ALONE = ("idle", "prefill", "long_step", "sleep", "restart", "gap", "late_pages")
"""What a page tells apart from a hang without any help."""
HANGS = ("hang", "idle_hang")
WITH_CANARY = (*FROM_PAGE_ALONE, "first_step", "pause", "stale_gauges", "remote_wait", "saturated")
SECONDS = {
    "idle": (60, 3600), "prefill": (10, 240), "long_step": (2, 9), "sleep": (300, 7200), "restart": (40, 240),
    "gap": (2, 600), "late_pages": (3, 20), "pause": (5, 900), "stale_gauges": (30, 900), "remote_wait": (15, 600),
    "saturated": (10, 60), "hang": (60, 60), "idle_hang": (120, 120), "first_step": (2, 9),
}  # fmt: skip


class Claim(NamedTuple):
    """A finding that opened: what the engine was really doing, and for how long."""

    doing: str
    after_s: float
    finding: Finding


class Engine:
    """What the page says each second, and what a canary would get."""

    def __init__(self, seed: int, kinds: tuple[str, ...], every_s: float) -> None:
        self.random = random.Random(seed)
        self.kinds = kinds
        self.every_s = every_s
        self.doing, self.left, self.lasted = "work", 600.0, 0.0
        self.born, self.steps, self.tokens, self.finished, self.prompts = START, 0.0, 0.0, 0.0, 0.0
        self.running, self.waiting, self.kv = 0.0, 0.0, 0.0
        self.compile_left = self.random.uniform(10, 240)
        self.chunk_left = 0.0
        self.answered = False
        self.since: list[float] = []
        """When others connected to it, as Unix seconds."""
        self.closes = True
        """It closes what is idle for 5 s, as vLLM does by itself."""
        self.asks_at = 0.0
        """In an idle hang: after so many seconds somebody asks for something."""
        self.counts: dict[str, int] = {}

    def second(self, t: float) -> EngineReading | None:
        """Let a second pass; return what a scrape gets, None when nobody scrapes."""
        self.left -= 1.0
        self.lasted += 1.0
        if self.left <= 0:
            self._change()
        self._connect(t)
        reading = self._read(t)
        self.answered = False
        return reading

    @property
    def waited(self) -> float:
        """For how many seconds it has not done what it should."""
        return self.lasted - self.asks_at if self.doing == "idle_hang" else self.lasted

    def connections(self, now: Now) -> ConnectionReading | None:
        """Return what the daemon knows of who is connected: it looks while no request shows."""
        if self.running or self.waiting or self.doing in {"gap", "restart", "late_pages"}:
            return None
        since = tuple(sorted((at - now.wall + now.mono for at in self.since), reverse=True))
        return ConnectionReading(engine="a", looked=now.mono, since=since)

    def _connect(self, t: float) -> None:
        """Let others come and go."""
        if self.doing in {"restart", "sleep"}:
            self.since = []
        elif self.doing in {"idle", "work"}:
            if self.doing == "work" and self.random.random() < 0.1:
                self.since = [*self.since[-20:], t]
            elif self.closes and self.lasted > 5:
                self.since = []
        elif (self.doing == "first_step" and self.lasted == 0) or (
            self.doing == "idle_hang" and self.asks_at <= self.lasted < self.asks_at + 1
        ):
            self.since.append(t)

    def canary(self) -> CanaryReading:
        """Ask for one token."""
        outcome, seconds = CanaryOutcome.OK, 0.1
        if self.doing in {*HANGS, "compile"}:
            outcome, seconds = CanaryOutcome.TIMEOUT, CANARY_S
        elif self.doing in {"long_step", "first_step"}:
            late = self.left >= CANARY_S
            outcome, seconds = (CanaryOutcome.TIMEOUT, CANARY_S) if late else (CanaryOutcome.OK, max(0.1, self.left))
        elif self.doing in {"sleep", "pause"}:
            outcome = CanaryOutcome.ASLEEP
        elif self.doing == "saturated":
            outcome, seconds = CanaryOutcome.SATURATED, 1.0
        elif self.doing == "restart":
            outcome = CanaryOutcome.REFUSED
        else:
            self.answered = True
        return CanaryReading(engine="a", outcome=outcome, seconds=seconds)

    def _change(self) -> None:
        if self.doing != "work":
            self.doing, self.left = "work", self.random.expovariate(1 / self.every_s)
        else:
            fresh = self.steps < DETECTOR.params().warm_steps  # type: ignore[attr-defined]
            self.doing = self.random.choice([kind for kind in self.kinds if not (fresh and kind in HANGS)])
            low, high = SECONDS[self.doing]
            self.left = math.exp(self.random.uniform(math.log(low), math.log(high)))
            if self.doing == "prefill":
                self.running, self.kv = self.running + 1, min(self.kv, 0.3)
            elif self.doing == "hang":
                self.running = max(self.running, 1.0)
            elif self.doing in {"idle", "first_step", "idle_hang"}:
                self.running = self.waiting = self.kv = 0.0
                self.closes = self.random.random() < 0.5
                self.asks_at = self.random.uniform(0.0, 60.0)
                if self.doing == "idle_hang" and self.closes:
                    self.since = []
            elif self.doing == "remote_wait":
                self.running, self.waiting, self.kv = 0.0, 1.0, 0.0
            elif self.doing == "restart":
                self.born += 1000.0 + self.left
                self.steps = self.tokens = self.finished = self.prompts = 0.0
                self.running = self.waiting = self.kv = 0.0
                self.compile_left = self.random.uniform(10, 240)
        self.lasted = 0.0
        self.counts[self.doing] = self.counts.get(self.doing, 0) + 1

    def _read(self, t: float) -> EngineReading | None:
        if self.doing == "gap":
            return None
        if self.doing in {"restart", "late_pages"}:
            reason = "refused" if self.doing == "restart" else "timeout"
            self._work(t) if self.doing == "late_pages" else None
            return EngineReading(engine="a", outcome=Outcome.FAILED, reason=reason)
        if self.answered:
            self._one_token()
        if self.doing == "work":
            self._work(t)
        elif self.doing == "prefill":
            self.chunk_left -= 1.0
            if self.chunk_left <= 0:
                self.chunk_left, self.kv = self.random.uniform(*CHUNK_S), self.kv + 0.001
        return self._page()

    def _work(self, t: float) -> None:
        load = 6 + 5 * math.sin(2 * math.pi * (t - START) / DAY_S)
        arrived = self.random.random() < load
        if self.compile_left > 0 and arrived:  # the first requests of a life wait for kernels
            self.doing, self.left, self.compile_left = "compile", self.compile_left, 0.0
            self.counts["compile"] = self.counts.get("compile", 0) + 1
            self.running, self.kv, self.steps, self.lasted = 2.0, 0.02, self.steps + 2, 0.0
            return
        self.running = float(max(0, round(self.random.gauss(3 * load, 3))))
        self.waiting = float(self.random.randrange(8)) if load > 9 else 0.0
        if self.running:
            made = self.random.randint(20, 60)
            self.steps += made
            self.tokens += made * self.running
            self.finished += self.random.randrange(5)
            self.prompts += self.random.randrange(4000)
        self.kv = min(1.0, self.running / 60)

    def _one_token(self) -> None:
        self.steps += 1
        self.tokens += 1
        if self.doing == "stale_gauges":
            self.running = self.waiting = self.kv = 0.0

    def _page(self) -> EngineReading:
        counters = {
            "iterations": self.steps,
            "generation_tokens": self.tokens,
            "prompt_tokens": self.prompts,
            "requests_finished": self.finished,
        }
        view = EngineView(
            kind="vllm", running=self.running, waiting=self.waiting, kv_usage=self.kv, asleep=self.doing == "sleep",
            process_start=self.born, counters=counters,
        )  # fmt: skip
        return EngineReading(engine="a", outcome=Outcome.OK, view=view)


class Result(NamedTuple):
    """What came of a simulated time."""

    claims: list[Claim]
    confirmed: list[Claim]
    canaries: int
    counts: dict[str, int]


def run(seconds: int, seed: int, *, canaries: bool, hangs: bool = False, every_s: float = 300.0) -> Result:
    """Live through ``seconds``; something out of the ordinary begins about every ``every_s``."""
    kinds = (*(WITH_CANARY if canaries else FROM_PAGE_ALONE), *((HANGS if canaries else HANGS[:1]) if hangs else ()))
    engine = Engine(seed, kinds, every_s)
    state = DETECTOR.begin(DETECTOR.params())
    reading: EngineReading | None = None
    under_way: tuple[float, CanaryReading] | None = None
    claims: list[Claim] = []
    confirmed: list[Claim] = []
    before: Finding | None = None
    asked = 0
    for second in range(seconds):
        now = Now(wall=START + second, mono=float(second))
        came = engine.second(now.wall)
        reading = came or reading
        heard = under_way[1] if under_way is not None and second >= under_way[0] else None
        if came is None and heard is None:
            continue
        under_way = None if heard else under_way
        seen = Observation(
            engine="a", now=now, reading=reading, fresh=came is not None, canary=heard,
            connections=engine.connections(now),
        )  # fmt: skip
        state, found, ask, _ = DETECTOR.step(state, seen)
        if found is not None:
            claim = Claim(engine.doing, engine.waited, found)
            if before is None:
                claims.append(claim)
            if found.confirmed and not (before and before.confirmed):
                confirmed.append(claim)
        before = found
        if ask and canaries and under_way is None:
            asked += 1
            answer = engine.canary()
            under_way = second + answer.seconds, answer
    return Result(claims, confirmed, asked, engine.counts)


def kept_alive(seconds: int, connections: int = 3) -> tuple[int, int]:
    """Let clients stay connected to an idle engine for so long; return how often it was asked, and what was claimed."""
    state = DETECTOR.begin(DETECTOR.params())
    view = EngineView(kind="vllm", running=0.0, waiting=0.0, kv_usage=0.0, counters={"iterations": 5000.0})
    asked = claims = 0
    for second in range(seconds):
        if asked:
            view = replace(view, counters={"iterations": 5000.0 + asked})
        now = Now(wall=START + second, mono=float(second))
        kept = ConnectionReading(engine="a", looked=now.mono, since=tuple(-float(n) for n in range(connections)))
        reading = EngineReading(engine="a", outcome=Outcome.OK, view=view)
        state, found, ask, _ = DETECTOR.step(state, Observation(engine="a", now=now, reading=reading, connections=kept))
        claims += found is not None
        if ask:
            asked += 1
            canary = CanaryReading(engine="a", outcome=CanaryOutcome.OK, seconds=0.1)
            seen = Observation(engine="a", now=now, reading=reading, fresh=False, canary=canary, connections=kept)
            state = DETECTOR.step(state, seen).state
    return asked, claims


def main() -> int:
    """Print one line a way of living; exit 1 when something was claimed that was not so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--idle", action="store_true", help="only clients that stay connected and ask for nothing")
    parser.add_argument("--hangs", action="store_true", help="let it hang for a minute now and then, too")
    options = parser.parse_args()
    false = 0
    if options.idle:
        asked, claims = kept_alive(round(options.days * DAY_S))
        print(f"connections that are kept, {options.days:g} days: asked {asked} times, {claims} claims")
        return 1 if claims else 0
    for canaries in (True, False):
        result = run(round(options.days * DAY_S), options.seed, canaries=canaries, hangs=options.hangs)
        wrong = [claim for claim in result.claims if claim.doing not in HANGS]
        false += len(wrong)
        how = "with canaries" if canaries else "from pages alone"
        print(f"{how}: {options.days:g} days, {sum(result.counts.values())} episodes {result.counts}")
        print(f"  {len(result.claims)} claims, {len(wrong)} false, {result.canaries} canaries")
        if options.hangs:
            for kind in HANGS:
                late = sorted(claim.after_s for claim in result.claims if claim.doing == kind)
                when = f"after {late[len(late) // 2]:.1f} s (median), {late[-1]:.1f} s (the slowest)" if late else ""
                print(f"  {kind}: {result.counts.get(kind, 0)}, found {len(late)} {when}")
        for claim in wrong[:5]:
            print(f"  FALSE while {claim.doing} for {claim.after_s:g} s: {claim.finding.summary}")
    return 1 if false else 0


if __name__ == "__main__":
    sys.exit(main())
