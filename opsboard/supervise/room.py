"""Is there room for an engine, and has the last one given its memory back?

Proof comes from the driver (NVML). Without one, only ports and processes are looked at. What is not known refuses
nothing: the engine itself finds out, and its log is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from opsboard.core.errors import NoRoom, StillThere
from opsboard.core.model import FatalVerdict, GpuReading, GpuView, Outcome
from opsboard.core.secret import Secret
from opsboard.supervise import ports
from opsboard.supervise.gpu_need import GpuNeed, gpu_need
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.orphans import Ours, gib, holders, ours

ReadGpus = Callable[[], Awaitable[GpuReading]]
PidsByEngine = Callable[[], Mapping[str, Collection[int]]]

LOOK_S = 0.5
"""Between two looks at memory that is being freed."""
STILL_BYTES = 64 << 20
"""Memory that falls by less between two looks has been freed; a driver frees 80 GB in one to several seconds."""
_SHOWN = 4


async def room(
    spec: LaunchSpec,
    read_gpus: ReadGpus,
    *,
    engines: Path,
    pids_by_engine: PidsByEngine = dict,
    version: str | None = None,
) -> None:
    """Return when nothing that can be seen is in the way of a start of ``spec``.

    ``read_gpus`` asks the driver and never raises; ``engines`` is the directory of all bundles; ``pids_by_engine``
    names processes that others saw of engines, such as observed ones; ``version`` is the engine's, when known.

    Raises:
        StillThere: something of its own last life runs.
        NoRoom: with ``verdict`` WAIT (taken by somebody who may go) or PARK (it can never fit, or the card is gone).
    """
    known = await asyncio.to_thread(ours, engines)
    own = [str(orphan) for orphan in known.left if orphan.engine == spec.name]
    own += [f"pid {pid}" for pid in known.serving.get(spec.name, ())]
    if own:
        hint = f"opsboard engine stop {spec.name} ends it"
        names = ", ".join(own[:_SHOWN])
        raise StillThere(f"still there of its last life: {names}", verdict=FatalVerdict.WAIT, hint=hint)
    seen = pids_by_engine()
    both = {name: {*seen.get(name, ()), *known.serving.get(name, ())} for name in {*seen, *known.serving}}
    known = msgspec.structs.replace(known, serving=both)
    await asyncio.to_thread(ports.check, spec.url, known.serving)
    need = gpu_need(spec.command, version)
    if need is None:
        return
    reading = await read_gpus()
    if reading.outcome is Outcome.OK:
        # Who the holders are is read from /proc, and an account may come from a directory server.
        await asyncio.to_thread(_check_gpus, cards_of(spec, reading.gpus, need.gpus), need, known)


def _check_gpus(cards: Sequence[GpuView], need: GpuNeed, known: Ours) -> None:
    for card in cards:
        if card.lost:
            hint = "reset the card or restart the host"
            raise NoRoom(f"{_named(card)} does not answer the driver any more", verdict=FatalVerdict.PARK, hint=hint)
        total, used = card.memory_total_bytes, card.memory_used_bytes
        if total is None or used is None:
            continue
        needed = need.of(total)
        if needed > total:
            text = f"{_named(card)} has {gib(total)}, {gib(needed)} are needed ({need.says})"
            raise NoRoom(text, verdict=FatalVerdict.PARK, hint="lower the need, or give it a larger card")
        if needed > total - used:
            by = "; ".join(map(str, holders([card], known)[:_SHOWN])) or "by nobody whom the driver names"
            raise NoRoom(
                f"{_named(card)} has {gib(max(0, total - used))} of {gib(total)} free, {gib(needed)} are needed "
                f"({need.says}); held: {by}",
                verdict=FatalVerdict.WAIT,
                hint="end what holds it, lower the need, or give the engine another GPU",
            )


def cards_of(spec: LaunchSpec, gpus: Sequence[GpuView], count: int) -> tuple[GpuView, ...]:
    """Return the ``count`` cards that an engine will use, in its order; none where that cannot be told for sure.

    CUDA numbers cards by speed unless told to go by the bus, as NVML does: a number alone names a card only then, or
    when there is but one.
    """
    devices = tuple(gpu for gpu in gpus if not any(other.parent == gpu.uuid for other in gpus))
    visible = spec.gpus if spec.gpus is not None else _visible(spec)
    if visible is None:
        return devices if len(devices) <= count else ()
    by_bus = _text(spec.env.get("CUDA_DEVICE_ORDER")) == "PCI_BUS_ID" or len(devices) == 1
    named = [_find(name, devices, by_bus=by_bus) for name in visible[:count]]
    return tuple(card for card in named if card is not None)


def _visible(spec: LaunchSpec) -> tuple[str, ...] | None:
    text = _text(spec.env.get("CUDA_VISIBLE_DEVICES"))
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _text(value: str | Secret | None) -> str | None:
    return value.reveal() if isinstance(value, Secret) else value


def _find(name: str, devices: Sequence[GpuView], *, by_bus: bool) -> GpuView | None:
    """Return the device of a uuid (or its unique beginning), or of a number."""
    if name.isdecimal():
        found = [gpu for gpu in devices if gpu.index == int(name) and gpu.mig is None] if by_bus else []
    else:
        found = [gpu for gpu in devices if gpu.uuid.startswith(name)]
    return found[0] if len(found) == 1 else None


def _named(card: GpuView) -> str:
    return f"GPU {card.index}" if card.mig is None else f"GPU {card.index} ({card.mig})"


async def memory_freed(
    pids: Collection[int], gpus: Sequence[str] | None, read_gpus: ReadGpus, deadline_s: float
) -> str | None:
    """Return None once the driver shows that ``pids``, which have ended, hold no memory any more.

    That is: it lists none of them, and the memory in use on ``gpus`` (uuids or numbers, None: all) has stopped to
    fall. After ``deadline_s`` seconds return who holds what instead. A driver that is not there, or that answers
    nothing until then, leaves the absence of the processes as the only proof, and that is taken.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    held: str | None = None
    before: dict[str, int] | None = None
    while True:
        reading = await read_gpus()
        if reading.outcome is Outcome.NO_DATA:
            return None
        if reading.outcome is Outcome.OK:
            cards = [gpu for gpu in reading.gpus if gpus is None or {gpu.uuid, gpu.parent, str(gpu.index)} & set(gpus)]
            held = _still_listed(cards, pids)
            used = {card.uuid: card.memory_used_bytes or 0 for card in cards}
            if held is None:
                falls = before is None or any(before.get(uuid, 0) - now >= STILL_BYTES for uuid, now in used.items())
                if not falls:
                    return None
                held = (
                    f"memory is still being freed: {', '.join(f'{_named(card)} has {_used(card)}' for card in cards)}"
                )
            before = used
        left_s = end - loop.time()
        if left_s <= 0:
            return held
        await asyncio.sleep(min(LOOK_S, left_s))


def _still_listed(cards: Sequence[GpuView], pids: Collection[int]) -> str | None:
    """Say what the driver still lists of ``pids``; a number without memory may be another process in a container."""
    listed = [
        f"{_named(card)}: {gib(process.memory_bytes)} by pid {process.pid}"
        for card in cards
        for process in card.processes
        if process.pid in pids and process.memory_bytes is not None
    ]
    return f"the driver still lists {'; '.join(listed[:_SHOWN])}" if listed else None


def _used(card: GpuView) -> str:
    return "unknown" if card.memory_used_bytes is None else f"{gib(card.memory_used_bytes)} in use"
