"""Whatever an engine does: no claim without its predicate, and none that outlives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.detectors import engine_down, stall
from opsboard.core.model import CanaryOutcome, EngineReading, EngineState, Finding, Outcome
from tests.support.watched import WHOLE, Watched, failed, page

if TYPE_CHECKING:
    from collections.abc import Callable

Act = tuple[str, float]

pages = st.tuples(
    st.sampled_from(["steps", "flat", "stirs", "waits", "idle", "asleep", "reborn", "refused", "late", "cut"]),
    st.sampled_from([0.2, 1.0, 5.0, 15.0, 60.0]),
)
canaries = st.tuples(st.sampled_from([outcome.value for outcome in CanaryOutcome]), st.sampled_from([0.1, 5.0]))
looks = st.tuples(st.sampled_from(["whole", "coreless", "empty", "blind"]), st.just(0.0))
lives = st.tuples(st.sampled_from([f"life {state}" for state in (
    EngineState.READY, EngineState.FAILED, EngineState.STOPPED, EngineState.STARTING,
)]), st.just(0.0))  # fmt: skip
runs = st.lists(st.one_of(pages, pages, pages, canaries, looks, lives), max_size=60)


class Story:
    """An engine that does what it is told, and a plain account of what was seen of it."""

    def __init__(self, engine: Watched) -> None:
        self.engine = engine
        self.steps = 1000.0
        self.born = 100.0
        self.gauges: dict[str, float] = {"running": 2.0, "waiting": 0.0, "kv_usage": 0.1}
        self.same = 0
        """Good pages in a row that are equal to the one before and show work, refutations in between not counted."""
        self.bad = 0
        """Pages in a row that nobody answered."""

    def act(self, what: str, much: float) -> Finding | None:
        if what.startswith("life "):
            state = EngineState(what.removeprefix("life "))
            if state is not EngineState.READY:
                self.same = self.bad = 0
            return self.engine.live(state, started=2.0 if state is EngineState.STARTING else 1.0)
        if what in {outcome.value for outcome in CanaryOutcome}:
            outcome = CanaryOutcome(what)
            if outcome not in {CanaryOutcome.TIMEOUT, CanaryOutcome.UNABLE}:
                self.same = 0
            return self.engine.hear(outcome, much)
        if what in {"whole", "coreless", "empty", "blind"}:
            self.engine.look(*{"whole": WHOLE, "coreless": WHOLE[:1]}.get(what, ()))
            if what == "blind":
                self.engine.looked = None
            return self.engine.read(self.page("flat"), after=0.5)
        return self.engine.read(self.page(what), after=much)

    def page(self, what: str) -> EngineReading:
        if what in {"refused", "late", "cut"}:
            self.bad = 0 if what == "cut" else self.bad + 1
            return failed({"late": "timeout", "cut": "truncated"}.get(what, what))
        self.bad = 0
        before = dict(self.gauges), self.steps, self.born
        if what == "steps":
            self.steps += 60.0
        elif what == "reborn":
            self.born, self.steps = self.born + 50.0, 0.0
        elif what == "stirs":
            self.gauges["kv_usage"] = (self.gauges["kv_usage"] + 0.01) % 1.0
        elif what == "waits":
            self.gauges = {"running": 0.0, "waiting": 3.0, "kv_usage": 0.0}
        elif what == "idle":
            self.gauges = {"running": 0.0, "waiting": 0.0, "kv_usage": 0.0}
        asleep = what == "asleep"
        works = bool(self.gauges["running"] or self.gauges["waiting"])
        equal = before == (self.gauges, self.steps, self.born)
        self.same = self.same + 1 if equal and works and not asleep else 0
        return page(self.steps, start=self.born, asleep=asleep, **self.gauges)


def told(story: Story, acts: list[Act], check: Callable[[Story, Finding], None]) -> None:
    for what, much in acts:
        found = story.act(what, much)
        if found is not None:
            check(story, found)


@settings(max_examples=300, deadline=None)
@given(acts=runs)
def test_no_stall_without_its_predicate(acts: list[Act]) -> None:
    def check(story: Story, found: Finding) -> None:
        evidence, life = found.evidence, story.engine.life
        if life is not None and life.state not in {EngineState.READY, EngineState.DRAINING}:
            return  # it stands until the engine serves again
        assert story.same >= (1 if evidence["canaries_unanswered"] else 2), "pages did not move, and no answer since"
        no_progress_s, patience_s = evidence["no_progress_s"], evidence["patience_s"]
        assert isinstance(no_progress_s, float)
        assert isinstance(patience_s, float)
        assert no_progress_s >= min(10.0, patience_s)
        assert evidence["predicate"] == ("H1" if evidence["running"] else "H2")
        if found.confirmed:
            assert evidence["canaries_unanswered"] or no_progress_s >= 120.0
        if isinstance(evidence["iterations"], float) and evidence["iterations"] < 100:
            assert no_progress_s >= 300.0

    told(Story(Watched(stall.DETECTOR)), acts, check)


@settings(max_examples=300, deadline=None)
@given(acts=runs)
def test_no_engine_is_down_without_its_predicate(acts: list[Act]) -> None:
    def check(story: Story, found: Finding) -> None:
        engine, evidence = story.engine, found.evidence
        if engine.life is not None and engine.life.state is EngineState.FAILED:
            assert evidence["predicate"] == "exited"
            return
        assert engine.life is None or engine.life.state in {EngineState.READY, EngineState.STARTING}
        read_well = engine.last is not None and engine.last.outcome is Outcome.OK
        if not read_well or (engine.life is not None and engine.life.state is EngineState.STARTING):
            return  # down until it serves and a page says so
        assert evidence["predicate"] in {"half_death", "silent_death", "errors"}
        if evidence["predicate"] == "half_death":
            assert not evidence["engine_core_seen"]
        if evidence["predicate"] == "silent_death":
            assert not evidence["processes"]

    told(Story(Watched(engine_down.DETECTOR)), acts, check)


@settings(max_examples=200, deadline=None)
@given(acts=runs)
def test_a_page_that_is_never_refused_three_times_never_opens_refused(acts: list[Act]) -> None:
    story, before = Story(Watched(engine_down.DETECTOR)), None
    for what, much in acts:
        found = story.act(what, much)
        if found is not None and before is None and found.evidence["predicate"] == "refused":
            assert story.bad >= 3
        before = found
