"""`[[channel]]`: one section for all kinds, with the keys of every notifier there is, so that a new one brings its own.

Which keys a channel may have follows from its `kind`. A field in seconds, ``pause_s``, is the key ``pause`` and takes
a duration.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Protocol, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from opsboard.config.schema import Channel, Config
from opsboard.config.units import Seconds
from opsboard.core.errors import ConfigError


class Known(Protocol):
    """What the configuration has to know of a notifier (``alerts.notifier.Notifier``)."""

    @property
    def kind(self) -> str:
        """What `kind` says."""

    @property
    def params(self) -> type[msgspec.Struct]:
        """What it needs: required without a default."""


class ChannelSetting(NamedTuple):
    """What is configured of one channel."""

    name: str
    kind: str
    params: Any


class _Key(NamedTuple):
    field: str
    name: str
    kind: Any
    hint: Any
    """``kind``, or nothing, with what it means."""
    required: bool


def channel_type(known: Mapping[str, Known]) -> type[Channel]:
    """Return the section with the keys of all these notifiers, each of them optional."""
    return _channel_type(tuple(known.values()))


def channel_settings(path: Path | None, config: Config, known: Mapping[str, Known]) -> list[ChannelSetting]:
    """Return what is configured of each channel, in order. Raises ConfigError for what makes no sense."""
    found: list[ChannelSetting] = []
    for index, channel in enumerate(config.channel):
        where = f"{path}: `channel[{index}]`"
        if channel.name in {one.name for one in found}:
            raise ConfigError(f"{where}: there is a channel {channel.name!r} already")
        notifier = known.get(channel.kind)
        if notifier is None:
            near = difflib.get_close_matches(channel.kind, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}"
            raise ConfigError(f"{where}: nothing tells by {channel.kind!r}", hint=hint)
        found.append(ChannelSetting(channel.name, channel.kind, _params(where, channel, notifier)))
    names = [one.name for one in found]
    for index, route in enumerate(config.alert_route):
        for key, name in [("channels", one) for one in route.channels] + [
            ("escalate_to", one) for one in route.escalate_to
        ]:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
                raise ConfigError(f"{path}: `alert_route[{index}].{key}`: there is no channel {name!r}", hint=hint)
    return found


def _params(where: str, channel: Channel, notifier: Known) -> Any:
    keys = {key.name: key for key in _keys(notifier.params)}
    values: dict[str, Any] = {}
    for name in channel.__struct_fields__:
        value = getattr(channel, name)
        if name in Channel.__struct_fields__ or value is None:
            continue
        if name not in keys:
            allowed = ", ".join(f"`{key}`" for key in keys) or "none"
            raise ConfigError(f"{where}: `{name}` is no key of kind {notifier.kind!r}", hint=f"it has {allowed}")
        if not _fits(keys[name].kind, value):
            wanted = "a list" if get_origin(keys[name].kind) is tuple else "a string"
            raise ConfigError(f"{where}: `{name}` of a channel of kind {notifier.kind!r}: expected {wanted}")
        values[keys[name].field] = float(value) if isinstance(value, Seconds) else value
    missing = [key.name for key in keys.values() if key.required and key.field not in values]
    if missing:
        raise ConfigError(f"{where}: a channel of kind {notifier.kind!r} needs `{missing[0]}`")
    try:
        return notifier.params(**values)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


@lru_cache(maxsize=8)
def _channel_type(known: tuple[Known, ...]) -> type[Channel]:
    fields: dict[str, tuple[str, Any, Any]] = {}
    for key in (key for notifier in known for key in _keys(notifier.params)):
        before = fields.get(key.name)
        # One kind has a list where another has a word: which of them is right is seen when the kind is known.
        hint = key.hint if before is None or before[1] == key.hint else _either(before[1], key.hint)
        fields[key.name] = (key.name, hint, None)
    return msgspec.defstruct(  # type: ignore[return-value]  # a subclass of its base
        "Channel",
        list(fields.values()),
        bases=(Channel,),
        frozen=True,
        kw_only=True,
        namespace={"__doc__": Channel.__doc__},
    )


def _keys(params: type[msgspec.Struct]) -> Iterator[_Key]:
    """Yield what people can write of a notifier's parameters."""
    hints = get_type_hints(params, include_extras=True)
    for field in msgspec.structs.fields(params):
        hint = hints[field.name]
        kind, *about = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        name = field.name
        if kind is float and name.endswith("_s"):
            kind, name = Seconds, name.removesuffix("_s")
        optional = kind if get_origin(kind) in {Union, UnionType} and NoneType in get_args(kind) else kind | None
        metas = tuple(one for one in about if isinstance(one, Meta))
        yield _Key(field.name, name, kind, Annotated[optional, *metas] if metas else optional, field.required)


def _either(one: Any, other: Any) -> Any:
    """Return what holds either of two annotations, with the meanings of both."""
    kinds = [get_args(hint)[0] if get_origin(hint) is Annotated else hint for hint in (one, other)]
    said = [meta.description for hint in (one, other) for meta in get_args(hint)[1:] if isinstance(meta, Meta)]
    about = Meta(description="; or ".join(dict.fromkeys(text for text in said if text)))
    return Annotated[kinds[0] | kinds[1], about]


def _fits(kind: Any, value: object) -> bool:
    """Tell a word from a list."""
    if get_origin(kind) is tuple:
        return isinstance(value, tuple)
    return isinstance(value, str) if kind is str else True
