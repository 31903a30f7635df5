"""The GPU collector: the real pynvml binding on a fake driver, in the real reader process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from collectors.nvml import GpuReader, GpuTimes, join
from opsboard.core.clock import ManualClock, SystemClock
from opsboard.core.model import GpuProcess, GpuReading, GpuView, Outcome
from tests.support.fake_nvml import FakeGpus, compile_fake
from tests.support.waiting import wait_until_async

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SOON = GpuTimes(answer=0.4, start=20.0, backoff=0.05, backoff_most=0.05, abandoned_most=2)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_fake(tmp_path_factory.mktemp("nvml") / "new")


@pytest.fixture
def gpus(library: Path, tmp_path: Path) -> FakeGpus:
    return FakeGpus(library, tmp_path)


def read(gpus: FakeGpus) -> GpuReading:
    async def once() -> GpuReading:
        reader = gpus.reader()
        try:
            return await reader.read()
        finally:
            await reader.close()

    return asyncio.run(once())


def test_a_healthy_card(gpus: FakeGpus) -> None:
    gpus.process(12)
    gpus.say(processes=f"12:{70_000 * MIB}")

    reading = read(gpus)

    assert reading == GpuReading(
        outcome=Outcome.OK,
        driver="550.54.15",
        gpus=(
            GpuView(
                index=0,
                uuid="GPU-fake-0",
                name="NVIDIA H100 80GB HBM3",
                memory_used_bytes=70_000 * MIB,
                memory_total_bytes=81_559 * MIB,
                utilization=0.97,
                power_w=612.345,
                power_limit_w=700.0,
                temperature_c=64,
                sm_clock_mhz=1755,
                memory_clock_mhz=2619,
                throttle=("sw_power_cap",),
                ecc_corrected=3,
                ecc_uncorrected=0,
                processes=(GpuProcess(pid=12, memory_bytes=70_000 * MIB),),
            ),
        ),
    )


def test_a_sensor_that_is_not_supported_is_none_and_spoils_no_other(gpus: FakeGpus) -> None:
    gpus.say(
        "error.nvmlDeviceGetTotalEccErrors NOT_SUPPORTED",
        "0.error.nvmlDeviceGetPowerUsage NO_PERMISSION",
        "error.nvmlDeviceGetMemoryInfo_v2 NOT_SUPPORTED",
        "error.nvmlDeviceGetMemoryInfo NOT_SUPPORTED",
        cards=2,
    )

    first, second = read(gpus).gpus

    assert (first.power_w, second.power_w) == (None, 612.345)
    assert (first.ecc_corrected, first.ecc_uncorrected) == (None, None)
    assert (first.memory_used_bytes, first.memory_total_bytes) == (None, None)
    assert first.utilization == 0.97


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        ("0x0", ()),
        ("0x1", ()),  # idle
        ("0x68", ("hw_slowdown", "sw_thermal", "hw_thermal")),
        ("0x81", ("hw_power_brake",)),
        ("0x8000", ("reason_0x8000",)),
    ],
)
def test_throttle_reasons_have_names(gpus: FakeGpus, bits: str, names: tuple[str, ...]) -> None:
    gpus.say(reasons=bits)

    assert read(gpus).gpus[0].throttle == names


def test_a_name_with_terminal_escapes_is_made_harmless(gpus: FakeGpus) -> None:
    gpus.say(name="NVIDIA\x1b]0;owned\x07 H100")

    assert read(gpus).gpus[0].name == "NVIDIA\ufffd]0;owned\ufffd H100"


def test_a_lost_card_is_a_state_and_the_others_go_on(gpus: FakeGpus) -> None:
    gpus.say(cards=2)

    async def story() -> tuple[GpuReading, GpuReading]:
        reader = gpus.reader()
        try:
            before = await reader.read()
            gpus.say("0.error.* GPU_IS_LOST", "xid 0 79", cards=2)
            return before, await reader.read()
        finally:
            await reader.close()

    before, after = asyncio.run(story())

    assert not before.gpus[0].lost
    lost, fine = after.gpus
    assert fine == before.gpus[1]
    assert (lost.uuid, lost.name, lost.lost, lost.xid) == ("GPU-fake-0", "NVIDIA H100 80GB HBM3", True, 79)
    assert [lost.memory_used_bytes, lost.utilization, lost.power_w, lost.throttle] == [None] * 4


def test_a_card_that_was_lost_before_is_seen_when_it_comes_back(gpus: FakeGpus) -> None:
    gpus.say("0.error.* GPU_IS_LOST", "xid 0 79")
    clock = ManualClock()

    async def story() -> list[GpuReading]:
        reader = gpus.reader(clock=clock)
        try:
            readings = [await reader.read()]
            gpus.say()
            clock.advance(61)
            readings.append(await reader.read())  # still the old process: it only knows the lost card
            readings.append(await reader.read())
            return readings
        finally:
            await reader.close()

    first, second, third = asyncio.run(story())

    assert first.gpus == second.gpus == (GpuView(index=0, uuid="unknown-0", lost=True),)
    assert third.gpus[0].uuid == "GPU-fake-0"
    assert third.gpus[0].memory_total_bytes == 81_559 * MIB


def test_mig_instances_follow_their_card(gpus: FakeGpus) -> None:
    gpus.process(12)
    gpus.say(
        "0.mig0.name NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "0.mig0.memory 40448 30000 60",
        f"0.mig0.processes 12:{30_000 * MIB}",
        "0.mig1.attributes 3 1 20096",  # a driver that does not name the profile
        "0.mig1.memory 20096 10 30",
        "error.nvmlDeviceGetUtilizationRates NOT_SUPPORTED",
        mig=2,
        processes=f"12:{30_000 * MIB}",
    )

    card, big, small = read(gpus).gpus

    assert (card.mig, card.processes, card.utilization, card.power_w) == (None, (), None, 612.345)
    assert (big.index, big.uuid, big.parent, big.mig) == (0, "MIG-fake-0-0", "GPU-fake-0", "3g.40gb")
    assert (big.memory_used_bytes, big.memory_total_bytes) == (30_000 * MIB, 40_448 * MIB)
    assert big.processes == (GpuProcess(pid=12, memory_bytes=30_000 * MIB),)
    assert big.power_w is None
    assert (small.mig, small.processes) == ("1c.3g.20gb", ())


def test_xid_events_are_heard_once_and_kept(gpus: FakeGpus) -> None:
    async def story() -> list[GpuReading]:
        reader = gpus.reader()
        try:
            readings = [await reader.read()]
            gpus.say("xid 0 31", "xid 1 48", "xid 0 63", cards=2)
            readings.append(await reader.read())
            readings.append(await reader.read())
            return readings
        finally:
            await reader.close()

    gpus.say(cards=2)
    before = SystemClock().now().wall
    none, heard, kept = asyncio.run(story())
    after = SystemClock().now().wall

    assert [gpu.xid for gpu in none.gpus] == [None, None]
    assert [gpu.xid for gpu in heard.gpus] == [63, 48]
    assert [gpu.xid_time for gpu in heard.gpus] == [gpu.xid_time for gpu in kept.gpus]
    assert before <= (heard.gpus[0].xid_time or 0) <= after


def test_the_last_xid_survives_a_new_reader_process(gpus: FakeGpus) -> None:
    async def story() -> GpuReading:
        reader = gpus.reader(times=SOON)
        try:
            gpus.say("xid 0 31")
            await answered(reader)
            gpus.say("hang nvmlDeviceGetTemperature")
            assert (await reader.read()).outcome is Outcome.FAILED
            gpus.say()
            return await answered(reader)
        finally:
            await reader.close()

    assert asyncio.run(story()).gpus[0].xid == 31


def test_memory_of_a_process_that_the_driver_cannot_tell_is_none(gpus: FakeGpus) -> None:
    gpus.process(12)
    gpus.process(13)
    gpus.say(processes=f"12:na 13:{1 << 60} 14:{MIB}")  # 13: more than the card has; 14: not in our /proc

    assert read(gpus).gpus[0].processes == (GpuProcess(pid=12), GpuProcess(pid=13), GpuProcess(pid=14))


def test_in_a_foreign_pid_namespace_only_a_process_that_holds_a_card_is_ours(gpus: FakeGpus) -> None:
    gpus.namespace("pid:[4026532345]")
    gpus.process(12, "/dev/null", "/dev/nvidia0")
    gpus.process(13, "/dev/null")
    gpus.say(processes=f"12:{MIB} 13:{MIB} 90123:{MIB}")

    assert [process.memory_bytes for process in read(gpus).gpus[0].processes] == [MIB, None, None]


def test_a_driver_from_before_the_newer_functions(gpus: FakeGpus, tmp_path: Path) -> None:
    old = FakeGpus(compile_fake(tmp_path / "old", old=True), tmp_path)
    old.process(12)
    old.say(processes=f"12:{MIB}", reasons="0x20")

    gpu = read(old).gpus[0]

    assert gpu.memory_used_bytes == 70_500 * MIB  # version 1 counts what is reserved as used
    assert gpu.throttle == ("sw_thermal",)
    assert gpu.processes == (GpuProcess(pid=12, memory_bytes=MIB),)


async def answered(reader: GpuReader) -> GpuReading:
    """Read until the reader process has started and answers."""
    newest: list[GpuReading] = []

    for _ in range(200):
        newest.append(await reader.read())
        if newest[-1].outcome is Outcome.OK:
            return newest[-1]
        await asyncio.sleep(0.02)
    raise AssertionError(newest[-1])


def test_a_hanging_driver_fails_its_reading_and_is_read_again_when_it_answers(gpus: FakeGpus) -> None:
    async def story() -> tuple[GpuReading, GpuReading, GpuReading]:
        reader = gpus.reader(times=SOON)
        ticks = 0

        async def other_work() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        other = asyncio.create_task(other_work())
        try:
            await answered(reader)
            gpus.say("hang nvmlDeviceGetPowerUsage")
            ticks_before = ticks
            hung = await reader.read()
            assert ticks > ticks_before + 5  # nothing else waited
            resting = await reader.read()
            gpus.say()
            return hung, resting, await answered(reader)
        finally:
            other.cancel()
            await reader.close()

    hung, resting, again = asyncio.run(story())

    assert hung.outcome is Outcome.FAILED
    assert hung.error is not None
    assert hung.error.startswith("NVIDIA driver does not answer since 20")
    assert resting == hung
    assert again.gpus[0].power_w == 612.345


def test_a_driver_that_still_hangs_when_it_is_asked_afresh_goes_on_failing(gpus: FakeGpus) -> None:
    clock = ManualClock()

    async def story() -> list[GpuReading]:
        reader = gpus.reader(times=GpuTimes(answer=0.3, start=30.0, backoff=1.0), clock=clock)
        try:
            await answered(reader)
            gpus.say("hang nvmlInitWithFlags", "hang nvmlDeviceGetPowerUsage")
            readings = [await reader.read()]
            for _ in range(2):  # a new process, which waits for the driver as long as it is allowed to
                clock.advance(2)
                readings.append(await reader.read())
            return readings
        finally:
            await reader.close()

    readings = asyncio.run(story())

    assert [reading.outcome for reading in readings] == [Outcome.FAILED] * 3
    assert {reading.error for reading in readings} == {readings[0].error}  # neither "starting" nor no cards


def test_readers_beyond_any_signal_are_left_and_at_most_some_of_them(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    unkillable: list[subprocess.Popen[bytes]] = []

    def ignored(process: subprocess.Popen[bytes]) -> None:
        unkillable.append(process)

    async def story() -> list[GpuReading]:
        gpus.say("hang nvmlDeviceGetPowerUsage")
        clock = ManualClock()
        reader = gpus.reader(times=GpuTimes(answer=0.3, start=0.0, backoff=1.0, abandoned_most=2), clock=clock)
        readings = []
        try:
            with monkeypatch.context() as patch:
                patch.setattr(subprocess.Popen, "kill", ignored)
                for _ in range(3):
                    readings.append(await reader.read())
                    clock.advance(100)
                assert reader.abandoned == 2
            for process in unkillable:
                process.kill()
            await wait_until_async(lambda: reader.abandoned == 0, what="killed readers are gone")
            gpus.say()
            clock.advance(100)
            for _ in range(200):  # with this clock a start takes no time at all
                readings.append(await reader.read())
                if readings[-1].outcome is Outcome.OK:
                    break
                clock.advance(100)
            return readings
        finally:
            await reader.close()

    readings = asyncio.run(story())

    assert "does not answer since" in str(readings[0].error)
    assert "2 readers hang in it, no more are started" in str(readings[2].error)
    assert readings[-1].outcome is Outcome.OK


def test_a_driver_that_takes_long_to_start_is_not_given_up(gpus: FakeGpus) -> None:
    gpus.say("hang nvmlInitWithFlags")
    clock = ManualClock()

    async def story() -> list[GpuReading]:
        reader = gpus.reader(times=GpuTimes(answer=0.05, start=30.0), clock=clock)
        try:
            readings = [await reader.read()]
            clock.advance(7)
            readings.append(await reader.read())
            clock.advance(24)
            readings.append(await reader.read())
            return readings
        finally:
            await reader.close()

    _, starting, given_up = asyncio.run(story())

    assert (starting.outcome, starting.error) == (Outcome.NO_DATA, "the NVIDIA driver is starting (7 s so far)")
    assert given_up.outcome is Outcome.FAILED
    assert "does not answer since 2023-11-14 22:13:20 UTC" in str(given_up.error)


def test_a_machine_without_driver_says_so_in_one_line_and_is_asked_once_a_minute(tmp_path: Path) -> None:
    clock = ManualClock()

    async def story() -> list[GpuReading]:
        reader = GpuReader(
            clock=clock, times=GpuTimes(answer=20.0), environment={"LD_LIBRARY_PATH": str(tmp_path), "PATH": ""}
        )
        try:
            readings = [await reader.read()]
            (tmp_path / "libnvidia-ml.so.1").write_text("no library")
            clock.advance(59)
            readings.append(await reader.read())
            clock.advance(2)
            readings.append(await reader.read())
            return readings
        finally:
            await reader.close()

    none, still_none, broken = asyncio.run(story())

    assert none.outcome is Outcome.NO_DATA
    assert none.error == "no NVIDIA driver on this machine (libnvidia-ml.so.1 not found)"
    assert still_none == none
    assert broken.outcome is Outcome.FAILED
    assert "libnvidia-ml.so.1 does not load" in str(broken.error)


@pytest.mark.parametrize(
    ("said", "outcome", "words"),
    [
        ("init DRIVER_NOT_LOADED", Outcome.NO_DATA, "the NVIDIA driver is not loaded"),
        (
            "init LIB_RM_VERSION_MISMATCH",
            Outcome.FAILED,
            "library and kernel module are of different versions: reboot, or reload the driver",
        ),
        ("gpus 0", Outcome.NO_DATA, "NVIDIA driver 550.54.15 finds no GPU on this machine"),
        ("error.nvmlDeviceGetCount UNKNOWN", Outcome.FAILED, "the NVIDIA driver does not start: Unknown Error"),
    ],
)
def test_a_driver_without_cards_or_in_trouble(gpus: FakeGpus, said: str, outcome: Outcome, words: str) -> None:
    gpus.say(said)

    reading = read(gpus)

    assert reading.outcome is outcome
    assert words in str(reading.error)
    assert reading.gpus == ()


def test_a_reader_process_that_dies_is_said_and_started_again(gpus: FakeGpus) -> None:
    async def story() -> tuple[GpuReading, GpuReading]:
        reader = gpus.reader(times=SOON)
        try:
            await answered(reader)
            assert reader._reader is not None
            reader._reader.process.kill()
            reader._reader.process.wait(timeout=10)
            return await reader.read(), await answered(reader)
        finally:
            await reader.close()

    died, again = asyncio.run(story())

    assert died.outcome is Outcome.FAILED
    assert died.error == "the GPU reader process ended with code -9 without an answer"
    assert again.outcome is Outcome.OK


def test_the_reader_process_ends_with_its_parent(gpus: FakeGpus) -> None:
    async def story() -> int | None:
        reader = gpus.reader()
        try:
            await reader.read()
            assert reader._reader is not None
            process = reader._reader.process
            reader._reader.out.close()  # what the kernel does for a parent that was killed
            await wait_until_async(lambda: process.poll() is not None, what="the reader process has ended")
            return process.returncode
        finally:
            await reader.close()

    assert asyncio.run(story()) == 0


def test_processes_are_joined_to_engines_by_process_tree() -> None:
    gpu = GpuView(
        index=0,
        uuid="GPU-0",
        processes=(
            GpuProcess(pid=11, memory_bytes=5),
            GpuProcess(pid=12, memory_bytes=7),
            GpuProcess(pid=13, memory_bytes=9),
            GpuProcess(pid=21),
        ),
    )

    (joined,) = join([gpu], {"llama-a": [10, 11, 12], "llama-b": {21}})

    assert [process.engine for process in joined.processes] == ["llama-a", "llama-a", None, None]
    assert [process.memory_bytes for process in joined.processes] == [5, 7, 9, None]


def test_a_reader_that_was_still_being_started_leaves_nothing_behind(gpus: FakeGpus) -> None:
    async def story() -> int:
        reader = gpus.reader()
        reading = asyncio.ensure_future(reader.read())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await reader.close()
        return reader.abandoned

    assert asyncio.run(story()) == 0
