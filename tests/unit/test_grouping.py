"""Several tickets at once are one message, kept true; pages are always alone."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts.telling import Manners, Telling
from opsboard.core.deliveries import Message, NewDelivery
from opsboard.core.incidents import Incident
from opsboard.core.quiet import quiet
from tests.support.messages import ABOUT, LEAK, T

MANNERS = Manners(group_wait_s=30, groups=frozenset({"chat"}))


def ticket(number: int, opened: float = T, **changes: object) -> Incident:
    fields = {"id": number, "uid": f"u{number}", "severity": "ticket", "opened": opened, "since": opened, "actions": ()}
    return replace(LEAK, **(fields | {"subject": f"engine/e{number}", "summary": f"s{number}"} | changes))


def rules(manners: Manners = MANNERS, channels: tuple[str, ...] = ("chat", "hook")) -> Telling:
    numbers = count(1)
    made = Telling(channels, (), lambda _: ABOUT, new_uid=lambda: str(next(numbers)))
    made.configure(channels, (), manners)
    return made


def over(one: Incident, t: float) -> Incident:
    return replace(one, ended=t, resolved=t)


def to(channel: str, found: list[NewDelivery]) -> list[Message]:
    return [one.message for one in found if one.channel == channel]


def test_tickets_that_open_together_are_one_message_until_all_are_over() -> None:
    telling, first, second = rules(), ticket(1), ticket(2, T + 20)
    found = telling.hear(first, T)
    assert [one.channel for one in found] == ["hook"], "machines get each alone, at once"
    assert to("chat", telling.hear(second, T + 20)) == to("chat", telling.look([first, second], T + 25)) == []
    (one,) = to("chat", telling.look([first, second], T + 30))
    assert (one.step, one.uid, one.members, one.severity) == ("trigger", "group-1", ("u1", "u2"), "ticket")
    assert one.summary == "2 incidents: kv_leak of e1: s1; kv_leak of e2: s2"
    assert one.commands[1:] == ("ssh gpu-a opsboard incident show 1", "ssh gpu-a opsboard incident show 2")
    assert telling.look([first, second], T + 35) == []
    (half,) = to("chat", telling.hear(over(first, T + 60), T + 60))
    assert (half.step, half.state, half.members, half.louder) == ("update", "open", ("u2",), False)
    assert half.news.endswith("1 of 2 go on")
    taken = replace(second, acknowledged=T + 70, acknowledged_by="ann")
    (ack,) = to("chat", telling.hear(taken, T + 70))
    assert (ack.step, ack.state) == ("acknowledge", "acknowledged")
    (end,) = to("chat", telling.hear(over(taken, T + 80), T + 80))
    assert (end.step, end.state, end.resolved, end.uid) == ("resolve", "resolved", T + 80, "group-1")
    assert telling.look([], T + 90) == []


def test_one_alone_is_told_as_itself_and_a_page_at_once() -> None:
    telling, alone = rules(), ticket(1)
    telling.hear(alone, T)
    page = ticket(2, T + 5, severity="page")
    (paged,) = to("chat", telling.hear(page, T + 5))
    assert (paged.uid, paged.step) == ("u2", "trigger")
    (told,) = to("chat", telling.look([alone, page], T + 30))
    assert (told.uid, told.step, told.members) == ("u1", "trigger", ())
    assert to("chat", rules().hear(over(alone, T + 9), T + 9)) == [], "what is over by then is told to nobody"


def test_one_that_becomes_a_page_is_told_by_itself_and_both_end() -> None:
    telling, ones = rules(), [ticket(1), ticket(2)]
    telling.look(ones, T + 30)
    louder = replace(ones[0], severity="page")
    update, page = to("chat", telling.hear(louder, T + 40))
    assert (update.uid, update.step, update.severity) == ("group-1", "update", "ticket")
    assert (page.uid, page.step, page.severity) == ("u1", "trigger", "page")
    ends = to("chat", telling.hear(over(louder, T + 50), T + 50))
    assert [(one.uid, one.step) for one in ends] == [("group-1", "update"), ("u1", "resolve")]
    assert [(one.uid, one.step) for one in to("chat", telling.hear(over(ones[1], T + 60), T + 60))] == [
        ("group-1", "resolve")
    ]


def test_another_daemon_goes_on_with_a_group() -> None:
    before, ones = rules(), [ticket(1), ticket(2), ticket(3)]
    (last,) = to("chat", before.look(ones, T + 30))
    after = rules()
    after.resume([("chat", last), *(("hook", one.message) for one in before.look(ones, T + 31))])
    going = ones[:2]  # nobody told the end of the third
    for one in going:
        assert to("chat", after.hear(one, T + 100)) == []
    (said,) = to("chat", after.look(going, T + 105))
    assert (said.step, said.members, said.uid) == ("update", ("u1", "u2"), "group-1")
    assert to("chat", after.look(going, T + 110)) == []
    after.hear(over(ones[0], T + 120), T + 120)
    (end,) = to("chat", after.hear(over(ones[1], T + 121), T + 121))
    assert end.step == "resolve"
    third = rules()
    third.resume([("chat", last)])
    ends = to("chat", third.look([], T + 200))
    assert [(one.step, one.state, one.members) for one in ends] == [("resolve", "resolved", ())], "nobody saw it"


def test_a_flood_is_a_few_messages() -> None:
    found = to("chat", rules().look([ticket(number) for number in range(1, 102)], T + 30))
    assert [(one.uid, len(one.members)) for one in found] == [("group-1", 50), ("group-2", 50), ("u101", 0)]


def test_what_waited_in_quiet_hours_goes_out_as_one() -> None:
    manners = replace(MANNERS, quiet=quiet(["22:00-07:00"], "UTC"))
    night = 1_700_017_200.0  # 03:00 UTC
    telling, ones = rules(manners), [ticket(1, night), ticket(2, night + 3600)]
    assert telling.look(ones, night + 3700) == []
    (digest,) = to("chat", telling.look(ones, night + 4 * 3600))
    assert digest.members == ("u1", "u2")


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["open", "end", "louder", "look"])), max_size=40))
def test_every_message_that_began_ends_once(moves: list[tuple[int, str]]) -> None:
    telling, going, t, said, serial = rules(), dict[int, Incident](), T, list[NewDelivery](), count(1)
    for name, move in [*moves, *((name, "end") for name in range(1, 6))]:
        t += 20
        one = going.get(name)
        if move == "open" and one is None:
            one = going[name] = ticket(next(serial), t)
        elif move == "louder" and one is not None:
            one = going[name] = replace(one, severity="page")
        elif move == "end" and one is not None:
            said += telling.hear(over(going.pop(name), t), t)
            one = None
        if one is not None:
            said += telling.hear(one, t)
        said += telling.look(list(going.values()), t)
    for channel in ("chat", "hook"):
        steps: dict[str, list[str]] = {}
        for delivery in said:
            if delivery.channel == channel:
                steps.setdefault(delivery.message.uid, []).append(delivery.message.step)
        for found in steps.values():
            assert (found[0], found[-1]) == ("trigger", "resolve")
            assert found.count("trigger") == found.count("resolve") == 1
