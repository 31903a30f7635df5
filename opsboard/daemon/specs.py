"""From the configuration (or from what was found) to what the pipeline and the supervisor are told of engines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from collectors.discover import FoundEngine
from opsboard.config.load import Loaded, load
from opsboard.config.schema import Config, Engine
from opsboard.core.model import GpuReading
from opsboard.core.registry import detectors, dialects, notifiers
from opsboard.core.secret import Secret, without_secrets
from opsboard.core.text import sanitise
from opsboard.daemon.pipeline import EngineSpec
from opsboard.daemon.planned import Age
from opsboard.store.retention import StoreLimits
from opsboard.supervise.launch import LaunchSpec


def engine_specs(config: Config) -> list[EngineSpec]:
    """Return every configured engine, in the order of the file."""
    reset = bool(getattr(getattr(config.detector, "kv_leak", None), "reset_prefix_cache", False))
    return [
        EngineSpec(
            name=e.name,
            kind=e.kind,
            url=e.url,
            supervised=e.supervised,
            canary=e.may_be_asked,
            reset=reset and e.may_be_asked,
            restartable=e.restart_command is not None,
            command=without_secrets(e.begins_by) if e.supervised else None,
            drain_timeout_s=float(e.drain_timeout) if e.begins_by else None,
        )
        for e in config.engine
    ]


def url_specs(urls: Iterable[str]) -> list[EngineSpec]:
    """Return engines named by their addresses (``opsboard --url``)."""
    return [EngineSpec(name=sanitise(urlsplit(url).netloc.rpartition("@")[2] or url, 64), url=url) for url in urls]


def found_specs(found: Iterable[FoundEngine]) -> list[EngineSpec]:
    """Return engines that were found running."""
    return [EngineSpec(name=engine.name, kind=engine.kind, url=engine.url) for engine in found]


def launch_specs(config: Config, gpus: GpuReading | None) -> list[LaunchSpec]:
    """Return what the supervisor starts. ``gpus`` turns configured numbers into uuids; None: nobody was asked."""
    return [_launch_spec(engine, gpus) for engine in config.engine if engine.begins_by and engine.url]


def ages(config: Config) -> list[Age]:
    """Return which engines must not grow older than so."""
    limits = ((engine.name, engine.max_age) for engine in config.engine if engine.supervised)
    return [Age(name, float(limit)) for name, limit in limits if limit is not None]


def store_limits(config: Config) -> StoreLimits:
    """Return how long and how much the store keeps."""
    store = config.store
    return StoreLimits(raw_s=store.raw, minute_s=store.minute, hour_s=store.hour, max_bytes=store.max_bytes)


def _launch_spec(engine: Engine, gpus: GpuReading | None) -> LaunchSpec:
    env: dict[str, str | Secret] = dict(engine.env)
    visible: tuple[str, ...] | None = None
    warning: str | None = None
    if engine.gpus is not None:
        uuids = {} if gpus is None else {gpu.index: gpu.uuid for gpu in gpus.gpus if gpu.mig is None}
        visible = tuple(uuids.get(index, str(index)) for index in engine.gpus)
        if not set(engine.gpus) <= uuids.keys():
            # CUDA counts cards by speed unless told to count as NVML does, and as the configuration does.
            env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            visible = tuple(map(str, engine.gpus))
            warning = _by_number(engine.gpus, gpus, sorted(uuids))
    if engine.api_key is not None and engine.kind in {None, "vllm"}:
        env.setdefault("VLLM_API_KEY", engine.api_key)
    return LaunchSpec(
        name=engine.name,
        command=engine.begins_by,
        runner=engine.runner if engine.supervised else "restart",
        stop_command=engine.stop_command or (),
        status_command=engine.status_command or (),
        logs_command=engine.logs_command or (),
        url=engine.url or "",
        env=env,
        user=engine.user,
        gpus=visible,
        warning=warning,
        autostart=engine.autostart,
        ready_timeout_s=engine.ready_timeout,
        stop_timeout_s=engine.stop_timeout,
        restart=engine.restarted,
        drain_timeout_s=engine.drain_timeout,
    )


def _by_number(wanted: tuple[int, ...], gpus: GpuReading | None, known: list[int]) -> str:
    """Say why an engine gets its GPUs by number, and what that may lead to."""
    if known:
        why = f"the driver knows only GPU {', '.join(map(str, known))}"
    else:
        error = gpus.error if gpus is not None else None
        why = f"the driver did not answer{f' ({error})' if error else ''} when the configuration was read"
    visible = ",".join(map(str, wanted))
    return (
        f"gpus = {list(wanted)}: {why}, so CUDA_VISIBLE_DEVICES={visible} is passed as it is: "
        "the engine may find no GPU, or another; once the driver answers, a restart passes it by uuid"
    )


def load_whole(path: Path) -> Loaded:
    """Load a configuration for everything there is here. Raises ConfigError."""
    return load(path, dialects().found, detectors=detectors().found, notifiers=notifiers().found)


def for_looking(loaded: Loaded) -> Loaded:
    """Return a configuration that tells nobody: who only looks must not page, nor pass for the daemon of this host."""
    silent = msgspec.structs.replace(loaded.config, channel=(), alert_route=(), heartbeat=None, mqtt=None)
    return msgspec.structs.replace(loaded, config=silent)


def secrets_of(config: Config) -> list[str]:
    """Return every secret text of a configuration, for the log's blacking out."""
    return list(_secrets(config))


def _secrets(value: object) -> Iterator[str]:
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, tuple):
        for one in value:
            yield from _secrets(one)
