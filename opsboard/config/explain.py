"""Say what a configuration means: every key with its value, where the value comes from, and its documentation.

Secrets are redacted.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Literal, get_type_hints

import msgspec

from opsboard.config.load import SECRET_SOURCES, Loaded, is_secret, section_of
from opsboard.config.policies import detectors_of
from opsboard.config.schema import Config, Detectors, Engine, Policy, Route, Section
from opsboard.config.units import Bytes, Seconds
from opsboard.core.model import Record
from opsboard.core.secret import Secret, without_secrets

_BARE_KEY = re.compile("[A-Za-z0-9_-]+")
_SECRET_NAME = re.compile("TOKEN|KEY|SECRET|PASS|CREDENTIAL", re.IGNORECASE)


class Line(Record, frozen=True, kw_only=True):
    """One key: its dotted name, its value as TOML (None: not set), where that comes from, and what it means."""

    key: str
    value: str | None
    origin: Literal["file", "default", "no section"]
    """``no section``: the file has no such section, so not even the default is in force."""
    default: str
    """As in :class:`KeyDoc`."""
    help: str


class KeyDoc(Record, frozen=True, kw_only=True):
    """Documentation of one key of the schema."""

    section: str
    """Its heading."""
    about: str
    """What the section is for."""
    key: str
    default: str
    """As TOML; empty: there is none; ``required``: a section must have the key."""
    help: str
    secret: bool = False


def documented_keys(section: type[Section] = Config, path: str = "", name: str = "") -> Iterator[KeyDoc]:
    """Yield every key that a file may hold, in the order of the schema."""
    hints = get_type_hints(section, include_extras=True)
    about = (section.__doc__ or "").strip().partition(": ")[2]
    for field in msgspec.structs.fields(section):
        inner = section_of(get_type_hints(section)[field.name])
        if inner is not None:
            below = f"{path}.{field.name}".lstrip(".")
            yield from documented_keys(inner, below, f"[[{below}]]" if field.default == () else f"[{below}]")
            continue
        missing = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
        default = field.default if field.default is not msgspec.NODEFAULT else None
        shown = "required" if missing else ("" if default is None else to_toml(default))
        yield KeyDoc(
            section=name,
            about=about[:1].upper() + about[1:],
            key=field.name,
            default=shown,
            help=description(hints[field.name]),
            secret=is_secret(hints[field.name]),
        )


def explain(loaded: Loaded, prefix: str = "") -> Iterator[Line]:
    """Yield a line for every key of the schema whose dotted name begins with ``prefix``.

    A key of an engine has several names: ``engine[0].url``, ``engine.NAME.url``, and ``engine.url`` for all engines;
    that of a route likewise, by its model, and that of a policy.
    """
    config = loaded.config
    for title, group in itertools.groupby(documented_keys(type(config)), key=lambda doc: doc.section):
        name, docs = title.strip("[]"), tuple(group)
        for names, section in _places(name, attrgetter(name)(config)):
            for doc in docs:
                keys = [f"{doc.key}_{source}" for source in SECRET_SOURCES] if doc.secret else []
                if any(f"{known}.{key}".startswith(prefix) for known in names for key in (doc.key, *keys)):
                    yield _line(doc, names[0], section, loaded.given)


def nearest(loaded: Loaded, key: str) -> str | None:
    """Return the key that somebody may have meant who asked for one that there is not."""
    known: list[str] = []
    for title, group in itertools.groupby(documented_keys(type(loaded.config)), key=lambda doc: doc.section):
        name, docs = title.strip("[]"), tuple(group)
        for names, _ in _places(name, attrgetter(name)(loaded.config)):
            known += [f"{one}.{doc.key}" for one in names for doc in docs]
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=0.75)), None)


def print_toml(config: Config) -> str:
    """Return the effective configuration as TOML, secrets redacted."""
    out: list[str] = []
    for title, section in _sections(config):
        out.append(title)
        items = ((key, getattr(section, key)) for key in section.__struct_fields__)
        out.extend(f"{key} = {to_toml(_redact(key, item))}" for key, item in items if item not in (None, {}))
        out.append("")
    return "\n".join(out).rstrip() + "\n"


def _sections(outer: Section, path: str = "") -> Iterator[tuple[str, Section]]:
    """Yield the sections that a configuration has, with their headings."""
    for key in outer.__struct_fields__:
        value, here = getattr(outer, key), f"{path}{key}"
        if isinstance(value, Detectors):
            yield from _sections(value, f"{here}.")
        elif isinstance(value, Section):
            yield f"[{here}]", value
        elif value is not None:
            yield from ((f"[[{here}]]", one) for one in value)


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
    if key.endswith("command") and value is not None:
        return without_secrets(value)
    if key != "env":
        return value
    return {name: Secret(text) if _SECRET_NAME.search(name) else text for name, text in value.items()}


def description(hint: Any) -> str:
    """Return the description inside an ``Annotated`` hint."""
    return next(
        (meta.description or "" for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, msgspec.Meta)), ""
    )


def _places(
    name: str, held: Section | tuple[Engine | Route | Policy, ...] | None
) -> Iterator[tuple[tuple[str, ...], Section | None]]:
    """Yield what a section is called, the first name for people, with the section (None: the file has none)."""
    if isinstance(held, tuple) and held:
        for index, one in enumerate(held):
            yield (f"{name}[{index}]", f"{name}.{_called(one)}", name), one
    else:
        yield (name,), held if isinstance(held, Section) else None


def _called(one: Engine | Route | Policy) -> str:
    match one:
        case Route():
            return one.model
        case Policy():
            return one.name or "+".join(detectors_of(one))
    return one.name


def _line(doc: KeyDoc, where: str, section: Section | None, given: frozenset[str]) -> Line:
    here = f"{where}.{doc.key}"
    if section is None:
        return Line(key=here, value=None, origin="no section", default=doc.default, help=doc.help)
    value = getattr(section, doc.key)
    named = {here, *(f"{here}_{source}" for source in SECRET_SOURCES)} & given
    return Line(
        key=here,
        value=None if value is None else to_toml(_redact(doc.key, value)),
        origin="file" if named else "default",
        default=doc.default,
        help=doc.help,
    )
