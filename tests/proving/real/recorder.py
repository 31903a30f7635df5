"""Make a labelled recording: a real vLLM that breaks as told, its clients, and `opsboard record`.

``python -m tests.proving.real.recorder FOLDER [NAME-SEED ...]`` (with the real vLLM at hand: tools/real_vllm.sh) writes
``NAME-SEED.jsonl.xz``, with what the clients had under way as ``inflight``, and ``NAME-SEED.labels.json``. Those that
are there are not made again. Without names: all.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from opsboard.cli.private import child_daemon, opsboard_argv, scratch
from tests.proving.labelled import SUFFIX
from tests.proving.real.clients import Clients
from tests.proving.real.scenarios import DEV, FOR_GOOD, STORIES, TEST, Drawn, Stage
from tests.real.vllm_env import STOPPED_WITHIN_S, Installation, RealVllm
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENGINE = "vllm-a"
BLOCK_SIZE, BLOCKS = 32, 700
OPTIONS = (
    *("--num-gpu-blocks-override", str(BLOCKS), "--block-size", str(BLOCK_SIZE), "--max-num-seqs", "48"),
    *("--scheduler-cls", "faulty.FaultyScheduler"),
)
NICE = 5
START_WITHIN_S, SETTLED_WITHIN_S = 600.0, 120.0
HERE = Path(__file__).parent


class Engine:
    """A real vLLM that does as it is told, for one recording after the other; a context manager."""

    def __init__(self, installation: Installation, room: Path) -> None:
        self.control, self.log = room / "faults.json", room / "log.jsonl"
        environment = {
            "PYTHONPATH": str(HERE),
            "FAULTY_CONTROL": str(self.control),
            "FAULTY_LOG": str(self.log),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else the worker stays on the first core, whoever else is there
        }
        self.server = RealVllm(installation, room, OPTIONS, environment)

    def __enter__(self) -> Self:
        self.server.start()
        try:
            self.server.wait_healthy(START_WITHIN_S)
        except BaseException:
            self.server.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def tell(self, faults: Mapping[str, float]) -> None:
        """Let these faults be from the next step on."""
        new = self.control.with_suffix(".new")
        new.write_text(json.dumps(dict(faults)))
        new.replace(self.control)

    def heal(self) -> None:
        """Return when it is whole: nothing is lost, and its log is empty."""
        self.tell({"heal": 1})
        wait_until(self._empty, SETTLED_WITHIN_S, what="no block is in use")
        self.log.write_text("")

    def _empty(self) -> bool:
        self.server.complete("step", 2)
        (usage,) = re.findall(r"^vllm:kv_cache_usage_perc\{[^}]*\} (\S+)$", self.server.metrics(), re.MULTILINE)
        return float(usage) == 0.0


def make(folder: Path, name: str, seed: int, engine: Engine) -> None:
    """Let a story happen once, and write what was seen and what is true."""
    folder.mkdir(parents=True, exist_ok=True)
    engine.heal()
    with scratch("opsboard-proving-") as room:
        raw = room / "raw.jsonl"
        labels, clients, offset = _play(STORIES[name](Drawn(seed)), seed, engine, raw)
        told: dict[str, Any] = {
            "scenario": name,
            "seed": seed,
            "block_size": BLOCK_SIZE,
            "blocks": BLOCKS,
            "inflight": True,
            "load_average": os.getloadavg()[1],  # of five minutes, of the whole machine
            "labels": _settled(labels, [json.loads(line) for line in engine.log.read_text().splitlines()]),
        }
        told["faults"] = [row["detector"] for row in told["labels"] if row["kind"] == "fault"]
        _merge(raw, folder / f"{name}-{seed}{SUFFIX}", clients, offset)
        (folder / f"{name}-{seed}.labels.json").write_text(json.dumps(told, indent=1) + "\n")


def _play(stages: Sequence[Stage], seed: int, engine: Engine, raw: Path) -> tuple[list[dict[str, Any]], Clients, float]:
    """Let the stages pass while `opsboard record` writes ``raw``."""
    config = raw.parent / "opsboard.toml"
    config.write_text(f'[[engine]]\nname = "{ENGINE}"\nkind = "vllm"\nurl = "{engine.server.url}"\n')
    labels: list[dict[str, Any]] = []
    most = str(sum(stage.seconds for stage in stages) + STOPPED_WITHIN_S)
    with (
        child_daemon(raw.parent, [], config) as socket,
        subprocess.Popen(opsboard_argv("--socket", str(socket), "record", "--seconds", most, str(raw))) as recording,
        Clients(engine.server.port, seed) as clients,
    ):
        wait_until(lambda: raw.exists() and raw.stat().st_size > 0, what="it is recorded")
        offset = time.time() - time.monotonic()
        labels.append({"t": time.time(), "kind": "start"})
        before: tuple[str, ...] = ()
        for stage in stages:
            labels += _changed(before, stage)
            before = stage.wrong
            engine.tell(stage.faults)
            clients.load = stage.load
            if stage.leave:
                clients.all_leave()
            time.sleep(stage.seconds)
        labels += _changed(before, Stage(seconds=0.0))
        recording.send_signal(signal.SIGINT)  # what was read by then is whole
        recording.wait(STOPPED_WITHIN_S)
    return labels, clients, offset


def _changed(before: Sequence[str], stage: Stage) -> list[dict[str, Any]]:
    """Return the labels of what begins and what ends now."""
    now = time.time()
    ended = [name for name in before if name not in stage.wrong and name not in FOR_GOOD]
    begun = [name for name in stage.wrong if name not in before]
    return [{"t": now, "kind": "end", "detector": name} for name in ended] + [
        {"t": now, "kind": "fault", "detector": name, "also": list(stage.also)} for name in begun
    ]


def _settled(labels: list[dict[str, Any]], log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the labels with what the engine itself wrote down: each lost block, and when a hang really was."""
    losses = [row["t"] for row in log if row["kind"] == "loss" for _ in range(row["blocks"])]
    hangs = {kind: iter([row["t"] for row in log if row["kind"] == kind]) for kind in ("hang", "hang_end")}
    settled: list[dict[str, Any]] = []
    for row in labels:
        if row.get("detector") == "stall":
            row |= {"t": next(hangs["hang" if row["kind"] == "fault" else "hang_end"])}
        if row.get("detector") == "kv_leak" and not losses:
            continue  # nobody ended whose blocks could be kept
        settled.append(row)
        if row.get("detector") == "kv_leak":
            row["losses"] = [round(t, 3) for t in losses]
            settled.append({"t": losses[0], "kind": "first_loss", "blocks": len(losses)})
    return settled


