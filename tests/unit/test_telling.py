"""Who is told what of an incident, and when."""

from __future__ import annotations

from msgspec.structs import replace

from alerts.message import spark
from alerts.telling import Route, Telling
from opsboard.core.deliveries import NewDelivery
from opsboard.core.incidents import Entry
from tests.support.messages import ABOUT, ACKED, LEAK, OVER, T

TICKET = replace(LEAK, severity="ticket")


def telling(*routes: Route, channels: tuple[str, ...] = ("oncall", "chat")) -> Telling:
    return Telling(channels, routes, lambda _incident: ABOUT)


def steps(found: list[NewDelivery]) -> list[tuple[str, str]]:
    return [(one.channel, one.message.step) for one in found]


def test_everybody_hears_of_pages_and_tickets_and_of_no_notes() -> None:
    rules = telling()
    assert steps(rules.hear(LEAK, T)) == [("oncall", "trigger"), ("chat", "trigger")]
    assert rules.hear(LEAK, T + 1) == [], "once"
    assert rules.hear(replace(LEAK, uid="other", severity="note"), T) == []


def test_numbers_that_move_are_no_news() -> None:
    rules = telling()
    rules.hear(LEAK, T)
    assert rules.hear(replace(LEAK, summary="215 blocks", evidence={"lost_blocks": 215}), T + 60) == []


def test_routes_say_who_hears() -> None:
    rules = telling(
        Route(channels=("oncall",), severities=("page",)),
        Route(channels=("chat",), detectors=("kv_*",), subjects=("engine/vllm-?",)),
    )
    assert steps(rules.hear(TICKET, T)) == [("chat", "trigger")]
    assert steps(rules.hear(replace(LEAK, timeline=TICKET.timeline), T + 1)) == [
        ("oncall", "trigger"),
        ("chat", "update"),
    ], "who is told of pages hears of it when it becomes one"
    assert rules.hear(replace(TICKET, uid="u", detector="stall"), T) == []


def test_the_end_is_told_to_whoever_heard_of_it_and_to_nobody_else() -> None:
    rules = telling(Route(channels=("chat",), severities=("ticket",)))
    rules.hear(TICKET, T)
    (end,) = rules.hear(OVER, T + 600)
    assert (end.channel, end.message.step, end.message.over) == ("chat", "resolve", True), "it is no ticket any more"
    assert end.message.news == "over after 2 h 40 m"
    assert rules.hear(OVER, T + 601) == []


def test_what_began_and_ended_unheard_is_told_to_nobody() -> None:
    assert telling().hear(OVER, T) == []


def test_acknowledging_and_what_is_done_are_news() -> None:
    rules = telling(channels=("chat",))
    rules.hear(LEAK, T)
    (ack,) = rules.hear(ACKED, T + 60)
    assert (ack.message.step, ack.message.news) == ("acknowledge", "acknowledged by ann")
    note = Entry(t=T, kind="note", text="looking", by="ann")  # the clock was set back
    (said,) = rules.hear(replace(ACKED, timeline=(*ACKED.timeline, note)), T + 61)
    assert (said.message.step, said.message.news) == ("update", "ann: looking")
    gone = Entry(t=T + 62, kind="gone", text="not claimed any more")
    assert rules.hear(replace(ACKED, timeline=(*ACKED.timeline, note, gone)), T + 62) == []


def test_another_daemon_goes_on_with_what_was_told() -> None:
    before = telling(channels=("chat",))
    (first,) = before.hear(LEAK, T)
    after = telling()
    after.resume([("chat", first.message)])
    assert steps(after.hear(LEAK, T + 5)) == [("oncall", "trigger")], "a new channel hears of what is open"
    assert steps(after.hear(OVER, T + 6)) == [("oncall", "resolve"), ("chat", "resolve")]


def test_a_message_carries_what_a_tired_person_needs() -> None:
    (first,) = telling(channels=("chat",)).hear(LEAK, T)
    said = first.message
    assert said.summary == LEAK.summary
    assert (said.engine, said.model, said.host) == ("vllm-a", "llama-3.3-70b", "gpu-a")
    assert [(fact.name, fact.text) for fact in said.facts] == [
        ("lost blocks", "214"),
        ("lost tokens", "6,848"),
        ("by", "requests"),
        ("exhausted in", "3 h 10 m"),
    ]
    assert said.actions == ("drain: ok (policy kv_leak)",)
    assert said.commands[0] == "ssh gpu-a opsboard incident show 42"
    assert said.runbook == "https://wiki.example.com/kv_leak"
    assert said.key == "opsboard/gpu-a/0123456789abcdef0123456789abcdef"


def test_hostile_text_is_one_harmless_line() -> None:
    nasty = replace(LEAK, summary="a\x1b[2J\nb\u202e" + "x" * 9999, evidence={"said": "\x9b31m" + "y" * 9999})
    (first,) = telling(channels=("chat",)).hear(nasty, T)
    text = first.message.summary + first.message.facts[0].text
    assert not set(text) & set("\x1b\n\u202e\x9b")
    assert len(text) < 700


def test_a_line_of_bars_goes_from_the_least_to_the_largest() -> None:
    assert spark([]) is spark([1.0]) is None
    assert spark([1, 1, 1]) == "▁▁▁"
    line = spark([float(n) for n in range(240)])
    assert line is not None
    assert (line[0], line[-1], len(line)) == ("▁", "█", 24)


def test_who_forgets_is_told_again_until_it_is_over() -> None:
    rules = telling()
    rules.hear(LEAK, T)
    assert rules.resend(LEAK, {"chat": 60.0}, T + 59) == []
    (again,) = rules.resend(LEAK, {"chat": 60.0}, T + 60)
    assert (again.channel, again.message.step, again.message.louder) == ("chat", "update", False)
    assert rules.resend(LEAK, {"chat": 60.0}, T + 61) == []
    assert steps(rules.resend(LEAK, {"chat": 60.0}, T - 7200)) == [("chat", "update")], "the clock was set back"
    rules.hear(OVER, T + 600)
    assert rules.resend(OVER, {"chat": 60.0}, T + 9000) == []
