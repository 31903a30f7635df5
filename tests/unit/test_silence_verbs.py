"""``opsboard silence``, its routes over a real socket, and silences on disk."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest

from alerts.incidents import Claim
from opsboard.cli.main import main
from opsboard.client.person import me
from opsboard.client.sync import Client
from opsboard.core.clock import ManualClock
from opsboard.core.errors import BadRequest, Denied, NotFound
from opsboard.core.silences import Silence
from opsboard.core.wire import SilenceRequest
from opsboard.daemon.rights import Right
from opsboard.store.store import Store
from tests.support.control_daemon import FakeDaemon, in_thread, socket_path, with_daemon

if TYPE_CHECKING:
    from pathlib import Path

SAID = SilenceRequest(comment="fan\x1b[31m swap", duration_s=3600, subjects=("engine/a*",), by="ann")


def test_the_socket_takes_lists_and_ends_them() -> None:
    async def test(daemon: FakeDaemon) -> None:
        client, t = Client(daemon.path), daemon.clock.now().wall
        assert await in_thread(client.silences) == []
        one = await in_thread(lambda: client.silence(SAID))
        assert (one.id, one.by, one.comment) == (1, f"ann (uid {os.getuid()})", "fan�[31m swap")
        assert (one.start, one.end, one.told) == (t, t + 3600, "subject=engine/a*")
        assert await in_thread(client.silences) == daemon.state.silences.listed(t) == [one]
        over = await in_thread(lambda: client.expire_silence(1))
        assert over.end == t
        assert await in_thread(client.silences) == []
        assert await in_thread(lambda: client.silences(every=True)) == [over]
        with pytest.raises(NotFound, match="no silence 1 stands"):
            await in_thread(lambda: client.expire_silence(1))
        asked = [(entry.action, entry.subject, entry.uid) for entry in daemon.kept.asked]
        uid = os.getuid()
        assert asked == [("silence add", "silence/1", uid), ("silence expire", "silence/1", uid)]

    with_daemon(socket_path(), test)


def test_one_incident_is_silenced_with_all_that_is_like_it() -> None:
    async def test(daemon: FakeDaemon) -> None:
        client, now = Client(daemon.path), daemon.clock.now()
        claim = Claim(
            detector="stall", subject="engine/a", severity="page", summary="s", since=now.wall, confirmed=True
        )
        (change,) = daemon.state.incidents.see("engine/a", [claim], now)
        daemon.kept.carry_out(change)
        with pytest.raises(BadRequest, match="expected a duration"):
            await in_thread(lambda: client.tell_incident("1", "silence", "soon"))
        quiet = await in_thread(lambda: client.tell_incident("1", "silence", "2h new driver", "ann"))
        assert quiet.silenced == now.wall + 7200
        (one,) = await in_thread(client.silences)
        assert (one.told, one.comment) == ("detector=stall subject=engine/a", "new driver")
        assert daemon.status().incidents[0].silenced == one.end
        detail = await in_thread(lambda: client.incident("1"))
        assert (detail.timeline[-1].kind, detail.timeline[-1].text) == ("silence", "for 2h, silence 1: new driver")
        await in_thread(lambda: client.expire_silence(1))
        assert daemon.status().incidents[0].silenced is None

    with_daemon(socket_path(), test)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"comment": " ", "duration_s": 9, "detectors": ("x",)}, "needs a comment"),
        ({"comment": "c", "duration_s": 9}, "needs a detector or a subject"),
        ({"comment": "c", "duration_s": 0, "detectors": ("x",)}, "expected a duration"),
        ({"comment": "c", "duration_s": 31 * 86400, "detectors": ("x",)}, "at most 30 days"),
        ({"comment": "c", "duration_s": 9, "detectors": (" ",)}, "patterns of 1 to 200"),
        ({"comment": "c", "duration_s": 9, "detectors": ("x",), "start": 1.0}, "an end that is not over"),
    ],
)
def test_what_makes_no_sense_is_refused(body: dict[str, object], why: str) -> None:
    async def test(daemon: FakeDaemon) -> None:
        with pytest.raises(BadRequest, match=why):
            await in_thread(lambda: Client(daemon.path).silence(SilenceRequest(**body)))  # type: ignore[arg-type]

    with_daemon(socket_path(), test)


def test_who_may_only_look_silences_nothing() -> None:
    async def test(daemon: FakeDaemon) -> None:
        daemon.right = Right.READ
        assert await in_thread(Client(daemon.path).silences) == []
        with pytest.raises(Denied):
            await in_thread(lambda: Client(daemon.path).silence(SAID))
        with pytest.raises(Denied):
            await in_thread(lambda: Client(daemon.path).expire_silence(1))

    with_daemon(socket_path(), test)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["--socket", str(socket_path()), "silence", *words])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    async def test(daemon: FakeDaemon) -> None:
        assert await in_thread(lambda: run("list")) == 0
        assert "no silence stands" in capsys.readouterr().out
        words = ("add", "--engine", "a*", "--detector", "stall", "--severity", "page", "--for", "2h", "new", "driver")
        assert await in_thread(lambda: run(*words)) == 0
        assert capsys.readouterr().out.startswith("silence 1  severity=page detector=stall subject=engine/a*  ")
        (one,) = daemon.state.silences.listed(daemon.clock.now().wall)
        assert (one.comment, one.end - one.start, one.by) == ("new driver", 7200, f"{me()} (uid {os.getuid()})")
        assert await in_thread(lambda: run("list", "--json")) == 0
        assert json.loads(capsys.readouterr().out)[0]["subjects"] == ["engine/a*"]
        assert await in_thread(lambda: run("list")) == 0
        assert "new driver" in capsys.readouterr().out
        assert await in_thread(lambda: run("expire", "1")) == 0
        assert capsys.readouterr().out == "silence 1 is over\n"
        assert await in_thread(lambda: run("add", "--engine", "a", "--for", "soon", "x")) == 2

    with_daemon(socket_path(), test)


def test_another_daemon_goes_on_with_them(tmp_path: Path) -> None:
    clock = ManualClock()
    t = clock.now().wall
    one = Silence(id=1, by="ann", comment="c", start=t, end=t + 60, detectors=("stall",))

    async def test() -> None:
        store = Store.open(tmp_path, clock)
        assert await store.next_silence() == 1
        store.silence(one)
        assert await store.silences(t) == [one]
        await store.close()
        again = Store.open(tmp_path, clock)
        assert await again.silences(t + 59) == [one]
        assert await again.silences(t + 60) == []
        assert await again.next_silence() == 2, "a number is never used again"
        await again.close()

    asyncio.run(test())
