"""No sequence of wishes, deaths and delays leads to two lives at once or to a lost stop.

A small world carries the machine's commands out whenever it likes: launches succeed, fail or are late, processes die,
leave orphans, or resist.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineState
from opsboard.supervise import machine
from opsboard.supervise.situation import (
    Body,
    Command,
    Event,
    Exited,
    Gone,
    Launched,
    LaunchFailed,
    Ready,
    Restart,
    Situation,
    Start,
    Stop,
    Survived,
    Tick,
)

TIMEOUT_S = 900.0


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.situation = Situation(since=self.clock.now().wall)
        self.launching = self.main = self.ending = False
        self.orphans = 0
        self.wish: bool | None = None
        self.launches = 0

    def apply(self, event: Event) -> None:
        self.situation, commands = machine.step(self.situation, event, self.clock.now())
        for command in commands:
            self.obey(command)

    def obey(self, command: Command) -> None:
        if command is Command.LAUNCH:
            assert not self.launching, "two launches at once"
            assert not self.main, "a launch beside a living process"
            assert not self.orphans, "a launch beside what an old life left"
            assert not self.ending, "a launch during an end"
            assert self.wish, "a launch that nobody wants"
            self.launching = True
            self.launches += 1
        else:
            assert not self.ending, "two ends at once"
            assert not self.launching, "an end during a launch would miss the process"
            self.ending = True

    # --- operators ---

    @rule(event=st.sampled_from([Start(), Restart()]))
    def wants_it_up(self, event: Start | Restart) -> None:
        self.wish = True
        self.apply(event)

    @rule()
    def wants_it_down(self) -> None:
        self.wish = False
        self.apply(Stop())

    # --- the world ---

    @precondition(lambda self: self.launching)
    @rule(succeeds=st.booleans())
    def launch_is_done(self, succeeds: bool) -> None:
        self.launching, self.main = False, succeeds
        self.apply(Launched(TIMEOUT_S) if succeeds else LaunchFailed("no such command"))

    @precondition(lambda self: self.main)
    @rule()
    def serves(self) -> None:
        self.apply(Ready())

    @precondition(lambda self: self.main)
    @rule(code=st.sampled_from([0, 1, -9, None]), orphans=st.integers(0, 2), noticed=st.booleans())
    def dies(self, code: int | None, orphans: int, noticed: bool) -> None:
        self.main, self.orphans = False, self.orphans + orphans
        if noticed or not self.ending:
            self.apply(Exited(code=code, left=tuple(range(self.orphans))))

    @precondition(lambda self: self.ending)
    @rule()
    def resists(self) -> None:
        self.apply(Survived("KILL does not end pid 1"))

    @precondition(lambda self: self.ending)
    @rule()
    def is_ended(self) -> None:
        self.main, self.orphans, self.ending = False, 0, False
        self.apply(Gone())

    @precondition(lambda self: self.orphans and not self.main and not self.ending)
    @rule()
    def orphans_leave(self) -> None:
        self.orphans = 0
        self.apply(Gone())

    @rule(seconds=st.sampled_from([1.0, 60.0, TIMEOUT_S]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.apply(Tick())

    @rule(event=st.sampled_from([Gone(), Exited(code=0), Ready(), Survived("late")]))
    @precondition(lambda self: not self.main and not self.orphans and not self.ending and not self.launching)
    def stale_news_arrive(self, event: Event) -> None:
        before = self.situation
        self.apply(event)
        assert self.situation == before

    # --- what must hold ---

    @invariant()
    def the_body_is_what_there_is(self) -> None:
        body = self.situation.body
        assert (body is Body.LAUNCHING) == self.launching
        assert (body is Body.ENDING) == self.ending
        assert not (body is Body.NOTHING and (self.main or self.orphans))
        assert (body is Body.ALIVE) == (self.main and not self.ending)

    @invariant()
    def the_last_wish_is_known(self) -> None:
        assert self.situation.wanted == bool(self.wish)

    @invariant()
    def a_stop_is_being_fulfilled(self) -> None:
        if self.wish is False:
            at_rest = not (self.launching or self.main or self.orphans or self.ending)
            expected = EngineState.STOPPED if at_rest else EngineState.STOPPING
            assert self.situation.state is expected

    @invariant()
    def failures_say_why(self) -> None:
        assert self.situation.state is not EngineState.FAILED or self.situation.message

    def teardown(self) -> None:
        """Let everything that is under way end well: then the last wish is fulfilled."""
        for _ in range(4):
            if self.launching:
                self.launch_is_done(True)
            if self.ending:
                self.is_ended()
        if self.wish is False:
            assert (self.main, self.orphans, self.launching) == (False, 0, False)
            assert self.situation.state is EngineState.STOPPED
        if self.main:
            assert self.wish


World.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMachine = World.TestCase
