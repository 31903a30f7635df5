"""Slack, Discord and Teams: what is sent, within what they allow, and what their answers mean."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from alerts.notifier import Answer, Http, Later, Refused, Sent
from alerts.notifiers import discord, slack, slack_webhook, teams
from opsboard.core.deliveries import Delivery, Fact, Message
from opsboard.core.secret import Secret
from tests.support.messages import ACKED, LEAK, OVER, delivery, told
from tests.support.services import body_of, check_discord, check_slack, check_teams

BOT = slack.Params(bot_token=Secret("xoxb-1"), to="#llm-ops")
HOOK = slack_webhook.Params(url=Secret("https://hooks.slack.com/x"))
DISCORD = discord.Params(url=Secret("https://discord.com/api/webhooks/1/t"))
TEAMS = teams.Params(url=Secret("https://prod.example.com/flow"))
LONG = told(
    facts=tuple(Fact(name="_x_" * 99, text="&<@U1>" * 999) for _ in range(60)),
    summary="`<!channel>` @everyone [x](http://x) *b* " * 400,
    commands=("ssh " + "x" * 3000,) * 9,
)
ALL = [
    told(),
    told(ACKED, "acknowledge"),
    told(OVER, "resolve"),
    LONG,
    told(test=True),
    told(LEAK, "update", louder=True),
]


def later(of: Message, before: str | None) -> Delivery:
    return delivery(of, seq=2, told=True, before=before)


@pytest.mark.parametrize("one", ALL)
def test_slack_takes_it(one: Message) -> None:
    check_slack(body_of(slack.render(BOT, delivery(one))[0]))
    check_slack(body_of(slack.render(BOT, later(one, "C1 17.1"))[0]))
    check_slack(body_of(slack_webhook.render(HOOK, delivery(one))[0]))


def test_slack_changes_the_message_and_goes_on_in_its_thread() -> None:
    (first,) = slack.render(BOT, delivery())
    assert isinstance(first, Http)
    assert first.url.reveal().endswith("/chat.postMessage")
    assert body_of(first)["channel"] == "#llm-ops"
    taken = slack.classify(BOT, Answer(status=200, body=b'{"ok":true,"channel":"C024","ts":"1700.0001"}'))
    assert taken == Sent("C024 1700.0001")
    change, reply = slack.render(BOT, later(told(OVER, "resolve", news="over after 12 m"), "C024 1700.0001"))
    assert isinstance(change, Http)
    assert change.url.reveal().endswith("/chat.update")
    assert (body_of(change)["channel"], body_of(change)["ts"]) == ("C024", "1700.0001")
    assert body_of(reply)["thread_ts"] == "1700.0001"
    assert body_of(reply)["text"] == "over after 12 m"
    assert body_of(reply)["reply_broadcast"] is True


@pytest.mark.parametrize(
    ("error", "kind", "channel"),
    [
        ("ratelimited", Later, None),
        ("internal_error", Later, None),
        ("invalid_auth", Refused, True),
        ("channel_not_found", Refused, True),
        ("not_in_channel", Refused, True),
        ("msg_too_long", Refused, False),
        ("message_not_found", Refused, False),
    ],
)
def test_what_slack_answers(error: str, kind: type, channel: bool | None) -> None:
    outcome = slack.classify(BOT, Answer(status=200, body=json.dumps({"ok": False, "error": error}).encode()))
    assert isinstance(outcome, kind)
    if isinstance(outcome, Refused):
        assert outcome.channel is channel
        assert error in outcome.why


def test_who_cannot_change_a_message_is_silent_about_news() -> None:
    note = told(LEAK, "update", news="ann: looking")
    assert not slack_webhook.render(HOOK, later(note, None))
    assert not teams.render(TEAMS, later(told(ACKED, "acknowledge"), None))
    assert slack_webhook.render(HOOK, later(replace(note, louder=True), None)), "it is a page now"
    assert teams.render(TEAMS, later(told(OVER, "resolve"), None))


@pytest.mark.parametrize("one", ALL)
def test_discord_takes_it(one: Message) -> None:
    check_discord(body_of(discord.render(DISCORD, delivery(one))[0]))


def test_discord_changes_its_message() -> None:
    (first,) = discord.render(DISCORD, delivery())
    assert isinstance(first, Http)
    assert (first.method, first.url.reveal()) == ("POST", "https://discord.com/api/webhooks/1/t?wait=true")
    assert discord.classify(DISCORD, Answer(status=200, body=b'{"id":"99"}')) == Sent("99")
    assert discord.classify(DISCORD, Answer(status=200, body=b'{"id":"../../x"}')) == Sent()
    (change,) = discord.render(DISCORD, later(told(OVER, "resolve"), "99"))
    assert isinstance(change, Http)
    assert (change.method, change.url.reveal()) == ("PATCH", "https://discord.com/api/webhooks/1/t/messages/99")
    limited = discord.classify(DISCORD, Answer(status=429, body=b'{"retry_after":1.5}'))
    assert limited == Later('HTTP 429: {"retry_after":1.5}', 1.5)
    gone = discord.classify(DISCORD, Answer(status=404, body=b'{"code":10015}'))
    assert isinstance(gone, Refused)
    assert gone.channel
    deleted = discord.classify(DISCORD, Answer(status=404, body=b'{"code":10008}'))
    assert isinstance(deleted, Refused)
    assert not deleted.channel


@pytest.mark.parametrize("one", ALL)
def test_teams_takes_it(one: Message) -> None:
    check_teams(teams.render(TEAMS, delivery(one))[0])


def test_people_see_what_is_wrong_first() -> None:
    body = body_of(slack.render(BOT, delivery())[0])
    assert body["blocks"][0]["text"]["text"] == "🔴 PAGE: kv_leak on vllm-a"
    assert "214 KV blocks" in body["blocks"][1]["text"]["text"]
    assert "ssh gpu-a opsboard incident show 42" in json.dumps(body["blocks"])
    assert body_of(slack.render(BOT, delivery(told(OVER, "resolve")))[0])["blocks"][0]["text"]["text"].startswith(
        "✅ RESOLVED"
    )
