"""How an engine is seen to be down, and what is none of it."""

from __future__ import annotations

import pytest

from alerts.detectors.engine_down import DETECTOR
from opsboard.core.lives import EXITS_WITH_0
from opsboard.core.model import CanaryOutcome, EngineReading, EngineState, Finding, Outcome
from tests.support.watched import WHOLE, Watched, failed, page, process

API, CORE, WORKER = WHOLE


def serving(*, supervised: bool = True) -> Watched:
    """Return an engine that is well and was looked at."""
    engine = Watched(DETECTOR)
    if supervised:
        assert engine.live(EngineState.READY) is None
    engine.look(*WHOLE)
    assert engine.read_for(5, page(1000, running=1.0)) is None
    return engine


def predicate(found: Finding | None) -> tuple[object, bool] | None:
    return None if found is None else (found.evidence["predicate"], found.confirmed)


def test_a_page_that_is_refused_three_times() -> None:
    engine = serving()
    assert engine.read_for(2, failed()) is None
    began = engine.clock.now().wall - 1
    found = engine.read(failed())
    assert predicate(found) == ("refused", False)
    assert found is not None
    assert found.since == began
    assert found.summary == "nobody has listened for 2 s: nothing listens there"
    assert len(engine.asked) == 1
    assert predicate(engine.hear(CanaryOutcome.REFUSED, 0.0)) == ("refused", True)
    assert engine.read(page(1000)) is None
    engine.read_for(3, failed())
    assert predicate(engine.read(failed())) == ("refused", False), "the old canary is forgotten"


def test_an_observed_engine_that_never_answered_is_down() -> None:
    assert predicate(Watched(DETECTOR).read_for(3, failed())) == ("refused", False)


def test_a_page_without_an_answer_may_be_a_busy_server() -> None:
    engine = serving()
    late = failed("timeout", "nothing came within 3 s")
    assert engine.read_for(30, late) is None
    assert engine.asked == []
    assert predicate(engine.read(late)) == ("silent", False)
    assert predicate(engine.hear(CanaryOutcome.SATURATED)) == ("silent", False)
    assert predicate(engine.hear(CanaryOutcome.TIMEOUT)) == ("silent", False)
    assert predicate(engine.read_for(29, late)) == ("silent", False)
    assert predicate(engine.read(late)) == ("silent", True)


@pytest.mark.parametrize("reason", ["status", "truncated", "too_large", "encoding", "protocol", "page", "here"])
def test_whoever_answers_is_not_down(reason: str) -> None:
    engine = serving()
    assert engine.read_for(600, failed(reason)) is None
    assert engine.asked == []


def test_a_page_without_series_is_not_down() -> None:
    engine = serving()
    assert engine.read_for(10, EngineReading(engine="a", outcome=Outcome.NO_DATA)) is None


def test_the_engine_core_is_gone_while_the_api_server_lives() -> None:
    engine = serving()
    engine.look(API)
    found = engine.read(page(1000, running=1.0))
    assert predicate(found) == ("half_death", False)
    assert len(engine.asked) == 1
    assert predicate(engine.read_for(4, page(1000, running=1.0))) == ("half_death", False), "no new look"
    engine.look(API)
    assert predicate(engine.read(page(1000, running=1.0))) == ("half_death", True)
    engine.look(*WHOLE)
    assert engine.read(page(1000, running=1.0)) is None


@pytest.mark.parametrize("outcome", [CanaryOutcome.REFUSED, CanaryOutcome.TIMEOUT])
def test_a_bad_canary_confirms_half_death(outcome: CanaryOutcome) -> None:
    engine = serving()
    engine.hear(outcome)
    engine.look(API)
    assert predicate(engine.read(page(1000))) == ("half_death", False), "one of before says nothing"
    assert predicate(engine.hear(CanaryOutcome.OK)) == ("half_death", False)
    assert predicate(engine.hear(outcome)) == ("half_death", True)


