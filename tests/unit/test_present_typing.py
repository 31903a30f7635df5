"""What is typed: commands, filters, orders, names, searches."""

from __future__ import annotations

import msgspec
import pytest

from opsboard.core.errors import UsageError
from opsboard.tui.columns import BY_KEY
from opsboard.tui.commands import Command, choices, completed, parse
from opsboard.tui.detail import LOOKS
from opsboard.tui.dialog import Question, box, consequence, needless
from opsboard.tui.glyphs import UNICODE
from opsboard.tui.lineedit import LIMIT, edited, pasted
from opsboard.tui.logview import LogWindow, first_screen, found, level, log, moved
from opsboard.tui.screens.engine import keys_of
from opsboard.tui.spans import Span, line_text, line_width, wrapped
from opsboard.tui.table import filtered, ordered, table, window
from opsboard.tui.terminal import ascii_only
from opsboard.tui.timeline import KEPT, merged
from opsboard.tui.view import Order, Size
from tests.screens import boards, golden, supervised

ENGINES = ["llama-a", "llama-b", "mixtral"]


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("stop llama-a", Command(verb="stop", argument="llama-a")),
        ("engine restart mixtral", Command(verb="restart", argument="mixtral")),
        ("restart mixtral now", Command(verb="restart", argument="mixtral", now=True)),
        ("engine restart mixtral --now", Command(verb="restart", argument="mixtral", now=True)),
        ("undrain llama-b", Command(verb="undrain", argument="llama-b")),
        ("sort kv reverse", Command(verb="sort", argument="kv", reverse=True)),
        ("sort", Command(verb="sort")),
        ("filter llama !ready", Command(verb="filter", argument="llama !ready")),
        ("q", Command(verb="quit")),
    ],
)
def test_commands(text: str, command: Command) -> None:
    assert parse(text, ENGINES) == command


@pytest.mark.parametrize("text", ["", "fly", "stop", "stop nobody", "sort colour", "engine", "stop mixtral now"])
def test_what_makes_no_sense_is_answered_with_what_does(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, ENGINES)
    assert caught.value.hint


def test_completion() -> None:
    assert choices("st", ENGINES) == ("start", "stop")
    assert completed("st", ENGINES) == "st"
    assert completed("sto", ENGINES) == "stop "
    assert completed("stop l", ENGINES) == "stop llama-"
    assert completed("stop m", ENGINES) == "stop mixtral "
    assert completed("sort kv r", ENGINES) == "sort kv reverse "
    assert completed("restart mixtral n", ENGINES) == "restart mixtral now "
    assert completed("engine stop m", ENGINES) == "engine stop mixtral "
    assert completed("nonsense x", ENGINES) == "nonsense x"


def test_editing_a_line() -> None:
    assert edited("ab", "c", "c") == "abc"
    assert edited("ab", "backspace", "\x08") == "a"
    assert edited("stop llama", "ctrl+w", None) == "stop "
    assert edited("ab", "ctrl+u", None) == ""
    assert edited("ab", "left", None) is None
    assert edited("ab", "x", "\x1b") is None
    assert len(edited("a" * LIMIT, "b", "b") or "") == LIMIT
    assert pasted("", "llama-a\nrm -rf /") == "llama-a"
    assert "\x1b" not in pasted("", "\x1b[2Jx")


def test_filters_take_words_and_exclude_words() -> None:
    engines = boards.busy().engines
    assert [e.name for e in filtered(engines, "llama ready")] == ["llama-a", "llama-b", "guard"]
    assert [e.name for e in filtered(engines, "!ready !failed")] == ["draft", "vision"]
    assert filtered(engines, "") == list(engines)


def test_orders_put_the_unknown_last_either_way() -> None:
    engines = boards.busy().engines
    assert ordered(engines, Order()) == list(engines)
    assert [e.state for e in ordered(engines, Order(column="state"))][:3] == ["failed", "unreachable", "starting"]
    highest = ordered(engines, Order(column="kv"))
    lowest = ordered(engines, Order(column="kv", reverse=True))
    assert highest[0].name == "llama-b"
    assert {e.name for e in highest[-2:]} == {e.name for e in lowest[-2:]} == {"mixtral", "vision"}


