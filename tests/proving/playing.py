"""Plays an episode to every detector and to every baseline, as the daemon would, and writes down what they claimed."""

from __future__ import annotations

import time
from collections.abc import Iterator

from alerts.detectors.slo_burn import DETECTOR as SLO_BURN
from alerts.detectors.slo_burn import Params as Burning
from opsboard.config.detectors import Setting
from opsboard.config.schema import Slo
from opsboard.core.clock import Now
from opsboard.core.inflight import InflightRequest
from opsboard.core.model import CanaryOutcome, CanaryReading, EngineReading, FindingChange, Outcome, Record
from opsboard.daemon.engine_track import EngineTrack
from opsboard.daemon.judging import Judging
from tests.proving import burning, faults
from tests.proving.baselines import BASELINES
from tests.proving.builds import BUILDS
from tests.proving.burning import Count
from tests.proving.cases import Case
from tests.proving.confounders import Around, wall
from tests.proving.engine_page import one_page
from tests.proving.fluid_engine import FluidEngine
from tests.proving.machine import EVERY_S, Machine
from tests.proving.score import Claimed, Episode, Fault

NAME = "a"
CANARY_S = 5.0
LOSSES_KEPT = 2000
"""Times of lost blocks that a line of results holds."""


class Played(Record, frozen=True, kw_only=True):
    """A line of results."""

    case: Case
    episode: Episode
    baselines: tuple[Claimed, ...]
    """Their claims; ``detector`` is ``RULE: DETECTOR``."""
    readings: int
    cost_s: float
    """Seconds of CPU that the detectors took."""
    took_s: float
    """And the whole episode."""


class Claims:
    """What was claimed, by the seconds of the episode."""

    def __init__(self) -> None:
        self.all: list[Claimed] = []
        self._open: dict[str, int] = {}

    def take(self, t: float, change: FindingChange) -> None:
        """Take in what opened or closed at ``t``."""
        name = change.finding.detector
        at = self._open.get(name)
        if change.open and at is None:
            self._open[name] = len(self.all)
            self.all.append(Claimed(detector=name, opened=t, summary=change.finding.summary))
        elif not change.open and at is not None:
            old = self.all[self._open.pop(name)]
            self.all[at] = Claimed(detector=name, opened=old.opened, closed=t, summary=old.summary)


