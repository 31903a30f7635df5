"""``opsboard status``: one screen of truth, for people or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from opsboard.cli.common import client, echo_json, echo_notes, echo_table, shown, shown_age, shown_bytes
from opsboard.cli.incident import incident_line
from opsboard.core.channels import channel_trouble
from opsboard.core.clock import SystemClock
from opsboard.core.doubts import doubts
from opsboard.core.holders import strangers
from opsboard.core.model import state_word
from opsboard.core.waiting import rolling_told

if TYPE_CHECKING:
    from opsboard.cli.main import Options
    from opsboard.core.wire import Engine, Gpu, Status

_LONG_S = 100.0
"""From here milliseconds are only digits."""
_MODEL_CHARS = 48


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The JSON of the contract, on one line.")
@click.option("--watch", is_flag=True, help="Repeat every second until interrupted.")
@click.pass_obj
def status(options: Options, as_json: bool, watch: bool) -> None:
    """Show every engine and GPU once. Exit 1 if a page-severity incident is open."""
    source = client(options)
    while True:
        now = source.status()
        if as_json:
            echo_json(now)
        else:
            if watch:
                click.clear()
            _write(now)
        if not watch:
            break
        _wait()
    if any(incident.severity == "page" and incident.resolved is None for incident in now.incidents):
        click.get_current_context().exit(1)


def _wait() -> None:
    import threading

    threading.Event().wait(1.0)


def _write(now: Status) -> None:
    daemon = now.daemon
    load = f"cpu {shown(daemon.cpu_ratio, '%', 100, 1)}  rss {shown_bytes(daemon.rss_bytes)}"
    going = [incident for incident in now.incidents if incident.resolved is None]
    click.echo(f"{now.host}  opsboard {daemon.version} (pid {daemon.pid})  {load}  incidents {len(going)}")
    if not daemon.recorded:
        click.echo(f"NOT RECORDED: {daemon.message or 'nothing can be written'}")
    elif daemon.message:
        click.echo(f"note: {daemon.message}")
    for incident in going:
        click.echo(incident_line(incident, now.time))
    _channels(now)
    click.echo()
    if now.engines:
        header = [
            "ENGINE",
            "STATE",
            "MODEL",
            "RUN",
            "WAIT",
            "KV",
            "TTFT95",
            "ITL95",
            "TOK/S",
            "ERR/S",
            "MEMORY",
            "UPTIME",
        ]
        echo_table(header, [_engine(engine) for engine in now.engines])
        echo_notes(now.engines, now.time)
        for engine in now.engines:
            if unknown := doubts(engine):
                click.echo(f"  {engine.name}: {unknown}")
        for route in now.routes:
            targets = ", ".join(f"{target.name} {state_word(target.state)}" for target in route.targets)
            click.echo(f"route {route.model}{'' if route.serving else ': nobody serves it'}: {targets}")
        if now.rolling is not None:
            click.echo(rolling_told(now.rolling))
    else:
        click.echo("no engines: name them in the configuration, or let `opsboard config init` find them")
    click.echo()
    if now.gpus:
        echo_table(["GPU", "NAME", "UTIL", "MEMORY", "POWER", "TEMP"], [_gpu(gpu) for gpu in now.gpus])
        for line in strangers(now.gpus):
            click.echo(f"  {line}")
    elif now.gpu_message:
        click.echo(f"GPUs: {now.gpu_message}")


def _channels(now: Status) -> None:
    for channel in now.channels:
        if trouble := channel_trouble(channel, now.time):
            click.echo(f"channel {trouble}; `opsboard alerts channels` says what to do")


def _engine(engine: Engine) -> list[str]:
    started = engine.started
    state = state_word(engine.state) + ("" if engine.progress is None else f" {engine.progress:.0%}")
    if engine.reading.outcome in {"FAILED", "NO_DATA"} and engine.reading.age_s is not None:
        state += f" (stale {shown_age(engine.reading.age_s)})"
    return [
        engine.name,
        state,
        _short(engine.model or "--"),
        shown(engine.running),
        shown(engine.waiting),
        shown(engine.kv_usage, "%", 100),
        _latency(engine, "ttft_p95_s"),
        _latency(engine, "itl_p95_s"),
        shown(engine.generation_tokens_per_s),
        shown(engine.errors_per_s, digits=2),
        shown_bytes(engine.gpu_memory_bytes if engine.gpu_memory_bytes is not None else engine.rss_bytes),
        shown_age(None if started is None else SystemClock().now().wall - started),
    ]


def _latency(engine: Engine, field: str) -> str:
    if field not in engine.latency_bounds:
        seconds = getattr(engine, field)
        return shown(seconds, "s") if seconds is not None and seconds >= _LONG_S else shown(seconds, "ms", 1000)
    lower, upper = engine.latency_bounds[field]
    return f">{lower * 1000:g}ms" if upper is None else f"<{upper * 1000:g}ms"


def _short(text: str) -> str:
    return text if len(text) <= _MODEL_CHARS else text[: _MODEL_CHARS - 1] + "…"


def _gpu(gpu: Gpu) -> list[str]:
    memory = f"{shown_bytes(gpu.memory_used_bytes)} / {shown_bytes(gpu.memory_total_bytes)}"
    name = f"{gpu.name or '--'} {gpu.mig}" if gpu.mig else gpu.name or "--"
    power = f"{shown(gpu.power_w, 'W')} / {shown(gpu.power_limit_w, 'W')}"
    usage = "LOST" if gpu.lost else shown(gpu.utilization, "%", 100)
    return [str(gpu.index), name, usage, memory, power, shown(gpu.temperature_c, "C")]
