"""What is read in the words of systemd and of a status_command; the former were recorded (tests/fixtures/systemd)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsboard.core.errors import SuperviseError
from opsboard.supervise.runners import units
from opsboard.supervise.runners.command import read_status
from opsboard.supervise.runners.commands import Said, run
from opsboard.supervise.runners.units import Unit, name_of, parse
from tests.support.in_loop import in_loop

RECORDED = Path(__file__).parents[1] / "fixtures" / "systemd"


def recorded(name: str) -> Unit:
    return parse(f"{name}.service", (RECORDED / f"{name}.txt").read_text())


@pytest.mark.parametrize(
    ("name", "runs", "code", "stop_asked"),
    [
        ("running", True, None, False),
        ("exited-0", False, 0, False),
        ("exited-7", False, 7, False),
        ("killed", False, -9, False),
        ("left", True, 5, False),
        ("stopping", True, None, True),
        ("stopped-badly", False, 3, True),
        ("no-directory", False, 200, False),
        ("no-user", False, 217, False),
        ("not-executable", False, 203, False),
    ],
)
def test_a_unit(name: str, runs: bool, code: int | None, stop_asked: bool) -> None:
    unit = recorded(name)
    assert (unit.runs, unit.code, unit.stop_asked) == (runs, code, stop_asked)
    assert unit.loaded
    assert "the-instance" in unit.description
    assert (unit.main_pid is not None) == (name in {"running", "stopping"})
    assert unit.last_pid is not None
    assert unit.why is None, "a code says it"


@pytest.mark.parametrize("name", ["stopped", "never-heard-of"])
def test_a_unit_that_was_stopped_is_forgotten(name: str) -> None:
    assert recorded(name) == Unit(name=f"{name}.service")


def test_what_only_the_result_tells() -> None:
    text = (RECORDED / "killed.txt").read_text().replace("Result=signal", "Result=oom-kill")
    assert parse("x", text).why == "systemd says: oom-kill"


def test_names_of_units() -> None:
    assert name_of("llama-3.3_b") == "opsboard-llama-3.3_b.service"


@pytest.mark.parametrize("boots", [False, True])
@in_loop
async def test_a_machine_without_systemd_is_no_passing_trouble(
    boots: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_words: str) -> Said:
        return Said(1, "Failed to connect to bus: Host is down")

    monkeypatch.setattr(units, "systemctl", silent)
    monkeypatch.setattr(units, "BOOTED", tmp_path if boots else tmp_path / "none")
    with pytest.raises(SuperviseError, match="Host is down") as caught:
        await units.show("opsboard-a.service")
    assert caught.value.permanent is not boots
    assert ("does not run systemd" in caught.value.message) is not boots


@pytest.mark.parametrize(
    ("code", "text", "runs"),
    [
        (0, "", True),
        (0, "running since yesterday", True),
        (0, "{ours}\nmore", True),
        (0, "0\n", False),
        (0, "4194303999", False),
        (1, "Error: No such object: vllm", False),
        (None, "", None),
    ],
)
def test_a_status(code: int | None, text: str, runs: bool | None) -> None:
    status = read_status(Said(code, text.format(ours=os.getpid())))
    assert status.runs is runs
    assert (status.process is not None) == ("{ours}" in text)


@in_loop
async def test_a_program_that_takes_too_long_and_one_that_leaves_something_running() -> None:
    assert await run(("sleep", "60"), deadline_s=0.05) == Said(None, "")
    said = await run(("sh", "-c", "sleep 2 & echo '\x1b[31mred'; echo last; exit 3"), deadline_s=5.0)
    assert said.code == 3
    assert said.first_line == "\ufffd[31mred"
    assert str(said) == "ended with code 3: “last”"
