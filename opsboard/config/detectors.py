"""`[detector.NAME]`: sections made from the detectors that there are, so that a new one brings its own keys.

Each has `enabled`, `severity` and the fields of its parameters. A field in seconds, ``quiet_s``, is the key ``quiet``
and takes a duration.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from opsboard.config.schema import Config, Detectors, Section
from opsboard.config.units import Seconds
from opsboard.core.incidents import Urgency

_S = TypeVar("_S", bound=Section)


class Known(Protocol):
    """What the configuration has to know of a detector (``alerts.base.Detector``)."""

    @property
    def name(self) -> str:
        """What its section is called."""

    @property
    def severity(self) -> Urgency:
        """How loud its findings are unless somebody says otherwise."""

    @property
    def summary(self) -> str:
        """What it claims."""

    @property
    def params(self) -> type[msgspec.Struct]:
        """Its parameters, each with a default."""


class Setting(NamedTuple):
    """What is configured of one detector."""

    enabled: bool
    severity: Urgency
    params: Any


def detectors_type(known: Mapping[str, Known]) -> type[Detectors]:
    """Return the section that holds one for each of these detectors."""
    return _detectors_type(tuple(known.values()))


def settings(config: Config, known: Mapping[str, Known]) -> dict[str, Setting]:
    """Return what is configured of each detector that has a section, by name.

    Raises ValueError, with the section, for what makes no sense together.
    """
    sections = ((detector, getattr(config.detector, name, None)) for name, detector in known.items())
    return {detector.name: _setting(detector, section, config) for detector, section in sections if section is not None}


def severities(config: Config, known: Mapping[str, Known]) -> dict[str, Urgency]:
    """Return how loud the findings of each detector are that is not switched off."""
    return {name: one.severity for name, one in settings(config, known).items() if one.enabled}


def shared(params: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the parameters that are whole sections of the file, not keys of the detector's own: `slo`."""
    hints = get_type_hints(params)
    return tuple(name for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Section))


def _setting(detector: Known, section: Any, config: Config) -> Setting:
    values: dict[str, Any] = {name: getattr(config, name) for name in shared(detector.params)}
    for key in _keys(detector.params):
        value = getattr(section, key.name)
        values[key.field] = float(value) if key.seconds else value
    try:
        return Setting(section.enabled, section.severity, detector.params(**values))
    except ValueError as error:
        raise ValueError(f"`detector.{detector.name}`: {error}") from error


@lru_cache(maxsize=8)
def _detectors_type(known: tuple[Known, ...]) -> type[Detectors]:
    fields: list[tuple[str, Any, Any]] = []
    for detector in known:
        # Foreign code: one that cannot be configured judges all the same, and is told of when it fails.
        with contextlib.suppress(Exception):
            section = _section(detector)
            fields.append((detector.name, section, section()))
    return _made("Detectors", Detectors, fields, Detectors.__doc__)


def _section(detector: Known) -> type[Section]:
    fields: list[tuple[str, Any, Any]] = [
        ("enabled", Annotated[bool, Meta(description="whether it judges at all")], True),
        (
            "severity",
            Annotated[Urgency, Meta(description="`page` wakes somebody, `ticket` is work, `note` is worth knowing")],
            detector.severity,
        ),
        *((key.name, key.kind, key.default) for key in _keys(detector.params)),
    ]
    return _made(detector.name, Section, fields, f"`[detector.{detector.name}]`: {detector.summary}.")


def _made(name: str, base: type[_S], fields: Iterable[tuple[str, Any, Any]], about: str | None) -> type[_S]:
    made = msgspec.defstruct(name, fields, bases=(base,), frozen=True, kw_only=True, namespace={"__doc__": about})
    return cast("type[_S]", made)


class _Key(NamedTuple):
    """One key of a detector's own, and the field of its parameters that it sets."""

    field: str
    name: str
    kind: Any
    default: Any
    seconds: bool = False


def _keys(params: type[msgspec.Struct]) -> Iterator[_Key]:
    """Yield what people can write: fields of plain types that have a default."""
    hints = get_type_hints(params, include_extras=True)
    for field in msgspec.structs.fields(params):
        hint, default = hints[field.name], field.default
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if default is msgspec.NODEFAULT or not _plain(kind):
            continue
        if kind is float and field.name.endswith("_s"):
            about = next((meta.description for meta in get_args(hint)[1:] if isinstance(meta, Meta)), None)
            duration = Annotated[Seconds, Meta(description=about)]
            yield _Key(field.name, field.name.removesuffix("_s"), duration, Seconds(default), seconds=True)
        else:
            yield _Key(field.name, field.name, hint, default)


def _plain(kind: Any) -> bool:
    if get_origin(kind) in {Union, UnionType}:
        return all(_plain(one) for one in get_args(kind))
    return get_origin(kind) is Literal or kind in {bool, int, float, str, NoneType}
