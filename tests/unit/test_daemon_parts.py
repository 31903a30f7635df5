"""The smaller parts of the daemon: who serves a port, what engines are told, who may connect, its own health."""

from __future__ import annotations

import asyncio
import grp
import itertools
import os
import socket
import sys
from pathlib import Path

import pytest

from collectors.discover import FoundEngine
from opsboard.config.load import Loaded
from opsboard.config.schema import AlertRoute, Channel, Config, Control, Engine, Exporter, Heartbeat, Host, Mqtt
from opsboard.core.clock import ManualClock, Now
from opsboard.core.errors import ConfigError, Conflict
from opsboard.core.model import GpuReading, GpuView, Outcome
from opsboard.core.secret import Secret
from opsboard.daemon import finder, health
from opsboard.daemon.access import open_access
from opsboard.daemon.fixed import refuse_fixed
from opsboard.daemon.observed import LOOK_S, Listening, Owner, local_port
from opsboard.daemon.pipeline import EngineSpec
from opsboard.daemon.rights import Right
from opsboard.daemon.specs import engine_specs, for_looking, found_specs, launch_specs, secrets_of, url_specs
from opsboard.httpd import Peer
from tests.support import virtual_time

URL = "http://127.0.0.1:8001"


# --- who serves a port ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://127.0.0.1:8001", 8001),
        ("http://localhost:8001/x", 8001),
        ("http://[::1]:8001", 8001),
        ("https://0.0.0.0", 443),
        ("http://127.0.0.2", 80),
        ("http://10.0.0.5:8001", None),
        ("http://gpu-b:8001", None),
    ],
)
def test_the_port_of_a_local_url(url: str, port: int | None) -> None:
    assert local_port(url) == port


def test_the_process_that_listens_is_found_and_kept() -> None:
    clock = ManualClock()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        owner = Owner(url, Listening(lambda pid: pid == os.getpid(), clock))
        assert asyncio.run(owner.pid()) == os.getpid()
    assert asyncio.run(owner.pid()) == os.getpid(), "known, so nobody searches"


def test_what_forwards_a_port_is_no_engine_and_is_looked_at_seldom_and_for_all_at_once() -> None:
    clock, looks = ManualClock(), []

    def is_engine(pid: int) -> bool:
        if pid == os.getpid():
            looks.append(clock.now().mono)
        return False

    with socket.create_server(("127.0.0.1", 0)) as server:
        listening = Listening(is_engine, clock)
        owners = [Owner(f"http://127.0.0.1:{server.getsockname()[1]}", listening) for _ in range(3)]
        for _ in range(25):
            assert [asyncio.run(owner.pid()) for owner in owners] == [None] * 3
            clock.advance(5.0)
    assert [later - earlier for earlier, later in itertools.pairwise(looks)] == [LOOK_S] * 4


def test_an_engine_elsewhere_has_no_process_here() -> None:
    assert asyncio.run(Owner("http://10.0.0.5:8001", Listening(lambda _: True, ManualClock())).pid()) is None


# --- what engines are told --------------------------------------------------------------------------------------------


def config(**engine: object) -> Config:
    whole = {"name": "a", "command": ("serve",), "url": URL, **engine}
    return Config(engine=(Engine(**whole), Engine(name="b", url="http://x:1")))  # type: ignore[arg-type]


def cards(*uuids: str) -> GpuReading:
    views = tuple(GpuView(index=n, uuid=uuid) for n, uuid in enumerate(uuids))
    return GpuReading(outcome=Outcome.OK, gpus=(*views, GpuView(index=0, uuid="MIG-1", mig="1g.10gb")))


def test_supervised_engines_are_launched_and_observed_ones_are_not() -> None:
    (spec,) = launch_specs(
        config(
            ready_timeout=5.0,
            stop_timeout=6.0,
            drain_timeout=7.0,
            restart="never",
            autostart=True,
            user="u",
            env={"X": "1"},
        ),
        None,
    )
    assert (spec.name, spec.command, spec.url, spec.user) == ("a", ("serve",), URL, "u")
    assert (spec.ready_timeout_s, spec.stop_timeout_s, spec.autostart, spec.gpus) == (5.0, 6.0, True, None)
    assert (spec.restart, spec.drain_timeout_s) == ("never", 7.0)
    assert dict(spec.env) == {"X": "1"}
    shown = engine_specs(config())
    assert [(spec.supervised, spec.drain_timeout_s) for spec in shown] == [(True, 60.0), (False, None)]


def test_gpu_numbers_become_uuids() -> None:
    (spec,) = launch_specs(config(gpus=(1, 0)), cards("GPU-x", "GPU-y"))
    assert spec.gpus == ("GPU-y", "GPU-x")
    assert spec.warning is None
    assert "CUDA_DEVICE_ORDER" not in spec.env


@pytest.mark.parametrize(
    ("gpus", "why"),
    [
        (None, "the driver did not answer when"),
        (GpuReading(outcome=Outcome.NO_DATA, error="no NVIDIA driver"), "the driver did not answer (no NVIDIA driver)"),
        (cards("GPU-x"), "the driver knows only GPU 0, so CUDA_VISIBLE_DEVICES=0,1"),
    ],
)
def test_without_a_driver_numbers_mean_what_nvml_means_by_them(gpus: GpuReading | None, why: str) -> None:
    (spec,) = launch_specs(config(gpus=(0, 1)), gpus)
    assert spec.gpus == ("0", "1")
    assert spec.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert spec.warning is not None
    assert spec.warning.startswith(f"gpus = [0, 1]: {why}")


