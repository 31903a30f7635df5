"""What people do about channels and messages: over the control socket, by the verbs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from opsboard.cli.main import main
from opsboard.client.sync import Client
from opsboard.core.channels import channel_advice, channel_trouble
from opsboard.core.deliveries import ChannelHealth
from opsboard.core.errors import BadRequest, Conflict, Denied, NotFound
from opsboard.daemon.rights import Right
from tests.support.control_daemon import FakeDaemon, in_thread, socket_path, with_daemon
from tests.support.messages import LEAK, OVER, T, new, told

WELL = ChannelHealth(name="oncall", kind="pagerduty", sent=T)


@pytest.fixture
def path() -> Path:
    return socket_path()


async def run(path: Path, *words: str) -> int:
    def verb() -> int:
        with pytest.raises(SystemExit) as caught:
            main(["--socket", str(path), "alerts", *words])
        return int(caught.value.code or 0)

    return await in_thread(verb)


def test_a_test_goes_out_and_ends(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def test(daemon: FakeDaemon) -> None:
        assert await run(path, "test", "oncall") == 0
        sent = [(row.message.step, row.message.test, row.message.state) for row in daemon.outbox.rows.values()]
        assert sent == [("trigger", True, "open"), ("resolve", True, "resolved")]
        assert [entry.action for entry in daemon.kept.asked] == ["channel test"]
        assert await run(path, "test", "oncall", "--severity", "page", "--json") == 0
        first = daemon.outbox.rows[3].message
        assert (first.severity, first.commands) == ("page", ("ssh ann@gpu-a opsboard alerts channels",))

    with_daemon(path, test)
    said = capsys.readouterr()
    assert said.err.splitlines() == ["the test was taken", "its end was taken"]
    works, letters = said.out.splitlines()
    assert works == "oncall (pagerduty) took the test and its end: see whether they arrived"
    assert [one["state"] for one in json.loads(letters)] == ["sent", "sent"]


def test_a_test_that_is_refused_says_what_to_do(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def test(daemon: FakeDaemon) -> None:
        daemon.outbox.refuses["oncall"] = "HTTP 401: no such key"
        assert await run(path, "test", "oncall") == 1
        assert await run(path, "channels") == 1

    with_daemon(path, test)
    said = capsys.readouterr()
    assert "oncall (pagerduty) refused the test: HTTP 401: no such key" in said.err
    assert "`opsboard alerts test oncall`" in said.err
    assert "oncall (pagerduty) is broken: HTTP 401: no such key; 1 message could not be delivered" in said.out


def test_a_test_that_is_not_taken_yet_waits_and_the_next_one_stands_for_it(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(daemon: FakeDaemon) -> None:
        daemon.outbox.away["oncall"] = "HTTP 503"
        assert await run(path, "test", "oncall", "--wait", "0") == 1
        assert await run(path, "test", "oncall", "--wait", "0") == 1
        assert [row.state for row in daemon.outbox.rows.values()] == ["dropped", "due"]

    with_daemon(path, test)
    said = capsys.readouterr().err
    assert "oncall (pagerduty) has not taken the test yet: HTTP 503" in said
    assert "the test was not taken, attempt 1: HTTP 503; it is tried again" in said
    assert "`opsboard alerts outbox drop 2` gives it up" in said


def test_what_is_dead_is_sent_again_or_given_up(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def test(daemon: FakeDaemon) -> None:
        outbox = daemon.outbox
        outbox.put([new("oncall"), new("oncall", told(replace(LEAK, uid="f" * 32)))])
        outbox.refuses["oncall"] = "HTTP 400: too long"
        outbox.hurry("oncall")
        assert await run(path, "outbox", "list") == 0
        outbox.refuses.clear()
        assert await run(path, "outbox", "retry", "--all", "--reason", "mended") == 0
        assert {row.state for row in outbox.rows.values()} == {"sent"}
        assert await run(path, "outbox", "drop", "1") == 1
        assert await run(path, "outbox", "retry") == 2
        assert await run(path, "outbox", "list", "--json") == 0
        first = daemon.kept.asked[0]
        assert (first.action, first.subject, first.reason) == ("message retry", "channel/oncall", "mended")

    with_daemon(path, test)
    said = capsys.readouterr()
    assert "page trigger" in said.out
    assert "2: HTTP 400: too long" in said.out
    assert "message 1 is sent already" in said.err
    assert said.out.splitlines()[-1] == "[]"


def test_old_news_is_not_told_after_newer_news(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        outbox = daemon.outbox
        outbox.put([new("oncall")])
        outbox.refuses["oncall"] = "HTTP 400"
        outbox.hurry("oncall")
        outbox.refuses.clear()
        outbox.put([new("oncall", told(OVER, "resolve"))])
        outbox.hurry("oncall")
        with pytest.raises(Conflict, match="newer news of incident 42 went to oncall"):
            await in_thread(lambda: Client(path).letter(1, "retry"))

    with_daemon(path, test)


def test_what_makes_no_sense_is_refused(path: Path) -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = Client(path)
        with pytest.raises(NotFound, match="no channel 'oncal'") as caught:
            await in_thread(lambda: client.test_channel("oncal"))
        assert caught.value.hint == "did you mean 'oncall'?"
        with pytest.raises(NotFound, match="no message 9"):
            await in_thread(lambda: client.letter(9, "drop"))
        daemon.outbox.put([new("gone")])
        with pytest.raises(Conflict, match="no channel 'gone' now"):
            await in_thread(lambda: client.letter(1, "retry"))
        with pytest.raises(BadRequest, match="no such state"):
            await in_thread(lambda: client.outbox("lost"))
        daemon.right = Right.READ
        assert [one.name for one in await in_thread(client.channels)] == ["oncall"]
        with pytest.raises(Denied, match="may not operate"):
            await in_thread(lambda: client.test_channel("oncall"))

    with_daemon(path, test)


def test_trouble_is_said_in_words_and_turns_are_no_trouble() -> None:
    assert channel_trouble(replace(WELL, waiting=3, oldest=T), T + 500) is None, "it waits for its time"
    assert channel_advice(WELL) is None
    failing = replace(WELL, waiting=3, oldest=T, error="HTTP 503")
    assert channel_trouble(failing, T + 90) == (
        "oncall (pagerduty) takes nothing now: HTTP 503; 3 messages wait for 1 min"
    )
    assert "tried again by itself" in (channel_advice(failing) or "")
    dead = replace(WELL, dead=1)
    assert channel_trouble(dead, T) == "oncall (pagerduty): 1 message could not be delivered"
    assert "outbox list" in (channel_advice(dead) or "")
