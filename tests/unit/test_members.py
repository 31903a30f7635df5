"""Who belongs to an engine before its shim has written it down, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from opsboard.core.model import EngineState, LifeView
from opsboard.daemon.members import Members

# Says who its child is; a line on its standard input ends that one.
PARENT = """
import subprocess, sys
child = subprocess.Popen(["sleep", "100"])
print(child.pid, flush=True)
sys.stdin.readline()
child.kill(), child.wait()
print("ended", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.communicate(b"\n\n", timeout=10)


def test_who_descends_from_it_when_it_begins_to_serve_counts_at_once(parent: subprocess.Popen[bytes]) -> None:
    assert parent.stdout is not None
    assert parent.stdin is not None
    child = int(parent.stdout.readline())
    recorded = [parent.pid]
    members = Members(lambda: recorded)
    starting = LifeView(engine="a", state=EngineState.STARTING, since=0.0, supervised=True, pid=parent.pid, started=1.0)
    ready = msgspec.structs.replace(starting, state=EngineState.READY)
    assert members.pids(starting) == [parent.pid]
    assert members.pids(ready) == [parent.pid, child]
    assert members.pids(ready) == [parent.pid, child], "until it is recorded or ends"
    recorded.append(child)
    assert members.pids(ready) == [parent.pid, child]
    recorded.remove(child)
    assert members.pids(ready) == [parent.pid], "who was recorded is the record's matter"
    another = Members(lambda: recorded)
    assert another.pids(ready) == [parent.pid, child]
    parent.stdin.write(b"\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == b"ended\n"
    assert another.pids(ready) == [parent.pid]
    assert Members(lambda: [os.getpid()]).pids(None) == [os.getpid()]
