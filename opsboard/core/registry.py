"""Plug-ins by file: a scan of module constants, no side effects at import. Outside packages join by entry points.

A broken plug-in is reported and skipped; it never stops the program.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any


class Plugins:
    """Constants of one name found in the modules of a package, by the name each gives itself, and what failed."""

    def __init__(self, package: str, constant: str, group: str, key: Callable[[Any], str]) -> None:
        """Scan ``package`` and the entry point ``group``; ``key`` names a plug-in."""
        self.found: dict[str, Any] = {}
        self.broken: dict[str, str] = {}
        for source, plugin in self._candidates(package, constant, group):
            if plugin is None:
                continue
            name = key(plugin)
            if name in self.found:
                self.broken[source] = f"{name!r} is already taken"
            else:
                self.found[name] = plugin

    def _candidates(self, package: str, constant: str, group: str) -> Iterator[tuple[str, Any]]:
        root = importlib.import_module(package)
        for info in pkgutil.iter_modules(root.__path__, f"{package}."):
            try:
                yield info.name, getattr(importlib.import_module(info.name), constant, None)
            except Exception as error:  # noqa: BLE001  one broken file must not hide the others
                self.broken[info.name] = repr(error)
        for point in entry_points(group=group):
            try:
                yield point.name, point.load()
            except Exception as error:  # noqa: BLE001  foreign code
                self.broken[point.name] = repr(error)


@lru_cache(maxsize=1)
def dialects() -> Plugins:
    """Return the engine dialects by kind (``collectors.base.Dialect`` records)."""
    return Plugins("collectors.engines", "DIALECT", "opsboard.engines", lambda plugin: str(plugin.kind))


@lru_cache(maxsize=1)
def detectors() -> Plugins:
    """Return the detectors by name (``alerts.base.Detector`` records)."""
    return Plugins("alerts.detectors", "DETECTOR", "opsboard.detectors", lambda plugin: str(plugin.name))


@lru_cache(maxsize=1)
def notifiers() -> Plugins:
    """Return the notifiers by kind (``alerts.notifier.Notifier`` records)."""
    return Plugins("alerts.notifiers", "NOTIFIER", "opsboard.notifiers", lambda plugin: str(plugin.kind))
