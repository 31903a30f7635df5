"""The steps of a restart follow from the situation; each is timed, and one is open at most."""

from __future__ import annotations

from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineState, Transaction
from opsboard.supervise import adopting, machine, transaction
from opsboard.supervise.situation import (
    GOES_ON,
    Accused,
    Answers,
    Drained,
    Event,
    Exited,
    Found,
    Gone,
    Launched,
    LaunchFailed,
    Prepared,
    Ready,
    Restart,
    Situation,
    Start,
    Stop,
    Terms,
    Tick,
    Undrain,
)
from opsboard.supervise.transaction import Course

TERMS = Terms(restart="on-failure", drain_timeout_s=60.0)


class Story:
    """A machine and its course, a second between events."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.situation = Situation(since=0.0)
        self.course: Course | None = None

    def tell(self, *events: Event) -> Transaction:
        for event in events:
            now = self.clock.advance(1.0)
            self.situation, _ = machine.step(self.situation, event, now, TERMS)
            self.course = transaction.follow(
                self.course, self.situation, now, engine="a", new_id="id", clears=self.situation.exit_code is not None
            )
        assert self.course is not None
        return self.course.transaction

    def say(self, text: str, outcome: str) -> None:
        assert self.course is not None
        name = self.course.under_way
        assert name is not None
        self.course = transaction.at(self.course, name, self.clock.now(), text, outcome)


def steps(found: Transaction) -> list[tuple[str, str | None, float | None]]:
    return [(step.name, step.outcome, step.seconds) for step in found.steps]


UP = (Start("up"), Launched(900.0), Answers(), Ready())


def test_a_start_and_a_restart() -> None:
    story = Story()
    first = story.tell(*UP)
    assert (first.kind, first.cause, first.automatic, first.outcome) == ("start", "up", False, "ok")
    assert steps(first) == [("launch", "ok", 1.0), ("start", "ok", 1.0), ("canary", "ok", 1.0), ("serving", "ok", 0.0)]
    second = story.tell(Restart("flags"), Drained(), Gone(), Launched(900.0), Answers(), Ready("drift"))
    assert (second.kind, second.cause, second.outcome) == ("restart", "flags", "ok")
    assert [name for name, _, _ in steps(second)] == ["drain", "end", "launch", "start", "canary", "serving"]
    assert (second.steps[-1].outcome, second.steps[-1].text) == ("skipped", "drift")
    assert second.ended == story.clock.now().wall


def test_a_step_ends_as_what_was_told_of_it() -> None:
    story = Story()
    story.tell(*UP, Restart("x"))
    story.say("3 requests under way", transaction.CUT)
    story.clock.advance(60.0)
    cut = story.tell(Tick(), Gone(), Launched(900.0), Answers())
    assert (cut.steps[0].outcome, cut.steps[0].text) == ("cut", "3 requests under way")
    story.say("no canary: nobody knows its kind", transaction.SKIPPED)
    whole = story.tell(Ready())
    assert [step.outcome for step in whole.steps] == ["cut", "ok", "ok", "ok", "skipped", "ok"]
    assert whole.outcome == "ok"
    story.tell(Restart("y"))
    story.say("0 requests under way", transaction.OK)
    assert story.tell(Drained()).steps[0].outcome == "ok"
    untold = Story()
    untold.tell(*UP, Restart("z"))
    assert untold.tell(Exited(code=1)).steps[0].outcome == "cut", "nobody knows that nothing was under way"


def test_what_does_not_go_well() -> None:
    story = Story()
    story.tell(*UP)
    off = story.tell(Restart("x"), Undrain("no"))
    assert steps(off)[-1] == ("drain", "aborted", 1.0)
    assert off.steps[-1].text == "called off: no"
    assert story.situation.state is EngineState.READY
    stopped = story.tell(Restart("x"), Stop("no, down"))
    assert (stopped.outcome, stopped.steps[-1].text) == ("aborted", "stopped: no, down")
    failed = story.tell(Gone(), Start("again"), LaunchFailed("no such file"))
    assert (failed.outcome, failed.steps[-1].outcome) == ("failed", "failed")
    assert "no such file" in (failed.steps[-1].text or "")
    crashed = story.tell(Start("again"), Launched(900.0), Exited(code=1, last_words="“boom”"))
    assert (crashed.outcome, crashed.steps[-1].name) == ("failed", "start")


def test_a_step_that_the_situation_does_not_show() -> None:
    story = Story()
    story.tell(*UP, Restart("x"), Drained(), Exited(code=-15), Gone())
    assert story.course is not None
    assert story.course.under_way is not None
    story.course = transaction.at(story.course, transaction.CLEAR, story.clock.advance(1.0), "asking the driver")
    story.course = transaction.at(story.course, transaction.LAUNCH, story.clock.advance(7.0))
    found = story.tell(Launched(900.0))
    assert [(step.name, step.seconds) for step in found.steps[-3:-1]] == [("clear", 7.0), ("launch", 1.0)]


def test_another_daemon_goes_on() -> None:
    story = Story()
    begun = story.tell(*UP, Restart("x"))
    later = story.clock.advance(30.0)
    course = transaction.resumed(begun, later)
    assert course.under_way == "drain"
    course = transaction.at(course, transaction.END, later)
    assert course.transaction.steps[0].seconds == 30.0
    set_back = ManualClock(wall=begun.began - 1e6).now()
    course = transaction.at(transaction.resumed(begun, set_back), transaction.END, set_back)
    assert course.transaction.steps[0].seconds == 0.0, "no time is negative"


def test_a_restart_that_lost_its_daemon_between_two_lives_is_one_restart() -> None:
    story = Story()
    story.tell(*UP)
    begun = story.tell(Accused(cause="policy p", planned=True), Drained())
    assert (begun.cause, [name for name, _, _ in steps(begun)]) == ("policy p", ["drain", "end"])
    now = story.clock.advance(5.0)
    found = Found(ended=Exited(code=0, asked_by="opsboard"), ended_by_us=True, automatic=True)
    story.situation, _ = adopting.adopt(found, wanted=True, ready_timeout_s=900.0, now=now, terms=TERMS)
    assert (story.situation.state, story.situation.cause) == (EngineState.BACKING_OFF, GOES_ON)
    story.course = transaction.follow(
        transaction.resumed(begun, now), story.situation, now, engine="a", new_id="other", clears=False
    )
    assert story.course is not None
    assert story.course.transaction.outcome is None, "it goes on"
    story.clock.advance(10.0)
    done = story.tell(Tick(), Prepared(), Launched(900.0), Answers(), Ready())
    assert (done.id, done.cause, done.outcome) == (begun.id, "policy p", "ok")
    assert [name for name, _, _ in steps(done)] == ["drain", "end", "launch", "start", "canary", "serving"]


def test_what_is_parked_instead_has_failed() -> None:
    story = Story()
    story.tell(*UP)
    begun = story.tell(Accused(cause="policy p", planned=True), Drained())
    now = story.clock.advance(5.0)
    waits = Situation(since=now.wall, state=EngineState.BACKING_OFF, cause=GOES_ON, wanted=True, automatic=True)
    course = transaction.follow(transaction.resumed(begun, now), waits, now, engine="a", new_id="b", clears=False)
    parked = Situation(since=now.wall, state=EngineState.PARKED, cause="spent", message="spent")
    after = transaction.follow(course, parked, now, engine="a", new_id="b", clears=False)
    assert after is not None
    assert (after.transaction.id, after.transaction.outcome) == (begun.id, "failed")
