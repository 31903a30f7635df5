"""Actions on several engines: who is asked and told when, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import pytest

from opsboard.cli.asking import act, everyone, roll
from opsboard.core.errors import Conflict, ControlError, NotFound, NotReachable
from opsboard.core.model import Rolling, Step
from opsboard.core.wire import ActionAccepted, Engine, EngineDetail, EventInfo, ReadingInfo

ROLL = Rolling(id="1", engines=("a", "b"), reason="weekly", began=0.0, changed=0.0)
FAILED = EventInfo(t=1.0, subject="engine/x", kind="action_failed", text="start failed: no room", severity="error")


def looks(name: str, *states: str, pids: tuple[int | None, ...] = ()) -> list[EngineDetail]:
    """Return what an engine shows, one look after the other; ``!`` means that its action failed."""
    found = []
    for n, state in enumerate(states):
        engine = Engine(
            name=name,
            supervised=True,
            state=state.rstrip("!"),
            state_since=float(n),
            pid=pids[n] if pids else None,
            reading=ReadingInfo(),
        )
        found.append(EngineDetail(engine=engine, events=(FAILED,) if state.endswith("!") else ()))
    return found


class FakeSource:
    """A daemon whose engines take a step at each look; the last one stays."""

    def __init__(self, **engines: list[EngineDetail]) -> None:
        self.engines = engines
        self.calls: list[str] = []
        self.refused: dict[str, ControlError] = {}
        self.rolls: list[Rolling | NotReachable | None] = [ROLL]
        """What is answered to each question for the rolling restart; the last one stays."""

    def engine(self, name: str) -> EngineDetail:
        self.calls.append(f"look {name}")
        if name not in self.engines:
            raise NotFound(f"no engine is called {name!r}")
        left = self.engines[name]
        return left.pop(0) if len(left) > 1 else left[0]

    def action(
        self, name: str, kind: str, _reason: str | None = None, *, now: bool = False, then: Sequence[str] = ()
    ) -> ActionAccepted:
        self.calls.append(" ".join([kind, name, *then, *(["now"] if now else [])]))
        if name in self.refused:
            raise self.refused[name]
        return ActionAccepted(id="1", kind=kind, engine=name)

    def rolling(self) -> Rolling | None:
        found = self.rolls.pop(0) if len(self.rolls) > 1 else self.rolls[0]
        if isinstance(found, NotReachable):
            raise found
        return found


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


def do(source: FakeSource, kind: str, *, wait: bool = True) -> None:
    act(source, list(source.engines), kind, None, wait=wait)  # type: ignore[arg-type]


def test_all_are_asked_before_any_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    source = FakeSource(
        slow=looks("slow", "ready", "stopping", "stopping", "stopped"), fast=looks("fast", "ready", "stopped")
    )
    do(source, "stop")
    assert source.calls[:4] == ["look slow", "look fast", "stop slow", "stop fast"]
    assert capsys.readouterr().out.splitlines() == ["fast: stopped", "slow: stopped"]


def test_one_failure_stops_no_other_and_is_named_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    source = FakeSource(
        a=looks("a", "stopped", "starting", "starting!"),
        b=looks("b", "stopped", "starting", "starting", "ready"),
        c=looks("c", "stopped"),
        d=looks("d", "stopped", "failed"),
    )
    source.refused["c"] = Conflict("c is observed")
    with pytest.raises(ControlError, match=r"^start failed for 3 of 4 engines: c, d, a$"):
        do(source, "start")
    said = capsys.readouterr()
    assert said.out == "b: ready\n"
    assert {"a: start failed: no room", "c is observed", "d: failed: no reason known; opsboard engine logs d"} <= set(
        said.err.splitlines()
    )


def test_a_start_that_has_to_wait_is_no_failure_and_says_what_is_in_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    waits = looks("a", "stopped", "backing_off")
    waits[1] = msgspec.structs.replace(
        waits[1], engine=msgspec.structs.replace(waits[1].engine, message="port 1 is taken")
    )
    do(FakeSource(a=waits), "start", wait=False)
    assert capsys.readouterr().out == "a: start accepted; port 1 is taken\n"


def test_one_engine_alone_fails_in_its_own_words() -> None:
    with pytest.raises(ControlError, match=r"^a: start failed: no room$"):
        do(FakeSource(a=looks("a", "stopped", "starting!")), "start")


def test_a_restart_is_over_with_another_process(capsys: pytest.CaptureFixture[str]) -> None:
    states = ("ready", "ready", "stopping", "starting", "ready")
    both = {name: looks(name, *states, pids=(1, 1, 1, 2, 2)) for name in "ab"}
    do(FakeSource(**both), "restart")
    assert capsys.readouterr().out.splitlines() == ["a: ready", "b: ready"]


@pytest.mark.parametrize("kind", ["start", "stop", "restart"])
def test_without_wait_it_ends_when_all_have_begun(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    pids = (1, 1, 2) if kind == "restart" else (None, None, 2)
    do(FakeSource(**{name: looks(name, *["stopped"] * 3, pids=pids) for name in "ab"}), kind, wait=False)
    assert capsys.readouterr().out.splitlines() == [f"a: {kind} accepted", f"b: {kind} accepted"]


def test_a_wrong_name_is_told_before_anything_is_done() -> None:
    source = FakeSource(a=looks("a", "ready"))
    with pytest.raises(NotFound):
        act(source, ["a", "nobody"], "stop", None, wait=True)  # type: ignore[arg-type]
    assert not any(call.startswith("stop") for call in source.calls)


def test_a_daemon_that_goes_away_ends_it_where_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    source = FakeSource(a=looks("a", "stopped"), b=looks("b", "stopped"))

    def gone(_seconds: float) -> None:
        monkeypatch.setattr(source, "engine", lambda _name: (_ for _ in ()).throw(NotReachable("no daemon")))

    monkeypatch.setattr(time, "sleep", gone)
    with pytest.raises(NotReachable):
        do(source, "start", wait=False)


def test_an_endless_wait_ends_and_says_where_it_stood(capsys: pytest.CaptureFixture[str]) -> None:
    source = FakeSource(a=looks("a", "stopped", "starting"), b=looks("b", "stopped", "starting"))
    with pytest.raises(ControlError, match="2 of 2 engines: a, b"):
        do(source, "start")
    assert "a: still starting after 3600 s" in capsys.readouterr().err


STEPS = (
    Step(name="drain", started=10.0, seconds=12.43, outcome="ok", text="7 requests finished"),
    Step(name="end", started=22.4, seconds=3.1, outcome="ok"),
    Step(name="start", started=25.5, seconds=31.0, outcome="failed", text="exit 1"),
)


def stepping(*steps: int, states: Sequence[str] = (), old: Sequence[Step] = ()) -> list[EngineDetail]:
    """Return looks at a restart of which so many steps are over: the next one is under way; 0: of an ``old`` one."""
    states = states or ["ready"] * len(steps)
    found = looks("a", *states, pids=(*(1 if state in {"ready", "draining"} else 2 for state in states[:-1]), 2))
    running = Step(name="under way", started=99.0)
    return [
        msgspec.structs.replace(one, transaction=(*STEPS[:n], running) if n else tuple(old))
        for one, n in zip(found, steps, strict=True)
    ]


def test_the_steps_of_a_restart_are_told_once_each_with_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    old = (Step(name="drain", started=1.0, seconds=1.0, outcome="ok", text="of an earlier restart"),)
    do(
        FakeSource(a=stepping(0, 0, 1, 1, 2, old=old, states=("ready", "ready", "draining", "starting", "ready"))),
        "restart",
    )
    said = capsys.readouterr()
    assert said.out == "a: ready\n"
    assert [line for line in said.err.splitlines() if line.endswith((" s", "finished"))] == [
        "a: drain     12.4 s  7 requests finished",
        "a: end        3.1 s",
    ]


def test_the_steps_of_what_is_tried_again_are_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    again = (Step(name="launch", started=50.0, seconds=0.2, outcome="ok"),)
    first, second, last = looks("a", "backing_off", "starting", "ready", pids=(None, 2, 2))
    tries = [msgspec.structs.replace(first, transaction=STEPS)]
    tries += [msgspec.structs.replace(one, transaction=again) for one in (second, last)]
    do(FakeSource(a=[*looks("a", "ready", pids=(1,)), *tries]), "restart")
    told = [line.split()[1] for line in capsys.readouterr().err.splitlines() if "  " in line]
    assert told == ["drain", "end", "start", "launch"]


def test_a_step_that_failed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ControlError, match="a: parked: no reason known"):
        do(FakeSource(a=stepping(0, 3, states=("ready", "parked"))), "restart")
    assert "a: start     31.0 s  failed: exit 1" in capsys.readouterr().err


def test_a_restarted_engine_that_is_not_let_into_service_is_a_failure() -> None:
    with pytest.raises(ControlError, match="a: draining: no reason known"):
        do(FakeSource(a=looks("a", "ready", "starting", "draining", pids=(1, 2, 2))), "restart")


def test_a_restart_that_somebody_called_off_is_a_failure() -> None:
    off = (Step(name="drain", started=10.0, seconds=4.0, outcome="aborted", text="stopped: asked by hand"),)
    called_off = msgspec.structs.replace(looks("a", "ready", pids=(1,))[0], transaction=off)
    with pytest.raises(ControlError, match="a: restart aborted: stopped: asked by hand"):
        do(FakeSource(a=[*looks("a", "ready", "draining", pids=(1, 1)), called_off]), "restart")


def test_a_drain_is_done_when_nothing_is_in_flight(capsys: pytest.CaptureFixture[str]) -> None:
    source = FakeSource(a=draining((7.0, 0.0), (0.0, 1e12), (1.0, 0.0), (0.0, 0.0)))
    do(source, "drain")
    assert source.calls.count("look a") == 4, "a page of before the drain tells nothing"
    said = capsys.readouterr()
    assert said.out == "a: draining\n"
    assert "a: draining: 1 running, 0 waiting" in said.err


def test_a_drain_of_which_nobody_knows_what_is_under_way_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ControlError, match="a: draining, but it is not known what is under way"):
        do(FakeSource(a=draining((7.0, 0.0), (None, 0.0))), "drain")
    assert not capsys.readouterr().out


def draining(*pages: tuple[float | None, float]) -> list[EngineDetail]:
    """Return an engine that is drained: what is running by each page, and how old that is, in s."""
    found = looks("a", "ready", *["draining"] * (len(pages) - 1))
    return [
        msgspec.structs.replace(
            one, engine=msgspec.structs.replace(one.engine, running=running, reading=ReadingInfo(age_s=age_s))
        )
        for one, (running, age_s) in zip(found, pages, strict=True)
    ]


def test_now_is_handed_on() -> None:
    source = FakeSource(a=looks("a", "ready", "ready", pids=(1, 2)))
    act(source, ["a"], "restart", None, wait=False, now=True)  # type: ignore[arg-type]
    assert "restart a now" in source.calls


def test_a_rolling_restart_is_one_request_and_followed_in_its_order(capsys: pytest.CaptureFixture[str]) -> None:
    states = ("ready", "stopping", "starting", "ready")
    source = FakeSource(**{name: looks(name, *states, pids=(1, 1, 2, 2)) for name in "abc"})
    roll(source, ["a", "b", "c"], None, wait=True)  # type: ignore[arg-type]
    assert [call for call in source.calls if call.startswith("restart")] == ["restart a b c"]
    assert capsys.readouterr().out.splitlines() == ["a: ready", "b: ready", "c: ready"]


def test_a_rolling_restart_that_fails_names_what_was_not_touched() -> None:
    good = looks("a", "ready", "starting", "ready", pids=(1, 2, 2))
    bad = looks("b", "ready", "starting", "failed", pids=(1, 2, None))
    source = FakeSource(a=good, b=bad, c=looks("c", "ready"), d=looks("d", "ready"))
    with pytest.raises(ControlError, match="b: failed: no reason known; not touched: c, d"):
        roll(source, ["a", "b", "c", "d"], None, wait=True)  # type: ignore[arg-type]


def test_without_wait_a_rolling_restart_goes_on_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    source = FakeSource(a=looks("a", "ready", "starting", pids=(1, 2)), b=looks("b", "ready"))
    roll(source, ["a", "b"], None, wait=False)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "a: restart accepted; then, one at a time: b\n"


def test_a_rolling_restart_is_waited_for_while_the_daemon_is_restarted(capsys: pytest.CaptureFixture[str]) -> None:
    states = ("ready", "stopping", "ready")
    source = FakeSource(**{name: looks(name, *states, pids=(1, 1, 2)) for name in "ab"})
    source.rolls = [ROLL, *[NotReachable("no daemon answers")] * 100, ROLL]
    roll(source, ["a", "b"], None, wait=True)  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert said.out.splitlines() == ["a: ready", "b: ready"]
    assert [line for line in said.err.splitlines() if "daemon" in line] == [
        "the daemon is away, engines run on: waiting for it",
        "the daemon is back",
    ]


def test_a_daemon_that_stays_away_is_not_waited_for_for_ever() -> None:
    source = FakeSource(a=looks("a", "ready"), b=looks("b", "ready"))
    source.rolls = [NotReachable("no daemon answers")]
    with pytest.raises(NotReachable, match="no daemon answers, for 60 s") as caught:
        roll(source, ["a", "b"], None, wait=True)  # type: ignore[arg-type]
    assert "goes on with what was asked" in (caught.value.hint or "")


def test_a_rolling_restart_that_ends_without_a_word_of_its_engine_ends_the_wait() -> None:
    called_off = msgspec.structs.replace(ROLL, outcome="cancelled", error="was called off by uid 7")
    for last, words in (
        (called_off, "the rolling restart was called off by uid 7; not touched: a, b"),
        (None, "nothing"),
    ):
        source = FakeSource(a=looks("a", "ready"), b=looks("b", "ready"))
        source.rolls = [ROLL, last]
        with pytest.raises(ControlError, match=words):
            roll(source, ["a", "b"], None, wait=True)  # type: ignore[arg-type]


# --- standbys ---------------------------------------------------------------------------------------------------------


def standby(*states: str, pids: tuple[int | None, ...] = ()) -> list[EngineDetail]:
    found = looks("s", *states, pids=pids)
    return [msgspec.structs.replace(one, engine=msgspec.structs.replace(one.engine, standby=True)) for one in found]


@pytest.mark.parametrize("end", ["asleep", "stopped"])
def test_the_start_of_a_standby_is_done_when_it_rests(end: str, capsys: pytest.CaptureFixture[str]) -> None:
    do(FakeSource(s=standby("stopped", "starting", "ready", "draining", end)), "start")
    assert capsys.readouterr().out == f"s: {end}\n"


def test_a_restart_of_a_standby_that_is_stopped_is_done_when_it_is_stopped_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, *then = standby("stopped", "starting", "ready", "stopping", "stopped", pids=(None, 2, 2, 2, None))
    do(FakeSource(s=[before, before, *(msgspec.structs.replace(one, transaction=STEPS) for one in then)]), "restart")
    assert capsys.readouterr().out == "s: stopped\n"


def test_a_restart_of_a_standby_passes_through_out_of_service(capsys: pytest.CaptureFixture[str]) -> None:
    source = FakeSource(s=standby("asleep", "starting", "ready", "draining", "asleep", pids=(1, 2, 2, 2, 2)))
    do(source, "restart")
    assert capsys.readouterr().out == "s: asleep\n"


def test_sleep_and_wake_are_done_when_the_board_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    do(FakeSource(a=looks("a", "ready", "ready", "draining", "asleep")), "sleep")
    do(FakeSource(a=looks("a", "asleep", "asleep", "draining", "ready")), "wake")
    assert capsys.readouterr().out.splitlines() == ["a: asleep", "a: ready"]
    with pytest.raises(ControlError, match="no room"):
        do(FakeSource(a=looks("a", "ready", "ready!")), "sleep")


def test_a_restart_of_all_starts_nothing_that_is_to_stay_down(capsys: pytest.CaptureFixture[str]) -> None:
    states = {"a": "ready", "b": "stopped", "c": "parked", "d": "stopping", "e": "asleep"}
    engines = [looks(name, state)[0].engine for name, state in states.items()]
    engines.append(msgspec.structs.replace(engines[0], name="seen", supervised=False))
    assert everyone(engines, "restart") == ["a", "e"]
    assert capsys.readouterr().err == "left as they are: b (stopped), c (parked), d (stopping)\n"
    assert everyone(engines, "start") == everyone(engines, "stop") == list(states)
    assert capsys.readouterr().err == ""
    assert everyone(engines[1:2], "restart") == everyone(engines[5:], "stop") == []
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == ["no other engine is supervised: nothing to do", "no engine is supervised: nothing to do"]
