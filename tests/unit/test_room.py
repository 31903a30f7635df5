"""No start without room, and no start on memory that is not free yet."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from typing import TYPE_CHECKING

import pytest

from opsboard.core.errors import NoRoom
from opsboard.core.model import FatalVerdict, GpuProcess, GpuReading, GpuView, Outcome
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.ports import taken_by
from opsboard.supervise.room import STILL_BYTES, cards_of, memory_freed, room
from tests.support import virtual_time
from tests.support.fake_nvml import FakeGpus, compile_fake
from tests.support.herd import NOWHERE, Herd, free_port, kill
from tests.support.in_loop import in_loop
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

GIB = 1 << 30
NO_DRIVER = GpuReading(outcome=Outcome.NO_DATA, error="no NVIDIA driver on this machine")
SILENT = GpuReading(outcome=Outcome.FAILED, error="NVIDIA driver does not answer")


def gpu(index: int = 0, used: int = 0, *processes: GpuProcess, **changes: object) -> GpuView:
    settings = {
        "index": index,
        "uuid": f"GPU-{index}",
        "memory_used_bytes": used * GIB,
        "memory_total_bytes": 80 * GIB,
        "processes": processes,
    }
    return GpuView(**settings | changes)  # type: ignore[arg-type]


def held(pid: int, size: int) -> GpuProcess:
    return GpuProcess(pid=pid, memory_bytes=size * GIB)


def spec(*flags: str, **changes: object) -> LaunchSpec:
    settings = {"name": "chat", "command": ("vllm", "serve", "m", *flags), "url": NOWHERE}
    return LaunchSpec(**settings | changes)  # type: ignore[arg-type]


def says(*readings: GpuReading) -> Callable[[], Awaitable[GpuReading]]:
    """Return a driver that says one thing after the other, and the last one for ever."""
    left = list(readings)

    async def read() -> GpuReading:
        return left.pop(0) if len(left) > 1 else left[0]

    return read


def on(*gpus: GpuView) -> GpuReading:
    return GpuReading(outcome=Outcome.OK, gpus=gpus)


def refusal(tmp_path: Path, wanted: LaunchSpec, *gpus: GpuView, **engines: list[int]) -> NoRoom:
    with pytest.raises(NoRoom) as caught:
        asyncio.run(room(wanted, says(on(*gpus)), engines=tmp_path, pids_by_engine=lambda: engines))
    return caught.value


def has_room(tmp_path: Path, wanted: LaunchSpec, reading: GpuReading) -> None:
    asyncio.run(room(wanted, says(reading), engines=tmp_path))


# --- before a start ---


def test_memory_that_a_stranger_holds(tmp_path: Path) -> None:
    taken = gpu(0, 61, held(os.getpid(), 60))

    error = refusal(tmp_path, spec("--gpu-memory-utilization", "0.9"), taken)

    assert error.verdict is FatalVerdict.WAIT
    assert not error.permanent
    assert re.fullmatch(
        r"GPU 0 has 19\.0 GiB of 80\.0 GiB free, 72\.0 GiB are needed \(--gpu-memory-utilization 0\.9\); "
        rf"held: 60\.0 GiB by pid {os.getpid()} \(.+, user .+\), not ours",
        error.message,
    )
    assert error.hint is not None


def test_memory_that_another_engine_holds_or_nobody_whom_the_driver_names(tmp_path: Path) -> None:
    error = refusal(tmp_path, spec(), gpu(0, 61, held(os.getpid(), 60)), embed=[os.getpid()])
    assert error.message.endswith("engine embed")
    error = refusal(tmp_path, spec(), gpu(0, 61))
    assert error.message.endswith("held: by nobody whom the driver names")


def test_as_much_as_is_needed_is_room(tmp_path: Path) -> None:
    wanted = spec("--gpu-memory-utilization", "0.5")
    has_room(tmp_path, wanted, on(gpu(0, 40)))
    assert "39.0 GiB" in refusal(tmp_path, wanted, gpu(0, 41)).message
    has_room(tmp_path, spec("--kv-cache-memory-bytes", "10G"), on(gpu(0, 70)))


def test_every_card_of_the_engine_is_looked_at_and_no_other(tmp_path: Path) -> None:
    both = spec("-tp", "2", gpus=("GPU-2", "GPU-1"))
    assert refusal(tmp_path, both, gpu(0), gpu(1, 79), gpu(2)).message.startswith("GPU 1 has")
    has_room(tmp_path, both, on(gpu(0, 79), gpu(1), gpu(2)))
    has_room(tmp_path, spec(gpus=()), on(gpu(0, 79)))


def test_what_can_never_fit_or_is_gone_needs_a_person(tmp_path: Path) -> None:
    error = refusal(tmp_path, spec("--kv-cache-memory-bytes", "100G"), gpu())
    assert error.verdict is FatalVerdict.PARK
    assert error.message == "GPU 0 has 80.0 GiB, 100.0 GiB are needed (--kv-cache-memory-bytes 100G)"
    error = refusal(tmp_path, spec(), GpuView(index=0, uuid="GPU-0", lost=True))
    assert error.verdict is FatalVerdict.PARK
    assert error.permanent


@pytest.mark.parametrize("reading", [NO_DRIVER, SILENT, on(), on(GpuView(index=0, uuid="GPU-0"))])
def test_what_the_driver_does_not_tell_refuses_nothing(tmp_path: Path, reading: GpuReading) -> None:
    has_room(tmp_path, spec(), reading)


def test_an_engine_whose_need_is_unknown_is_not_refused(tmp_path: Path) -> None:
    has_room(tmp_path, spec(command=("llama-server",)), on(gpu(0, 80)))


def test_a_taken_port_and_whose_it_is(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        wanted = spec(url=f"http://127.0.0.1:{port}")
        error = refusal(tmp_path, wanted)
        assert re.fullmatch(rf"port {port} is taken by pid {os.getpid()} \(.+, user .+\), not ours", error.message)
        assert error.verdict is FatalVerdict.WAIT
        assert refusal(tmp_path, wanted, embed=[os.getpid()]).message.endswith("engine embed")


@pytest.fixture
def herd(tmp_path: Path) -> Iterator[Herd]:
    herd = Herd(tmp_path / "state", tmp_path / "run")
    yield herd
    herd.end()


@in_loop
async def test_what_is_left_of_its_own_last_life_is_in_the_way_of_it_alone(herd: Herd) -> None:
    mine = herd.spec("a", "family")
    launched = await herd.launch(mine)
    herd.wait_up("a")
    wait_until(lambda: herd.remains("a").others, what="the record of the family")
    kill(launched.pid)
    wait_until(lambda: herd.remains("a").main is None, what="the end")
    engines = herd.state_dir / "engines"

    with pytest.raises(NoRoom, match=r"still there of its last life: pid \d+ \(python") as caught:
        await room(mine, says(NO_DRIVER), engines=engines)

    assert caught.value.hint == "opsboard engine stop a ends it"
    await room(herd.spec("b", "family"), says(NO_DRIVER), engines=engines)


@in_loop
async def test_an_engine_that_has_just_begun_is_no_stranger(herd: Herd) -> None:
    port = free_port()
    await herd.launch(herd.spec("a", "serve", port))
    herd.wait_up("a")
    wait_until(lambda: taken_by(port) is not None, what="the port")

    with pytest.raises(NoRoom, match=rf"port {port} is taken by pid .+, engine a$"):
        await room(herd.spec("b", "serve", port), says(NO_DRIVER), engines=herd.state_dir / "engines")


# --- which cards ---

CARDS = (gpu(0), gpu(1), gpu(2, parent=None))
SLICED = (gpu(0), gpu(1), gpu(1, uuid="MIG-a", mig="1g.10gb", parent="GPU-1"))
BY_BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("cards", "changes", "count", "found"),
    [
        (CARDS, {"gpus": ("GPU-2", "GPU-0")}, 2, ["GPU-2", "GPU-0"]),
        (CARDS, {"gpus": ("GPU-2", "GPU-0")}, 1, ["GPU-2"]),
        (CARDS, {"gpus": ("1",), "env": BY_BUS}, 1, ["GPU-1"]),
        (CARDS, {"gpus": ("1",)}, 1, []),
        (CARDS, {"env": {"CUDA_VISIBLE_DEVICES": "GPU-1, GPU-2"}}, 2, ["GPU-1", "GPU-2"]),
        (CARDS, {"env": {"CUDA_VISIBLE_DEVICES": "2", **BY_BUS}}, 1, ["GPU-2"]),
        (CARDS, {"env": {"CUDA_VISIBLE_DEVICES": ""}}, 1, []),
        (CARDS, {"gpus": ("GPU-7",)}, 1, []),
        (CARDS, {"gpus": ("GPU-",)}, 1, []),
        (CARDS, {}, 1, []),
        (CARDS, {}, 3, ["GPU-0", "GPU-1", "GPU-2"]),
        (CARDS[:1], {}, 1, ["GPU-0"]),
        (CARDS[:1], {"env": {"CUDA_VISIBLE_DEVICES": "0"}}, 1, ["GPU-0"]),
        (SLICED, {"env": {"CUDA_VISIBLE_DEVICES": "MIG-a"}}, 1, ["MIG-a"]),
        (SLICED, {"gpus": ("GPU-1",)}, 1, []),
    ],
)
def test_the_cards_of_an_engine_are_known_or_they_are_not(
    cards: tuple[GpuView, ...], changes: dict[str, object], count: int, found: list[str]
) -> None:
    assert [card.uuid for card in cards_of(spec(**changes), cards, count)] == found


# --- after a stop ---


def freed(*readings: GpuReading, gpus: tuple[str, ...] | None = None, deadline_s: float = 10.0) -> str | None:
    return virtual_time.run(memory_freed([7, 8], gpus, says(*readings), deadline_s))


def test_memory_is_free_when_nobody_is_listed_and_it_falls_no_more() -> None:
    after = on(gpu(0, 1))
    assert freed(on(gpu(0, 70, held(7, 69))), on(gpu(0, 40)), on(gpu(0, 1)), after) is None
    assert freed(on(gpu(0, 30, held(9, 29)))) is None, "a neighbour's"


def test_it_is_not_free_while_it_falls() -> None:
    falling = [on(gpu(0, 0, memory_used_bytes=200 * STILL_BYTES - step * STILL_BYTES)) for step in range(100)]
    assert freed(*falling) == "memory is still being freed: GPU 0 has 11.2 GiB in use"
    assert freed(*falling[:5]) is None


def test_a_process_that_stays_in_the_list_is_named() -> None:
    stuck = on(gpu(0), gpu(1, 70, held(8, 69)))
    assert freed(stuck) == "the driver still lists GPU 1: 69.0 GiB by pid 8"
    assert freed(stuck, gpus=("GPU-0",)) is None
    assert freed(stuck, gpus=("1",)) is not None
    assert freed(on(gpu(0, 70, GpuProcess(pid=8)))) is None, (
        "perhaps another process: a container's driver tells no more"
    )


def test_without_a_driver_the_absence_of_the_processes_is_the_proof() -> None:
    assert freed(NO_DRIVER) is None
    assert freed(SILENT) is None
    assert freed(SILENT, on(gpu(0, 70, held(8, 69)))) is not None, "it came back and says otherwise"
    assert freed(on(gpu(0, 70, held(8, 69))), SILENT) is not None, "it was proven otherwise, and never taken back"


def test_the_driver_is_asked_until_the_deadline_and_not_longer() -> None:
    async def story() -> float:
        await memory_freed([8], None, says(on(gpu(0, 70, held(8, 69)))), 10.0)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(story()) == 10.0


# --- with a driver ---


def test_a_real_reader_of_a_fake_driver(tmp_path: Path) -> None:
    cards = FakeGpus(compile_fake(tmp_path / "nvml"), tmp_path)
    cards.process(12)
    cards.say(processes=f"12:{70_000 << 20}")

    async def story() -> None:
        reader = cards.reader()
        try:
            with pytest.raises(NoRoom, match=r"GPU 0 has 11\.3 GiB of 79\.6 GiB free, 71\.7 GiB are needed"):
                await room(spec(), reader.read, engines=tmp_path)
            assert "68.4 GiB by pid 12" in (await memory_freed([12], None, reader.read, 0.0) or "")
            cards.say(memory="81559 0 500")
            assert await memory_freed([12], None, reader.read, 20.0) is None
            await room(spec(), reader.read, engines=tmp_path)
        finally:
            await reader.close()

    asyncio.run(story())
