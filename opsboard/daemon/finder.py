"""A private daemon's engines: nobody configured them, so they are looked for again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from collectors.discover import find_engines
from opsboard.daemon.pipeline import EngineSpec
from opsboard.daemon.specs import found_specs
from opsboard.httpc.fetch import Fetcher

LOOK_S = 5.0
FORGET_LOOKS = 3
"""An engine that was not found so many times in a row is gone; before that it is shown as unreachable."""


async def find_for_ever(fetcher: Fetcher, apply: Callable[[list[EngineSpec]], None]) -> None:
    """Call ``apply`` with the engines there are, whenever they have changed."""
    known: dict[str, tuple[EngineSpec, int]] = {}
    while True:
        before = [spec for spec, _ in known.values()]
        found = {spec.url or spec.name: spec for spec in found_specs(await find_engines(fetcher))}
        known = {url: (spec, missed + 1) for url, (spec, missed) in known.items() if missed + 1 < FORGET_LOOKS}
        for url, spec in found.items():
            # A model that loads has no name yet; once it has one, the engine keeps the name it was shown under.
            known[url] = (known[url][0] if url in known else spec, 0)
        specs = [spec for spec, _ in known.values()]
        if specs != before:
            apply(specs)
        await asyncio.sleep(LOOK_S)
