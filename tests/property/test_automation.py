"""Operators, automation, failures and daemons that die, in any order: no two lives, no lost stop, no restart too many.

A small world carries the machine's commands out whenever it likes. A daemon that dies takes everything with it but
what its notes and the engine's bundle hold; the next one goes on from there.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import ClassVar, Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from opsboard.core.clock import ManualClock
from opsboard.core.model import EngineState, FatalVerdict, Restart
from opsboard.supervise import bundle, machine, situation
from opsboard.supervise.adopt import Exit, Remains
from opsboard.supervise.adopting import adopt
from opsboard.supervise.budget import Budget, Spent
from opsboard.supervise.inventory import found
from opsboard.supervise.ledger import OBSERVE_S, Ledger
from opsboard.supervise.memo import Memo
from opsboard.supervise.processes import Process
from opsboard.supervise.situation import Body, Command, Event, Situation, Terms
from opsboard.supervise.transaction import Course, follow

TIMEOUT_S = 900.0
BUDGET = Budget(window_s=600.0, per_engine=2, per_gpu=3, per_host=4, cap_s=60.0, healthy_s=100.0)
WISHES = (
    *(situation.Start(), situation.Start(), situation.Restart(), situation.Restart(now=True)),
    situation.Stop(),
)
VERDICTS = st.sampled_from([*[FatalVerdict.RETRY] * 4, FatalVerdict.WAIT, FatalVerdict.PARK])


def process(pid: int) -> Process:
    return Process(pid, 1, 1, pid, "S", "engine")


class World(RuleBasedStateMachine):
    """An engine that is restarted by itself."""

    policy: ClassVar[Literal["on-failure", "never"]] = "on-failure"

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.place = Path(tempfile.mkdtemp(prefix="automation-"))
        self.written: list[Restart] = []
        # What there is.
        self.launching = self.main = self.ending = False
        self.orphans = 0
        # What the bundle says.
        self.identity: str | None = None
        self.exit: Exit | None = None
        self.ready: str | None = None
        # What must hold.
        self.wish: bool | None = None
        self.parked = False
        self.credit = 0
        self.lives = 0
        self.began_daemon()

    def began_daemon(self, *, unclean: bool = False) -> None:
        now = self.clock.now()
        not_before = now.mono + OBSERVE_S if unclean else float("-inf")
        self.quiet_until = not_before
        self.ledger = Ledger(BUDGET, self.written, now=now, not_before=not_before, jitter=lambda: 0.5)
        self.memo = Memo("a", self.place)
        self.course: Course | None = None
        self.instance = self.identity
        self.preparing = self.proving = False
        self.situation = Situation(since=now.wall)

    def terms(self) -> Terms:
        now = self.clock.now()
        decision = self.ledger.decide("a", ("0",), now.mono, self.situation.served(now.mono))
        not_before = self.ledger.not_before
        return Terms(restart=self.policy, drain_timeout_s=60.0, decision=decision, not_before=not_before)

    def apply(self, event: Event) -> None:
        self.take(*machine.step(self.situation, event, self.clock.now(), self.terms()))

    def take(self, after: Situation, commands: list[Command]) -> None:
        self.situation = after
        now = self.clock.now()
        if Command.LAUNCH in commands:
            self.lives += 1
            self.instance = f"life {self.lives}"
        self.course = follow(self.course, after, now, engine="a", new_id="t", clears=True)
        until = None if after.drain_by is None else now.wall + after.drain_by - now.mono
        self.memo.remember(after, self.course, self.instance, until)
        for command in commands:
            self.obey(command)
        # Only a person un-parks, or the engine itself, by serving after all.
        over = {EngineState.READY, EngineState.DRAINING, EngineState.STOPPED}
        self.parked = after.state is EngineState.PARKED or (self.parked and after.state not in over)

    def obey(self, command: Command) -> None:
        match command:
            case Command.LAUNCH:
                assert not self.launching, "two launches at once"
                assert not self.main, "a launch beside a living process"
                assert not self.orphans, "a launch beside what an old life left"
                assert not self.ending, "a launch during an end"
                assert self.wish, "a launch that nobody wants"
                assert not self.parked, "a launch without a person while parked"
                if self.situation.automatic:
                    assert self.credit > 0, "a restart by itself that was not counted"
                    self.credit -= 1
                self.launching = True
            case Command.END:
                assert not self.ending, "two ends at once"
                assert not self.launching, "an end during a launch would miss the process"
                self.ending = True
            case Command.PREPARE:
                self.preparing = True
            case Command.PROVE:
                self.proving = True
            case Command.DRAIN:
                pass

    def count(self) -> bool:
        """What the keeper does before a restart by itself."""
        if isinstance(self.terms().decision, Spent):
            return False
        now = self.clock.now()
        assert now.mono >= self.quiet_until, "automation acted in the first moments after an unclean end"
        restart = Restart(engine="a", t=now.wall, cause="test", gpus=("0",))
        self.ledger.add(restart, now.mono)
        self.written.append(restart)
        self.credit += 1
        return True

    # --- operators ---

    def forgive(self) -> None:
        self.parked = False
        if self.situation.state is EngineState.PARKED:
            self.ledger.forgive("a")
            self.written = [Restart(engine="a", t=one.t, cause="", gpus=("0",), forgiven=True) for one in self.written]

    @rule(event=st.sampled_from(WISHES))
    def wishes(self, event: situation.Start | situation.Restart | situation.Stop) -> None:
        self.wish = not isinstance(event, situation.Stop)
        if self.wish:
            self.forgive()
        self.apply(event)

    @precondition(lambda self: self.main)
    @rule(event=st.sampled_from([situation.Drain(), situation.Undrain()]))
    def wants_other_service(self, event: situation.Drain | situation.Undrain) -> None:
        self.apply(event)

    # --- automation ---

    @precondition(lambda self: self.main)
    @rule(planned=st.booleans())
    def is_accused(self, planned: bool) -> None:
        now = self.clock.now()
        if planned and (now.mono < self.quiet_until or not self.count()):
            return
        self.apply(situation.Accused(cause="stall", planned=planned))

    @precondition(lambda self: self.preparing)
    @rule(room=st.sampled_from([*[None] * 4, FatalVerdict.WAIT, FatalVerdict.PARK]))
    def is_prepared(self, room: FatalVerdict | None) -> None:
        self.preparing = False
        if room is not None:
            self.apply(situation.Unprepared("no room", room))
        elif self.situation.preparing and self.count():
            self.apply(situation.Prepared())
        else:
            self.apply(situation.Unprepared("spent", FatalVerdict.PARK))

    @precondition(lambda self: self.situation.retry_at is not None)
    @rule()
    def is_tried_again(self) -> None:
        """The pause ends, and there is room."""
        self.time_passes(None)
        if self.preparing:
            self.is_prepared(None)

    # --- the world ---

    @precondition(lambda self: self.launching)
    @rule()
    def comes_up(self) -> None:
        """All goes well: the shortest way to what happens to an engine that serves."""
        self.launch_is_done(True, FatalVerdict.RETRY)
        self.serves()

    @precondition(lambda self: self.main and not self.ending and self.situation.state is EngineState.STARTING)
    @rule()
    def serves(self) -> None:
        if self.main and not self.ending:
            self.answers()
        if self.proving:
            self.is_proven(situation.Ready())

    @precondition(lambda self: self.launching)
    @rule(succeeds=st.booleans(), verdict=VERDICTS)
    def launch_is_done(self, succeeds: bool, verdict: FatalVerdict) -> None:
        self.launching, self.main = False, succeeds
        if succeeds:
            self.identity, self.exit = self.instance, None
        self.apply(situation.Launched(TIMEOUT_S) if succeeds else situation.LaunchFailed("no such command", verdict))

    @precondition(lambda self: self.main)
    @rule()
    def answers(self) -> None:
        self.apply(situation.Answers())

    @precondition(lambda self: self.proving)
    @rule(event=st.sampled_from([situation.Ready(), situation.Ready("drift"), situation.Unproven("no token")]))
    def is_proven(self, event: Event) -> None:
        self.proving = False
        if self.main and not self.ending:
            self.apply(event)
            if self.situation.state in {EngineState.READY, EngineState.DRAINING}:
                self.ready = self.identity

    @precondition(lambda self: self.main)
    @rule(
        code=st.sampled_from([0, 1, -9, None]),
        orphans=st.integers(0, 2),
        verdict=VERDICTS,
        asked_by=st.sampled_from([None, None, "SIGTERM to the shim"]),
    )
    def dies(self, code: int | None, orphans: int, verdict: FatalVerdict, asked_by: str | None) -> None:
        self.main, self.orphans, self.proving = False, self.orphans + orphans, False
        self.exit = Exit(code=code, ended=self.clock.now().wall, asked_by=asked_by, message=None)
        left = tuple(range(self.orphans))
        self.apply(situation.Exited(code=code, left=left, verdict=verdict, asked_by=asked_by))

    @precondition(lambda self: not (self.launching or self.ending or self.orphans))
    @rule()
    def others_begin(self) -> None:
        """Docker, a unit or a person: when our main process has just died, or where there was nothing."""
        if self.situation.state is EngineState.STOPPED:  # and it is theirs, when others had stopped it
            self.wish = self.situation.wanted
        self.lives += 1
        self.main, self.identity, self.exit, self.proving = True, f"life {self.lives}", None, False
        self.instance = self.identity
        self.apply(situation.Reborn(TIMEOUT_S))
        assert self.situation.body is Body.ALIVE

    @precondition(lambda self: self.ending)
    @rule()
    def resists(self) -> None:
        self.apply(situation.Survived("KILL does not end pid 1"))

    @precondition(lambda self: self.ending)
    @rule()
    def is_ended(self) -> None:
        self.is_over()
        self.apply(situation.Gone())

    def is_over(self) -> None:
        if self.exit is None and self.main:
            self.exit = Exit(code=-15, ended=self.clock.now().wall, asked_by="operator: test", message=None)
        self.main, self.orphans, self.ending, self.proving = False, 0, False, False

    @precondition(lambda self: self.orphans and not self.main and not self.ending)
    @rule()
    def orphans_leave(self) -> None:
        self.orphans = 0
        self.apply(situation.Gone())

    @rule(
        event=st.sampled_from([situation.Gone(), situation.Exited(code=0), situation.Ready(), situation.Survived("")])
    )
    @precondition(lambda self: self.situation.body is Body.NOTHING)
    def stale_news_arrive(self, event: Event) -> None:
        before = self.situation
        self.apply(event)
        assert self.situation == before

    @precondition(lambda self: self.situation.drain_by is not None)
    @rule()
    def is_drained(self) -> None:
        self.apply(situation.Drained())

    @rule(seconds=st.sampled_from([None, None, 1.0, 60.0, 400.0, TIMEOUT_S]))
    def time_passes(self, seconds: float | None) -> None:
        """None: until the machine waits no longer."""
        if seconds is None:
            due = self.situation.due
            seconds = 1.0 if due is None else max(0.0, due - self.clock.now().mono)
        self.clock.advance(seconds)
        self.apply(situation.Tick())

    @precondition(lambda self: self.lives > 0)
    @rule(heard=st.booleans(), unclean=st.booleans())
    def daemon_dies(self, heard: bool, unclean: bool) -> None:
        """A launch that is out is begun or not; an end that is out is over, or the next daemon has to ask again."""
        if self.launching:
            self.launching = False
            if heard:
                self.main, self.identity, self.exit = True, self.instance, None
        if self.ending:
            self.ending = False
            if heard:
                self.is_over()
        self.began_daemon(unclean=unclean)
        now = self.clock.now()
        notes = self.memo.read()
        remains = self.remains()
        wanted = self.wish
        if remains is not None and remains.again is not None:
            wanted = remains.again
        there = found(remains, notes, now.wall, lambda _offset: None)
        after, commands = adopt(there, wanted=wanted, ready_timeout_s=TIMEOUT_S, now=now, terms=self.terms())
        self.take(after, commands)

    def remains(self) -> Remains | None:
        """What the next daemon finds in the bundle."""
        if self.identity is None:
            return None
        stop = bundle.read(str(self.place), bundle.STOP) or {}
        asked = stop.get("instance") == self.identity
        return Remains(
            directory=str(self.place),
            instance=self.identity,
            life=self.lives,
            started=self.clock.now().wall - 1.0,
            log_offset=0,
            socket="",
            argv_sha256="",
            same_boot=True,
            main=process(100) if self.main else None,
            others=tuple(process(200 + number) for number in range(self.orphans)),
            ending=asked,
            again=bool(stop.get("again")) if asked else None,
            was_ready=self.ready == self.identity,
            exit=self.exit,
        )

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
        stopped_by_others = self.situation.state is EngineState.STOPPED  # the next daemon lets it be
        assert self.situation.wanted == bool(self.wish) or stopped_by_others

    @invariant()
    def a_stop_is_being_fulfilled(self) -> None:
        running = self.launching or self.main or self.orphans or self.ending
        if self.wish is False and self.situation.state is EngineState.STOPPED:
            assert not running
        if self.wish is False and not self.situation.wanted:
            resting = {EngineState.BACKING_OFF, EngineState.PARKED}
            assert self.situation.state not in resting, "automation holds what an operator stopped"

    @invariant()
    def a_start_is_not_forgotten(self) -> None:
        if self.wish and self.situation.state is EngineState.STOPPED:
            assert self.exit is not None
            assert self.exit.asked_by == "SIGTERM to the shim"

    @invariant()
    def the_budget_holds(self) -> None:
        now = self.clock.now().wall
        counted = [one for one in self.written if now - one.t < BUDGET.window_s]
        assert len([one for one in counted if not one.forgiven]) <= BUDGET.per_engine

    @invariant()
    def troubles_say_why(self) -> None:
        loud = {EngineState.FAILED, EngineState.BACKING_OFF, EngineState.PARKED}
        assert self.situation.state not in loud or self.situation.message

    @invariant()
    def a_course_ends(self) -> None:
        moving = {EngineState.STARTING, EngineState.STOPPING, EngineState.DRAINING}
        if self.course is not None and self.course.transaction.outcome is None:
            assert self.situation.state in moving
        if self.course is not None:
            open_steps = [step.name for step in self.course.transaction.steps if step.outcome is None]
            assert len(open_steps) <= 1

    def teardown(self) -> None:
        """Let everything that is under way end well: then the last wish is fulfilled, or it is said why not."""
        for _ in range(6):
            if self.launching:
                self.launch_is_done(True, FatalVerdict.RETRY)
            if self.ending:
                self.is_ended()
            if self.situation.drain_by is not None:
                self.is_drained()
        if self.wish is False:
            assert not self.situation.wanted
            assert (self.launching, self.ending) == (False, False)
        shutil.rmtree(self.place)


class ByHand(World):
    """An engine that only people restart, and its age."""

    policy = "never"

    @invariant()
    def a_start_is_not_forgotten(self) -> None:
        """One that failed is, by the next daemon: nobody tries it again."""


for world, examples in ((World, 250), (ByHand, 60)):
    world.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
TestAutomation, TestByHand = World.TestCase, ByHand.TestCase
