"""Every test runs away from the user's own configuration, state and terminal."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.herd import Herd

# What the Makefile sets for a run of tests; everything else that opsboard would read is taken away.
OF_THE_TEST_RUN = ("OPSBOARD_REAL_", "OPSBOARD_CRASH_")
OF_SYSTEMD = ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
OF_THE_TERMINAL = ("NO_COLOR", "COLORTERM", "COLUMNS", "LINES", "TEXTUAL", "TMUX", "STY", "SSH_CONNECTION", "SSH_TTY")

# More than the suite has long files would only collect it once more each.
MOST_WORKERS = 16

# How long an example takes is the machine's business: no test asserts times.
hypothesis.settings.register_profile("opsboard", deadline=None)
hypothesis.settings.load_profile("opsboard")

# A shell ignores SIGINT for what it runs in the background, and whatever that starts ignores it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int | None:
    """Return how many workers ``-n auto`` means: two a core, as half the time is waiting for other processes."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # whoever says it is heard by pytest-xdist itself
    return min(2 * len(os.sched_getaffinity(0)), MOST_WORKERS)


@pytest.fixture(autouse=True)
def away_from_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Point HOME, the XDG directories and the working directory at empty places of this test."""
    for name in list(os.environ):
        if name.startswith("OPSBOARD_") and not name.startswith(OF_THE_TEST_RUN):
            monkeypatch.delenv(name)
    for name in (*OF_SYSTEMD, *OF_THE_TERMINAL):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    home = tmp_path / "home"
    for name, place in {
        "HOME": home,
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_STATE_HOME": home / ".local/state",
        "XDG_CACHE_HOME": home / ".cache",
    }.items():
        place.mkdir(parents=True)
        monkeypatch.setenv(name, str(place))
    # Sockets live here and a socket's path has 107 bytes, so this one is not under the test's long name.
    runtime = Path(tempfile.mkdtemp(prefix="ob-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.chdir(home)
    yield
    shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def herd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Herd]:
    """Small engines under real shims, looked at often; what still runs when the test ends is ended."""
    from opsboard.supervise import life
    from tests.support.herd import Herd

    monkeypatch.setattr(life, "LOOK_S", 0.05)
    monkeypatch.setattr(life, "PROBE_S", 0.05)
    found = Herd(tmp_path / "state", Path(os.environ["XDG_RUNTIME_DIR"]) / "opsboard")
    yield found
    found.end()