def test_the_api_key_reaches_a_vllm_and_no_log() -> None:
    keyed = config(api_key=Secret("hunter22"), kind="vllm")
    (spec,) = launch_specs(keyed, None)
    assert spec.env["VLLM_API_KEY"] == Secret("hunter22")
    assert "hunter22" not in repr(spec)
    assert secrets_of(keyed) == ["hunter22"]
    (spec,) = launch_specs(config(api_key=Secret("hunter22"), kind="sglang"), None)
    assert "VLLM_API_KEY" not in spec.env


def test_engines_by_address_and_by_search() -> None:
    assert url_specs(["http://me:pw@h:1/x"]) == [EngineSpec(name="h:1", url="http://me:pw@h:1/x")]
    assert found_specs([FoundEngine(name="m", url=URL, kind="vllm")]) == [EngineSpec(name="m", kind="vllm", url=URL)]


def test_an_engine_found_again_keeps_its_name_and_one_gone_is_forgotten_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loading, loaded = FoundEngine(name="vllm-8001", url=URL), FoundEngine(name="llama", url=URL, kind="vllm")
    looks = iter([[], [loading], [loaded], [], [loaded], [], [], []])
    applied: list[tuple[float, list[str]]] = []

    async def find(_fetcher: object) -> list[FoundEngine]:
        found = next(looks, None)
        if found is None:
            raise asyncio.CancelledError
        return found

    def apply(specs: list[EngineSpec]) -> None:
        applied.append((asyncio.get_running_loop().time(), [spec.name for spec in specs]))

    monkeypatch.setattr(finder, "find_engines", find)

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await finder.find_for_ever(None, apply)  # type: ignore[arg-type]

    virtual_time.run(main())
    assert applied == [(5.0, ["vllm-8001"]), (35.0, [])]


# --- who may connect --------------------------------------------------------------------------------------------------


def test_without_groups_the_socket_is_private(tmp_path: Path) -> None:
    access = open_access(Control(), tmp_path / "run")
    assert (access.mode, access.gid) == (0o600, None)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert access.allowed(Peer(pid=1, uid=os.geteuid(), gid=0)) == Right.READ | Right.OPERATE
    assert access.allowed(Peer(pid=1, uid=12345, gid=12345)) == Right.NONE
    assert access.allowed(None) == Right.NONE


def test_a_group_may_connect_and_its_members_are_known_by_any_of_their_groups(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid())
    access = open_access(Control(operate_group=group.gr_name), tmp_path / "run")
    assert (access.mode, access.gid) == (0o660, group.gr_gid)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o750
    assert access.allowed(Peer(pid=1, uid=12345, gid=1, groups=(7, group.gr_gid))) == Right.READ | Right.OPERATE
    looks = open_access(Control(read_group=group.gr_name), tmp_path / "run")
    assert looks.allowed(Peer(pid=1, uid=12345, gid=group.gr_gid)) == Right.READ


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[control\] read_group: this machine has no group 'nobody-here'"):
        open_access(Control(read_group="nobody-here"), tmp_path)


def test_what_a_reload_cannot_change() -> None:
    refuse_fixed(Config(), Config(exporter=Exporter(), engine=config().engine))
    with pytest.raises(Conflict, match=r"\[host\] name, \[control\] read_group cannot change"):
        refuse_fixed(Config(), Config(host=Host(name="x"), control=Control(read_group="y")))


# --- itself -----------------------------------------------------------------------------------------------------------


def test_the_daemon_measures_itself() -> None:
    own = health.Health(stale_s=10.0)
    assert not own.healthy(Now(wall=0, mono=0))
    first = own.read(Now(wall=0, mono=100.0))
    assert first.cpu_ratio is None
    assert first.rss_bytes is not None
    assert first.rss_bytes > 1_000_000
    sum(range(200_000))
    second = own.read(Now(wall=1, mono=101.0))
    assert second.cpu_ratio is not None
    assert second.cpu_ratio > 0
    assert own.healthy(Now(wall=1, mono=111.0))
    assert not own.healthy(Now(wall=1, mono=111.1))


def test_a_blocked_loop_is_noticed() -> None:
    own = health.Health(stale_s=10.0)

    async def main() -> None:
        probe = asyncio.ensure_future(own.probe())
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(health.PROBE_S / 2)
        while loop.time() < before + health.PROBE_S * 1.5:  # busy
            pass
        await asyncio.sleep(0.01)
        probe.cancel()

    asyncio.run(main())
    assert own.gaps.worst_s >= health.PROBE_S * 0.4


def test_the_client_is_cheap_to_import() -> None:
    import subprocess

    code = "import sys, opsboard.client.sync; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    loaded = set(done.stdout.split())
    assert not loaded & {"asyncio", "h11", "httpx", "numpy", "sqlite3", "textual", "uvloop", "rich", "click"}


def test_a_daemon_that_only_looks_tells_nobody() -> None:
    whole = Config(
        host=Host(name="gpu-a"),
        engine=(Engine(name="a", url=URL),),
        channel=(Channel(name="oncall", kind="slack"),),
        alert_route=(AlertRoute(channels=("oncall",)),),
        heartbeat=Heartbeat(url=Secret("https://example.com/ping")),
        mqtt=Mqtt(url="mqtts://broker.example.com"),
    )
    looking = for_looking(Loaded(config=whole)).config
    assert (looking.channel, looking.alert_route, looking.heartbeat, looking.mqtt) == ((), (), None, None)
    assert (looking.host, looking.engine) == (whole.host, whole.engine)
