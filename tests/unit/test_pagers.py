"""PagerDuty, ntfy and commands: what is sent, and what their answers mean."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from alerts.notifier import Answer, Http, Later, Refused, Run, Sent
from alerts.notifiers import command, ntfy, pagerduty
from opsboard.core.deliveries import Delivery, Message
from opsboard.core.secret import Secret
from tests.support.messages import ACKED, LEAK, OVER, delivery, told
from tests.support.services import body_of, check_ntfy, check_pagerduty

KEY = pagerduty.Params(routing_key=Secret("k" * 32))
TOPIC = ntfy.Params(topic="ops", server="https://ntfy.example.com", token=Secret("tk_1"))
LONG = replace(LEAK, summary="é" * 5000, evidence={f"n{n}": "ü" * 5000 for n in range(50)})
ALL = [told(), told(ACKED, "acknowledge"), told(OVER, "resolve"), told(LONG), told(test=True)]


def later(of: Message) -> Delivery:
    return delivery(of, seq=2, told=True, before="ref")


def test_pagerduty_has_one_incident_for_one_here() -> None:
    events = [check_pagerduty(pagerduty.render(KEY, delivery(one))[0]) for one in ALL[:3]]
    assert [event["event_action"] for event in events] == ["trigger", "acknowledge", "resolve"]
    assert len({event["dedup_key"] for event in events}) == 1
    assert set(events[2]) == {"routing_key", "event_action", "dedup_key"}
    payload = events[0]["payload"]
    assert payload["summary"].startswith("vllm-a on gpu-a: vllm-a has lost 214 KV blocks since 02:41")
    assert (payload["severity"], payload["class"], payload["component"]) == ("critical", "kv_leak", "vllm-a")
    assert payload["custom_details"]["lost blocks"] == "214"
    assert "opsboard incident show 42" in payload["custom_details"]["type"]


@pytest.mark.parametrize("one", ALL)
def test_pagerduty_takes_it(one: Message) -> None:
    check_pagerduty(pagerduty.render(KEY, delivery(one))[0])
    check_pagerduty(pagerduty.render(KEY, later(one))[0])


def test_pagerduty_in_europe() -> None:
    (request,) = pagerduty.render(replace(KEY, region="eu"), delivery())
    assert isinstance(request, Http)
    assert request.url.reveal() == "https://events.eu.pagerduty.com/v2/enqueue"
    assert "k" * 32 not in repr(request)


def test_what_pagerduty_answers() -> None:
    assert pagerduty.classify(KEY, Answer(status=202, body=b'{"status":"success"}')) == Sent()
    bad = b'{"status":"invalid event","errors":["Length of \'routing_key\' is incorrect"]}'
    refused = pagerduty.classify(KEY, Answer(status=400, body=bad))
    assert isinstance(refused, Refused)
    assert refused.channel, "no message will ever get there"
    other = pagerduty.classify(KEY, Answer(status=400, body=b'{"errors":["\'payload.severity\' is invalid"]}'))
    assert isinstance(other, Refused)
    assert not other.channel
    assert isinstance(pagerduty.classify(KEY, Answer(status=429)), Later)


@pytest.mark.parametrize("one", ALL)
def test_ntfy_takes_it(one: Message) -> None:
    check_ntfy(body_of(ntfy.render(TOPIC, delivery(one))[0]))


def test_ntfy_rings_for_pages_and_whispers_their_news() -> None:
    bodies = [body_of(ntfy.render(TOPIC, delivery(one))[0]) for one in ALL[:3]]
    assert [body["priority"] for body in bodies] == [5, 2, 3]
    assert len({body["sequence_id"] for body in bodies}) == 1
    assert bodies[0]["title"] == "[PAGE] vllm-a on gpu-a"
    assert bodies[0]["actions"] == [{"action": "view", "label": "runbook", "url": "https://wiki.example.com/kv_leak"}]
    (request,) = ntfy.render(TOPIC, delivery())
    assert isinstance(request, Http)
    assert request.secret_headers["Authorization"].reveal() == "Bearer tk_1"
    for topic, server in (("a b", TOPIC.server), ("", TOPIC.server), ("a", "ntfy.sh")):
        with pytest.raises(ValueError, match="expected"):
            ntfy.Params(topic=topic, server=server)


def test_a_command_reads_the_message() -> None:
    params = command.Params(run=("/usr/bin/tell", "--loud"))
    (request,) = command.render(params, delivery(seq=3))
    assert isinstance(request, Run)
    assert request.argv == ("/usr/bin/tell", "--loud")
    said = json.loads(request.stdin)
    assert (said["schema"], said["seq"], said["number"], said["step"]) == ("opsboard.message/1", 3, 42, "trigger")
    assert said["key"] == told().key
    assert said["text"].startswith("[PAGE] vllm-a on gpu-a: ")
    with pytest.raises(ValueError, match="whole path"):
        command.Params(run=("tell",))


@pytest.mark.parametrize(
    ("status", "kind"), [(0, Sent), (75, Later), (-9, Later), (1, Refused), (127, Refused), (None, Later)]
)
def test_how_a_command_ends(status: int | None, kind: type) -> None:
    assert isinstance(command.classify(command.Params(run=("/x",)), Answer(status=status)), kind)