class Scene:
    """An engine, its machine, what goes on around it, and what is wrong."""

    def __init__(self, case: Case) -> None:
        self.case = case
        build = next(one for one in BUILDS if one.name == case.build)
        self.engine = FluidEngine(build, case.name)
        self.other = FluidEngine(build, f"{case.name}, second rank") if case.confounder == "two_ranks" else None
        """A second rank."""
        self.machine = Machine(self.engine, case.seed, case.memory, gpu=case.gpu)
        self.around = Around(case.confounder, build, case.seed, case.seconds)
        self.losses: list[float] = []
        self.onset: float | None = None
        """When what is wrong first showed: the first lost block, the first second of the rest."""
        self.counts: list[Count] = []
        """Of the row `errors`: what a page would count, second by second."""
        if case.fault == "errors":
            self.engine.errors = faults.ALLOWED * faults.AT_FIRST

    def second(self, t: float) -> Iterator[tuple[Now, EngineReading]]:
        """Let a second pass, and yield what is read at its end."""
        case, engine = self.case, self.engine
        if case.fault:
            self._fault(t)
        self.around.tick(t, engine, faulty=case.onset <= t < case.end)
        before = engine.leaked
        load = self.around.load(t)
        view = engine.second(load)
        if self.other is not None:
            view = one_page(view, self.other.second(load))
        lost = engine.leaked - before
        if lost > 0:
            self.losses += [t] * lost
            self.onset = t if self.onset is None else self.onset
        if case.fault == "collapse" and case.onset <= t < case.end and view.waiting:
            self.onset = case.onset
        if case.fault == "errors":
            done, bad = view.counters["requests_finished"], view.counters["requests_failed"]
            self.counts.append(Count(round(t), bad, done + bad))
        for now, shown in self.around.pages(view, Now(wall=wall(t), mono=t)):
            yield now, EngineReading(engine=NAME, outcome=Outcome.OK, view=shown)

    def answer(self) -> CanaryReading:
        """Ask the engine for one token."""
        if self.engine.hung:
            return CanaryReading(engine=NAME, outcome=CanaryOutcome.TIMEOUT, seconds=CANARY_S)
        if self.engine.asleep:
            return CanaryReading(engine=NAME, outcome=CanaryOutcome.ASLEEP, seconds=0.1)
        self.engine.answer()
        return CanaryReading(engine=NAME, outcome=CanaryOutcome.OK, seconds=0.3)

    def inflight(self) -> tuple[InflightRequest, ...]:
        """Return what a gateway in front of it knows."""
        known = self.engine.inflight()
        return known if self.other is None else (*known, *self.other.inflight())

    def wrong(self) -> tuple[Fault, ...]:
        """Return what was wrong, as scoring wants it."""
        case = self.case
        if case.fault == "errors":
            began = burning.first(self.counts, faults.ALLOWED)
            also = ("slo_burn",)  # near its rate it may be over, and begin again
            return () if began is None else (Fault(detector="slo_burn", onset=began - burning.SLACK_S, also=also),)
        kind = next((one for one in faults.GRID if one.name == case.fault), None)
        if kind is not None and case.fault == "collapse" and self.onset is None:  # nobody waited: slow steps, that is
            return (Fault(detector="latency", onset=case.onset, end=case.end),)
        if kind is None or self.onset is None:
            return ()
        losses, stays = tuple(self.losses[:LOSSES_KEPT]), "leak" in kind.detector
        end = None if stays else case.end
        return (Fault(detector=kind.detector, onset=self.onset, end=end, also=kind.also, losses=losses),)

    def _fault(self, t: float) -> None:
        case, engine = self.case, self.engine
        if t == case.onset:
            begin = faults.BEGIN.get(case.fault)
            if begin is not None:
                begin(engine, case.size)
                self.onset = None if engine.leak_share or case.fault == "collapse" else t
            else:
                self.onset = t
                each = faults.bytes_a_request(engine.build, self.machine.room, case.size)
                self.machine.leak, self.machine.leak_gpu = (0.0, each) if case.gpu else (each, 0.0)
        elif t == case.end:
            faults.end(engine)
            self.machine.leak = self.machine.leak_gpu = 0.0


def play(case: Case) -> Played:
    """Live through an episode."""
    began = time.process_time()
    scene, track = Scene(case), EngineTrack(NAME)
    ours, theirs = Judging(), Judging(BASELINES)
    if case.fault == "errors":
        slo = Slo(availability=100.0 * (1.0 - faults.ALLOWED))
        ours.configure({"slo_burn": Setting(True, SLO_BURN.severity, Burning(slo=slo))})
    claims, others = Claims(), Claims()
    cost_s, readings = 0.0, 0
    answer: tuple[float, CanaryReading] | None = None
    processes, gpus, host = scene.machine.look(0.0)
    looked = -1.0
    for second in range(round(case.seconds)):
        t = float(second)
        if second % EVERY_S == 0:
            (processes, gpus, host), looked = scene.machine.look(t), t
        pages = list(scene.second(t))
        heard = None
        if answer is not None and t >= answer[0]:
            heard, answer = answer[1], None
        if second % case.every_s:
            pages = []
        if heard is not None and not pages and track.last is not None:
            now, fresh = Now(wall=wall(t), mono=t), False
            pages = [(now, track.last)]
        else:
            fresh = True
        for now, reading in pages:
            track.last, track.processes, track.looked = reading, processes, looked
            track.inflight = scene.inflight() if case.known else None
            at = time.process_time()
            judged = ours.judge(track, now, gpus=gpus, host=host, fresh=fresh, canary=heard)
            cost_s += time.process_time() - at
            readings += 1
            for change in judged.changes:
                claims.take(t, change)
            if second % EVERY_S == 0:
                for change in theirs.judge(track, now, gpus=gpus, host=host, fresh=fresh).changes:
                    others.take(t, change)
            if judged.canary and case.asked and answer is None:
                told = scene.answer()
                answer = t + told.seconds, told
            heard, fresh = None, False
    return Played(
        case=case,
        episode=Episode(
            scenario=case.scenario, name=case.name, seconds=case.seconds, known=case.known,
            faults=scene.wrong(), claims=tuple(claims.all),
        ),
        baselines=tuple(others.all), readings=readings, cost_s=round(cost_s, 4),
        took_s=round(time.process_time() - began, 3),
    )  # fmt: skip
