"""The fake NVIDIA driver of tests/fixtures/nvml: compiled once, steered by a text file, loaded by the real binding."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collectors.nvml import GpuReader, GpuTimes

if TYPE_CHECKING:
    from opsboard.core.clock import Clock

SOURCE = Path(__file__).parents[1] / "fixtures" / "nvml" / "fake_nvml.c"
INITIAL_NAMESPACE = "pid:[4026531836]"
GIB = 1 << 30

HEALTHY_CARD = {
    "name": "NVIDIA H100 80GB HBM3",
    "memory": "81559 70000 500",
    "utilization": 97,
    "power": 612_345,
    "power_limit": 700_000,
    "temperature": 64,
    "sm_clock": 1755,
    "memory_clock": 2619,
    "reasons": "0x4",
    "ecc_corrected": 3,
    "ecc_uncorrected": 0,
}


def compile_fake(folder: Path, *, old: bool = False) -> Path:
    """Return a folder that holds a libnvidia-ml.so.1; skip the test, loudly, where no C compiler is."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("NO C COMPILER (cc): the GPU collector is NOT TESTED on this machine")
    folder.mkdir(exist_ok=True)
    flags = ["-DOLD_DRIVER"] if old else []
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), *flags, str(SOURCE)]
    subprocess.run(command, check=True, timeout=60)
    return folder


class FakeGpus:
    """One machine with fake cards, its own /proc, and readers for it."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = library
        self._script = folder / "nvml.txt"
        self.proc = folder / "proc"
        self.namespace(INITIAL_NAMESPACE)
        self.say()

    def say(self, *lines: str, cards: int = 1, **of_card_0: object) -> None:
        """Let ``cards`` healthy cards say what they say, but for what ``of_card_0`` and ``lines`` change."""
        said = ["driver 550.54.15", f"gpus {cards}"]
        said += [f"{card}.{key} {value}" for card in range(cards) for key, value in HEALTHY_CARD.items()]
        said += [f"0.{key} {value}" for key, value in of_card_0.items()]
        fresh = self._script.with_suffix(".new")
        fresh.write_text("\n".join([*said, *lines, ""]))
        fresh.replace(self._script)

    def namespace(self, name: str) -> None:
        """Let our /proc belong to the PID namespace ``name``."""
        link = self.proc / "self" / "ns" / "pid"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(name)

    def process(self, pid: int, *open_files: str) -> None:
        """Add a process to our /proc that holds ``open_files``."""
        folder = self.proc / str(pid) / "fd"
        folder.mkdir(parents=True)
        for number, target in enumerate(open_files):
            (folder / str(number)).symlink_to(target)

    def reader(self, *, times: GpuTimes | None = None, clock: Clock | None = None) -> GpuReader:
        """Return a reader of this machine's cards."""
        environment = {
            "PATH": os.environ["PATH"],
            "LD_LIBRARY_PATH": str(self._library),
            "FAKE_NVML": str(self._script),
        }
        patient = GpuTimes(answer=20.0)
        return GpuReader(clock=clock, times=times or patient, proc_root=str(self.proc), environment=environment)
