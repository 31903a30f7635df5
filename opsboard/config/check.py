"""What a configuration that can be read must also be: values in range, names and ports that do not clash."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from opsboard.config.check_mqtt import check_mqtt
from opsboard.config.check_runner import check_runner
from opsboard.config.schema import Config, Engine, Slo
from opsboard.core.errors import ConfigError

ENGINE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_MIN_AGE_S = 3600.0
_INTERVAL_S = (0.2, 10.0)
"""Farther apart, readings say nothing of what was under way between them: no drain and no detector can rely on them."""
_SLO_TIMES = ("ttft_p95", "itl_p95", "e2e_p95")
_ALL = 100.0
_BEAT_S = (10.0, 3600.0)
_SLO_PERIOD_S = (86400.0, 90 * 86400.0)
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")


def check(path: Path, config: Config, kinds: Collection[str]) -> None:
    """Refuse what has the right type and makes no sense. ``kinds`` are the engine kinds that exist; empty means any.

    Raises ConfigError.
    """
    least, most = _INTERVAL_S
    if not least <= config.collect.interval <= most:
        raise ConfigError(f"{path}: `collect.interval`: expected 200ms to 10s, found {config.collect.interval!r}")
    for key in ("raw", "minute", "hour"):
        if getattr(config.store, key) <= 0:
            raise ConfigError(f"{path}: `store.{key}`: expected more than 0")
    _check_slo(path, config.slo)
    beat = config.heartbeat
    if beat is not None and not _BEAT_S[0] <= beat.every <= _BEAT_S[1]:
        raise ConfigError(f"{path}: `heartbeat.every`: expected 10s to 1h, found {beat.every!r}")
    if beat is not None and not beat.url.reveal().startswith(("https://", "http://")):
        raise ConfigError(f"{path}: `heartbeat.url`: expected an address that begins with https://")
    check_mqtt(path, config.mqtt)
    names: dict[str, int] = {}
    places: dict[tuple[str | None, int | None], int] = {}
    exporter = parse_listen(path, "exporter.listen", config.exporter.listen) if config.exporter else None
    for index, engine in enumerate(config.engine):
        where = f"engine[{index}]"
        _check_engine(path, where, engine, kinds)
        _check_user(path, where, engine, config)
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
    _check_routes(path, config)


def _check_slo(path: Path, slo: Slo) -> None:
    for key in _SLO_TIMES:
        limit_s = getattr(slo, key)
        if limit_s is not None and limit_s <= 0:
            raise ConfigError(f"{path}: `slo.{key}`: expected more than 0")
    if slo.availability is not None and not 0 < slo.availability < _ALL:
        raise ConfigError(
            f"{path}: `slo.availability`: expected more than 0 and less than 100, found {slo.availability!r}"
        )
    if not _SLO_PERIOD_S[0] <= slo.period <= _SLO_PERIOD_S[1]:
        raise ConfigError(f"{path}: `slo.period`: expected 1d to 90d, found {slo.period!r}")


def _check_engine(path: Path, where: str, engine: Engine, kinds: Collection[str]) -> None:
    if not ENGINE_NAME.fullmatch(engine.name):
        allowed = "letters, digits, `.`, `_`, `-`, not beginning with `.` or `-`, at most 64"
        raise ConfigError(f"{path}: `{where}.name`: expected {allowed}, found {engine.name!r}")
    if kinds and engine.kind is not None and engine.kind not in kinds:
        raise ConfigError(f"{path}: `{where}.kind`: expected one of {', '.join(sorted(kinds))}, found {engine.kind!r}")
    check_runner(path, where, engine)
    if engine.gpus is not None:
        if any(gpu < 0 for gpu in engine.gpus):
            raise ConfigError(f"{path}: `{where}.gpus`: expected numbers from 0 up, found {list(engine.gpus)}")
        for variable in _GPU_VARIABLES:
            if variable in engine.env:
                raise ConfigError(
                    f"{path}: `{where}.env.{variable}`: contradicts `{where}.gpus`",
                    hint="keep `gpus`; opsboard sets the variable",
                )
    _check_times(path, where, engine)


def _check_user(path: Path, where: str, engine: Engine, config: Config) -> None:
    """Refuse an engine that would run as root unasked, and name all of them at the first."""
    if engine.command is None or engine.user is not None or os.geteuid() != 0:
        return
    names = [repr(one.name) for one in config.engine if one.command is not None and one.user is None]
    need = "needs `user`" if len(names) == 1 else "need `user` each"
    raise ConfigError(
        f"{path}: `{where}`: {', '.join(names)} {need}: a root daemon does not run an engine as root unasked",
        hint=f'add to {", ".join(names)}: user = "NAME" (who may read its models), or user = "root" if that is meant',
    )


def _check_times(path: Path, where: str, engine: Engine) -> None:
    for key in ("ready_timeout", "stop_timeout"):
        if getattr(engine, key) <= 0:
            raise ConfigError(f"{path}: `{where}.{key}`: expected more than 0")
    if engine.max_age is not None and not engine.supervised:
        raise ConfigError(f"{path}: `{where}.max_age`: {engine.name!r} has no `command`: opsboard cannot restart it")
    if engine.max_age is not None and engine.max_age < _MIN_AGE_S:
        raise ConfigError(f"{path}: `{where}.max_age`: expected at least 1h, found {engine.max_age:g} s")
    if engine.standby and not engine.supervised:
        raise ConfigError(f"{path}: `{where}.standby`: {engine.name!r} has no `command`: opsboard cannot start it")


def _check_routes(path: Path, config: Config) -> None:
    engines = [engine.name for engine in config.engine]
    models: dict[str, int] = {}
    for index, route in enumerate(config.route):
        where = f"route[{index}]"
        if not route.model or not route.model.isprintable():
            raise ConfigError(f"{path}: `{where}.model`: expected what clients ask for, found {route.model!r}")
        if route.model in models:
            raise ConfigError(
                f"{path}: `{where}.model`: {route.model!r} is already the model of `route[{models[route.model]}]`",
                hint="name all targets in one of them",
            )
        models[route.model] = index
        if not route.targets:
            raise ConfigError(f"{path}: `{where}.targets`: expected names of engines, found none")
        for place, target in enumerate(route.targets):
            here = f"{where}.targets[{place}]"
            if target not in engines:
                near = difflib.get_close_matches(target, engines, n=1)
                known = f"did you mean {near[0]!r}?" if near else f"engines here: {', '.join(engines) or 'none'}"
                raise ConfigError(f"{path}: `{here}`: no engine is called {target!r}", hint=known)
            if target in route.targets[:place]:
                raise ConfigError(f"{path}: `{here}`: {target!r} is named twice", hint="name each engine once")


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


def assumptions(path: Path, config: Config) -> Iterable[str]:
    """Yield a line for what the file leaves open and people may not expect."""
    for parent in (path, path.resolve().parent):
        if parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not parent.stat().st_mode & stat.S_ISVTX:
            yield f"{parent}: others may write to it, and so choose what the daemon runs"
    supervised = [engine for engine in config.engine if engine.command is not None]
    everywhere = [engine.name for engine in supervised if engine.gpus is None]
    if everywhere:
        yield f"no `gpus` for {', '.join(everywhere)}: an engine then sees every GPU"
    if config.control.read_group and config.control.operate_group:
        yield "a socket has one group: members of `operate_group` must be in `read_group` too"
