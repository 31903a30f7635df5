"""What one channel cannot tell others do; what is no page goes out together."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from opsboard.daemon import messenger
from opsboard.httpd import Request, Response
from tests.support.in_loop import in_loop
from tests.support.receiver import receiver
from tests.support.telling_life import teller
from tests.support.waiting import wait_until_async


@in_loop
async def test_a_page_that_one_channel_refuses_is_told_by_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: Request) -> Response:
        return Response(401 if request.path == "/dead" else 200)

    with receiver(answer) as service:
        address = service.url.removesuffix("/hook")
        (tmp_path / "opsboard.toml").write_text(
            f'[[channel]]\nname = "oncall"\nkind = "webhook"\nurl = "{address}/dead"\n'
            f'[[channel]]\nname = "spare"\nkind = "webhook"\nurl = "{address}/spare"\n'
            '[[alert_route]]\nseverity = "page"\nchannels = ["oncall"]\n'
            '[[alert_route]]\nseverity = "ticket"\nchannels = ["spare"]\n'
        )

        def spare() -> list[str]:
            came = [json.loads(one.body) for one in list(service.requests) if one.path == "/spare"]
            return sorted(one["alerts"][0]["labels"]["alertname"] for one in came)

        async with teller(tmp_path) as one:
            await asyncio.wrap_future(one.open("a"))
            await wait_until_async(lambda: len(spare()) >= 2, what="the page, and that its channel is broken")
            await one.told()
            (dead,) = await one.store.outbox.listed(("dead",), 9)
        assert spare() == ["channel_broken", "stall"]
        assert dead.channel == "oncall"
        assert "HTTP 401" in (dead.error or "")
    said = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("channel oncall: incident 1, trigger, attempt 1: refused: HTTP 401"), "all one needs"


@in_loop
async def test_tickets_go_out_as_one_and_the_next_daemon_ends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messenger, "LOOK_S", 0.05)
    with receiver() as service:
        (tmp_path / "opsboard.toml").write_text(
            f'[[channel]]\nname = "chat"\nkind = "ntfy"\nserver = "{service.url}"\ntopic = "ops"\n'
            '[alerts]\ngroup_wait = "100ms"\n'
        )
        async with teller(tmp_path) as one:
            await asyncio.gather(*(asyncio.wrap_future(one.open(name, "ticket")) for name in "ab"))
            await wait_until_async(lambda: service.requests, what="both in one")
            await one.told()
        async with teller(tmp_path) as one:
            for open_one in one.state.incidents.open:
                (said,) = await one.store.outbox.listed(("sent",), 9, uid=open_one.uid)
                assert said.message.uid.startswith("group-"), "who asks of one is shown what told of both"
            for open_one in one.state.incidents.open:
                one.resolve(open_one)
            await wait_until_async(lambda: "RESOLVED" in service.bodies[-1]["title"], what="the end of both")
            await one.told()
        bodies = service.bodies
    assert "2 incidents: stall of a: a stands still; stall of b: b stands still" in bodies[0]["message"]
    assert {body["sequence_id"] for body in bodies} == {bodies[0]["sequence_id"]}
    assert len(bodies) <= 3
