"""The systemd unit, read by systemd itself where it is there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from opsboard.core.errors import OpsboardError
from opsboard.daemon import unit


def keys(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


@pytest.mark.parametrize("user", [False, True])
def test_a_restart_touches_no_engine(user: bool) -> None:
    found = keys(unit.render(config=Path("/etc/opsboard/opsboard.toml"), user=user))
    assert found["KillMode"] == "process"
    assert found["OOMPolicy"] == "continue"
    assert found["RuntimeDirectoryPreserve"] == "yes"
    assert found["Restart"] == "always"
    assert found["Type"] == "notify"
    assert found["StartLimitIntervalSec"] == "0"
    assert float(found["WatchdogSec"]) > 0
    assert "PrivateTmp" not in found
    assert found["WantedBy"] == ("default.target" if user else "multi-user.target")
    assert ("StateDirectory" in found) is not user


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("config", ["/etc/opsboard/opsboard.toml", '/srv/a b/$HOME 100%"x\\;.toml'])
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_accepts_it(tmp_path: Path, user: bool, config: str) -> None:
    path = tmp_path / unit.NAME
    path.write_text(unit.render(config=Path(config), user=user))
    command = ["systemd-analyze", "--man=no", *(["--user"] if user else []), "verify", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=25, check=False)
    complaints = [line for line in done.stderr.splitlines() if unit.NAME in line]
    assert (done.returncode, complaints) == (0, [])


def test_words_are_taken_literally() -> None:
    command = keys(unit.render(config=Path("/a b/50%$x"), python="/opt/py"))["ExecStart"]
    assert command == '/opt/py -P -m opsboard --config "/a b/50%%$$x" daemon'


def test_without_a_config_the_usual_places_are_searched() -> None:
    assert keys(unit.render(config=None))["ExecStart"] == f"{sys.executable} -P -m opsboard daemon"


def test_install_and_uninstall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no systemctl: the file is written all the same, and that is said
    lines = unit.install(unit.render(config=None, user=True), user=True, directory=tmp_path / "user")
    path = tmp_path / "user" / unit.NAME
    assert path.read_text().startswith("[Unit]")
    assert lines[0] == f"wrote {path}"
    assert any("systemd did not read it" in line for line in lines)
    assert any("enable-linger" in line for line in lines)
    assert any("not touched" in line for line in unit.uninstall(user=True, directory=tmp_path / "user"))
    assert not path.exists()
    assert "nothing to do" in unit.uninstall(user=True, directory=tmp_path / "user")[0]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OpsboardError, match="cannot be written"):
        unit.install("", directory=tmp_path / "file" / "below")
