"""Single mishaps of supervision, most of them with a daemon that is killed in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
from typing import TYPE_CHECKING, Any

import pytest

from opsboard.supervise.budget import Budget
from tests.support.crash_daemon import Settings
from tests.support.crash_scene import Scene
from tests.support.herd import connects, free_port
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.herd import Herd

THREE = Budget(per_engine=3, per_gpu=99, per_host=99, first_s=0.02, cap_s=0.05)
DAY_S = 86_400.0


@contextlib.contextmanager
def scene(
    herd: Herd, mode: str = "three_deep", value: object = None, *, serving: bool = True, **more: Any
) -> Iterator[Scene]:
    """An engine that serves, and a daemon."""
    settings = Settings(name="a", mode=mode, value=free_port() if value is None else str(value), **more)
    found = Scene(herd, settings)
    try:
        if serving:
            found.daemon.wish("start")
            found.wait_for("ready")
        yield found
    finally:
        found.end()


def succeed(scene: Scene) -> None:
    """Kill the daemon; another one follows."""
    scene.kill("daemon")
    scene.new_daemon()


# --- wishes that cross


def test_a_stop_during_a_start(herd: Herd) -> None:
    with scene(herd) as place:
        last = place.transaction()["id"]
        place.hold("start")
        place.daemon.wish("restart")
        place.wait_for_step("start", last)
        wait_until(lambda: len(herd.births("a")) == 2, what="the new life")
        place.daemon.wish("stop")
        succeed(place)
        place.release()
        place.is_sound(up=False)


def test_a_start_during_a_slow_stop(herd: Herd) -> None:
    with scene(herd) as place:
        place.hold("end")
        place.daemon.wish("stop")
        place.wait_for("stopping")
        place.daemon.wish("start")
        succeed(place)
        place.release()
        place.is_sound(up=True)
    assert len(herd.births("a")) == 2


@pytest.mark.parametrize("step", ["drain", "end"])
def test_two_restarts_at_once(herd: Herd, step: str) -> None:
    with scene(herd) as place:
        last = place.transaction()["id"]
        place.hold(step)
        place.daemon.wish("restart")
        place.wait_for_step(step, last)
        place.daemon.wish("restart")
        succeed(place)
        place.release()
        place.is_sound(up=True)
    assert len(herd.births("a")) == 2


def test_an_engine_that_was_taken_out_of_service_stays_out(herd: Herd) -> None:
    with scene(herd) as place:
        place.daemon.until("done drain", place.daemon.say("drain"))
        for _ in range(2):
            succeed(place)
            place.wait_for("draining")
        place.daemon.until("done undrain", place.daemon.say("undrain"))
        place.is_sound(up=True)
        succeed(place)
        place.wait_for("ready")
    assert len(herd.births("a")) == 1


# --- budgets


def test_a_start_that_always_fails_is_parked_whatever_becomes_of_the_daemon(herd: Herd) -> None:
    with scene(herd, "die", 3, serving=False, budget=THREE) as place:
        place.daemon.wish("start")
        for counted in (1, 2):
            wait_until(lambda n=counted: len(_counted(place)) >= n, what=f"{counted} restarts")  # type: ignore[misc]
            succeed(place)
        place.wait_for("parked")
        assert len(_counted(place)) == 3
        born = len(herd.births("a"))
        assert born <= 4
        succeed(place)
        assert place.daemon.state == "parked"
        why = place.timeline()[-1][1]
        assert "restarted 3 times within 60 min, and 3 are allowed" in why
        assert "CUDA out of memory" in why
        assert [state for state, _ in place.timeline()].count("parked") == 1, "told once"
        assert len(herd.births("a")) == born, "a restart beyond the budget"
        place.daemon.wish("start")
        wait_until(lambda: len(herd.births("a")) > born, what="a person un-parks it")


def _counted(place: Scene) -> list[tuple[object, ...]]:
    return place.rows("SELECT t FROM restarts WHERE engine = 'a'")


def test_a_daemon_that_crashes_again_and_again_restarts_no_engine(herd: Herd) -> None:
    """Each new one only looks for a while."""
    with scene(herd, observe_s=30.0) as place:
        place.kill("daemon")
        place.kill("api")
        for _ in range(3):
            place.new_daemon()
            place.wait_for("backing_off")
            place.kill("daemon")
        assert len(herd.births("a")) == 1
        assert _counted(place) == []
        place.new_daemon()
        place.daemon.wish("start")  # a person need not wait
        place.is_sound(up=True)


# --- engines that do not go


def test_an_engine_that_ignores_term(herd: Herd) -> None:
    with scene(herd, "serve_stubborn", stop_timeout_s=0.5) as place:
        last = place.transaction()["id"]
        place.daemon.wish("now")
        place.wait_for_step("end", last)
        succeed(place)
        place.is_sound(up=True)
    assert len(herd.births("a")) == 2


@pytest.mark.parametrize("victims", [("api",), ("shim", "api"), ("daemon", "shim", "api")])
def test_grandchildren_that_hold_the_log_and_ignore_term(herd: Herd, victims: tuple[str, ...]) -> None:
    with scene(herd, "serve_with_family", stop_timeout_s=0.5) as place:
        wait_until(lambda: len(herd.remains("a").others) == 3, what="the record of the family")
        old = {process.pid for process, _ in place.marked()}
        for victim in victims:
            place.kill(victim)
        if not place.daemon.alive:
            place.new_daemon()
        place.is_sound(up=True)
        assert not old & {process.pid for process, _ in place.marked()}
    assert len(herd.births("a")) == 2


# --- disks, clocks, ports, boots


def test_a_log_that_takes_no_more_ends_no_engine(herd: Herd) -> None:
    with scene(herd, value=f"{free_port()} 4096") as place:
        assert (herd.bundle("a") / "engine.log").stat().st_size >= 4096
        place.kill("core")
        place.is_sound(up=True)
        place.daemon.wish("restart")
        place.is_sound(up=True)


def test_no_restart_that_a_full_disk_cannot_remember(herd: Herd) -> None:
    """Neither daemon nor shim can write a byte: nothing is restarted uncounted, and all goes on when there is space."""
    with scene(herd) as place:
        shim = place.victim("shim")
        assert shim is not None
        for pid in (shim.pid, place.daemon.process.pid):
            _space(pid, 0)
        place.kill("api")
        place.wait_for("backing_off")
        place.daemon.until("life backing_off None")
        wait_until(lambda: place.daemon.lines.count("life backing_off None") > 3, what="it tries again and again")
        assert len(herd.births("a")) == 1
        _space(place.daemon.process.pid, resource.RLIM_INFINITY)
        place.is_sound(up=True)
    assert len(herd.births("a")) == 2


def _space(pid: int, size: int) -> None:
    """Let a process write files up to so many bytes: the write fails as on a full disk, with another number."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.parametrize("seconds", [-DAY_S, DAY_S])
