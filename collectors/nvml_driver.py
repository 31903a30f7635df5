"""What NVIDIA's driver says of its GPUs, as domain records. Only the reader process may use this: a call may hang.

Every sensor is asked by itself: one that this card, driver or user cannot answer is None and spoils no other.
Function names and units are those of the NVML API reference.
"""

from __future__ import annotations

import ctypes
import math
import os
from typing import Any

import msgspec

from collectors import procfs
from opsboard.core.clock import Clock
from opsboard.core.model import GpuProcess, GpuReading, GpuView, Outcome, Record
from opsboard.core.text import sanitise

# nvmlClocksEventReasons (nvml.h). Idle is left out: a card with nothing to do is not being slowed.
_IDLE = 0x1
_REASONS = {
    0x2: "applications_clocks",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
    0x100: "display_clocks",
    0x200: "board_limit",
    0x400: "reliability",
}
_XIDS_PER_READING = 256
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of the kernel


class _Lost(Exception):
    """The card fell off the bus in the middle of a reading."""


class _Card(Record, frozen=True):
    """What never changes about a card, asked once; ``handle`` is None for one that was lost before."""

    index: int
    handle: Any
    uuid: str
    name: str | None


class Driver:
    """All GPUs through the pynvml binding. Raises the binding's NVMLError when the driver as a whole does not work."""

    def __init__(self, nvml: Any, clock: Clock, proc_root: str = procfs.PROC) -> None:
        """Initialise NVML and ask what never changes; ``nvml`` is the pynvml module, ``clock`` dates the Xid events."""
        self._nvml = nvml
        self._clock = clock
        self._proc = proc_root
        nvml.nvmlInit()
        version = self._ask("nvmlSystemGetDriverVersion")
        self._version = None if version is None else sanitise(str(version), 40)
        self._cards = [self._card(index) for index in range(nvml.nvmlDeviceGetCount())]
        self._profiles: dict[str, str | None] = {}
        self._xids: dict[str, tuple[int, float]] = {}
        self._events = self._subscribe()

    def read(self) -> GpuReading:
        """Return every card and, after each card, its MIG instances. Raises NVMLError when the driver is gone."""
        if self._nvml.nvmlDeviceGetCount() != len(self._cards):
            self._cards = [self._card(index) for index in range(self._nvml.nvmlDeviceGetCount())]
            self._events = self._subscribe()
        if not self._cards:
            error = f"NVIDIA driver {self._version or ''} finds no GPU on this machine".replace("  ", " ")
            return GpuReading(outcome=Outcome.NO_DATA, driver=self._version, error=error)
        self._note_xids()
        pids = _Pids(self._proc)
        gpus = [view for card in self._cards for view in self._views(card, pids)]
        return GpuReading(outcome=Outcome.OK, gpus=tuple(gpus), driver=self._version)

    # --- asking
    # ---------------------------------------------------------------------------------------------------------

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Return what an NVML function says, None where it cannot. Raises _Lost."""
        try:
            return getattr(self._nvml, function)(*arguments)
        except self._nvml.NVMLError as error:
            if error.value == self._nvml.NVML_ERROR_GPU_IS_LOST:
                raise _Lost from error
            return None

    def _card(self, index: int) -> _Card:
        try:
            handle = self._ask("nvmlDeviceGetHandleByIndex", index)
            uuid = None if handle is None else self._ask("nvmlDeviceGetUUID", handle)
            name = None if handle is None else self._ask("nvmlDeviceGetName", handle)
        except _Lost:
            return _Card(index, None, f"unknown-{index}", None)
        return _Card(index, handle, sanitise(str(uuid or f"unknown-{index}"), 80), name and sanitise(str(name), 80))

    def _views(self, card: _Card, pids: _Pids) -> list[GpuView]:
        xid, xid_time = self._xids.get(card.uuid, (None, None))
        try:
            if card.handle is None:
                raise _Lost
            instances = self._instances(card, pids)
            whole = self._view(card, pids, mig=instances is not None)
        except _Lost:
            whole = GpuView(index=card.index, uuid=card.uuid, name=card.name, lost=True)
            instances = None
        if xid is not None:
            whole = _with_xid(whole, xid, xid_time)
        return [whole, *(instances or ())]

    def _view(self, card: _Card, pids: _Pids, *, mig: bool) -> GpuView:
        nvml, handle = self._nvml, card.handle
        used, total = self._memory(handle)
        load = self._ask("nvmlDeviceGetUtilizationRates", handle)
        return GpuView(
            index=card.index,
            uuid=card.uuid,
            name=card.name,
            memory_used_bytes=used,
            memory_total_bytes=total,
            utilization=None if load is None else load.gpu / 100,
            power_w=_thousandth(self._ask("nvmlDeviceGetPowerUsage", handle)),
            power_limit_w=_thousandth(self._ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
            temperature_c=self._ask("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM),
            throttle=self._throttle(handle),
            ecc_corrected=self._ecc(handle, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ecc_uncorrected=self._ecc(handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            processes=() if mig else self._processes(handle, pids, total),  # else each would be listed twice
        )

    def _memory(self, handle: Any) -> tuple[int | None, int | None]:
        """Used and total bytes. Version 2 leaves what the driver reserves out of "used", version 1 counts it in."""
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle, self._nvml.nvmlMemory_v2)
        if memory is None:
            memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        return (None, None) if memory is None else (int(memory.used), int(memory.total))

    def _throttle(self, handle: Any) -> tuple[str, ...] | None:
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if bits is None:  # its name before driver 535
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        if bits is None:
            return None
        set_bits = [1 << place for place in range(int(bits).bit_length()) if int(bits) >> place & 1]
        return tuple(_REASONS.get(bit, f"reason_{bit:#x}") for bit in set_bits if bit != _IDLE)

    def _ecc(self, handle: Any, kind: int) -> int | None:
        count = self._ask("nvmlDeviceGetTotalEccErrors", handle, kind, self._nvml.NVML_VOLATILE_ECC)
        return None if count is None else int(count)

    def _processes(self, handle: Any, pids: _Pids, total: int | None) -> tuple[GpuProcess, ...]:
        found = self._ask("nvmlDeviceGetComputeRunningProcesses_v3", handle)
        if found is None:  # before driver 510
            found = self._ask("nvmlDeviceGetComputeRunningProcesses_v2", handle)
        views = {}
        for process in found or ():
            held = process.usedGpuMemory
            sane = held is not None and (total is None or held <= total)  # driver 535 was seen to say nonsense
            views[int(process.pid)] = GpuProcess(
                pid=int(process.pid), memory_bytes=int(held) if sane and pids.ours(process.pid) else None
            )
        return tuple(views.values())

    # --- MIG
    # ------------------------------------------------------------------------------------------------------------

    def _instances(self, card: _Card, pids: _Pids) -> list[GpuView] | None:
        """Return the MIG instances of a card, None when MIG is off."""
        mode = self._ask("nvmlDeviceGetMigMode", card.handle)
        if mode is None or mode[0] != 1:
            return None
        views = []
        for place in range(self._ask("nvmlDeviceGetMaxMigDeviceCount", card.handle) or 0):
            handle = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", card.handle, place)
            uuid = None if handle is None else self._ask("nvmlDeviceGetUUID", handle)
            if uuid is None:
                continue  # this place is empty
            used, total = self._memory(handle)
            views.append(
                GpuView(
                    index=card.index,
                    uuid=sanitise(str(uuid), 80),
                    name=card.name,
                    mig=self._profile(str(uuid), handle),
                    parent=card.uuid,
                    memory_used_bytes=used,
                    memory_total_bytes=total,
                    processes=self._processes(handle, pids, total),
                )
            )
        return views

    def _profile(self, uuid: str, handle: Any) -> str:
        """Return the profile of an instance as nvidia-smi names it, e.g. "1g.10gb" or "1c.3g.40gb"."""
        if uuid not in self._profiles:
            _, found, profile = str(self._ask("nvmlDeviceGetName", handle) or "").partition(" MIG ")
            self._profiles[uuid] = sanitise(profile, 40) if found else self._profile_by_size(handle)
        return self._profiles[uuid] or "MIG"

    def _profile_by_size(self, handle: Any) -> str | None:
        shape = self._ask("nvmlDeviceGetAttributes_v2", handle)
        if shape is None:
            return None
        compute, slices = int(shape.computeInstanceSliceCount), int(shape.gpuInstanceSliceCount)
        part = "" if compute == slices else f"{compute}c."
        return f"{part}{slices}g.{math.ceil(shape.memorySizeMB / 1024)}gb"

    # --- Xid
    # ------------------------------------------------------------------------------------------------------------

    def _subscribe(self) -> Any:
        """Return an event set that hears the Xid events of all cards that have them, None when none can be heard."""
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            return None
        for card in self._cards:
            try:
                if card.handle is not None and nvml.nvmlDeviceGetSupportedEventTypes(card.handle) & (
                    nvml.nvmlEventTypeXidCriticalError
                ):
                    nvml.nvmlDeviceRegisterEvents(card.handle, nvml.nvmlEventTypeXidCriticalError, events)
            except nvml.NVMLError:
                continue
        return events

    def _note_xids(self) -> None:
        """Take in the Xid events that came since the last reading, without waiting for one."""
        if self._events is None:
            return
        wall = self._clock.now().wall
        cards = {_address(card.handle): card.uuid for card in self._cards if card.handle is not None}
        for _ in range(_XIDS_PER_READING):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
            except self._nvml.NVMLError:
                return  # NVML_ERROR_TIMEOUT: no more of them
            uuid = cards.get(_address(event.device))
            if uuid is not None:
                self._xids[uuid] = (int(event.eventData), wall)


class _Pids:
    """Whose ids the driver speaks of: those of the host, which inside a container name nobody or another process."""

    def __init__(self, proc_root: str) -> None:
        self._proc = proc_root
        try:
            self._initial = os.readlink(f"{proc_root}/self/ns/pid") == _INITIAL_PID_NAMESPACE  # noqa: PTH115
        except OSError:
            self._initial = False

    def ours(self, pid: int) -> bool:
        """Tell whether ``pid`` surely is that process of our /proc; in another namespace it must hold a card."""
        home = f"{self._proc}/{pid}"
        if self._initial:
            return os.path.exists(home)  # noqa: PTH110  once a process and second
        try:
            return any(_opens_card(f"{home}/fd/{number}") for number in os.listdir(f"{home}/fd"))  # noqa: PTH208
        except OSError:
            return False


def _opens_card(link: str) -> bool:
    try:
        return os.readlink(link).startswith("/dev/nvidia")  # noqa: PTH115
    except OSError:
        return False


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _thousandth(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _with_xid(view: GpuView, xid: int, when: float | None) -> GpuView:
    return msgspec.structs.replace(view, xid=xid, xid_time=when)
