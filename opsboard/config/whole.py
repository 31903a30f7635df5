"""The schema of a whole file: what is fixed, and the keys that detectors and notifiers bring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import cast

import msgspec

from opsboard.config import channels, detectors
from opsboard.config.schema import Channel, Config, Detectors


def config_type(
    judges: Mapping[str, detectors.Known], notifiers: Mapping[str, channels.Known] = MappingProxyType({})
) -> type[Config]:
    """Return the schema with a section for each of these detectors and the keys of each of these notifiers."""
    return _config_type(detectors.detectors_type(judges), channels.channel_type(notifiers))


@lru_cache(maxsize=8)
def _config_type(judges: type[Detectors], channel: type[Channel]) -> type[Config]:
    many = tuple[channel, ...]  # type: ignore[valid-type]  # made at run time
    made = msgspec.defstruct(
        "Config",
        [("detector", judges, judges()), ("channel", many, ())],
        bases=(Config,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": Config.__doc__},
    )
    return cast("type[Config]", made)