def test_the_cursor_stays_in_sight() -> None:
    rows = [str(n) for n in range(30)]
    for cursor in rows:
        first, last = window(rows, cursor, 10)
        assert last - first == 10
        assert cursor in rows[first:last]
    assert window(rows, None, 40) == (0, 30)


def test_stopping_a_serving_engine_needs_its_name() -> None:
    serving, failed = boards.engine(0), boards.failed(3)
    question = Question(engine=serving, kind="stop")
    assert question.needs_name
    assert not question.allowed
    assert Question(engine=serving, kind="stop", typed="llama-a").allowed
    assert not Question(engine=serving, kind="start").needs_name
    assert Question(engine=failed, kind="restart").allowed
    assert "48 running" in consequence(Question(engine=boards.engine(0, running=48.0), kind="stop"))


def test_a_restart_says_how_long_it_drains_and_now_that_it_does_not() -> None:
    busy = boards.engine(0, running=7.0, waiting=2.0, drain_timeout_s=60.0)
    assert consequence(Question(engine=busy, kind="restart")) == (
        "It drains up to 1m00: 7 running and 2 waiting requests may finish. Then it starts anew."
    )
    assert consequence(Question(engine=busy, kind="restart", now=True)) == (
        "7 running and 2 waiting requests are cut off."
    )
    idle = boards.engine(0, running=0.0, waiting=0.0, drain_timeout_s=60.0)
    assert consequence(Question(engine=idle, kind="restart")) == "It serves nothing right now."


def test_what_the_daemon_would_refuse_cannot_be_answered_with_yes() -> None:
    refused = Question(engine=boards.engine(0), kind="restart", typed="llama-a", objection="it is the last one")
    assert not refused.allowed
    assert not refused.needs_name
    assert "`:restart llama-a now` does it all the same" in consequence(refused)
    forced = msgspec.structs.replace(refused, now=True)
    assert forced.allowed
    assert consequence(forced).startswith("it is the last one. 48 running")


def test_a_drain_cuts_nothing_off_and_needs_no_name() -> None:
    assert Question(engine=boards.engine(0), kind="drain").allowed
    assert Question(engine=supervised.DRAINING, kind="undrain").allowed
    assert "7 running requests go on" in consequence(Question(engine=supervised.DRAINING, kind="drain"))


def test_the_log_follows_until_it_is_moved_and_again_at_its_end() -> None:
    held = moved(LogWindow(), 100, 10, -5)
    assert held.end == 95
    assert moved(held, 100, 10, 50).follow
    assert moved(held, 100, 10, -9999).end == 10


def test_a_search_goes_round() -> None:
    lines = ["one", "Two", "three", "two"]
    first = found(lines, LogWindow(search="two"), Size(80, 1), -1)
    assert first is not None
    assert first.end == 2  # from the newest line backwards: the newest itself was looked at last
    again = found(lines, first, Size(80, 1), -1)
    assert again is not None
    assert again.end == 4
    far = found(["x" * 200 + "needle"], LogWindow(search="needle", wrap=False), Size(80, 1), 1)
    assert far is not None
    assert far.shift <= 200 < far.shift + 80
    assert found(lines, LogWindow(search="nine"), Size(80, 1), -1) is None
    assert found(lines, LogWindow(), Size(80, 1), -1) is None


def test_long_lines_are_wrapped_and_the_first_screen_is_where_g_goes() -> None:
    lines = ["short", "word " * 30, "x" * 100, "end"]
    room = Size(40, 6)
    top = first_screen(lines, LogWindow(), room)
    assert top == 2  # one row and four: the next line's three do not fit
    assert moved(LogWindow(), 4, top, -9999).end == 2
    view = golden.view(boards.busy())
    shown = [line_text(line).rstrip() for line in log(lines, LogWindow(end=2, search="word"), view, 40, 7)]
    assert shown[1:3] == [" short", " word word word word word word word"]
    assert shown[3].startswith("     word")
    assert all(len(line) <= 40 for line in shown)
    huge = log(["a b " * 500], LogWindow(), view, 40, 5)
    assert len(huge) == 5
    assert line_text(huge[1]).startswith(" a b")


