"""``opsboard incident`` and its routes, over a real socket."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace

from alerts.incidents import Claim
from opsboard.cli.curves import WIDTH, curve_lines
from opsboard.cli.main import main
from opsboard.client.person import me
from opsboard.client.stream import AsyncClient
from opsboard.client.sync import Client
from opsboard.core.errors import BadRequest, Conflict, NotFound, OpsboardError, StoreError
from opsboard.core.incidents import Curve
from opsboard.daemon import incident_desk
from opsboard.tui.feed import ClientFeed
from tests.support.control_daemon import FakeDaemon, in_thread, socket_path, with_daemon
from tests.support.messages import LEAK, new, told

if TYPE_CHECKING:
    from opsboard.core.clock import Now


def claim(now: Now, detector: str = "stall") -> Claim:
    return Claim(
        detector=detector,
        subject="engine/a",
        severity="page",
        summary=f"{detector}: 12 running, no step for 9 s",
        since=now.wall - 9,
        confirmed=True,
        evidence={"gap_s": 9.0, "canary": "timeout", "tokens": None, "sure": True},
    )


def opened(daemon: FakeDaemon) -> int:
    """Open one, as its page would; the fake store has it too."""
    now = daemon.clock.now()
    (change,) = daemon.state.incidents.see("engine/a", [claim(now)], now)
    daemon.kept.carry_out(change)
    return change.incident.id


def test_what_is_said_is_written_down_also_when_the_disk_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incident_desk, "WRITE_S", 0.02)

    async def test(daemon: FakeDaemon) -> None:
        opened(daemon)
        daemon.kept.written = Future()
        with pytest.raises(OpsboardError, match="the disk did not take it yet"):
            await in_thread(lambda: Client(daemon.path).tell_incident("1", "ack", by="ann"))
        assert not daemon.kept.written.cancelled(), "that would take it back"
        daemon.kept.written.set_result(None)

    with_daemon(socket_path(), test)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["--socket", str(socket_path()), *words])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_the_socket_tells_of_incidents_and_takes_what_people_say() -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = Client(daemon.path)
        assert await in_thread(client.incidents) == []
        opened(daemon)
        (one,) = await in_thread(client.incidents)
        assert (one.id, one.state, one.severity, one.subject) == (1, "open", "page", "engine/a")
        assert daemon.status().incidents == (one,)
        acked = await in_thread(lambda: client.tell_incident("1", "ack", by="ann"))
        assert (acked.state, acked.acknowledged_by) == ("acknowledged", f"ann (uid {os.getuid()})")
        await in_thread(lambda: client.tell_incident("1", "note", "the\x1b[31m fan"))
        curve = Curve(moment="opened", series="engine/a/running", step=1.0, points=((1.0, 2.0),))
        daemon.kept.curves[one.uid] = [curve]
        detail = await in_thread(lambda: client.incident(one.uid))
        assert [entry.kind for entry in detail.timeline] == ["opened", "ack", "note"]
        assert detail.timeline[2].text == "the�[31m fan"
        assert detail.curves == (curve,)
        closed = await in_thread(lambda: client.tell_incident("1", "resolve", "fixed", "ann"))
        assert (closed.state, closed.resolved_by) == ("resolved", f"ann (uid {os.getuid()})")
        assert await in_thread(client.incidents) == []
        assert [one.id for one in await in_thread(lambda: client.incidents(every=True))] == [1]
        assert await in_thread(lambda: client.incidents(every=True, subject="engine/b")) == []
        with pytest.raises(Conflict, match="incident 1 is resolved already"):
            await in_thread(lambda: client.tell_incident("1", "ack"))
        await in_thread(lambda: client.tell_incident("1", "note", "later"))
        asked = [(entry.action, entry.subject, entry.uid) for entry in daemon.kept.asked]
        verbs = ("ack", "note", "resolve", "note")
        assert asked == [(f"incident {verb}", "incident/1", os.getuid()) for verb in verbs]

    with_daemon(socket_path(), test)


def test_the_board_reads_and_says_the_same() -> None:
    async def test(daemon: FakeDaemon) -> None:
        opened(daemon)
        client = AsyncClient(daemon.path)
        assert (await client.tell_incident("1", "ack", "mine", "ann")).state == "acknowledged"
        assert (await client.incident("1")).timeline[-1].text == "mine"
        feed = ClientFeed(daemon.path)
        await feed.tell(1, "note", "the fan")
        assert (await feed.incident(1)).timeline[-1].by == f"{me()} (uid {os.getuid()})"
        assert [one.id for one in await feed.incidents("engine/a", 10)] == [1]
        assert await feed.incidents("engine/b", 10) == []

    with_daemon(socket_path(), test)


def test_what_is_refused() -> None:
    async def test(daemon: FakeDaemon) -> None:
        client = Client(daemon.path)
        for name in ("1", "99999999999999999999", "nobody"):
            with pytest.raises(NotFound, match="there is no incident"):
                await in_thread(lambda name=name: client.incident(name))  # type: ignore[misc]
        opened(daemon)
        with pytest.raises(BadRequest, match="a note needs a text"):
            await in_thread(lambda: client.tell_incident("1", "note", " \n"))
        with pytest.raises(NotFound, match="there is no POST /v1/incidents/1/reopen"):
            await in_thread(lambda: client.tell_incident("1", "reopen"))
        with pytest.raises(BadRequest, match="expected `limit` between"):
            await in_thread(lambda: client.incidents(limit=0))
        daemon.kept.error = StoreError("the disk is gone")
        assert len(await in_thread(client.incidents)) == 1, "what is open is known without a disk"
        assert (await in_thread(lambda: client.incident("1"))).incident.id == 1

    with_daemon(socket_path(), test)


def test_people_read_and_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(daemon: FakeDaemon) -> None:
        assert await in_thread(lambda: run("incident", "list")) == 0
        assert capsys.readouterr().out == "no incident is open (`--all` lists those that are resolved)\n"
        opened(daemon)
        uid = daemon.state.incidents.open[0].uid
        points = tuple((daemon.clock.now().wall - 300 + at, float(at % 60)) for at in range(300))
        daemon.kept.curves[uid] = [Curve(moment="opened", series="engine/a/kv_usage", step=1.0, points=points)]
        assert await in_thread(lambda: run("incident", "list")) == 0
        header, row = capsys.readouterr().out.splitlines()
        assert header.split() == ["ID", "SEVERITY", "STATE", "WHAT", "WHERE", "OPENED", "LASTED"]
        assert row.split()[:5] == ["1", "page", "open", "stall", "a"]
        assert row.endswith("stall: 12 running, no step for 9 s")
        assert await in_thread(lambda: run("incident", "ack", "1", "I", "am", "on", "it")) == 0
        assert "incident 1  page  acknowledged" in capsys.readouterr().out
        assert await in_thread(lambda: run("incident", "note", "1", "it is the fan")) == 0
        capsys.readouterr()
        daemon.outbox.put([new("oncall", told(replace(LEAK, uid=uid))), new("chat", told(replace(LEAK, uid=uid)))])
        daemon.outbox.away["chat"] = "HTTP 503"
        for channel in ("oncall", "chat"):
            daemon.outbox.hurry(channel)
        assert await in_thread(lambda: run("incident", "show", "1")) == 0
        shown = capsys.readouterr().out
        assert "oncall: trigger sent\n" in shown
        assert "chat: trigger waits: HTTP 503\n" in shown
        for said in ("EVIDENCE", "gap_s   9", "sure    yes", "tokens  --", "AROUND IT", "kv_usage", "^ began",
                     "I am on it", "it is the fan", "TIMELINE (UTC)"):  # fmt: skip
            assert said in shown
        assert await in_thread(lambda: run("incident", "show", "1", "--json")) == 0
        assert json.loads(capsys.readouterr().out)["incident"]["detector"] == "stall"
        assert await in_thread(lambda: run("status")) == 1, "a page is open"
        assert "incidents 1\nincident 1  page  acknowledged" in capsys.readouterr().out
        assert await in_thread(lambda: run("incident", "resolve", "1")) == 0
        assert await in_thread(lambda: run("status", "--json")) == 0
        (one,) = json.loads(capsys.readouterr().out.splitlines()[-1])["incidents"]
        assert (one["state"], one["evidence"]["canary"]) == ("resolved", "timeout")
        assert await in_thread(lambda: run("incident", "show", "7")) == 1
        assert "there is no incident 7" in capsys.readouterr().err
        assert await in_thread(lambda: run("incident", "list", "--all", "--json")) == 0
        assert [one["id"] for one in json.loads(capsys.readouterr().out)] == [1]

    assert threading.current_thread() is threading.main_thread()
    with_daemon(socket_path(), test)


def test_a_curve_is_a_line_of_text() -> None:
    points = tuple((float(at), float(at)) for at in range(480))
    early = Curve(moment="opened", series="engine/a/kv_usage", step=1.0, points=points[:10])
    late = msgspec.structs.replace(early, moment="resolved", points=points)
    flat = Curve(moment="resolved", series="process/a:worker/rss_anon_bytes", step=1.0, points=((0.0, 5.0),))
    lines = curve_lines([late, early, flat], 240.0, 470.0)
    assert lines[0] == "kv_usage               ▁▁▁▁▂▂▂▂▂▂▂▃▃▃▃▃▃▄▄▄▄▄▄▄▅▅▅▅▅▅▅▆▆▆▆▆▆▇▇▇▇▇▇▇████  0 to 479"
    assert lines[1] == f"worker rss_anon_bytes  ▁{' ' * (WIDTH - 1)}  5"
    assert lines[2] == f"{' ' * 23}{' ' * 24}^{' ' * 22}v  ^ began, v ended"
    assert curve_lines([], 0.0, None) == []
