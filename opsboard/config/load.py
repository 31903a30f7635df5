"""Read a configuration file: every error is one message that names file, path, what was found and what is allowed."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec

from opsboard.config.schema import Config, Engine, Section
from opsboard.config.units import Bytes, Seconds, parse_bytes, parse_seconds
from opsboard.core.errors import ConfigError
from opsboard.core.model import Record
from opsboard.core.secret import Secret

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_MIN_INTERVAL_S = 0.2
_DEFAULT_PORT = 8000  # vllm serve
_PLAIN_TYPES = {
    " | null": "",
    "`array`": "a list",
    "`object`": "a table",
    "`str`": "a string",
    "`int`": "a whole number",
    "`bool`": "true or false",
}
SECRET_SOURCES = ("file", "env")
"""What may follow the key of a secret: ``api_key_file``, ``api_key_env``."""
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")


class Loaded(Record, frozen=True, kw_only=True):
    """A configuration, the file it came from (None: all defaults) and the assumptions worth telling."""

    config: Config
    path: Path | None = None
    assumed: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()
    """Dotted keys that the file sets; everything else is a default."""


def load(path: Path | None, kinds: Iterable[str] = (), env: Mapping[str, str] = os.environ) -> Loaded:
    """Load ``path`` (None: all defaults). ``kinds`` are the engine kinds that exist; empty means any.

    Raises ConfigError.
    """
    if path is None:
        return Loaded(config=Config())
    try:
        data = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    given: set[str] = set()
    _check_keys(path, "", data, Config, given)
    data = _read_secrets(path, data, env)
    try:
        config = msgspec.convert(data, Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _explain_type(path, data, error) from error
    config = msgspec.structs.replace(config, engine=tuple(_with_url(engine) for engine in config.engine))
    _check_values(path, config, tuple(kinds))
    return Loaded(config=config, path=path, assumed=tuple(_assumptions(path, config)), given=frozenset(given))


def configured_socket(path: Path | None) -> str | None:
    """Return ``[control].socket`` alone, for clients.

    A file that is wrong elsewhere must not keep them from the daemon.
    """
    try:
        value = tomllib.loads(path.read_text()).get("control", {}).get("socket") if path else None
    except (OSError, ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None


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


def _read_secrets(path: Path, data: dict[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
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

    return walk("", data, Config)


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


def _explain_type(path: Path, data: Any, error: msgspec.ValidationError) -> ConfigError:
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
    text = message[0].lower() + message[1:]
    for technical, plain in _PLAIN_TYPES.items():
        text = text.replace(technical, plain)
    shown = "" if "found" in text or _holds_secret(where) else f", found {found!r}"
    hint = None
    if "a list" in text and isinstance(found, str):
        hint = "write one word a string: [" + ", ".join(f'"{word}"' for word in found.split()) + "]"
    elif where == "engine" and isinstance(found, dict):
        hint = "write [[engine]], with two brackets: there may be several"
    return ConfigError(f"{path}: `{where}`: {text.split(', got')[0]}{shown}", hint=hint)


def _holds_secret(where: str) -> bool:
    return is_secret(get_type_hints(Engine).get(where.rpartition(".")[2]))


# --- values
# ------------------------------------------------------------------------------------------------------------------


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


def _check_values(path: Path, config: Config, kinds: tuple[str, ...]) -> None:
    if config.collect.interval < _MIN_INTERVAL_S:
        raise ConfigError(f"{path}: `collect.interval`: expected at least 200ms, found {config.collect.interval!r}")
    for key in ("raw", "minute", "hour"):
        if getattr(config.store, key) <= 0:
            raise ConfigError(f"{path}: `store.{key}`: expected more than 0")
    names: dict[str, int] = {}
    places: dict[tuple[str | None, int | None], int] = {}
    exporter = parse_listen(path, "exporter.listen", config.exporter.listen) if config.exporter else None
    for index, engine in enumerate(config.engine):
        where = f"engine[{index}]"
        _check_engine(path, where, engine, kinds)
        if engine.name in names:
            raise ConfigError(
                f"{path}: `{where}.name`: {engine.name!r} is already the name of `engine[{names[engine.name]}]`"
            )
        names[engine.name] = index
        place = _place(path, where, engine)
        if place in places:
            other = config.engine[places[place]].name
            raise ConfigError(
                f"{path}: `{where}`: {engine.name!r} and {other!r} both use {place[0]}:{place[1]}",
                hint="give each its own port",
            )
        if exporter is not None and place == (_same_host(exporter[0]), exporter[1]):
            raise ConfigError(
                f"{path}: `{where}`: {engine.name!r} and `exporter.listen` both use {place[0]}:{place[1]}",
                hint="give each its own port",
            )
        places[place] = index


def _check_engine(path: Path, where: str, engine: Engine, kinds: tuple[str, ...]) -> None:
    if not _NAME.fullmatch(engine.name):
        allowed = "letters, digits, `.`, `_`, `-`, not beginning with `.` or `-`, at most 64"
        raise ConfigError(f"{path}: `{where}.name`: expected {allowed}, found {engine.name!r}")
    if kinds and engine.kind is not None and engine.kind not in kinds:
        raise ConfigError(f"{path}: `{where}.kind`: expected one of {', '.join(sorted(kinds))}, found {engine.kind!r}")
    if engine.command is not None and not (engine.command and engine.command[0]):
        raise ConfigError(f"{path}: `{where}.command`: expected the words of a command, found none")
    if engine.command is None and engine.url is None:
        raise ConfigError(f"{path}: `{where}`: {engine.name!r} needs `command` (supervised) or `url` (observed)")
    if engine.gpus is not None:
        if any(gpu < 0 for gpu in engine.gpus):
            raise ConfigError(f"{path}: `{where}.gpus`: expected numbers from 0 up, found {list(engine.gpus)}")
        for variable in _GPU_VARIABLES:
            if variable in engine.env:
                raise ConfigError(
                    f"{path}: `{where}.env.{variable}`: contradicts `{where}.gpus`",
                    hint="keep `gpus`; opsboard sets the variable",
                )
    for key in ("ready_timeout", "stop_timeout"):
        if getattr(engine, key) <= 0:
            raise ConfigError(f"{path}: `{where}.{key}`: expected more than 0")


def _place(path: Path, where: str, engine: Engine) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(engine.url or "")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f'{path}: `{where}.url`: expected "http://HOST:PORT", found {engine.url!r}')
    return _same_host(parts.hostname) + parts.path.rstrip("/"), port or (443 if parts.scheme == "https" else 80)


def _same_host(host: str) -> str:
    return "127.0.0.1" if host in ("localhost", "0.0.0.0", "::", "::1") else host  # noqa: S104  compared, not bound


def parse_listen(path: Path | None, where: str, listen: str) -> tuple[str, int]:
    """Split HOST:PORT. Raises ConfigError."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f'{path}: `{where}`: expected "HOST:PORT", found {listen!r}')
    return host.strip("[]"), int(port)


def _assumptions(path: Path, config: Config) -> Iterable[str]:
    for parent in (path, path.resolve().parent):
        if parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not parent.stat().st_mode & stat.S_ISVTX:
            yield f"{parent}: others may write to it, and so choose what the daemon runs"
    supervised = [engine for engine in config.engine if engine.supervised]
    rootly = [engine.name for engine in supervised if engine.user is None and os.getuid() == 0]
    if rootly:
        yield f"no `user` for {', '.join(rootly)}: a root daemon runs an engine as root"
    everywhere = [engine.name for engine in supervised if engine.gpus is None]
    if everywhere:
        yield f"no `gpus` for {', '.join(everywhere)}: an engine then sees every GPU"
    if config.control.read_group and config.control.operate_group:
        yield "a socket has one group: members of `operate_group` must be in `read_group` too"
