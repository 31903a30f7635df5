"""Routes: which targets serve, and which engine must not be taken away."""

from __future__ import annotations

import pytest

from opsboard.config.schema import Route
from opsboard.core.model import EngineState
from opsboard.core.routes import last_target
from opsboard.core.wire import TargetInfo
from opsboard.daemon.routes import route_infos

CHAT = Route(model="chat", targets=("a", "b"))
CODE = Route(model="code", targets=("a",))
READY, STARTING, FAILED = EngineState.READY, EngineState.STARTING, EngineState.FAILED


def test_a_route_serves_with_one_target() -> None:
    (shown,) = route_infos([CHAT], {"a": FAILED, "b": READY})
    assert shown.serving
    assert shown.targets == (
        TargetInfo(name="a", state="failed", weight=1.0),
        TargetInfo(name="b", state="ready", weight=1.0),
    )


@pytest.mark.parametrize("state", [state for state in EngineState if state is not READY])
def test_a_target_that_is_not_ready_serves_nothing(state: EngineState) -> None:
    assert not route_infos([CODE], {"a": state})[0].serving
    assert last_target("b", route_infos([CHAT], {"a": state, "b": READY})) == (
        f"b is the last healthy target of route chat (a is {state.word})"
    )


def test_a_target_that_is_not_on_the_board_is_unreachable() -> None:
    (shown,) = route_infos([CHAT], {"a": READY})
    assert [target.state for target in shown.targets] == ["ready", "unreachable"]


def test_the_last_healthy_target_of_any_route_stays() -> None:
    one_left = route_infos([CHAT, CODE], {"a": READY, "b": STARTING})
    assert last_target("a", one_left) == "a is the last healthy target of routes chat, code (b is starting)"
    many = Route(model="m", targets=tuple("abcdef"))
    said = last_target("a", route_infos([many], {"a": READY, "c": EngineState.BACKING_OFF})) or ""
    assert "(b is unreachable, c is backing off, d is unreachable, e is unreachable, 1 more do not serve)" in said
    assert (last_target("a", route_infos([CODE], {"a": READY})) or "").endswith("of route code (it has no other)")
    assert last_target("b", one_left) is None, "it serves nothing that could be taken away"
    assert last_target("a", route_infos([CHAT], {"a": READY, "b": READY})) is None
    assert last_target("a", ()) is None
    assert last_target("stranger", one_left) is None
