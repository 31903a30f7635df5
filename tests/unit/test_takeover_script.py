"""What a shell runs is read from its script, and from nothing that is open here or may block."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsboard.supervise.takeover.script import script_of

TEXT = "while true; do vllm serve m; done\n"


@pytest.fixture
def shell(tmp_path: Path) -> str:
    """A shell as /proc shows it, with its script open as 3 and a pipe as 0; both numbers are something else here."""
    (tmp_path / "run.sh").write_text(TEXT)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "fd").mkdir()
    (tmp_path / "fd/3").symlink_to(tmp_path / "run.sh")
    (tmp_path / "fd/0").symlink_to(tmp_path / "pipe")
    return str(tmp_path)


def test_what_a_shell_was_told(shell: str) -> None:
    Path(shell, "link").symlink_to("run.sh")
    Path(shell, "folder").symlink_to(".")
    assert script_of(("sh", "-c", "vllm serve m"), "/", shell) == "vllm serve m"
    assert script_of(("bash", "-lc", "vllm serve m"), "/", shell) == "vllm serve m"
    assert script_of(("-bash",), "/", shell) is None
    for name in ("run.sh", f"{shell}/run.sh", "link", "folder/link"):
        assert script_of(("bash", "-e", name, "8000"), shell, shell) == TEXT, name


def test_a_descriptor_is_the_shells_and_never_ours(shell: str) -> None:
    Path(shell, "three").symlink_to("/dev/fd/3")
    Path(shell, "other").write_text("of ours")
    fd = os.open(f"{shell}/other", os.O_RDONLY)
    Path(shell, "fds").symlink_to("/proc/self/fd")
    try:
        for name in ("/dev/fd/3", "/proc/self/fd/3", "three"):
            assert script_of(("bash", name), shell, shell) == TEXT, name
        names = (f"/dev/fd/{fd}", f"/proc/self/fd/{fd}", f"/proc/{os.getpid()}/fd/{fd}", f"fds/{fd}")
        for name in (*names, "/dev/stdin", "/dev/fd/0", "/dev/../dev/fd/../stdin"):
            assert script_of(("bash", name), shell, shell) == "", name
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    finally:
        os.close(fd)


def test_what_is_no_plain_file_is_not_opened(shell: str) -> None:
    Path(shell, "loop").symlink_to("loop")
    Path(shell, "behind").symlink_to("pipe")
    for name in ("pipe", "behind", "loop", "loop/run.sh", "absent", ".", "/dev/zero", "/"):
        assert script_of(("sh", name), shell, shell) == "", name
