"""``opsboard demo``: a daemon, three simulated engines under traffic and the board, on a machine with nothing.

State lies in a temporary place and nothing is left behind: not a file, not a process, however the demo ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket as sockets
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
import msgspec

from opsboard.cli.common import echo_json, echo_table
from opsboard.cli.private import child_daemon, end, scratch
from opsboard.client.sync import Client
from opsboard.config.explain import to_toml
from opsboard.core.errors import ControlError, NotFound, OpsboardError, UsageError
from opsboard.core.wire import Engine
from opsboard.sim.faults import FAULTS_FILE

_ENGINES = (
    ("llama-70b", "llama-3.3-70b-instruct", "vllm-0.33"),
    ("qwen-32b", "qwen3-32b", "vllm-0.32"),
    ("coder-7b", "qwen2.5-coder-7b", "vllm-0.10.2"),
)
_RATES = ("2.0", "4.0", "6.0")
_STARTUP_S = 2.0
_READY_S = 30.0
_POLL_S = 0.25
_CALM_S = 3.0
"""So long all is well before the fault begins."""
_FAULT_S = 5.0
_FAULTS = "faults"
_SEEN_AT_START = frozenset({"drift"})
"""Faults that only the golden question after a start finds."""


@click.command()
@click.option("--headless", is_flag=True, help="No board; the last line of output is the `status --json` object.")
@click.option("--seconds", type=click.FloatRange(min=1), help="End by itself after this long (headless: 20).")
@click.option(
    "--fault",
    metavar="NAME[=VALUE]",
    help="Give the first engine a fault once it serves: leak, hang, ... (`list` names them).",
)
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII characters only.")
def demo(headless: bool, seconds: float | None, fault: str | None, ascii_only: bool) -> None:
    """Show everything at once: a daemon, three simulated engines with traffic, the board."""
    _check(fault)
    if not headless and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the board needs a terminal, and standard input or output is none", hint="add --headless")
    _end_on_signals()
    with scratch("opsboard-demo-") as root:
        config, urls = _write_config(root)
        with (
            child_daemon(root, ["--stop-engines"], config) as socket,
            _traffic(urls),
            _fault(fault, root, socket, urls[0]),
        ):
            code = _headless(socket, seconds or 20.0) if headless else _board(socket, seconds, ascii_only)
    click.get_current_context().exit(code)


def _check(fault: str | None) -> None:
    """Refuse a fault that no engine has before anything is started."""
    from opsboard.sim.faults import CATALOGUE, parse

    if fault == "list":
        echo_table(["FAULT", "VALUE OR EFFECT"], [[one.name, one.about] for one in CATALOGUE.values()])
        raise SystemExit(0)
    try:
        parse([fault] if fault else [])
    except NotFound as error:
        raise UsageError(error.message, hint=error.hint) from None


def _end_on_signals() -> None:
    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def _write_config(root: Path) -> tuple[Path, list[str]]:
    ports = _free_ports(len(_ENGINES))
    lines = ["[host]", 'name = "demo"', "[collect]", 'interval = "1s"']
    for index, ((name, model, profile), port) in enumerate(zip(_ENGINES, ports, strict=True)):
        command = [sys.executable, "-m", "opsboard", "sim", "--port", str(port), "--model", model]
        command += ["--profile", profile, "--startup-seconds", str(_STARTUP_S), "--seed", str(index + 1)]
        lines += ["[[engine]]", f"name = {to_toml(name)}", 'kind = "vllm"', f"command = {to_toml(command)}"]
        lines += ["autostart = true", 'ready_timeout = "30s"', 'stop_timeout = "10s"']
        lines += [f"env = {{ {FAULTS_FILE} = {to_toml(str(root / _FAULTS))} }}"] if index == 0 else []
        lines += ['user = "root"'] if os.geteuid() == 0 else []
    path = root / "opsboard.toml"
    path.write_text("\n".join(lines) + "\n")
    return path, [f"http://127.0.0.1:{port}" for port in ports]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(sockets.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


@contextlib.contextmanager
def _traffic(urls: Sequence[str]) -> Iterator[None]:
    argv = [sys.executable, "-m", "opsboard.sim.traffic", "--seed", "7"]
    for url, rate in zip(urls, _RATES, strict=True):
        argv += ["--url", url, "--rate", rate]
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        end(process, 5.0)


@contextlib.contextmanager
def _fault(fault: str | None, root: Path, socket: Path, url: str) -> Iterator[None]:
    """Give the first engine its fault once it has served for a while, so that one sees what becomes of it."""
    over = threading.Event()
    work = threading.Thread(target=_break_later, args=(fault, root, socket, url, over), daemon=True)
    if fault is not None:
        work.start()
    try:
        yield
    finally:
        over.set()


def _break_later(fault: str, root: Path, socket: Path, url: str, over: threading.Event) -> None:
    from opsboard.sim.faults import CATALOGUE, parse

    client = Client([socket])
    name = _ENGINES[0][0]
    while not over.wait(_POLL_S):
        with contextlib.suppress(OpsboardError):
            if _is_live(client.engine(name).engine):
                break
    if over.wait(_CALM_S):
        return
    ((kind, value),) = parse([fault]).as_dict().items()
    with contextlib.suppress(OSError, OpsboardError):  # the demo shows what came of it
        if CATALOGUE[kind].at_start_only or kind in _SEEN_AT_START:
            (root / _FAULTS).write_text(fault)
            client.action(name, "restart", f"the demo's fault: {fault}", now=True)
        else:
            body = msgspec.json.encode({"name": kind, "value": value})
            urllib.request.urlopen(f"{url}/sim/faults", body, timeout=_FAULT_S).close()  # noqa: S310  our own engine


def _board(socket: Path, seconds: float | None, ascii_only: bool) -> int:
    from opsboard.tui.app import run

    if seconds:
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, seconds)
    return run(socket, ascii=True if ascii_only else None)


def _headless(socket: Path, seconds: float) -> int:
    client = Client([socket])
    began = time.monotonic()
    live = False
    while (elapsed := time.monotonic() - began) < seconds or (not live and elapsed < _READY_S):
        status = client.status()
        if not live and len(status.engines) == len(_ENGINES) and all(map(_is_live, status.engines)):
            live = True
            click.echo(f"{len(_ENGINES)} engines ready with traffic after {elapsed:.1f} s", err=True)
        time.sleep(_POLL_S)
    if not live:
        states = ", ".join(f"{engine.name} {engine.state}" for engine in client.status().engines)
        raise ControlError(f"not every engine was ready with traffic after {_READY_S:.0f} s: {states}")
    echo_json(client.status())
    return 0


def _is_live(engine: Engine) -> bool:
    return engine.state == "ready" and bool(engine.generation_tokens_per_s) and engine.ttft_p95_s is not None