def test_a_clock_that_jumps_while_an_engine_is_drained(herd: Herd, seconds: float) -> None:
    """A drain lasts no longer than it may, for this daemon and for the next."""
    with scene(herd, drain_timeout_s=1.0) as place:
        last = place.transaction()["id"]
        place.hold("drain")
        place.daemon.wish("restart")
        place.wait_for_step("drain", last)
        place.jump(seconds)
        succeed(place)
        place.is_sound(up=True)
    assert len(herd.births("a")) == 2


@pytest.mark.parametrize("seconds", [-DAY_S, DAY_S])
def test_a_clock_that_jumps_parks_and_unparks_nobody(herd: Herd, seconds: float) -> None:
    with scene(herd, "die", 3, serving=False, budget=THREE) as place:
        place.daemon.wish("start")
        place.wait_for("parked")
        born = len(herd.births("a"))
        place.jump(seconds)
        succeed(place)
        assert place.daemon.state == "parked"
        assert len(herd.births("a")) == born == 4


def test_a_port_that_is_stolen_between_the_check_and_the_start(herd: Herd) -> None:
    with scene(herd) as place:
        last = place.transaction()["id"]
        place.hold("start")
        place.daemon.wish("now")
        place.wait_for_step("start", last)
        with socket.create_server(("127.0.0.1", place.port)):
            taken = f"port {place.port} is answered by pid {os.getpid()} "
            told = "SELECT text FROM events WHERE kind = 'port_taken'"
            wait_until(lambda: [text for (text,) in place.rows(told) if text.startswith(taken)], what=taken)
            assert place.daemon.state == "starting", "the thief's answer is not the engine's"
            place.release()
            wait_until(lambda: len(place.marked()) == 0, 20.0, "the end of the engine that found it taken")
            place.wait_for("backing_off")
            born = len(herd.births("a"))
            assert connects(place.port), "the thief is left alone"
        place.is_sound(up=True)
        assert len(herd.births("a")) == born + 1, "it waited, and did not try"


def test_a_host_that_reboots_in_the_middle_of_a_restart(herd: Herd) -> None:
    """The records name pids of another boot: nobody who has them now is signalled, and the engine begins anew."""
    with scene(herd, autostart=True) as place:
        last = place.transaction()["id"]
        place.hold("end")
        place.daemon.wish("now")
        place.wait_for_step("end", last)
        for victim in ("daemon", "shim", "api", "core", "worker"):
            place.kill(victim)
        wait_until(lambda: not place.marked(), what="the end of the host")
        path = herd.bundle("a") / "identity.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"boot_id": "another", "process": {"pid": os.getpid(), "start_ticks": 1}}))
        place.release()
        place.new_daemon()
        place.is_sound(up=True)
    assert len(herd.births("a")) == 2