def test_an_engine_without_named_processes_has_no_half_death() -> None:
    engine = Watched(DETECTOR)
    engine.look(API, process(2, "other"))
    engine.read(page(1000))
    engine.look(API)
    assert engine.read_for(5, page(1000)) is None


def test_another_api_server_that_has_no_core_yet_is_a_start() -> None:
    engine = serving(supervised=False)
    engine.look(process(11, "api_server"))
    assert engine.read_for(5, page(1000)) is None


def test_one_of_several_ranks_less_is_no_half_death() -> None:
    engine = Watched(DETECTOR)
    engine.look(*WHOLE, process(4, "engine_core"))
    engine.read(page(1000))
    engine.look(*WHOLE)
    assert engine.read_for(5, page(1000)) is None


def test_the_processes_are_gone_and_something_answers() -> None:
    engine = serving()
    engine.look()
    assert engine.read(page(1000)) is None
    engine.clock.advance(5.0)
    engine.look()
    assert predicate(engine.read(page(1000))) == ("silent_death", True)


@pytest.mark.parametrize(("reading", "what"), [(page(1000), "silent_death"), (failed(), "gone")])
def test_the_page_from_before_its_end_is_no_answer(reading: EngineReading, what: str) -> None:
    engine = serving()
    for _ in range(2):
        engine.look()
        assert engine.hear(CanaryOutcome.UNABLE, after=1.0) is None
    assert predicate(engine.read(reading)) == (what, True)


def test_somebody_restarted_an_observed_engine_and_its_processes_are_not_found_yet() -> None:
    engine = serving(supervised=False)
    for _ in range(6):
        engine.look()
        assert engine.read_for(5, page(3, start=900.0)) is None


def test_processes_that_nobody_can_see_are_no_death() -> None:
    engine = serving()
    engine.looked = None
    engine.processes = ()
    assert engine.read_for(60, page(1000)) is None
    never = Watched(DETECTOR)
    never.look()
    assert never.read_for(10, page(1000)) is None
    never.look()
    assert never.read_for(10, page(1000)) is None


def test_processes_and_page_are_gone() -> None:
    engine = serving(supervised=False)
    engine.look(zombies=(1,))
    found = engine.read(failed())
    assert predicate(found) == ("gone", True)
    assert found is not None
    assert found.summary == "its processes are gone and its page cannot be read (zombie: pid 1)"


def test_a_zombie_core_is_named() -> None:
    engine = serving()
    engine.look(API, zombies=(2,))
    found = engine.read(page(1000))
    assert found is not None
    assert found.evidence["zombies"] == "2"
    assert "zombie: pid 2" in found.summary


def test_503_for_five_seconds_then_exit_0() -> None:
    engine = serving()
    dead = page(1000, running=1.0)
    engine.look(API)
    assert predicate(engine.read(dead)) == ("half_death", False)
    assert predicate(engine.hear(CanaryOutcome.REFUSED, 0.01)) == ("half_death", True)
    assert predicate(engine.read_for(4, dead)) == ("half_death", True)
    found = engine.live(EngineState.FAILED, exit_code=0, message="exited by itself with code 0")
    assert predicate(found) == ("exited", True)
    assert found is not None
    assert found.evidence["exit_code"] == 0.0
    assert found.summary == (f"exited by itself with code 0 ({EXITS_WITH_0}); its EngineCore was gone before")


def test_an_engine_that_is_ended_by_others_is_told_as_ending() -> None:
    engine = serving()
    engine.look(API)
    engine.read(failed())
    found = engine.read(failed())
    assert predicate(found) == ("half_death", True)
    assert found is not None
    assert found.summary == "its EngineCore is gone and nobody listens any more: it is ending"


