"""Rotation of a log that somebody keeps open."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from opsboard.supervise.rotate import rotate

if TYPE_CHECKING:
    from pathlib import Path


def test_copies_move_up_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    with log.open("a") as writer:
        for number in range(5):
            writer.write(f"{number}" * 100)
            writer.flush()
            assert rotate(str(log), 99, 3) is True
        writer.write("new")
    assert log.read_text() == "new"
    assert [(tmp_path / f"engine.log.{number}").read_text()[0] for number in (1, 2, 3)] == ["4", "3", "2"]
    assert len(list(tmp_path.glob("engine.log*"))) == 4
    assert (tmp_path / "engine.log.1").stat().st_mode & 0o777 == 0o600


def test_a_small_log_stays(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("x" * 100)
    assert rotate(str(log), 100, 3) is False
    assert log.read_text() == "x" * 100


def test_no_copies_wanted(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("x" * 100)
    assert rotate(str(log), 10, 0) is True
    assert [path.name for path in tmp_path.glob("engine.log*")] == ["engine.log"]


def test_a_full_disk_costs_the_log_not_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = tmp_path / "engine.log"
    log.write_text("x" * 100)
    (tmp_path / "engine.log.1").write_text("old")
    monkeypatch.setattr(os, "sendfile", full)
    assert rotate(str(log), 10, 3) is True
    assert log.read_text() == ""
    assert [path.name for path in tmp_path.glob("engine.log*")] == ["engine.log"]


def test_a_missing_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rotate(str(tmp_path / "engine.log"), 10, 3)
