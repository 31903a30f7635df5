"""Who is told what of an incident, and when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts.incidents import Claim, Incidents
from alerts.mending import eased
from alerts.message import spark
from alerts.telling import Manners, Route, Telling
from opsboard.core.clock import Now
from opsboard.core.deliveries import NewDelivery
from opsboard.core.incidents import Entry, IncidentAction
from opsboard.core.model import EngineState
from opsboard.core.quiet import quiet
from opsboard.core.silences import Silence, Silences
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


def silenced(**changes: Any) -> Silences:
    fields: dict[str, Any] = {
        "id": 1,
        "by": "ann",
        "comment": "known",
        "start": T,
        "end": T + 3600,
        "subjects": ("engine/vllm-?",),
    }
    return Silences([Silence(**(fields | changes))])


def quieted(silences: Silences, *, manners: Manners | None = None, routes: tuple[Route, ...] = ()) -> Telling:
    rules = Telling(("chat",), routes, lambda _incident: ABOUT, silences)
    rules.configure(("chat", "boss"), routes or (Route(channels=("chat",)),), manners)
    return rules


def test_who_is_silenced_is_told_afterwards_and_its_end_always() -> None:
    rules = quieted(silenced())
    assert rules.hear(LEAK, T + 1) == []
    assert steps(rules.hear(LEAK, T + 3600)) == [("chat", "trigger")], "it still stands"
    unheard = replace(LEAK, uid="u")
    assert rules.hear(unheard, T + 2) == rules.hear(replace(OVER, uid="u"), T + 3) == [], "never told, never resolved"
    heard = quieted(late := silenced(start=T + 10, end=T + 9999))
    heard.hear(LEAK, T)
    note = Entry(t=T + 20, kind="note", text="looking", by="ann")
    assert heard.hear(replace(LEAK, timeline=(*LEAK.timeline, note)), T + 20) == []
    assert steps(heard.hear(ACKED, T + 60)) == [("chat", "acknowledge")], "that makes no noise"
    assert steps(heard.hear(OVER, T + 600)) == [("chat", "resolve")], "silenced or not"
    assert late.of(LEAK, T + 20) is not None
    assert late.of(replace(LEAK, subject="host"), T + 20) is None


def test_tickets_wait_in_quiet_hours_and_pages_never() -> None:
    manners = Manners(quiet=quiet(["22:00-07:00"], "UTC"))
    rules = quieted(Silences(), manners=manners)
    night = datetime(2023, 11, 15, 3, tzinfo=UTC).timestamp()
    assert rules.hear(TICKET, night) == []
    assert steps(rules.hear(replace(LEAK, uid="p"), night)) == [("chat", "trigger")]
    assert rules.hear(TICKET, night + 4 * 3600 - 1) == []
    assert steps(rules.hear(TICKET, night + 4 * 3600)) == [("chat", "trigger")]
    again = quieted(Silences(), manners=manners)
    assert again.hear(TICKET, night) == []
    assert steps(again.hear(LEAK, night + 60)) == [("chat", "trigger")], "it is a page now"


def test_nobody_acknowledges() -> None:
    route = Route(channels=("chat",), severities=("page",), escalate_after_s=600, escalate_to=("boss",))
    rules = quieted(Silences(), routes=(route,))
    rules.hear(LEAK, T + 5)
    assert rules.hear(LEAK, T + 604) == []
    (boss,) = rules.hear(LEAK, T + 605)
    assert (boss.channel, boss.message.step, boss.message.louder) == ("boss", "trigger", True)
    assert boss.message.news.startswith("nobody has acknowledged it for 10 m")
    assert rules.hear(LEAK, T + 606) == [], "once"
    assert steps(rules.hear(OVER, T + 900)) == [("chat", "resolve"), ("boss", "resolve")]
    notes = quieted(Silences(), routes=(replace(route, severities=()),))
    assert len(notes.hear(replace(LEAK, severity="note"), T)) == 1
    assert notes.hear(replace(LEAK, severity="note"), T + 9999) == [], "it asks nobody to do anything"
    taken = quieted(Silences(), routes=(route,))
    taken.hear(LEAK, T)
    taken.hear(ACKED, T + 60)
    assert taken.hear(ACKED, T + 9999) == []
    late = quieted(silenced(end=T + 600), routes=(route,))
    late.hear(LEAK, T)
    assert steps(late.hear(LEAK, T + 600)) == [("chat", "trigger")], "it counts from when somebody was told"
    assert steps(late.hear(LEAK, T + 1200)) == [("boss", "trigger")]


def test_a_page_is_repeated_until_somebody_takes_it() -> None:
    rules = quieted(Silences(), manners=Manners(repeat_s=3600))
    rules.hear(LEAK, T)
    note = Entry(t=T + 20, kind="note", text="looking", by="ann")
    noted = replace(LEAK, timeline=(*LEAK.timeline, note))
    (quietly,) = rules.hear(noted, T + 1800)
    assert not quietly.message.louder
    assert rules.hear(noted, T + 3599) == []
    (again,) = rules.hear(noted, T + 3600)
    assert (again.message.step, again.message.louder) == ("update", True)
    assert rules.hear(noted, T + 7199) == []
    assert len(rules.hear(noted, T + 7200)) == 1, "what was said again counts, also for the next daemon"
    later = quieted(Silences(), manners=Manners(repeat_s=3600))
    later.resume([("chat", again.message)])
    assert later.hear(noted, T + 7199) == []
    assert len(later.hear(noted, T + 7200)) == 1
    assert steps(later.hear(ACKED, T + 7300)) == [("chat", "acknowledge")]
    assert later.hear(ACKED, T + 99999) == []
    tickets = quieted(Silences(), manners=Manners(repeat_s=3600))
    tickets.hear(TICKET, T)
    assert tickets.hear(TICKET, T + 99999) == []


def test_flapping_is_said_once_and_its_end_once() -> None:
    now, rules, said = Now(wall=T, mono=0.0), quieted(Silences()), []
    incidents = Incidents()
    claim = Claim(detector="stall", subject="engine/a", severity="page", summary="s", since=T, confirmed=True)
    for step in range(7200 // 5):  # two hours: it comes and goes every two minutes, then rests
        now = Now(wall=T + step * 5, mono=step * 5.0)
        claims = [claim] if step * 5 < 3600 and (step * 5 // 120) % 2 == 0 else []
        for change in incidents.see("engine/a", claims, now):
            said += rules.hear(change.incident, now.wall)
    flapping = [one.message.news for one in said if "come" in one.message.news]
    assert flapping == ["it comes and goes: kept open until it rests"]
    assert [one.message.step for one in said][-1] == "resolve"
    assert len(said) <= 14, "before it is known to flap each one is told, and its end"


OPEN = replace(LEAK, detector="engine_down", evidence={"predicate": "exited"}, actions=())


def test_a_restart_by_itself_that_worked_wakes_nobody() -> None:
    for state in (EngineState.BACKING_OFF, EngineState.STOPPING, EngineState.STARTING, EngineState.READY):
        assert eased(OPEN, state, T + 100, 300).severity == "note"
        late = 390 if state is EngineState.READY else 300
        assert eased(OPEN, state, T + late - 1, 300).severity == "note"
        assert eased(OPEN, state, T + late, 300).severity == "page", "it takes long"
        assert eased(OPEN, state, T, 0).severity == "page"
    for stays in (EngineState.FAILED, EngineState.PARKED, EngineState.STOPPED, None):
        assert eased(OPEN, stays, T, 300).severity == "page", "nobody starts it again"
    failed = IncidentAction(id="r", kind="restart", time=T, outcome="failed")
    assert eased(replace(OPEN, actions=(failed,)), EngineState.BACKING_OFF, T + 9, 300).severity == "page"
    refused = replace(OPEN, evidence={"predicate": "refused"})
    assert eased(refused, EngineState.READY, T + 9, 300).severity == "page", "it runs, and nobody answers"
    assert eased(LEAK, EngineState.STARTING, T + 9, 300).severity == "page"


@given(
    st.lists(st.tuples(st.sampled_from(["ack", "note", "louder", "end", "wait"]), st.integers(1, 5000)), max_size=30)
)
def test_what_was_announced_is_resolved_once_and_nothing_else_is(moves: list[tuple[str, int]]) -> None:
    manners = Manners(repeat_s=3600, quiet=quiet(["22:00-07:00"], "UTC"))
    route = Route(channels=("chat",), escalate_after_s=600, escalate_to=("boss",))
    rules = quieted(silenced(start=T + 2000, end=T + 20000), manners=manners, routes=(route,))
    one, t, said = TICKET, T, rules.hear(TICKET, T)
    changes, repeats = 1, 0
    for move, seconds in [*moves, ("end", 1)]:
        t, repeats = t + seconds, repeats + seconds // 3600 + 1
        if not one.open:
            continue
        changes += 1
        if move == "ack":
            one = replace(one, acknowledged=t, acknowledged_by="ann")
        elif move == "note":
            one = replace(one, timeline=(*one.timeline, Entry(t=t, kind="note", text="n", by="ann")))
        elif move == "louder":
            one = replace(one, severity="page")
        elif move == "end":
            one = replace(one, ended=t, resolved=t)
        said += rules.hear(one, t)
    for channel in ("chat", "boss"):
        found = [delivery.message.step for delivery in said if delivery.channel == channel]
        assert found.count("trigger") == found.count("resolve") <= 1
        assert not found or (found[0], found[-1]) == ("trigger", "resolve")
        assert len(found) <= changes + repeats + 1