def _merge(raw: Path, packed: Path, clients: Clients, offset: float) -> None:
    """Add to each reading who was under way at its moment; ``offset``: from monotonic to Unix seconds."""
    half = packed.with_suffix(".half")
    with raw.open() as lines, lzma.open(half, "wt", preset=6) as out:
        for line in lines:
            row = json.loads(line)
            if "t" in row:
                instant = row["t"] - offset
                row["inflight"] = [
                    {"id": number, "prompt_tokens": one.prompt_tokens, "generated_tokens": one.tokens_by(instant)}
                    for number, one in clients.at(instant)
                ]
            out.write(json.dumps(row) + "\n")
    half.replace(packed)


def main(folder: Path, names: Sequence[str]) -> None:
    """Make what is missing."""
    os.nice(NICE)
    installation = Installation.from_environment(os.environ)
    wanted = names or [f"{name}-{seed}" for name, seed in (*DEV, *TEST)]
    missing = [one.rpartition("-") for one in wanted if not (folder / f"{one}{SUFFIX}").exists()]
    if not missing:
        return
    with scratch("opsboard-vllm-") as room, Engine(installation, room) as engine:
        for name, _, seed in missing:
            make(folder, name, int(seed), engine)
            print(f"{name}-{seed}: load average {os.getloadavg()[1]:.1f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
