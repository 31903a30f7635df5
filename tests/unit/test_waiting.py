"""What an engine waits for, in words."""

from __future__ import annotations

import pytest

from opsboard.core.model import Step
from opsboard.core.waiting import reason, step_told, told, waits_for
from opsboard.core.wire import Engine


def engine(state: str, **changes: object) -> Engine:
    """Return an engine in ``state``."""
    return Engine(name="a", state=state, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "until", "words"),
    [
        ("backing_off", 107.2, "tries again in 8 s"),
        ("backing_off", 99.0, "tries again now"),
        ("draining", 148.0, "drains for 48 s more at most"),
        ("draining", 100.0, "the time to drain is over"),
        ("draining", None, None),
        ("ready", 107.2, None),
    ],
)
def test_what_is_due_is_counted_down(state: str, until: float | None, words: str | None) -> None:
    assert waits_for(engine(state, until=until), 100.0) == words


def test_a_message_says_more_than_a_cause_and_a_healthy_engine_explains_nothing() -> None:
    assert reason(engine("failed", message="exit 1", cause="because")) == "exit 1"
    assert reason(engine("failed", cause="because")) == "because"
    assert reason(engine("ready", cause="asked by hand")) == ""


def test_all_there_is_to_say_stands_in_one_line() -> None:
    waiting = engine("backing_off", until=105.0, message="2 of 5 within an hour: exit 1")
    assert told(waiting, 100.0) == "tries again in 5 s; 2 of 5 within an hour: exit 1"
    assert told(engine("ready"), 100.0) == ""
    parked = engine("parked", message="bad flag", hint="`opsboard engine start a` un-parks it")
    assert told(parked, 100.0) == "bad flag; `opsboard engine start a` un-parks it"


def test_what_became_of_a_step_is_said_once() -> None:
    def said(outcome: str | None, text: str | None) -> str:
        return step_told(Step(name="canary", started=1.0, outcome=outcome, text=text))

    assert said("ok", "pid 4300") == said(None, "pid 4300") == "pid 4300"
    assert said("ok", None) == ""
    assert said("cut", "3 requests under way") == "cut: 3 requests under way"
    assert said("skipped", None) == "skipped"
    assert said("differs", "its output differs") == "its output differs"
