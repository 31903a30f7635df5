"""The engines that were taken over, beside those of the configuration, which wins where both name one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from opsboard.config.schema import Engine
from opsboard.core.errors import SuperviseError
from opsboard.core.model import Record
from opsboard.core.secret import Secret
from opsboard.daemon.observed import local_port
from opsboard.daemon.pipeline import EngineSpec
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.takeover.kept import Kept, everything
from opsboard.supervise.takeover.reproduction import api_key, to_launch


class TakenOver(Record, frozen=True, kw_only=True):
    """What is kept of them, by name."""

    kept: Mapping[str, Kept] = {}

    def also(self, name: str, known: Kept) -> TakenOver:
        """Return these and one more."""
        return TakenOver(kept={**self.kept, name: known})

    def without(self, name: str) -> TakenOver:
        """Return all but one."""
        return TakenOver(kept={other: known for other, known in self.kept.items() if other != name})

    def beside(self, engines: Iterable[Engine]) -> dict[str, tuple[Kept, Engine | None]]:
        """Return those that count beside configured ``engines``, each with the observed one that has its name."""
        configured = {engine.name: engine for engine in engines}
        pairs = ((name, known, configured.get(name)) for name, known in self.kept.items())
        return {name: (known, other) for name, known, other in pairs if other is None or _same(known, other)}

    def specs(self, specs: Iterable[EngineSpec], engines: Iterable[Engine]) -> list[EngineSpec]:
        """Return ``specs``, which are those of ``engines``, with what was taken over: supervised in its place."""
        joined = {spec.name: spec for spec in specs}
        for name, (known, _) in self.beside(engines).items():
            spec = joined.get(name) or EngineSpec(name=name, kind=known.kind, url=known.url)
            launch = to_launch(known.reproduction, name, known.url)
            joined[name] = msgspec.structs.replace(
                spec,
                kind=spec.kind or known.kind,
                supervised=True,
                canary=True,
                command=known.reproduction.shown,
                drain_timeout_s=launch.drain_timeout_s,
            )
        return list(joined.values())

    def launches(self, engines: Iterable[Engine]) -> list[LaunchSpec]:
        """Return how each of them is started again."""
        return [
            to_launch(known.reproduction, name, (other and other.url) or known.url)
            for name, (known, other) in self.beside(engines).items()
        ]

    def key_of(self, name: str) -> Secret | None:
        """Return what an engine asks of its clients, as far as its own command and environment tell."""
        known = self.kept.get(name)
        return None if known is None else api_key(known.reproduction)

    def passed_over(self, engines: Iterable[Engine]) -> Iterator[tuple[str, str]]:
        """Yield name and reason of each that does not count beside configured ``engines``."""
        engines = tuple(engines)
        for name in self.kept.keys() - self.beside(engines).keys():
            yield name, f"was taken over once, and is in the configuration now, which wins: engine forget {name}"


def read(engines: Path) -> tuple[TakenOver, list[SuperviseError]]:
    """Return all that is kept below ``STATE_DIR/engines`` and what of it cannot be used. Blocks shortly."""
    found, errors = everything(engines)
    usable: dict[str, Kept] = {}
    for name, known in found.items():
        try:
            to_launch(known.reproduction, name, known.url)
        except SuperviseError as error:
            errors.append(error)
        else:
            usable[name] = known
    return TakenOver(kept=usable), errors


def _same(known: Kept, other: Engine) -> bool:
    """Tell whether a configured engine is only observed, and is the one that was taken over."""
    return not other.supervised and place(other.url or "") == place(known.url)


def place(url: str) -> int | str:
    """Return what two addresses of one engine of this machine have in common."""
    port = local_port(url)
    return url if port is None else port
