"""Read a configuration file: every error is one message that names file, path, what was found and what is allowed."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from opsboard.config import channels
from opsboard.config.channels import channel_settings
from opsboard.config.check import assumptions, check, parse_listen
from opsboard.config.detectors import Known, settings
from opsboard.config.policies import check_policies
from opsboard.config.schema import Config, Engine, Section
from opsboard.config.units import Bytes, Seconds, parse_bytes, parse_seconds
from opsboard.config.whole import config_type
from opsboard.core.errors import ConfigError
from opsboard.core.model import Record
from opsboard.core.secret import Secret

__all__ = ["SECRET_SOURCES", "Loaded", "configured_socket", "is_secret", "load", "parse_listen", "section_of"]

_DEFAULT_PORT = 8000  # vllm serve
_PLAIN_TYPES = {
    " | null": "",
    "`array`": "a list",
    "`object`": "a table",
    "`str`": "a string",
    "`int`": "a whole number",
    "`float`": "a number",
    "`bool`": "true or false",
}
SECRET_SOURCES = ("file", "env")
"""What may follow the key of a secret: ``api_key_file``, ``api_key_env``."""


class Loaded(Record, frozen=True, kw_only=True):
    """A configuration, the file it came from (None: all defaults) and the assumptions worth telling."""

    config: Config
    path: Path | None = None
    assumed: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()
    """Dotted keys that the file sets; everything else is a default."""


def load(
    path: Path | None,
    kinds: Iterable[str] = (),
    env: Mapping[str, str] = os.environ,
    *,
    detectors: Mapping[str, Known] = MappingProxyType({}),
    notifiers: Mapping[str, channels.Known] = MappingProxyType({}),
    only: Container[str] | None = None,
) -> Loaded:
    """Load ``path`` (None: all defaults). ``kinds`` are the engine kinds that exist; empty means any.

    ``detectors`` and ``notifiers`` are those that may be configured. ``only`` these sections count where not None: the
    others must be known, but they need not make sense on this machine. Raises ConfigError.
    """
    schema = config_type(detectors, notifiers)
    if path is None:
        return Loaded(config=schema())
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    given: set[str] = set()
    _check_keys(path, "", data, schema, given)
    if only is not None:
        data = {name: section for name, section in data.items() if name in only}
    data = _read_secrets(path, data, env, schema)
    try:
        config = msgspec.convert(data, schema, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _explain_type(path, data, error, schema) from error
    config = msgspec.structs.replace(config, engine=tuple(_with_url(engine) for engine in config.engine))
    check(path, config, tuple(kinds))
    check_policies(path, config, detectors)
    try:
        judges = settings(config, detectors)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    channel_settings(path, config, notifiers)
    off = (f"`detector.{name}` is off: nothing looks for that" for name, one in judges.items() if not one.enabled)
    return Loaded(config=config, path=path, assumed=(*assumptions(path, config), *off), given=frozenset(given))


def configured_socket(path: Path | None) -> str | None:
    """Return ``[control].socket`` alone, for clients.

    A file that is wrong elsewhere must not keep them from the daemon.
    """
    try:
        value = tomllib.loads(path.read_text()).get("control", {}).get("socket") if path else None
    except (OSError, ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None


def _with_url(engine: Engine) -> Engine:
    if engine.url or not engine.command:
        return engine
    return msgspec.structs.replace(engine, url=f"http://127.0.0.1:{_port_of(engine.command)}")


def _port_of(command: tuple[str, ...]) -> str:
    for index, word in enumerate(command):
        if word.startswith("--port="):
            return word.partition("=")[2]
        if word == "--port" and index + 1 < len(command):
            return command[index + 1]
    return str(_DEFAULT_PORT)


# --- keys and types
# --------------------------------------------------------------------------------------------------------


def section_of(hint: Any) -> type[Section] | None:
    """Return the section type in an annotation such as ``Engine``, ``Exporter | None`` or ``tuple[Engine, ...]``."""
    if isinstance(hint, type) and issubclass(hint, Section):
        return hint
    return next((found for arg in get_args(hint) if (found := section_of(arg))), None)


def is_secret(hint: Any) -> bool:
    """Say whether an annotation holds a Secret, which may also be given as ``KEY_file`` or ``KEY_env``."""
    return hint is Secret or any(is_secret(arg) for arg in get_args(hint))


def _check_keys(path: Path, where: str, data: Any, section: type[Section], given: set[str]) -> None:
    if not isinstance(data, dict):
        return  # a wrong type: told with more words later
    hints = get_type_hints(section)
    allowed = {key: hint for key, hint in hints.items() if not key.startswith("_")}
    secret_keys = {f"{key}_{source}" for key, hint in allowed.items() if is_secret(hint) for source in SECRET_SOURCES}
    for key, value in data.items():
        here = f"{where}.{key}".lstrip(".")
        if key not in allowed and key not in secret_keys:
            near = difflib.get_close_matches(key, [*allowed, *secret_keys], n=1)
            meant = (
                f"did you mean `{near[0]}`?" if near else f"allowed here: {', '.join(sorted([*allowed, *secret_keys]))}"
            )
            raise ConfigError(f"{path}: unknown key `{here}`", hint=meant)
        given.add(here)
        inner = section_of(allowed.get(key))
        if inner is not None:
            for index, item in enumerate(value if isinstance(value, list) else [value]):
                _check_keys(path, f"{here}[{index}]" if isinstance(value, list) else here, item, inner, given)


def _read_secrets(path: Path, data: dict[str, Any], env: Mapping[str, str], schema: type[Section]) -> dict[str, Any]:
    def walk(where: str, node: dict[str, Any], section: type[Section]) -> dict[str, Any]:
        out = dict(node)
        for key, hint in get_type_hints(section).items():
            here = f"{where}.{key}".lstrip(".")
            if is_secret(hint):
                sources = [name for name in (key, *(f"{key}_{end}" for end in SECRET_SOURCES)) if name in out]
                if len(sources) > 1:
                    raise ConfigError(
                        f"{path}: `{where}` gives {' and '.join(f'`{name}`' for name in sources)}",
                        hint="keep one of them",
                    )
                if sources and sources[0] != key:
                    source = out.pop(sources[0])
                    out[key] = _secret_text(
                        path, f"{where}.{sources[0]}".lstrip("."), source, env, from_file=sources[0].endswith("_file")
                    )
                continue
            inner, value = section_of(hint), out.get(key)
            if inner and isinstance(value, dict):
                out[key] = walk(here, value, inner)
            elif inner and isinstance(value, list):
                out[key] = [
                    walk(f"{here}[{i}]", item, inner) if isinstance(item, dict) else item
                    for i, item in enumerate(value)
                ]
        return out

    return walk("", data, schema)


def _secret_text(path: Path, where: str, source: Any, env: Mapping[str, str], *, from_file: bool) -> str:
    if not isinstance(source, str):
        raise ConfigError(f"{path}: `{where}`: expected a string, found {source!r}")
    if not from_file:
        if source not in env:
            raise ConfigError(f"{path}: `{where}`: the environment variable {source} is not set")
        return env[source]
    secret_file = path.parent / source
    try:
        return secret_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(
            f"{path}: `{where}`: {secret_file} cannot be read: {reason}",
            hint="the daemon's user must be able to read it",
        ) from error


def _decode(kind: type, value: object) -> object:
    if kind is Seconds:
        return parse_seconds(value)
    if kind is Bytes:
        return parse_bytes(value)
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError(f"expected a string, found {type(value).__name__}")


def _explain_type(path: Path, data: Any, error: msgspec.ValidationError, schema: type[Section]) -> ConfigError:
    message, _, where = str(error).partition(" - at `$")
    where = where.rstrip("`").lstrip(".")
    if "required field" in message:
        key = message.split("`")[1]
        return ConfigError(f"{path}: `{where}` needs `{key}`")
    found: Any = data
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", where):
        try:
            found = found[name] if name else found[int(index)]
        except (KeyError, IndexError, TypeError):
            return ConfigError(f"{path}: `{where}`: {message}")
    hint_here = _hint_at(where, schema)
    text = message[0].lower() + message[1:]
    if (words := _words_allowed(hint_here)) and isinstance(found, str):
        text = f"expected one of {', '.join(words)}"
    for technical, plain in _PLAIN_TYPES.items():
        text = text.replace(technical, plain)
    shown = "" if "found" in text or is_secret(hint_here) else f", found {found!r}"
    hint = None
    if "a list" in text and isinstance(found, str):
        hint = "write one word a string: [" + ", ".join(f'"{word}"' for word in found.split()) + "]"
    elif where in {"engine", "route", "policy", "channel", "alert_route"} and isinstance(found, dict):
        hint = f"write [[{where}]], with two brackets: there may be several"
    return ConfigError(f"{path}: `{where}`: {text.split(', got')[0]}{shown}", hint=hint)


def _hint_at(where: str, schema: type[Section]) -> Any:
    """Return the annotation of a dotted key, None where there is none."""
    hint: Any = schema
    for name in re.sub(r"\[\d+\]", "", where).split("."):
        section = section_of(hint)
        hint = None if section is None else get_type_hints(section).get(name)
    return hint


def _words_allowed(hint: Any) -> tuple[str, ...]:
    """Return the words of which a key holds one; empty where it holds something else."""
    words = next((one for one in (hint, *get_args(hint)) if get_origin(one) is Literal), None)
    return get_args(words) if words is not None else ()
