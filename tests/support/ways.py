"""The ways to run an engine, each with what stands in for Docker or systemd where they cannot run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from opsboard.supervise.runners import units

if TYPE_CHECKING:
    import pytest

    from opsboard.supervise.launch import LaunchSpec

SUPPORT = Path(__file__).parent


class Way(NamedTuple):
    """``runner`` is its name; ``tells_codes``: exit codes are known."""

    runner: str
    tells_codes: bool = True

    def of(self, spec: LaunchSpec) -> LaunchSpec:
        """Return an engine that is begun in this way."""
        if self.runner != "command":
            return msgspec.structs.replace(spec, runner=self.runner)
        names = [word for name in spec.env for word in ("--env", name)]
        begin = ("docker", "run", "--detach", "--name", spec.name, "--workdir", spec.cwd or "/", *names, "--")
        return msgspec.structs.replace(
            spec,
            runner="command",
            command=(*begin, *spec.command),
            stop_command=("docker", "stop", "--time", "30", spec.name),
            status_command=("docker", "inspect", "--format", "{{.State.Pid}}", spec.name),
            logs_command=("docker", "logs", "--follow", "--since", "{since}", spec.name),
        )


WAYS = {"shim": Way("shim"), "systemd": Way("systemd"), "command": Way("command", tells_codes=False)}


def stand_in(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put programs first in PATH that behave as those of systemd and Docker do."""
    programs, kept = root / "bin", root / "kept"
    for name in ("systemd-run", "systemctl", "journalctl"):
        _program(programs / name, f"FAKE_SYSTEMD={kept}", f"fake_systemd.py {name}")
    _program(programs / "docker", f"FAKE_DOCKER={kept}", "fake_docker.py docker")
    kept.mkdir()
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr(units, "HIERARCHIES", (str(kept),))


def _program(path: Path, setting: str, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\n{setting} exec {sys.executable} -S -E {SUPPORT}/{script} "$@"\n')
    path.chmod(0o755)
