"""kill -9 of a daemon with an open incident: the next one goes on with it, and closes it when it is over."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from opsboard.core.errors import NotReachable
from tests.support.herd import free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.house import House

DEADLINE_S = 40.0


@pytest.mark.timeout(90)
def test_the_next_daemon_goes_on_with_an_open_incident(house: House) -> None:
    port = free_port()
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    house.write(
        f'name = "a"\nkind = "vllm"\ncommand = {json.dumps(command)}\nurl = "http://127.0.0.1:{port}"\n'
        'autostart = true\nrestart = "never"'
    )
    first = house.start()
    wait_until(lambda: len(house.client.incidents()) == 1, DEADLINE_S, "an incident is open")
    (one,) = house.client.incidents()
    assert (one.detector, one.severity, one.id) == ("engine_down", "page", 1)
    assert house.client.status().incidents == (one,)
    house.client.tell_incident("1", "ack", "on it", by="ann")
    house.client.tell_incident("1", "note", "exit 3 is the licence")
    house.end(first, signal.SIGKILL)
    with pytest.raises(NotReachable):
        house.client.incidents()

    house.start()
    detail = house.client.incident(one.uid)
    assert detail.incident.state == "acknowledged"
    said = [(entry.kind, entry.text) for entry in detail.timeline]
    assert said[0][0] == "opened"
    assert [one for one in said if one[0] in {"ack", "note"}] == [("ack", "on it"), ("note", "exit 3 is the licence")]
    wait_until(lambda: ("engine/a", "failed") in house.events(), DEADLINE_S, "the engine is seen again")
    assert [one.id for one in house.client.incidents(every=True)] == [1], "no second one of the same trouble"
    house.client.tell_incident("1", "resolve", "known")
    assert house.client.incidents() == []
    assert house.client.incident("1").incident.resolved_by is not None
