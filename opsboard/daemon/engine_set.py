"""Which engines a daemon has: those of the configuration beside those that were taken over, or bare addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from opsboard.config.schema import Config
from opsboard.core.model import GpuReading, LifeView, Severity
from opsboard.daemon.adopting import resume
from opsboard.daemon.pipeline import EngineSpec, PipelineState
from opsboard.daemon.specs import engine_specs, launch_specs, url_specs
from opsboard.daemon.taken import TakenOver, read
from opsboard.store.state import Wish
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.supervisor import Supervisor

Tell = Callable[[str, str, Severity, str], object]
"""Puts a line on a timeline: kind, text, severity, subject."""


class EngineSet:
    """The one place that knows what was taken over; the configuration comes from outside, as it may change."""

    def __init__(self, urls: tuple[str, ...], *, read_only: bool) -> None:
        """``urls``: these addresses and nothing else; ``read_only``: nothing is supervised by this daemon."""
        self.taken = TakenOver()
        self._urls = urls
        self._read_only = read_only

    async def read_taken(self, engines: Path, runtime_dir: Path, tell: Tell) -> None:
        """Learn what was taken over before (``STATE_DIR/engines``), and tell of what of it cannot be used."""
        self.taken, errors = await asyncio.to_thread(read, engines)
        errors += await asyncio.to_thread(lambda: list(resume(self.taken, engines, runtime_dir)))
        for error in errors:
            said = f"{error.message} ({error.hint})" if error.hint else error.message
            tell("taken_over_lost", said, Severity.WARNING, "host")

    def tell_passed_over(self, config: Config, tell: Tell) -> None:
        """Tell of each that was taken over and does not count beside the configuration."""
        for name, why in self.taken.passed_over(config.engine):
            tell("taken_over", why, Severity.INFO, f"engine/{name}")

    def specs(self, config: Config) -> list[EngineSpec]:
        """Return what the pipeline is told of engines."""
        if self._urls:
            return url_specs(self._urls)
        specs = engine_specs(config)
        if self._read_only:  # whoever supervises them, it is not this daemon
            return [msgspec.structs.replace(spec, supervised=False) for spec in specs]
        return self.taken.specs(specs, config.engine)

    def launches(self, config: Config, gpus: GpuReading | None) -> list[LaunchSpec]:
        """Return what the supervisor is told; ``gpus`` as :func:`launch_specs` wants them."""
        return [*launch_specs(config, gpus), *self.taken.launches(config.engine)]

    def wishes(self, known: Mapping[str, Wish]) -> dict[str, Wish]:
        """Return the wishes that were written down, and those that the last daemon died before it wrote."""
        return {**dict.fromkeys(self.taken.kept, "up"), **known}

    def key_of(self, config: Config, name: str) -> Mapping[str, str]:
        """Return what an engine's key makes of a request."""
        key = next((engine.api_key for engine in config.engine if engine.name == name), None)
        key = key or self.taken.key_of(name)
        return {} if key is None else {"Authorization": f"Bearer {key.reveal()}"}


class Joining:
    """What is done to a running daemon when an engine is taken over or let go of."""

    def __init__(
        self,
        engines: EngineSet,
        state: PipelineState,
        supervisor: Supervisor,
        config: Callable[[], Config],
        changed: Callable[[], None],
    ) -> None:
        """``changed`` reads and shows what there is now."""
        self._engines = engines
        self._state = state
        self._supervisor = supervisor
        self._config = config
        self._changed = changed

    def supervised(self) -> dict[str, int | None]:
        """Return the main process of each supervised engine by name; None while it does not run."""
        return {name: self._life(name).pid for name, spec in self._state.specs.items() if spec.supervised}

    async def take(self, taken: TakenOver, name: str) -> None:
        """Supervise the one that joined."""
        self._engines.taken = taken
        config = self._config()
        self._state.configure(self._engines.specs(config))
        await self._supervisor.take_over(next(spec for spec in taken.launches(config.engine) if spec.name == name))
        self._changed()

    def let_go(self, taken: TakenOver, name: str | None) -> None:
        """Supervise the one that left no more; None: the configuration has it."""
        if name is not None:
            self._supervisor.release(name)
        self._engines.taken = taken
        self._state.configure(self._engines.specs(self._config()))
        self._changed()

    def _life(self, name: str) -> LifeView:
        return self._supervisor.life(name)