def test_wrapping_loses_nothing_and_keeps_wide_characters_whole() -> None:
    for text in ("漢字かな交じり文" * 9, "one two three " * 9, "x" * 50, ""):
        for width in (2, 7, 20):
            rows = wrapped((Span(text[:5], "found"), Span(text[5:])), width)
            assert "".join(line_text(row) for row in rows) == text
            assert all(line_width(row) <= width for row in rows)


def test_a_locale_that_somebody_set_to_c_gets_ascii() -> None:
    assert ascii_only(None, {"TERM": "xterm", "LC_ALL": "C"}, "utf-8")
    assert ascii_only(None, {"TERM": "linux"}, "utf-8")
    assert not ascii_only(None, {"TERM": "xterm", "LANG": "C"}, "utf-8")
    assert not ascii_only(False, {"TERM": "linux"}, "ascii")


def test_what_is_so_already_is_not_asked() -> None:
    ready = boards.engine(0)
    stopped = msgspec.structs.replace(ready, state="stopped")
    assert "ready already" in (needless(ready, "start") or "")
    assert "stopped already" in (needless(stopped, "stop") or "")
    assert needless(ready, "stop") is needless(ready, "restart") is needless(stopped, "start") is None
    assert needless(ready, "drain") is needless(supervised.DRAINING, "undrain") is None
    assert needless(stopped, "drain") == "llama-a is stopped: there is nothing to drain"
    assert needless(ready, "undrain") == "llama-a is ready: there is nothing to undrain"
    assert "draining already" in (needless(supervised.DRAINING, "drain") or "")


def test_the_dialog_says_what_enter_does_in_80_cells() -> None:
    for kind in ("start", "stop", "restart", "drain", "undrain"):
        for question, said in (
            (Question(engine=boards.engine(0), kind=kind, typed="llama-a"), "Enter cancels"),
            (Question(engine=boards.engine(0), kind=kind, typed="llama-a", on_action=True), f"Enter {kind}s it"),
        ):
            lines = [line_text(line) for line in box(question, 64, UNICODE)]
            assert any(said in line for line in lines)
            assert not any("…" in line for line in lines)


def test_the_footer_tells_only_keys_of_what_is_looked_at() -> None:
    hints_of = {look: {key.hint for key in keys_of(look)} for look in LOOKS}
    assert {"follow", "wrap", "search"} <= hints_of["log"]
    assert "follow" not in hints_of["overview"]
    assert "range" not in hints_of["log"]


def test_the_mark_of_a_sort_leaves_no_stump() -> None:
    busy = golden.view(boards.busy())
    for column in BY_KEY:
        heading = line_text(table(msgspec.structs.replace(busy, order=Order(column=column)), 200, 9)[0])
        assert "…" not in heading


def test_levels_are_read_from_the_head_of_a_line() -> None:
    assert level("(EngineCore pid=1) ERROR 11-14 boom") == "bad"
    assert level("INFO " + "x" * 80 + " ERROR in the text") == ""


def test_events_are_kept_once_in_order_and_bounded() -> None:
    one, two = boards.event(1, "host", "a", "x"), boards.event(2, "host", "a", "y")
    assert merged((two,), (one, two)) == (one, two)
    assert merged((one,), (one,)) == (one,)
    many = tuple(boards.event(n, "host", "a", str(n)) for n in range(KEPT + 50))
    assert len(merged((), many)) == KEPT


def test_the_question_before_a_sleep_and_a_waking() -> None:
    busy, asleep = (
        boards.engine(0, running=3.0, waiting=0.0),
        boards.engine(0, state="asleep", running=0.0, wake_s=2.14),
    )
    assert consequence(Question(engine=busy, kind="sleep")) == (
        "It leaves its routes; 3 running requests may finish. Then its weights leave the GPU until somebody wakes it."
    )
    assert "The last time it took 2.1s." in consequence(Question(engine=asleep, kind="wake"))
    assert Question(engine=busy, kind="sleep", objection="it is the last one").refused
    assert needless(asleep, "sleep") == f"{asleep.name} is asleep already: there is nothing to sleep"
    assert needless(busy, "wake") is not None
    assert needless(busy, "sleep") is needless(asleep, "wake") is None
