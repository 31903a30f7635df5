"""People are told: an incident's beginning and end reach a receiver that is away at first, over a killed daemon."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from opsboard.httpd import Request, Response
from tests.support.herd import free_port
from tests.support.receiver import receiver
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.house import House

DEADLINE_S = 40.0


@pytest.mark.timeout(90)
def test_a_page_outlives_a_deaf_receiver_and_a_killed_daemon(house: House) -> None:
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    deaf = [True]

    def answer(_request: Request) -> Response:
        return Response(503 if deaf[0] else 200)

    with receiver(answer) as service:
        house.write(
            f'name = "a"\nkind = "vllm"\ncommand = {json.dumps(command)}\nurl = "http://127.0.0.1:{free_port()}"\n'
            'autostart = true\nrestart = "never"',
            rest=f'[[channel]]\nname = "oncall"\nkind = "webhook"\nurl = "{service.url}"\nsecret = "whsec_c2VjcmV0"\n'
            '[alerts]\nrunbook = "https://wiki.example.com/{detector}"\n',
        )
        first = house.start()
        wait_until(lambda: service.requests, DEADLINE_S, "somebody is told")
        house.end(first, signal.SIGKILL)
        deaf[0] = False
        house.start()
        wait_until(lambda: len(service.requests) >= 2, DEADLINE_S, "told again by the next daemon")
        told = service.bodies[-1]
        assert told["status"] == "firing"
        assert told["alerts"][0]["labels"]["alertname"] == "engine_down"
        assert told["alerts"][0]["labels"]["severity"] == "page"
        assert told["alerts"][0]["annotations"]["runbook_url"] == "https://wiki.example.com/engine_down"
        headers = service.requests[-1].headers
        assert headers["webhook-signature"].startswith("v1,")
        (one,) = house.client.incidents()
        house.client.tell_incident(str(one.id), "resolve", "known")
        wait_until(lambda: service.bodies[-1]["status"] == "resolved", DEADLINE_S, "its end is told")
        assert service.bodies[-1]["groupKey"] == told["groupKey"], "of the same incident"
        trial = house.client.test_channel("oncall")
        wait_until(lambda: len(house.client.outbox("sent", uid=trial.uid)) == 2, DEADLINE_S, "a test and its end")
        assert [body["status"] for body in service.bodies[-2:]] == ["firing", "resolved"]
        assert service.bodies[-1]["alerts"][0]["labels"]["alertname"] == "test"
        (channel,) = house.client.status().channels
        assert (channel.name, channel.error, channel.broken) == ("oncall", None, False)
        assert channel.sent is not None