@pytest.mark.parametrize("answer", ["tokens", "canary"])
def test_503_is_over_when_it_answers_again(answer: str) -> None:
    engine = serving()
    dead = page(1000, running=1.0)
    for _ in range(2):
        engine.hear(CanaryOutcome.REFUSED, 0.01)
        engine.read(dead)
    assert predicate(engine.read(dead)) == ("errors", True)
    asked = len(engine.asked)
    assert predicate(engine.read_for(30, dead)) == ("errors", True)
    assert len(engine.asked) >= asked + 2, "nobody else may ask it"
    if answer == "tokens":
        assert engine.read(page(1010, running=1.0)) is None
    else:
        assert engine.hear(CanaryOutcome.OK) is None


def test_503_for_ever_is_known_by_two_canaries_without_a_token_between() -> None:
    engine = serving()
    dead = page(1000, running=1.0)
    engine.read(dead)
    assert engine.hear(CanaryOutcome.REFUSED, 0.01) is None
    engine.read_for(10, dead)
    assert predicate(engine.hear(CanaryOutcome.REFUSED, 0.01)) == ("errors", True)
    assert engine.hear(CanaryOutcome.OK, 0.1) is None


def test_a_queue_that_is_full_refuses_and_tokens_flow() -> None:
    engine = serving()
    for n in range(30):
        assert engine.read(page(2000 + 60 * n, running=48.0, waiting=500.0)) is None
        assert engine.hear(CanaryOutcome.REFUSED, 0.01) is None


def test_down_lasts_until_it_serves_again() -> None:
    engine = serving()
    first = engine.live(EngineState.FAILED, exit_code=1, message="exited by itself with code 1")
    assert first is not None
    engine.clock.advance(8.0)
    for state in (EngineState.BACKING_OFF, EngineState.STARTING, EngineState.FAILED, EngineState.PARKED):
        found = engine.live(state, started=2.0, message="again")
        assert found is not None
        assert found.since == first.since
    engine.live(EngineState.STARTING, started=3.0)
    assert engine.live(EngineState.READY, started=3.0) is not None
    assert engine.read(failed(), after=0.1) is not None
    assert engine.read(page(0)) is None


def test_what_a_person_stopped_is_not_down() -> None:
    engine = serving()
    engine.live(EngineState.FAILED, exit_code=1, message="x")
    assert engine.live(EngineState.STOPPED) is None
    assert engine.read_for(100, failed()) is None


@pytest.mark.parametrize("state", [EngineState.STARTING, EngineState.STOPPING])
def test_what_is_under_way_is_not_judged(state: EngineState) -> None:
    engine = serving()
    engine.live(state, started=2.0)
    assert engine.read_for(100, failed()) is None


def test_what_is_kept_of_a_wedge_says_which_pages_failed() -> None:
    engine = serving()
    engine.look(API, zombies=(2,))
    found = engine.read_for(4, failed())
    assert found is not None
    assert found.evidence["pages_failed"] == 4.0
    assert found.evidence["engine_core_seen"] is False
    assert found.evidence["page_error"] == "nothing listens there"
    assert WORKER not in engine.processes
    assert CORE not in engine.processes


def test_an_engine_that_a_detector_doubts_still_runs() -> None:
    engine = serving()
    assert engine.live(EngineState.BACKING_OFF, pid=7, cause="stall: no progress") is None
    assert engine.live(EngineState.STOPPING, pid=7) is None
    assert engine.live(EngineState.STARTING, started=2.0, pid=8) is None
    late = engine.live(EngineState.BACKING_OFF, started=2.0, pid=8, cause="not ready after 900 s")
    assert predicate(late) == ("exited", True), "and one that does not come up is down"


def test_a_claim_that_made_supervision_act_stands_as_it_was() -> None:
    engine = serving()
    engine.look(API)
    engine.read(page(1000))
    engine.look(API)
    claim = engine.read(page(1000))
    assert predicate(claim) == ("half_death", True)
    assert engine.live(EngineState.BACKING_OFF, pid=7, cause="engine_down: its EngineCore is gone") == claim
