"""Say what a configuration means: every key with its value, where the value comes from, and its documentation.

Secrets are redacted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec

from opsboard.config.load import Loaded, is_secret, section_of
from opsboard.config.schema import Config, Section
from opsboard.config.units import Bytes, Seconds
from opsboard.core.model import Record
from opsboard.core.secret import Secret, without_secrets

_BARE_KEY = re.compile("[A-Za-z0-9_-]+")
_SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASS|CREDENTIAL", re.IGNORECASE)


class Line(Record, frozen=True, kw_only=True):
    """One key: its dotted name, its value as TOML (None: unset), ``file`` or ``default``, and what it means."""

    key: str
    value: str | None
    origin: str
    help: str


class KeyDoc(Record, frozen=True, kw_only=True):
    """Documentation of one key of the schema."""

    section: str
    key: str
    default: str
    help: str
    secret: bool = False


def documented_keys(section: type[Section] = Config, name: str = "") -> Iterator[KeyDoc]:
    """Yield every key that a file may hold, in the order of the schema."""
    hints = get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        inner = section_of(get_type_hints(section)[field.name])
        if inner is not None:
            yield from documented_keys(inner, f"[[{field.name}]]" if field.name == "engine" else f"[{field.name}]")
            continue
        missing = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
        default = field.default if field.default is not msgspec.NODEFAULT else None
        shown = "required" if missing else ("" if default is None else to_toml(default))
        yield KeyDoc(
            section=name,
            key=field.name,
            default=shown,
            help=description(hints[field.name]),
            secret=is_secret(hints[field.name]),
        )


def explain(loaded: Loaded, prefix: str = "") -> Iterator[Line]:
    """Yield a line for every key of the effective configuration whose dotted name begins with ``prefix``."""
    for line in _walk(loaded.config, "", loaded.given):
        if line.key.startswith(prefix):
            yield line


def print_toml(config: Config) -> str:
    """Return the effective configuration as TOML, secrets redacted."""
    out: list[str] = []
    for field in msgspec.structs.fields(Config):
        value = getattr(config, field.name)
        if value is None:
            continue
        sections = value if isinstance(value, tuple) else (value,)
        for section in sections:
            out.append(f"[[{field.name}]]" if isinstance(value, tuple) else f"[{field.name}]")
            items = ((key, getattr(section, key)) for key in section.__struct_fields__)
            out.extend(f"{key} = {to_toml(_redact(key, item))}" for key, item in items if item not in (None, {}))
            out.append("")
    return "\n".join(out).rstrip() + "\n"


def to_toml(value: Any) -> str:
    """Write one value as TOML; a Secret becomes ``"***"``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Seconds, Bytes, Secret)):
        return f'"{value!r}"'
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (
            f"{key if _BARE_KEY.fullmatch(key) else to_toml(key)} = {to_toml(item)}" for key, item in value.items()
        )
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    return str(value)


def _redact(key: str, value: Any) -> Any:
    if key == "command" and value is not None:
        return without_secrets(value)
    if key != "env":
        return value
    return {name: Secret(text) if _SECRET_NAME.search(name) else text for name, text in value.items()}


def description(hint: Any) -> str:
    """Return the description inside an ``Annotated`` hint."""
    return next(
        (meta.description or "" for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, msgspec.Meta)), ""
    )


def _walk(section: Section, where: str, given: frozenset[str]) -> Iterator[Line]:
    hints = get_type_hints(type(section), include_extras=True)
    for key in section.__struct_fields__:
        value, here = getattr(section, key), f"{where}.{key}".lstrip(".")
        if isinstance(value, Section):
            yield from _walk(value, here, given)
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            for index, item in enumerate(value):
                yield from _walk(item, f"{here}[{index}]", given)
        elif section_of(hints[key]) is None:
            named = {here, f"{here}_file", f"{here}_env"} & given
            text = None if value is None else to_toml(_redact(key, value))
            yield Line(key=here, value=text, origin="file" if named else "default", help=description(hints[key]))
