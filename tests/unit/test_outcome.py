"""Actions on several engines: who is asked and told when, and how it ends."""

from __future__ import annotations

import time

import pytest

from opsboard.cli.outcome import act
from opsboard.core.errors import Conflict, ControlError, NotFound, NotReachable
from opsboard.core.wire import ActionAccepted, Engine, EngineDetail, EventInfo, ReadingInfo

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

    def engine(self, name: str) -> EngineDetail:
        self.calls.append(f"look {name}")
        if name not in self.engines:
            raise NotFound(f"no engine is called {name!r}")
        left = self.engines[name]
        return left.pop(0) if len(left) > 1 else left[0]

    def action(self, name: str, kind: str, _reason: str | None = None) -> ActionAccepted:
        self.calls.append(f"{kind} {name}")
        if name in self.refused:
            raise self.refused[name]
        return ActionAccepted(id="1", kind=kind, engine=name)


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
    assert {"a: start failed: no room", "c is observed", "d: failed: no reason known"} <= set(said.err.splitlines())


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


def test_a_daemon_that_goes_away_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = FakeSource(a=looks("a", "stopped", "starting"), b=looks("b", "stopped", "starting"))

    def gone(_seconds: float) -> None:
        monkeypatch.setattr(source, "engine", lambda _name: (_ for _ in ()).throw(NotReachable("no daemon")))

    monkeypatch.setattr(time, "sleep", gone)
    with pytest.raises(NotReachable):
        do(source, "start")


def test_an_endless_wait_ends_and_says_where_it_stood(capsys: pytest.CaptureFixture[str]) -> None:
    source = FakeSource(a=looks("a", "stopped", "starting"), b=looks("b", "stopped", "starting"))
    with pytest.raises(ControlError, match="2 of 2 engines: a, b"):
        do(source, "start")
    assert "a: still starting after 3600 s" in capsys.readouterr().err
