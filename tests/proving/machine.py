"""The memory around the simulated engine: of its processes, of its card, of its host."""

from __future__ import annotations

import random

from opsboard.core.model import GpuProcess, GpuView, HostView, ProcessView
from tests.proving.engine_page import START
from tests.proving.fluid_engine import FluidEngine
from tests.proving.leaking_days import EVERY_S, GIB, MIB, ROLES, Shape

SHAPES = ("plain", "plateau", "logarithm", "loads", "steps", "sawtooth")


class Machine:
    """What a look every :data:`EVERY_S` shows. One process, drawn at random, has memory of ``kind``."""

    def __init__(self, engine: FluidEngine, seed: int, kind: str, *, gpu: bool) -> None:
        """``gpu``: the engine computes on a card, whose memory has that kind then."""
        self.engine, self.kind, self.gpu = engine, kind, gpu
        self.random = random.Random(f"machine {seed}")
        self.room = self.random.choice((4, 16, 64, 256)) * GIB
        self.leak = self.leak_gpu = 0.0
        """Bytes a finished request, since it began to leak."""
        self.leaked = self.leaked_gpu = 0.0
        self.lives = 0
        self._born = -1.0
        self._done = 0.0
        self._shapes: list[Shape] = []
        self._odd = 0

    def look(self, t: float) -> tuple[tuple[ProcessView, ...], tuple[GpuView, ...], HostView]:
        """Return what is seen at ``t`` seconds."""
        engine = self.engine
        if engine.born != self._born:
            self._born, self._done, self.leaked, self.leaked_gpu = engine.born, 0.0, 0.0, 0.0
            self.lives += 1
            self._odd = self.random.randrange(2)
            kinds = [self.kind if at == self._odd else "plain" for at in range(len(ROLES))]
            self._shapes = [Shape(self.random, kind, gpu=self.gpu) for kind in kinds]
        done = engine.counts.counters["requests_completed"]
        self.leaked += self.leak * (done - self._done)
        self.leaked_gpu += self.leak_gpu * (done - self._done)
        self._done = done
        load = float(engine.running + len(engine.waiting))
        levels = [shape.level(t, done, load) for shape in self._shapes]
        started = START + engine.born
        held = [0.0 if self.gpu else level for level in levels]
        held[self._odd] += self.leaked
        processes = tuple(
            ProcessView(
                pid=10 * self.lives + at, started=started, name=role, role=role, swap_bytes=0,
                rss_anon_bytes=round(700 * MIB + level),
            )
            for at, (role, level) in enumerate(zip(ROLES, held, strict=True))
        )  # fmt: skip
        host = HostView(memory_available_bytes=round(max(0.0, self.room - sum(held))))
        return processes, self._cards(max(levels)) if self.gpu else (), host

    def _cards(self, level: float) -> tuple[GpuView, ...]:
        held = 70 * GIB + level + self.leaked_gpu
        mine = GpuProcess(pid=10 * self.lives + 2, memory_bytes=round(held), engine="a")
        used, total = round(held + GIB), round(70 * GIB + self.room + GIB)
        return (GpuView(index=0, uuid="GPU-a", memory_used_bytes=used, memory_total_bytes=total, processes=(mine,)),)


__all__ = ["EVERY_S", "SHAPES", "Machine"]
